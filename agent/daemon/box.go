package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/agent/redact"
	"github.com/nemoclaw/nemoclaw/agent/revisions"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// spec is what a sandbox is made of, as it is on disk.
type spec struct {
	Created   time.Time         `json:"created"`
	Workspace string            `json:"workspace,omitempty"` // "": its own
	Image     string            `json:"image,omitempty"`
	Digest    string            `json:"image_digest,omitempty"`
	Env       []string          `json:"env,omitempty"`
	Config    map[string]string `json:"config,omitempty"`
	KeyFor    string            `json:"key_for,omitempty"` // the provider that the key was given for; "": that of the model
	Publish   []api.Published   `json:"publish,omitempty"`
	Wanted    api.State         `json:"wanted"`
	Running   int               `json:"running,omitempty"` // the policy's revision whose rules for files and programs are in force
}

// box is one sandbox of the daemon's, running or not.
type box struct {
	d       *Daemon
	name    string
	dir     string
	records *hub.Recorder

	ops sync.Mutex // one change of its life or policy at a time; taken before mu

	mu        sync.Mutex
	spec      spec
	state     api.State
	reason    string
	gone      bool // destroyed
	warnings  []string
	starts    int             // and adoptions, of this daemon
	instance  *agent.Instance // nil: it does not run
	inForce   int             // the policy's revision, of the network; 0: none
	publisher map[string]*publisher
	meters    *gpuMeters // nil: it does not run, or has no GPU

	disk      diskUsage
	looking   sync.Mutex // held while somebody has its files looked at for changes
	revisions *revisions.Store
	desk      *approvals.Desk

	looked struct { // the policy that was looked at last while nothing runs
		sync.Mutex
		number int // its revision; 0: none
		policy *policy.Compiled
	}
	patience patience // with what the processes inside tell of themselves
}

const specFile = "spec.json"

// open reads a sandbox from the disk.
func (d *Daemon) open(name string) (*box, error) {
	b := d.newBox(name)
	text, err := os.ReadFile(filepath.Join(b.dir, specFile))
	if err == nil {
		err = json.Unmarshal(text, &b.spec)
	}
	if err != nil {
		return nil, err
	}
	if err := b.openFiles(); err != nil {
		return nil, err
	}
	if err := b.redactLatest(); err != nil {
		d.log.Warn("its latest policy can't be compiled any more, so nothing runs in it, and its records are as they are", "sandbox", name, "error", err)
	}
	return b, nil
}

func (d *Daemon) newBox(name string) *box {
	return &box{
		d: d, name: name, dir: filepath.Join(d.c.StateDir, sandboxesDir, name), records: d.hub.Sandbox(name), state: api.Stopped,
		publisher: map[string]*publisher{},
	}
}

func (b *box) openFiles() (err error) {
	if b.revisions, err = revisions.Open(filepath.Join(b.dir, "policy")); err != nil {
		return err
	}
	b.desk, err = b.d.queue.Open(approvals.Config{
		Sandbox: b.name, File: filepath.Join(b.dir, "approvals.json"), Grants: filepath.Join(b.d.c.RunDir, b.name, "grants.json"),
		Journal: filepath.Join(b.d.c.RunDir, b.name, "requests."),
		Record:  b.recordAnswer, Permit: b.permitAnswer, Look: b.look, Rule: b.rule,
	})
	return err
}

// redactLatest has records be without what the latest policy says.
func (b *box) redactLatest() error {
	c, _, err := b.compile(0)
	if err != nil {
		return err
	}
	without, err := redact.New(c)
	if err == nil {
		b.records.Redact(without)
	}
	return err
}

func writeSpec(dir string, s spec) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = atomicfile.Write(filepath.Join(dir, specFile), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("writing the sandbox's state: %w", err)
	}
	return nil
}

// change changes the spec, on disk first.
func (b *box) change(f func(*spec)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.spec
	f(&b.spec)
	if err := writeSpec(b.dir, b.spec); err != nil {
		b.spec = was
		return err
	}
	return nil
}

func (b *box) setState(s api.State, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.reason = s, reason
}

// wants reports whether it should run and does not.
func (b *box) wants() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spec.Wanted == api.Running && b.instance == nil && !b.gone
}

// running returns the instance, or why there is none.
func (b *box) running() (*agent.Instance, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.instance == nil {
		why := ""
		if b.reason != "" {
			why = " (" + b.reason + ")"
		}
		return nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("%s is %s%s; start it: nemoclaw start %s", b.name, b.state, why, b.name)}
	}
	return b.instance, nil
}

// workspace is the directory behind /workspace.
func (b *box) workspace() string {
	if b.spec.Workspace != "" {
		return b.spec.Workspace
	}
	return filepath.Join(b.d.c.StateDir, workspacesDir, b.name)
}

