//go:build e2e

// Package attacks tries to get out of a sandbox. Each attempt is shown to work where nothing stops it, with its victim; then it is
// tried in a real `nemoclaw run`, where it must give the refusal that the table says, leave its victim whole and leave the
// records that the table says, and the sandbox must enforce afterwards what it did before. docs/levels.md has what came out. It
// imports no package of the product.
package attacks

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestAttacks runs every plane, and wants docs/levels.md to say what came out.
func TestAttacks(t *testing.T) {
	ld, err := loaderPath()
	if err != nil {
		t.Fatal(err)
	}
	var planes []*plane
	for _, tables := range [][]*plane{filePlanes(), execPlanes(), processPlanes(), kernelPlanes(), networkPlanes(), dnsPlanes(), policyPlanes(ld), exhaustionPlanes()} {
		planes = append(planes, tables...)
	}
	resolveInTheWorld(t)
	makeInternet(t)
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set(canaryName, a4)
	harness.W.TCP(t, a4, canaryPort)
	ran := 0
	t.Run("in", func(t *testing.T) {
		for _, p := range planes {
			t.Run(p.name, func(t *testing.T) {
				ran++
				t.Parallel()
				p.run(t)
			})
		}
	})
	if ran == len(planes) && !t.Failed() && !atFull && runtime.GOARCH == "amd64" { // others lack some system calls
		compare(t, planes)
	}
}

