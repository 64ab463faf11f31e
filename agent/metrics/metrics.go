// Package metrics serves what a daemon counted to Prometheus: the list of all metrics, what each is in a snapshot of the daemon, and
// the endpoint that shows them to who may see them.
//
// It counts nothing itself but errors, polls nothing, keeps nothing between two scrapes, changes nothing in the kernel, and is
// reached from no sandbox. No label holds a word that something inside a sandbox chose: sandboxes are those that exist, models those
// of policies, everything else is one of a few words of ours.
package metrics

import (
	"time"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/loader"
)

// A Source is what is looked at for each scrape.
type Source interface{ Metrics() Snapshot }

// Snapshot is a daemon at one moment.
type Snapshot struct {
	Version, Level string
	Audit          error  // why nothing can be written down; nil: it can
	Records        uint64 // the number of the audit log's last record
	Lost           uint64 // records that a full disk took
	Missed         uint64 // records that subscribers were too slow for
	Receivers      []api.Forward
	Tracing        bool
	Traces         trace.State // of the collector, where Tracing

	Sandboxes []Sandbox

	Strays   map[loader.Hook]uint64 // refusals of processes that are in no sandbox
	Maps     []loader.MapUse
	Measured bool // the kernel measures programs
	Programs []loader.ProgramUse

	GPUs api.GPUs // none where there is no driver

	Unread []error // what could not be read
}

// Sandbox is one that exists.
type Sandbox struct {
	Name      string
	State     api.State
	Records   *hub.Recorder
	Approvals approvals.Counts
	Running   *Running // nil: it does not run
}

// Running is what a sandbox has while it runs. Its numbers begin anew with each start.
type Running struct {
	Started time.Time
	Kernel  loader.Counters
	Proxy   dnsproxy.Stats
	Usage   sandbox.Usage
	Models  []inference.Measured
	GPUs    []api.SandboxGPU // that it was given
}