// note records something about the sandbox itself.
func (b *box) note(action, object, reason string) {
	b.records.Record(policy.Decision{Plane: policy.PlaneSystem, Action: action, Object: object, Reason: reason, Verdict: policy.Allow, Rule: "builtin"})
}

// config is what its instance is made of. compiled is the policy that it starts with.
func (b *box) config(compiled *policy.Compiled, root string) agent.Config {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.starts++
	start := b.starts
	return agent.Config{
		Name: b.name, Policy: compiled, PolicyName: b.revisions.Latest().Name, Workspace: b.workspace(), Root: root, Started: b.spec.Created, Lasting: true,
		Parent: b.d.parent, RunDir: b.d.c.RunDir, Protected: b.d.protected(), BookFile: filepath.Join(b.dir, "names"),
		Resolver: b.d.c.Resolver, HostsFile: b.d.c.HostsFile,
		GPUs:      b.d.gpus.Look,
		Inference: b.inference(),
		Traces:    b.d.tracer.Source(b.name),
		Record:    b.record, Permit: b.records.Permit, Ask: b.desk.Ask, Refused: b.desk.Refused, Granted: b.desk.Granted,
		Failed: func(err error) { go b.failStart(start, err) }, // it may be told from within what ends
		Warn:   b.warn,
	}
}

func (b *box) warn(warnings ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range warnings {
		if !slices.Contains(b.warnings, w) {
			b.warnings = append(b.warnings, w)
		}
	}
}

// start puts it into force. The caller holds ops.
func (b *box) start(ctx context.Context) error {
	b.mu.Lock()
	if b.instance != nil {
		b.mu.Unlock()
		return nil
	}
	b.state, b.reason, b.warnings = api.Starting, "", nil
	b.mu.Unlock()
	err := b.begin(ctx)
	if err != nil {
		b.setState(api.Failed, err.Error())
		b.records.Record(policy.Decision{Plane: policy.PlaneSystem, Action: "start", Object: b.name, Reason: "it can't be started: " + err.Error(), Verdict: policy.Deny, Rule: "builtin"})
	}
	return err
}

func (b *box) begin(ctx context.Context) error {
	compiled, revision, err := b.compile(0)
	if err != nil {
		return err
	}
	if err := b.snapshots().Recover(); err != nil { // of a restore that was killed
		return err
	}
	if _, err := agent.CheckWorkspace(b.workspace(), b.d.ownDirs()); err != nil {
		return err
	}
	root, err := b.root(ctx)
	if err != nil {
		return err
	}
	// Written down first: a daemon that is killed in the middle leaves a sandbox that the next one knows.
	if err := b.change(func(s *spec) { s.Running = revision }); err != nil {
		return err
	}
	b.note("start", b.name, fmt.Sprintf("level %s, workspace %s, policy %s revision %d", b.d.loader.Level(), b.workspace(), b.revisions.Latest().Name, revision))
	// What is not written down does not start.
	if err := b.d.audit.Flush(); err != nil {
		return err
	}
	i, err := agent.Start(b.config(compiled, root), b.d.loader)
	if err != nil {
		return err
	}
	b.desk.Begin(i) // before anything can be run in it
	b.noteGPUs(i)
	b.ran(i, revision)
	return nil
}

// ran takes an instance that is in force.
func (b *box) ran(i *agent.Instance, revision int) {
	b.d.refusals.add(b.name, i)
	b.mu.Lock()
	b.instance, b.inForce = i, revision
	b.meters = b.meterGPUs(i)
	b.state, b.reason = api.Running, ""
	published := b.spec.Publish
	b.mu.Unlock()
	for _, p := range published {
		if err := b.publish(p); err != nil {
			b.warn(err.Error())
		}
	}
}

// adopt takes over what a daemon before left running.
func (b *box) adopt() error {
	b.ops.Lock()
	defer b.ops.Unlock()
	latest, revision, err := b.compile(0)
	if err != nil {
		return err
	}
	base := latest // that of its last start
	if started := max(b.spec.Running, 1); started != revision {
		if base, _, err = b.compile(started); err != nil {
			return err
		}
	}
	i, err := agent.Adopt(b.config(base, ""), b.d.loader, latest)
	if err != nil {
		return err
	}
	b.ran(i, revision)
	if err := b.desk.Resume(i); err != nil {
		b.warn("an answer that was given before the daemon was started again is not in force: " + err.Error())
	}
	b.note("adopt", b.name, fmt.Sprintf("taken over, policy %s revision %d", b.revisions.Latest().Name, revision))
	return nil
}