// resolveInTheWorld makes the world's name server the one of programs outside sandboxes, by a mount that ends with the world.
func resolveInTheWorld(t *testing.T) {
	conf := filepath.Join(harness.W.Dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+harness.Resolver.Addr().String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

// exitRefused is nemoclaw's status when nothing was started, or when it stopped what was.
const exitRefused = 125

// The canary: what must go on to be allowed and refused after every attempt.
var canary = []struct{ do, errno, out string }{
	{"read /workspace/canary", "", "sings"},
	{fmt.Sprintf("say %s %d %s", canaryName, canaryPort, b64("sings")), "", "sings"},
	{"read {place}/out/canary", "ENOENT", ""},
	{"exec /usr/bin/id", "EACCES", ""},
	{"tcp " + strings.ReplaceAll(denied, ":", " "), "EPERM", ""},
}

// makePlace makes a plane's directories, and what the canary needs.
func makePlace(t *testing.T) *place {
	w := harness.W
	dir, err := os.MkdirTemp(w.Dir, "place-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &place{TB: t, dir: dir, vars: map[string]string{"{place}": dir}, ended: make(chan struct{})}
	for _, sub := range []string{"", "scenes", "ro", "out"} {
		sub = filepath.Join(dir, sub)
		if err := errors.Join(os.MkdirAll(sub, 0o755), os.Chmod(sub, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	p.ws = w.NewWorkspace(t, dir)
	err = errors.Join(os.WriteFile(filepath.Join(p.ws, "canary"), []byte("sings"), 0o644), os.WriteFile(filepath.Join(dir, "out", "canary"), []byte("silent"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run shows that a plane's attempts are live, and tries them inside.
func (pl *plane) run(t *testing.T) {
	p := makePlace(t)
	if pl.host != nil {
		pl.host(p)
	}
	for i := range pl.table {
		p.natively(pl, &pl.table[i], fmt.Sprintf("n%d", i))
	}
	if t.Failed() {
		return
	}
	scenes, r := pl.inside(t, p)
	switch {
	case pl.stopped != "":
		if r.Code != exitRefused || !strings.Contains(r.Err, pl.stopped) || pl.table[0].harm(scenes[0], r.Out) {
			t.Errorf("%s: the sandbox was not stopped with %q, or too late\n%s", pl.table[0].name, pl.stopped, r.Dump())
		}
	case pl.refused != "" && !(atFull && r.Code != exitRefused):
		if r.Code != exitRefused || r.Out != "" || !strings.Contains(r.Err, pl.refused) {
			t.Errorf("the start was not refused with %q\n%s", pl.refused, r.Dump())
		}
	default:
		pl.judge(t, scenes, r)
	}
}

// inside runs all attempts in one sandbox, each in a process of its own, and the canary after each.
func (pl *plane) inside(t *testing.T, p *place) ([]*scene, *harness.Result) {
	defer close(p.ended)
	var sing []string
	for _, c := range canary {
		sing = append(sing, strings.ReplaceAll(c.do, "{place}", p.dir))
	}
	var scenes []*scene
	argv := []string{"/workspace/probe", "apart"}
	for i := range pl.table {
		s := p.scene(&pl.table[i], fmt.Sprintf("i%d", i), true)
		scenes = append(scenes, s)
		argv = append(argv, pl.table[i].line(s))
		if !pl.alone {
			argv = append(argv, strings.Join(sing, "\n"))
		}
	}
	session := harness.W.Prepare(t, harness.Box{Policy: pl.policy(p.vars), Workspace: p.ws, Env: inWorkspaceOf(pl.env)}, argv...)
	p.cmd = session.Cmd
	if pl.start != nil {
		pl.start(p)
	}
	if err := session.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := session.Wait(t, 2*time.Minute)
	return scenes, r
}

// judge looks at what came of the attempts inside.
func (pl *plane) judge(t *testing.T, scenes []*scene, r *harness.Result) {
	outcomes := r.Outcomes(t)
	each := 1
	if !pl.alone {
		each += len(canary)
	}
	if len(outcomes) != each*len(scenes) {
		t.Fatalf("%d attempts gave %d outcomes\n%s", len(scenes), len(outcomes), r.Dump())
	}
	for i, s := range scenes {
		a, got := &pl.table[i], outcomes[i*each:(i+1)*each]
		switch {
		case atFull && (a.open == "" || a.full != ""):
			if want := a.inside + a.full; got[0].Errno == "" && want != "" || a.full != "" && got[0].Errno != a.full {
				t.Errorf("%s: inside it gave %s, want %q or another refusal", a.name, outcome(got[0]), want)
			}
			if a.harm != nil && a.harm(s, got[0].Out) {
				t.Errorf("%s: HARM: inside it gave %s", a.name, outcome(got[0]))
			}
		case a.open != "":
			if got[0].Errno != "" || a.harm != nil && !a.harm(s, got[0].Out) {
				t.Errorf("%s: is said to be open, and inside it gave %s", a.name, outcome(got[0]))
			}
		case got[0].Errno != a.inside && (a.inside == "" || !strings.Contains(got[0].Errno, a.inside)):
			t.Errorf("%s: inside it gave %s, want %q", a.name, outcome(got[0]), a.inside)
		case a.harm != nil && a.harm(s, got[0].Out):
			t.Errorf("%s: HARM: inside it gave %s", a.name, outcome(got[0]))
		}
		if !pl.alone {
			sings(t, a.name, got[1:])
		}
	}
	if !atFull {
		pl.records(t, scenes, r)
	}
}

// sings is about the canary: what was allowed is, and what was not is not.
func sings(t *testing.T, after string, got []harness.Outcome) {
	t.Helper()
	for i, want := range canary {
		if got[i].Errno != want.errno || got[i].Out != want.out {
			t.Errorf("after %s: %q gave %s", after, got[i].Op, outcome(got[i]))
		}
	}
}

// records wants the records that the table says, and none that it does not.
func (pl *plane) records(t *testing.T, scenes []*scene, r *harness.Result) {
	seen, why := map[string]uint64{}, map[string]string{}
	for _, e := range r.Events {
		if e.Verdict != "deny" || strings.HasPrefix(e.Reason, "Landlock refused") {
			continue
		}
		object := e.Plane + " " + e.Object
		seen[object] += max(e.Count, 1)
		why[object] = fmt.Sprintf("%s by %q: %s", e.Action, e.Subject.Args, e.Reason)
	}
	want, many := map[string]uint64{}, map[string]bool{}
	for i, s := range scenes {
		if pattern, atLeastOne := strings.CutPrefix(pl.table[i].record, "+"); pattern != "" {
			want[s.expand(pattern)]++
			many[s.expand(pattern)] = atLeastOne
		}
		if !pl.alone && !pl.blind {
			want["network "+denied]++
		}
	}
	for pattern, n := range want {
		var got uint64
		for object := range seen {
			if object == pattern || matches(pattern, object) {
				got += seen[object]
				delete(seen, object)
			}
		}
		// What was beyond the records' budget is counted without its object.
		kind, _, _ := strings.Cut(pattern, " ")
		if various := kind + " (various)"; pl.blind && got == 0 {
			got = seen[various] // whatever there is: most of them are
		} else if got < n {
			rest := min(n-got, seen[various])
			got += rest
			if seen[various] -= rest; seen[various] == 0 {
				delete(seen, various)
			}
		}
		if got != n && (!many[pattern] || got == 0) {
			t.Errorf("%q: %d records, want %d", pattern, got, n)
		}
	}
	for object, n := range seen {
		if pl.blind && (strings.HasSuffix(object, " (various)") || object == "network "+denied) {
			continue
		}
		t.Errorf("%q: %d records that no attempt explains: %s", object, n, why[object])
	}
}

// matches compares with a pattern whose stars stand for numbers.
func matches(pattern, object string) bool {
	ok, err := path.Match(pattern, object)
	return err == nil && ok
}
