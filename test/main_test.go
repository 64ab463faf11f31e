//go:build e2e

// Package test proves what README and docs/ promise, on the real binary: each test starts `nemoclaw run` as a user would, in the
// world that package harness makes, and looks at what programs inside saw, what reached the servers, and what was written down.
// It imports no other package of the product, so it knows only what a user knows.
package test

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// network puts rules (lines of YAML list items) into a policy beside the workspace and the probe.
func network(rules ...string) string {
	return harness.Base + "network:\n  allow:\n" + list(rules)
}

func list(rules []string) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "    - %s\n", r)
	}
	return b.String()
}

// b64 packs bytes that an attempt of the probe sends.
func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// check compares an outcome's errno; "" is success.
func check(t *testing.T, o harness.Outcome, errno string) {
	t.Helper()
	if o.Errno != errno {
		t.Errorf("%q gave %q (%s), want %q", o.Op, o.Errno, o.Out, errno)
	}
}

// once wants exactly one refusal of object in the records and returns it.
func once(t *testing.T, r *harness.Result, plane, object string) harness.Event {
	t.Helper()
	found := r.Find(plane, "deny", object)
	var total uint64
	for _, e := range found {
		total += max(e.Count, 1)
	}
	if total != 1 {
		t.Errorf("%s is refused %d times in the records, want once\n%s", object, total, r.Dump())
		return harness.Event{}
	}
	if found[0].Rule == "" || found[0].Revision == "" {
		t.Errorf("the record of %s names no rule or no revision: %+v", object, found[0])
	}
	return found[0]
}

// quiet wants that nothing left the world for an address that is not its own.
func quiet(t *testing.T) {
	t.Helper()
	if p := harness.W.Strangers(); len(p) > 0 {
		t.Errorf("packets left for %v", p)
	}
}

func seed(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../examples/seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return "extends: [npm]\n" + string(b)
}
