//go:build e2e

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

const (
	kills    = 100
	besieged = 3 // sandboxes that are never touched and attempt everything
	changing = 4 // sandboxes that are made, changed and destroyed all the time
)

// siege is a sandbox in which a command tries what the policy denies and what it allows, over and over.
type siege struct {
	name      string
	workspace string
	pid       int // of its init
}

// progress is what the command has done; it writes that in one step.
func (s *siege) progress(t *testing.T) (p struct {
	Tried, OK map[string]int
}) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.workspace, "siege.json"))
	if errors.Is(err, os.ErrNotExist) {
		return p
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// victims are what no sandbox may reach.
type victims struct {
	dir     string
	servers []*harness.Server
}

// check fails when one of them was reached.
func (v *victims) check(t *testing.T, sieges []*siege) {
	t.Helper()
	for _, s := range v.servers {
		if n := s.Conns(); n > 0 {
			t.Fatalf("%d denied connections reached %s", n, s.Addr)
		}
	}
	if n := harness.W.DNS.Asked("denied.test"); n > 0 {
		t.Fatalf("the denied name was asked %d times", n)
	}
	for _, s := range sieges {
		if broken, err := os.ReadFile(filepath.Join(s.workspace, "broken")); err == nil {
			t.Fatalf("%s broke out:\n%s", s.name, broken)
		}
	}
}

// TestKilledUnderLoad kills the daemon 100 times while sandboxes are made, changed and destroyed and others attack: nothing that the policy
// denies works, no sandbox is lost, nothing is left, and the audit log is whole.
func TestKilledUnderLoad(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	good, _ := harness.W.Addr()
	bad, _ := harness.W.Addr()
	harness.W.DNS.Set("allowed.test", good)
	harness.W.DNS.Set("denied.test", bad)
	harness.W.TCP(t, good, 7000)
	v := &victims{dir: d.Dir, servers: []*harness.Server{harness.W.TCP(t, bad, 7000), harness.W.TCP(t, good, 7001)}}
	denied := []string{
		"tcp " + bad.String() + " 7000", "tcp " + good.String() + " 7001", "tcp-to denied.test 7000",
		"read-some /workspace/private/key", "write /workspace/private/key x", "read-some " + filepath.Join(d.Dir, "agent.yaml"),
		"run /workspace/forbidden", "run /usr/bin/id",
	}
	allowed := []string{"tcp-to allowed.test 7000", "write /workspace/own x", "run /workspace/probe"}
	policy := harness.Exec + `filesystem:
  allow: [{path: /workspace, permissions: [read, write]}]
  deny:
    - {path: /workspace/private, permissions: [read, write]}
network:
  allow: [{domain: allowed.test, ports: [7000], protocol: tcp}]
`
	c, ctx := dial(t, d)
	var sieges []*siege
	for i := range besieged {
		s := &siege{name: fmt.Sprintf("siege%d", i)}
		dir := filepath.Join(d.Dir, s.name)
		s.workspace = filepath.Join(dir, "workspace")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		harness.W.NewWorkspace(t, dir)
		program, err := os.ReadFile(harness.W.ProbeBin)
		if err == nil {
			err = errors.Join(os.WriteFile(filepath.Join(s.workspace, "forbidden"), program, 0o755),
				os.Mkdir(filepath.Join(s.workspace, "private"), 0o755), os.WriteFile(filepath.Join(s.workspace, "private/key"), []byte("secret"), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
		made, err := c.Create(ctx, api.Create{Name: s.name, Policy: policy, Workspace: s.workspace, Start: true})
		if err != nil {
			t.Fatal(err)
		}
		s.pid = made.PID
		args := append(append([]string{"/workspace/probe", "siege"}, denied...), append([]string{"--"}, allowed...)...)
		if _, err := c.Exec(ctx, s.name, api.Exec{Args: args, Detach: true}, [3]*os.File{}); err != nil {
			t.Fatal(err)
		}
		sieges = append(sieges, s)
	}
	until(t, "all that is allowed works", func() bool { return len(sieges[0].progress(t).OK) == len(allowed) })
	var load []*changer
	for i := range changing {
		load = append(load, &changer{c: c, name: fmt.Sprintf("box%d", i), policy: shell + "network: {allow: [{domain: allowed.test, ports: [7000], protocol: tcp}]}\n", rand: rand.New(rand.NewPCG(7, uint64(i)))})
	}
	for n := range kills {
		killOnce(t, d, load, n)
		check(t, d, sieges, load)
		v.check(t, sieges)
	}
	done := 0
	for _, l := range load {
		done += l.done
	}
	// The way out is open again, and nobody was ended meanwhile.
	tried := 0
	for _, s := range sieges {
		before := s.progress(t)
		until(t, s.name+" reaches what is allowed", func() bool { return s.progress(t).OK[allowed[0]] > before.OK[allowed[0]] })
		for _, op := range denied {
			n := s.progress(t).Tried[op]
			if tried += n; n < kills/10 {
				t.Errorf("%s tried %q %d times only", s.name, op, n)
			}
		}
		if get(t, c, s.name).Refused == 0 {
			t.Errorf("the kernel has refused %s nothing", s.name)
		}
	}
	v.check(t, sieges)
	d.Verify(t)
	t.Logf("%d kills; %d changes were acknowledged meanwhile, and %d denied things tried", kills, done, tried)
}

// killOnce has everybody at work, kills the daemon after a while, and starts it again. Some starts are killed too.
func killOnce(t *testing.T, d *harness.Daemon, load []*changer, n int) {
	t.Helper()
	const longest = 250 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, l := range load {
		wg.Go(func() { l.work(ctx) })
	}
	time.Sleep(time.Duration(rand.Int64N(int64(longest))))
	d.Kill()
	cancel()
	wg.Wait()
	if n%4 == 0 {
		d.Launch(t)
		time.Sleep(time.Duration(rand.Int64N(int64(longest / 2))))
		d.Kill()
	}
	d.Start(t)
}

// check compares what is there with what was acknowledged.
func check(t *testing.T, d *harness.Daemon, sieges []*siege, load []*changer) {
	t.Helper()
	c, ctx := dial(t, d)
	there := map[string]api.Sandbox{}
	until(t, "all that should run does", func() bool {
		list, err := c.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		clear(there)
		settled := true
		for _, s := range list {
			there[s.Name] = s
			settled = settled && s.State != api.Starting
		}
		return settled
	})
	for _, s := range sieges {
		if now, ok := there[s.name]; !ok || now.State != api.Running || now.PID != s.pid || now.Commands != 1 {
			t.Fatalf("%s is not what it was: %+v\n%s\n%s", s.name, now, d.Do(t, "audit", "search", "--sandbox", s.name, "--plane", "system", "-n", "20", d.AuditDir()), d.Log())
		}
	}
	for _, l := range load {
		s, ok := there[l.name]
		if err := l.compare(s, ok); err != nil {
			t.Fatalf("%s after %s: %v: %+v\n%s", l.name, l.last, err, s, d.Log())
		}
	}
	running := 0
	for name, s := range there {
		if s.State == api.Running {
			running++
		}
		delete(there, name)
	}
	until(t, "the kernel knows those that run and no other", func() bool { return d.Entries(t)["sandboxes"] == running })
	names := map[string]bool{}
	for _, s := range sieges {
		names[s.name] = true
	}
	for _, l := range load {
		if l.runs {
			names[l.name] = true
		}
	}
	if left := d.Strangers(slices.Collect(maps.Keys(names))); len(left) > 0 {
		t.Fatalf("nobody's:\n%q\n%s", left, d.Log())
	}
}

// changer makes changes to one sandbox, and knows what must have come of them.
type changer struct {
	c      *api.Client
	name   string
	policy string
	rand   *rand.Rand

	exists, runs bool
	revision     int
	last         string // change that was asked for
	unsure       bool   // whether it was made
	done         int    // changes that were acknowledged
	refused      error
}

// work makes changes until the daemon is gone.
func (l *changer) work(ctx context.Context) {
	for !l.unsure {
		err := l.change(ctx)
		var refused *api.Error
		if errors.As(err, &refused) {
			l.refused = err // it had no reason to
			return
		}
		l.unsure = err != nil
		if err == nil {
			l.done++
		}
	}
}

// change makes one change and notes it once it is acknowledged.
func (l *changer) change(ctx context.Context) error {
	if !l.exists {
		start := l.rand.IntN(3) > 0
		l.last = fmt.Sprintf("create (start %v)", start)
		_, err := l.c.Create(ctx, api.Create{Name: l.name, Policy: l.policy, Start: start})
		if err == nil {
			l.exists, l.runs, l.revision = true, start, 1
		}
		return err
	}
	n := l.rand.IntN(10)
	switch {
	case n < 1:
		l.last = "destroy"
		err := l.c.Destroy(ctx, l.name)
		if err == nil {
			l.exists, l.runs = false, false
		}
		return err
	case !l.runs:
		l.last = "start"
		_, err := l.c.Start(ctx, l.name)
		l.runs = l.runs || err == nil
		return err
	case n < 2:
		l.last = "stop"
		_, err := l.c.Stop(ctx, l.name)
		l.runs = l.runs && err != nil
		return err
	case n < 6:
		l.last = "policy"
		r, err := l.c.ChangePolicy(ctx, l.name, l.edit())
		if err == nil {
			l.revision = r.Policy.Revision
		}
		return err
	}
	l.last = "exec"
	if n < 7 {
		_, err := l.c.Exec(ctx, l.name, api.Exec{Args: []string{"sleep", "1h"}, Detach: true}, [3]*os.File{})
		return err
	}
	p, err := l.c.Exec(ctx, l.name, api.Exec{Args: []string{"true"}}, [3]*os.File{})
	if err != nil {
		return err
	}
	defer p.Close()
	status, err := p.Wait()
	if status != 0 && err == nil {
		l.refused = fmt.Errorf("true ended with %d", status)
	}
	return err
}

// edit adds a rule or takes it away.
func (l *changer) edit() api.PolicyChange {
	rule := &api.PolicyRule{Domain: "other.test", Ports: []uint16{443}}
	if l.revision%2 == 1 {
		return api.PolicyChange{Add: rule}
	}
	return api.PolicyChange{Remove: rule}
}

// compare says whether what is there can have come of what was asked for, and goes on from there.
func (l *changer) compare(s api.Sandbox, exists bool) error {
	err := l.refused
	switch unsure := func(what string) bool { return l.unsure && l.last[:min(len(what), len(l.last))] == what }; {
	case err != nil:
	case exists != l.exists && !unsure("create") && !unsure("destroy"):
		err = fmt.Errorf("it is there: %v, want %v", exists, l.exists)
	case !exists:
	case s.State != api.Running && s.State != api.Stopped:
		err = errors.New("it does neither run nor stand")
	case (s.State == api.Running) != l.runs && !unsure("create") && !unsure("start") && !unsure("stop") && !unsure("destroy"):
		err = fmt.Errorf("it runs: %v, want %v", s.State == api.Running, l.runs)
	case l.exists && s.Policy.Revision != l.revision && (!unsure("policy") || s.Policy.Revision != l.revision+1):
		err = fmt.Errorf("its policy is at revision %d, want %d", s.Policy.Revision, l.revision)
	case s.State == api.Running && s.Policy.Running != s.Policy.Revision:
		err = fmt.Errorf("revision %d is in force, want %d", s.Policy.Running, s.Policy.Revision)
	}
	l.exists, l.runs, l.revision, l.unsure = exists, s.State == api.Running, s.Policy.Revision, false
	return err
}
