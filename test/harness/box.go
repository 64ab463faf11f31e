package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Sections of a policy that most tests need: the workspace to work in, the probe to run. A test adds its `network:`.
const (
	Files = "filesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write]}\n    - {path: /tmp, permissions: [read, write]}\n"
	Exec  = "process:\n  allow:\n    - {command: /workspace/probe}\n"
	Base  = Files + Exec
)

// Box is one `nemoclaw run`. The zero value runs under a policy that allows the probe and nothing else.
type Box struct {
	Policy    string // YAML; "" is Base
	Workspace string // "" is a new directory with the probe and the CA (ca.pem) in it
	Flags     []string
	Env       []string // K=V, put into the sandbox
	Stdin     io.Reader
	HostNet   bool          // run in the machine's own network instead of the world's
	On        *GPUHost      // the machine that it runs on; nil: this one
	Timeout   time.Duration // 0 is a minute
}

// Event is one line of --json-events, as a consumer that knows only docs/audit.md reads it.
type Event struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Sandbox string    `json:"sandbox"`
	Plane   string    `json:"plane"`
	Action  string    `json:"action"`
	Object  string    `json:"object"`
	Subject struct {
		PID   int    `json:"pid"`
		Exe   string `json:"exe"`
		Args  string `json:"args"`
		Taint string `json:"taint"`
	} `json:"subject"`
	Verdict  string `json:"verdict"`
	Rule     string `json:"rule"`
	Reason   string `json:"reason"`
	Revision string `json:"revision"`
	Count    uint64 `json:"count"`

	Inference map[string]any `json:"inference"`
}

// Outcome is one line that the probe printed.
type Outcome struct {
	Op    string `json:"op"`
	Errno string `json:"errno"`
	Us    int64  `json:"us"`
	Out   string `json:"out"`
}

// Session is a run that has been started.
type Session struct {
	Name      string
	Dir       string // holds everything of this run: policy, run, audit, events
	Workspace string
	Cmd       *exec.Cmd
	Stdout    bytes.Buffer
	Stderr    bytes.Buffer

	started time.Time
}

// Result is a run that has ended.
type Result struct {
	*Session
	Out    string // standard output
	Err    string // standard error
	Code   int
	Took   time.Duration
	Events []Event
}

// RunDir is where the run keeps its socket and lock; a normal exit leaves it empty.
func (s *Session) RunDir() string { return filepath.Join(s.Dir, "run") }

// AuditDir is where the run writes its audit log.
func (s *Session) AuditDir() string { return filepath.Join(s.Dir, "audit") }

// KeyDir is where the key is that it is signed with.
func (s *Session) KeyDir() string { return filepath.Join(s.Dir, "key") }

// PolicyFile is the file given with --policy.
func (s *Session) PolicyFile() string { return filepath.Join(s.Dir, "policy.yaml") }

// Prepare writes the policy, makes the workspace and builds the command line; nothing runs yet.
func (w *World) Prepare(t T, b Box, argv ...string) *Session {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "box-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// Others than root look through it: the sandbox's uid reaches the workspace by path on kernels without idmapped mounts.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &Session{Name: fmt.Sprintf("t%d-%dx", os.Getpid(), w.boxes.Add(1)), Dir: dir, Workspace: b.Workspace, started: time.Now()}
	if s.Workspace == "" {
		s.Workspace = w.NewWorkspace(t, dir)
	}
	if b.Policy == "" {
		b.Policy = Base
	}
	if err := os.WriteFile(s.PolicyFile(), []byte(b.Policy), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"run", "--policy", s.PolicyFile(), "--workspace", s.Workspace, "--name", s.Name,
		"--json-events", filepath.Join(dir, "events.jsonl"), "--audit", s.AuditDir(), "--key-dir", s.KeyDir(),
		"--run-dir", s.RunDir(), "--bpffs", w.BPFFS, "--cgroup-parent", w.Parent, "--no-prompt",
	}
	if !b.HostNet {
		args = append(args, "--resolver", Resolver.String())
	}
	args = append(args, b.Flags...)
	for _, kv := range b.Env {
		args = append(args, "--env", kv)
	}
	args = append(append(args, "--"), argv...)
	s.Cmd = exec.Command(w.Bin, args...)
	s.Cmd.Stdin, s.Cmd.Stdout, s.Cmd.Stderr = b.Stdin, &s.Stdout, &s.Stderr
	s.Cmd.WaitDelay = 10 * time.Second
	if b.On != nil {
		b.On.Wrap(t, s.Cmd)
	}
	return s
}

