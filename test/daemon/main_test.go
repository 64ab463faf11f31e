//go:build e2e

// Package daemon proves what docs/daemon.md promises of sandboxes that last, on the real nemoclaw-agent: each test starts a daemon
// of its own in the world that package harness makes, and does with it what users, accidents and attackers do. It steers
// through the command line and package api, as anybody may, and imports nothing else of the product.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// shell is a policy that allows what the tests' commands need, and no network.
const shell = harness.Files + `process:
  allow:
    - {command: sh}
    - {command: sleep}
    - {command: cat}
    - {command: "true"}
`

// patience is how long something may take that is waited for.
const patience = 30 * time.Second

// dial returns a client of a daemon, and a context that ends with the test.
func dial(t *testing.T, d *harness.Daemon) (*api.Client, context.Context) {
	t.Helper()
	c := api.Dial(d.Socket)
	t.Cleanup(c.Close)
	return c, t.Context()
}

// create makes and starts a sandbox.
func create(t *testing.T, d *harness.Daemon, name, policy string) api.Sandbox {
	t.Helper()
	c, ctx := dial(t, d)
	s, err := c.Create(ctx, api.Create{Name: name, Policy: policy, Start: true})
	if err != nil {
		t.Fatalf("create %s: %v\n%s", name, err, d.Log())
	}
	return s
}

// probeBox makes and starts a sandbox whose workspace has the probe in it, and returns the workspace.
func probeBox(t *testing.T, d *harness.Daemon, name, policy string) string {
	t.Helper()
	dir := filepath.Join(d.Dir, "of-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ws := harness.W.NewWorkspace(t, dir)
	c, ctx := dial(t, d)
	if _, err := c.Create(ctx, api.Create{Name: name, Policy: policy, Workspace: ws, Start: true}); err != nil {
		t.Fatalf("create %s: %v\n%s", name, err, d.Log())
	}
	return ws
}

// probe makes the probe attempt something in a sandbox, and returns the outcomes.
func probe(t *testing.T, d *harness.Daemon, name string, attempts ...string) []harness.Outcome {
	t.Helper()
	out := d.Do(t, append([]string{name, "exec", "--", "/workspace/probe"}, attempts...)...)
	var list []harness.Outcome
	for line := range strings.Lines(out) {
		var o harness.Outcome
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("the probe printed %q: %v", line, err)
		}
		list = append(list, o)
	}
	if len(list) != len(attempts) {
		t.Fatalf("%d attempts gave %q", len(attempts), out)
	}
	return list
}

// get returns a sandbox's status.
func get(t *testing.T, c *api.Client, name string) api.Sandbox {
	t.Helper()
	s, err := c.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// until waits for something that becomes true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about: %s", what)
		}
	}
}

// refused wants an error of a kind, with every part of a text.
func refused(t *testing.T, err error, code api.Code, parts ...string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%v, want the code %s", err, code)
		return
	}
	for _, p := range parts {
		if !strings.Contains(e.Message, p) {
			t.Errorf("%q does not hold %q", e.Message, p)
		}
	}
}

// rules puts rules of the network (lines of YAML list items) into a policy that allows the probe.
func rules(list ...string) string {
	var b strings.Builder
	b.WriteString(harness.Base + "network:\n  allow:\n")
	for _, r := range list {
		fmt.Fprintf(&b, "    - %s\n", r)
	}
	return b.String()
}