// renew has the rules looked for anew of what was adopted, whose events are delivered by now.
func (b *box) renew() {
	b.ops.Lock()
	defer b.ops.Unlock()
	i, err := b.running()
	if err != nil {
		return // it is none of those
	}
	latest, _, err := b.compile(0)
	if err != nil {
		return // it could be a moment ago
	}
	if waits, err := i.Waits(latest); err != nil || len(waits) > 0 {
		// The daemon was killed between a change and the restart that was asked for with it.
		if err = b.stop(); err == nil {
			err = b.start(b.d.life)
		}
		if err != nil {
			b.d.log.Error("a sandbox that was to be started again can't be", "sandbox", b.name, "error", err)
		}
		return
	}
	i.Renew(latest)
}

// comeBack starts what should run.
func (b *box) comeBack() error {
	b.ops.Lock()
	defer b.ops.Unlock()
	if !b.wants() {
		return nil
	}
	err := b.start(b.d.life)
	if err != nil {
		b.d.log.Error("a sandbox that should run can't be started", "sandbox", b.name, "error", err)
	}
	return err
}

// stop ends everything inside. The caller holds ops.
func (b *box) stop() error {
	i := b.take(api.Stopping, "")
	if i == nil {
		b.setState(api.Stopped, "")
		return nil
	}
	err := i.Stop()
	b.desk.Stop()
	b.note("stop", b.name, "")
	b.setState(api.Stopped, "")
	return err
}

// take makes the instance the caller's to end.
func (b *box) take(s api.State, reason string) *agent.Instance {
	b.mu.Lock()
	i := b.instance
	b.instance, b.inForce = nil, 0
	b.state, b.reason = s, reason
	list := b.publisher
	b.publisher = map[string]*publisher{}
	meters := b.meters
	b.meters = nil
	b.mu.Unlock()
	meters.end()
	for _, p := range list {
		p.close()
	}
	b.d.refusals.remove(b.name)
	return i
}

// fail ends a sandbox that can't go on.
func (b *box) fail(cause error) {
	b.ops.Lock()
	defer b.ops.Unlock()
	b.end(cause)
}

// failStart is fail of what a start has brought about, unless another start has followed.
func (b *box) failStart(start int, cause error) {
	b.ops.Lock()
	defer b.ops.Unlock()
	b.mu.Lock()
	over := b.starts != start
	b.mu.Unlock()
	if !over {
		b.end(cause)
	}
}

func (b *box) end(cause error) {
	i := b.take(api.Failed, cause.Error())
	if i == nil {
		return // it was stopped meanwhile
	}
	b.note("failed", b.name, cause.Error())
	b.d.log.Error("a sandbox was stopped", "sandbox", b.name, "error", cause)
	if err := i.Stop(); err != nil {
		b.d.log.Error("ending a sandbox", "sandbox", b.name, "error", err)
	}
	b.desk.Stop()
}

// detach leaves it running for the next daemon.
func (b *box) detach() {
	b.ops.Lock()
	defer b.ops.Unlock()
	if i := b.take(api.Stopped, "the daemon ends"); i != nil {
		i.Detach()
	}
	if b.desk != nil {
		b.desk.Close()
	}
}

// errRemains says that a sandbox exists no more and that not everything of it could be removed.
var errRemains = errors.New("it is destroyed, and what is left of it will be removed when the daemon starts")

// remove takes everything of it from the disk. The caller holds ops, and it is stopped.
func (b *box) remove() error {
	parent := filepath.Dir(b.dir)
	gone := gonePrefix + b.name
	// From the rename on it does not exist; the rest can be done again by the next daemon.
	_ = os.RemoveAll(filepath.Join(parent, gone))
	if err := os.Rename(b.dir, filepath.Join(parent, gone)); err != nil {
		return fmt.Errorf("destroying %s: %w", b.name, err)
	}
	b.desk.Close()
	if err := errors.Join(atomicfile.SyncDir(parent), b.d.clear(gone)); err != nil {
		return fmt.Errorf("%w: %w", errRemains, err)
	}
	return nil
}

// ownDirs can't be a workspace, hold one or lie in one.
func (d *Daemon) ownDirs() []agent.OwnDir {
	return []agent.OwnDir{
		{Path: d.c.AuditDir, What: "audit log"}, {Path: d.c.RunDir, What: "run directory"}, {Path: d.c.BPFFS, What: "BPF programs"},
		{Path: filepath.Join(d.c.StateDir, sandboxesDir), What: "state"}, {Path: filepath.Join(d.c.StateDir, imagesDir), What: "images"},
		{Path: filepath.Join(d.c.StateDir, snapshotsDir), What: "snapshots"},
	}
}

// firstLine is an error's first line, for where there is room for one.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
