// Package api is the daemon's interface as its clients see it: the types on the wire, and a client of it. It is HTTP with
// JSON on a Unix socket; `GET /v1/openapi.json` describes it. Our own command line and console use nothing else, so
// anybody can write another.
//
// The package never touches a sandbox, a policy or the kernel: what it is asked it passes to the daemon.
package api

import (
	"time"
)

// State is what a sandbox does.
type State string

// The states. A sandbox that is Stopped or Failed holds nothing but its files.
const (
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Failed   State = "failed" // it should run and does not; Reason says why
)

// Create is what a sandbox is made of.
type Create struct {
	Name string `json:"name"` // lower-case letters, digits, hyphens

	// Policy is the YAML; "": the initial policy. PolicyName is what records call it; "": NAME.yaml.
	Policy     string `json:"policy,omitempty"`
	PolicyName string `json:"policy_name,omitempty"`

	// Workspace is a directory of the host, absolute; "": one of the sandbox's own, which goes when it is destroyed.
	Workspace string `json:"workspace,omitempty"`

	// Image is where the sandbox's files come from: "": the host's, read-only; an OCI layout or tarball on the host, or
	// a reference of a registry.
	Image string `json:"image,omitempty"`

	Env     []string          `json:"env,omitempty"`     // NAME=VALUE, of all its commands
	Config  map[string]string `json:"config,omitempty"`  // the keys are ConfigModel, ...
	Publish []Published       `json:"publish,omitempty"` // servers inside
	Start   bool              `json:"start"`             // start it at once
}

// The keys of a sandbox's configuration.
const (
	ConfigModel = "model" // which model answers its calls: PROVIDER/MODEL
	// ConfigKey is the provider's key. It is taken and never given back: Inference.Key says whether there is one.
	ConfigKey = "key"
	// ConfigKeyVerified is "true" beside a key that the caller has tried with the provider. A key that comes without it
	// is unverified.
	ConfigKeyVerified = "key_verified"
)

// Sandbox is what the daemon says of one.
type Sandbox struct {
	Name      string            `json:"name"`
	State     State             `json:"state"`
	Reason    string            `json:"reason,omitempty"` // of Failed, and of what a person should know
	Wanted    State             `json:"wanted"`           // Running or Stopped: what a reboot brings back
	Created   time.Time         `json:"created"`
	Started   *time.Time        `json:"started,omitempty"` // while it runs
	Level     string            `json:"level,omitempty"`   // of enforcement, while it runs: "full" or "static"
	Policy    PolicyState       `json:"policy"`
	Workspace string            `json:"workspace"`
	Image     string            `json:"image,omitempty"`
	Env       []string          `json:"env,omitempty"`
	Config    map[string]string `json:"config,omitempty"`
	Inference Inference         `json:"inference"`
	Publish   []Published       `json:"publish,omitempty"`
	GPUs      []SandboxGPU      `json:"gpus,omitempty"`    // that it was given, while it runs
	PID       int               `json:"pid,omitempty"`     // of its init, on the host
	UserID    uint32            `json:"user_id,omitempty"` // of its user, on the host
	Commands  int               `json:"commands"`          // that were started from outside and run
	Warnings  []string          `json:"warnings,omitempty"`
	Refused   uint64            `json:"refused"`  // decisions against it since it was started
	Requests  int               `json:"requests"` // attempts that a person may decide
}

// PolicyState is which policy a sandbox has.
type PolicyState struct {
	Name     string `json:"name"`
	Revision int    `json:"revision"`          // counts a sandbox's policies, from 1
	Hash     string `json:"hash"`              // over what it means, as in records
	Running  int    `json:"running,omitempty"` // the revision in force; differs from Revision where a change needs a restart
}

// Inference says what answers a sandbox's model calls.
type Inference struct {
	Model  string `json:"model,omitempty"`
	Key    string `json:"key"`               // of the model's provider: "none", "unverified", "verified", or "policy": the policy says where it is
	KeyFor string `json:"key_for,omitempty"` // the provider that the key of ConfigKey was given for, which alone gets it; "": there is no such key
	// Elsewhere is that the policy has the model's provider asked at an address that is not the provider's own: a key is not to be tried
	// with the provider, whose it may not be.
	Elsewhere bool   `json:"elsewhere,omitempty"`
	Off       string `json:"off,omitempty"` // why no model answers inside, whichever is set; "": one can
}

// Published is a server inside that a port of the host reaches.
type Published struct {
	Host string `json:"host"` // address and port of the host: "127.0.0.1:8080"
	Port uint16 `json:"port"` // inside, on loopback
}