// NewWorkspace makes a directory below dir with the probe and the CA in it.
func (w *World) NewWorkspace(t T, dir string) string {
	t.Helper()
	ws := filepath.Join(dir, "workspace")
	if err := os.Mkdir(ws, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(w.ProbeBin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ws, "probe"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ws, "ca.pem"), w.CA.PEM, 0o644); err != nil {
		t.Fatal(err)
	}
	return ws
}

// TrustCA is the environment in which openssl, node, python, git and curl trust the world's CA.
func TrustCA() []string {
	const file = "/workspace/ca.pem"
	return []string{
		"SSL_CERT_FILE=" + file, "NODE_EXTRA_CA_CERTS=" + file, "GIT_SSL_CAINFO=" + file, "CURL_CA_BUNDLE=" + file,
		"npm_config_cafile=" + file,
	}
}

// Start starts a run.
func (w *World) Start(t T, b Box, argv ...string) *Session {
	t.Helper()
	s := w.Prepare(t, b, argv...)
	start := s.Cmd.Start
	if b.HostNet {
		start = func() error { return w.InHostNet(s.Cmd.Start) }
	}
	s.started = time.Now()
	if err := start(); err != nil {
		t.Fatalf("starting nemoclaw: %v", err)
	}
	return s
}

// Wait waits for the end of a run, at most for limit.
func (s *Session) Wait(t T, limit time.Duration) *Result {
	t.Helper()
	if limit == 0 {
		limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = s.Cmd.Process.Kill() })
	defer stop()
	err := s.Cmd.Wait()
	r := &Result{Session: s, Took: time.Since(s.started), Out: s.Stdout.String(), Err: s.Stderr.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("nemoclaw was still running after %s\nstdout: %s\nstderr: %s", limit, r.Out, r.Err)
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		t.Fatalf("waiting for nemoclaw: %v", err)
	}
	r.Events = readEvents(t, filepath.Join(s.Dir, "events.jsonl"))
	return r
}

// Run runs a box to its end.
func (w *World) Run(t T, b Box, argv ...string) *Result {
	t.Helper()
	return w.Start(t, b, argv...).Wait(t, b.Timeout)
}

// Probe runs the probe with attempts in a box, fails the test when the probe itself failed, and returns the outcomes in order.
func (w *World) Probe(t T, b Box, attempts ...string) (*Result, []Outcome) {
	t.Helper()
	r := w.Run(t, b, append([]string{"/workspace/probe"}, attempts...)...)
	if r.Code != 0 {
		t.Fatalf("the probe ended with %d\nstdout: %s\nstderr: %s", r.Code, r.Out, r.Err)
	}
	out := r.Outcomes(t)
	if len(out) != len(attempts) {
		t.Fatalf("%d attempts gave %d outcomes\nstdout: %s\nstderr: %s", len(attempts), len(out), r.Out, r.Err)
	}
	return r, out
}

// Outcomes decodes what the probe printed.
func (r *Result) Outcomes(t T) []Outcome {
	t.Helper()
	var out []Outcome
	for line := range strings.Lines(r.Out) {
		var o Outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("the probe printed %q: %v", line, err)
		}
		out = append(out, o)
	}
	return out
}

func readEvents(t T, file string) []Event {
	t.Helper()
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the run failed before it had anything to say
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []Event
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %q: %v", file, lines.Text(), err)
		}
		out = append(out, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// Find returns the events that match every given field; "" matches anything.
func (r *Result) Find(plane, verdict, object string) []Event {
	var out []Event
	for _, e := range r.Events {
		if (plane == "" || e.Plane == plane) && (verdict == "" || e.Verdict == verdict) && (object == "" || e.Object == object) {
			out = append(out, e)
		}
	}
	return out
}

// Dump is what a failing test shows of a run.
func (r *Result) Dump() string {
	var b strings.Builder
	fmt.Fprintf(&b, "exit %d after %s\nstdout: %s\nstderr: %s\n", r.Code, r.Took, r.Out, r.Err)
	for _, e := range r.Events {
		fmt.Fprintf(&b, "  %s %s %s %q by %s: %s (%s) x%d %s\n", e.Plane, e.Action, e.Verdict, e.Object, e.Subject.Exe, e.Rule, e.Revision, e.Count, e.Reason)
	}
	return b.String()
}