// Usage is what a sandbox takes now.
type Usage struct {
	Memory    int64         `json:"memory_bytes"`
	CPU       time.Duration `json:"cpu_ns"` // since its start
	Processes int           `json:"processes"`
	Disk      int64         `json:"disk_bytes"` // of its workspace, as it was a moment ago; -1: not known
	Conns     int           `json:"connections"`
	Sent      int64         `json:"sent_bytes"`     // to the network, since it or the daemon was started
	Received  int64         `json:"received_bytes"` // from there
	GPU       *GPUUse       `json:"gpu,omitempty"`  // of all its GPUs together; left out: it has none, or nobody knows
}

// Models says which models answer a sandbox, how they are, and what they took.
type Models struct {
	Models    []Model   `json:"models"`
	Fallbacks []string  `json:"fallbacks,omitempty"` // names of those that stand in for others, in the order in which they are asked
	Refused   uint64    `json:"refused"`             // requests that no model was asked, since the sandbox or the daemon was started
	Today     Taken     `json:"today"`               // of all models, those included that are none of Models any more
	Tokens    *Budget   `json:"tokens,omitempty"`
	Cost      *Budget   `json:"cost_usd,omitempty"`
	Anew      time.Time `json:"anew"` // when today ends
}

// Model is one that can answer.
type Model struct {
	Name   string     `json:"name,omitempty"` // in the policy; "": of a model that config set model names
	Model  string     `json:"model"`          // PROVIDER/MODEL
	Chosen bool       `json:"chosen"`         // it answers who asks for no name of the policy
	Route  string     `json:"route"`          // "local": it may see everything, or "cloud"
	Region string     `json:"region,omitempty"`
	Health string     `json:"health"` // "up", "down", or "unknown": it was not asked yet
	Reason string     `json:"reason,omitempty"`
	Since  *time.Time `json:"since,omitempty"` // it is down
	Today  Taken      `json:"today"`
	// Requests are those since the sandbox or the daemon was started: by the verdict (cloud, redact, ask, local) and by how they ended
	// (answered; refused: because of a budget; failed; aborted by their caller).
	Requests map[string]map[string]uint64 `json:"requests"`
	Latency  Quantiles                    `json:"latency"` // to the end of an answer
	First    Quantiles                    `json:"first_token"`
}

// Taken is what requests took of a day (UTC).
type Taken struct {
	Requests int64   `json:"requests"`
	Input    int64   `json:"input_tokens"`
	Output   int64   `json:"output_tokens"`
	Cost     float64 `json:"cost_usd"`
}

// Budget is the most of a day, and what is left of it and not held back for requests that are answered now.
type Budget struct {
	Most float64 `json:"most"`
	Left float64 `json:"left"`
}

// Quantiles are how long half of them took, and 99 of 100; 0: there were none.
type Quantiles struct {
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
}

// Exec is one command to run inside. Its streams are descriptors, which come with the bytes of the request: see package wire.
type Exec struct {
	Args   []string `json:"args"`
	Env    []string `json:"env,omitempty"` // the caller's; the daemon passes on what a command needs (TERM, LANG, ...)
	Set    []string `json:"set,omitempty"` // NAME=VALUE, passed whatever it is
	Dir    string   `json:"dir,omitempty"`
	Shell  bool     `json:"shell,omitempty"` // Args is empty: the first shell that the policy allows
	Detach bool     `json:"detach,omitempty"`
	Files  []bool   `json:"files,omitempty"` // which of stdin, stdout and stderr follow as descriptors
}

// PolicyText is one revision of a sandbox's policy.
type PolicyText struct {
	PolicyState
	Text string    `json:"text,omitempty"` // not in a list
	Who  string    `json:"who"`
	When time.Time `json:"when"`
	What string    `json:"what"` // what was changed, in words

	Expired []string `json:"expired,omitempty"` // the rules whose time is over: where each stands, and what it says ("box.yaml:7: allow: {...}")
}

// PolicyChange changes a sandbox's policy. One of its fields is set.
type PolicyChange struct {
	Text     string      `json:"text,omitempty"` // the whole policy
	Add      *PolicyRule `json:"add,omitempty"`
	Remove   *PolicyRule `json:"remove,omitempty"`
	Preset   string      `json:"preset,omitempty"`   // to add
	Unpreset string      `json:"unpreset,omitempty"` // to take away
	Rollback int         `json:"rollback,omitempty"` // the revision whose text comes back

	PolicyName string `json:"policy_name,omitempty"` // with Text: what records call it
	Expect     int    `json:"expect,omitempty"`      // the revision that is to be changed; 0: whichever is there
	Restart    bool   `json:"restart,omitempty"`     // restart the sandbox where the change can't be live
	DryRun     bool   `json:"dry_run,omitempty"`     // say what would be, and change nothing
}

// PolicyRule is one rule of a policy, as `policy add` and `policy remove` name it: of the network (Domain or CIDR), of files
// (Path) or of commands (Command).
type PolicyRule struct {
	Verdict     string   `json:"verdict,omitempty"` // "allow" (also ""), "ask" or "deny"
	Domain      string   `json:"domain,omitempty"`
	CIDR        string   `json:"cidr,omitempty"`
	Ports       []uint16 `json:"ports,omitempty"`
	Protocol    string   `json:"protocol,omitempty"`
	Commands    []string `json:"commands,omitempty"` // that may use it
	Expires     string   `json:"expires,omitempty"`
	Path        string   `json:"path,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	Command     string   `json:"command,omitempty"`
}

// PolicyResult is what a change did, or would do.
type PolicyResult struct {
	Policy  PolicyText `json:"policy"`
	Diff    string     `json:"diff"`              // unified, "" when nothing changed
	Live    bool       `json:"live"`              // in force already
	Restart []string   `json:"restart,omitempty"` // what needs a restart, and why; empty when nothing does
	Closed  int        `json:"closed,omitempty"`  // connections that the change ended

	Warnings []string `json:"warnings,omitempty"` // what is new of what the policy asks for and the host does not have
}

// Snapshot is a kept workspace and policy.
type Snapshot struct {
	ID       string    `json:"id"`
	Name     string    `json:"name,omitempty"`
	Created  time.Time `json:"created"`
	Who      string    `json:"who"`
	Revision int       `json:"policy_revision"`
	Size     int64     `json:"size_bytes"`
}

// NewSnapshot is what a snapshot is made with.
type NewSnapshot struct {
	Name string `json:"name,omitempty"`
}

// Erase says whose texts in the daemon's audit log are to be erased, for good.
type Erase struct {
	Records string `json:"records"` // their numbers: "7-9,12"
	Reason  string `json:"reason"`  // is written down in the log, at most 512 bytes
}

// Erased is what was erased.
type Erased struct {
	Records string `json:"records"` // whose texts are gone now; "": there was nothing to erase
	Count   uint64 `json:"count"`   // how many they are
	Already uint64 `json:"already"` // were erased before
	Old     uint64 `json:"old"`     // are of version 1 of the log, whose texts can't be erased
	Keeps   uint64 `json:"keeps"`   // say themselves what was erased, and stay
}

// Answer is what a policy says to a question.
type Answer struct {
	Action   string `json:"action"` // "read", "write", "exec", "connect" or "gpu"
	Object   string `json:"object"`
	Command  string `json:"command,omitempty"` // who does it; "": left open
	Verdict  string `json:"verdict"`           // "allow", "ask" or "deny"
	Rule     string `json:"rule"`              // "file:line", "default" or "builtin"
	RuleText string `json:"rule_text,omitempty"`
	Reason   string `json:"reason"`
	Suggest  string `json:"suggest,omitempty"` // the YAML that would allow it

	// Grants are what persons have answered about the same object: they go before the default and before rules that ask.
	Grants []Grant `json:"grants,omitempty"`
}

// Events selects records: those of a sandbox, a plane, a verdict, a time.
type Events struct {
	Since   uint64    // after this sequence number
	From    time.Time // not before; zero: no limit
	To      time.Time // not after; zero: no limit
	Sandbox string    // "": all
	Planes  []string  // empty: all
	Verdict []string  // empty: all
	Last    int       // only the last so many; 0: all
	Follow  bool      // go on with what comes
}

// Info is what the daemon says of itself.
type Info struct {
	Version string `json:"version"`
	API     string `json:"api"` // "v1"
	Level   string `json:"level"`
	Reason  string `json:"level_reason,omitempty"`
	Kernel  string `json:"kernel"`
	Role    string `json:"role"` // of the caller: "steer" or "watch"

	Sandboxes int    `json:"sandboxes"`
	Seq       uint64 `json:"seq"` // of the last record
	AuditLog  string `json:"audit_log"`
	StateDir  string `json:"state_dir"`
	RunDir    string `json:"run_dir"`

	Forward []Forward `json:"forward,omitempty"` // receivers of the audit log's records
}

// Forward is a receiver of the audit log's records.
type Forward struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`    // "syslog", "otlp", "loki", "elastic", "splunk"
	Seq     uint64  `json:"seq"`     // of the last record that it has
	Lag     uint64  `json:"lag"`     // records that it has not
	Behind  float64 `json:"behind"`  // the age of the oldest of them that was tried, in seconds
	Refused uint64  `json:"refused"` // records that it does not take, since the daemon began
	Removed uint64  `json:"removed"` // records that were removed before it had them, since then
	Error   string  `json:"error,omitempty"`
}
