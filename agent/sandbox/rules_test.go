package sandbox

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestWaits: what a change of rules can't be in a view that is there already.
func TestWaits(t *testing.T) {
	h := newFakeHost(append(slices.Clone(system), "/ws/dir/", "/ws/file", "/ws/link -> file", "/data/sub/", "/other/", "/etc/hostname", "/etc/shadow")...)
	base := []string{"allow /workspace rw", "allow /data r"}
	for _, test := range []struct {
		name     string
		old, new []string // beside base
		without  string   // this line of base
		want     string   // "": nothing waits
	}{
		{name: "nothing"},
		{name: "less", new: []string{"deny /workspace/file rw", "deny /workspace/dir w", "deny /data/sub r", "deny /usr/bin r", "deny /workspace/none r"}},
		{name: "an allow goes", without: "allow /data r"},
		{name: "less to read and more to execute", new: []string{"allow /workspace/dir rx", "deny /workspace/file r"}},
		{name: "a deny of a file goes", old: []string{"deny /workspace/file rw"}},
		{name: "a deny of a directory goes", old: []string{"deny /workspace/dir rw"}, want: "hidden by a mount"},
		{name: "a directory may be written again", old: []string{"deny /workspace/dir w"}, want: "mounted read-only"},
		{name: "another tree", new: []string{"allow /other r"}, want: "/other, permissions: [read]}: it is not in the view"},
		{name: "one that is not there", new: []string{"allow /none r"}},
		{name: "write to what is read-only", new: []string{"allow /data/sub rw"}, want: "mounted read-only"},
		{name: "write to the system", new: []string{"allow /usr/lib rw"}, want: "mounted read-only"},
		{name: "below /etc", new: []string{"deny /etc/hostname r"}, want: "/etc inside is put together"},
		{name: "a secret", new: []string{"allow /etc/shadow r"}, want: "/etc inside is put together"},
		{name: "below /proc", new: []string{"deny /proc/sys rw"}, want: "/proc inside is covered"},
		{name: "the system", new: []string{"baseline none"}},
		{name: "the system again", old: []string{"baseline none"}, want: "/usr: it is not in the view"},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := func(running bool, lines ...string) *viewPlan {
				p, err := (&planner{host: h, full: true, running: running}).view(compile(t, lines...), "/ws", "", nil)
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			kept := slices.DeleteFunc(slices.Clone(base), func(line string) bool { return line == test.without })
			old := append(slices.Clone(base), test.old...)
			got := strings.Join(plan(false, old...).waits(plan(true, old...), plan(true, append(kept, test.new...)...), nil), "\n")
			if got != "" != (test.want != "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestSaidLater: what a place's rules say when some of them have ended, and no more than at any time from then on.
func TestSaidLater(t *testing.T) {
	parsed, err := policy.Parse("test.yaml", []byte(`
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: /workspace/less, permissions: [read], expires: 1h}
    - {path: /workspace/run, permissions: [read, execute], expires: 2h}
    - {path: /data, permissions: [read], expires: 2h}
  deny:
    - {path: /workspace/file, permissions: [read, write], expires: 1h}
    - {path: /ws/dir, permissions: [write], expires: 1h}
`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(parsed)
	if err != nil {
		t.Fatal(err)
	}
	h := newFakeHost(append(slices.Clone(system), "/ws/dir/", "/ws/file", "/ws/less/", "/ws/run/", "/data/")...)
	if _, err := (&planner{host: h}).view(c, "/ws", "", nil); err == nil || !strings.Contains(err.Error(), "needs enforcement level full") {
		t.Errorf("at level static: %v", err)
	}
	p, err := (&planner{host: h, full: true}).view(c, "/ws", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range p.trees {
		if tree.kind == treeMask || tree.kind == treeNarrow {
			t.Errorf("a mount would stay when the rule ends: %s", tree.path)
		}
	}
	start := time.Now()
	s := &Sandbox{spec: Spec{Started: start}}
	j := &judging{said: &p.said, ends: s.ends(c, &p.said)}
	const none = policy.Access(0)
	for at, want := range map[string]Judged{
		"/workspace":      {Access: readWrite, Later: readWrite},
		"/workspace/less": {Access: policy.Read, Later: policy.Read}, // that it may be written then is for whoever renews the rules
		"/workspace/run":  {Access: policy.Read | policy.Execute, Until: start.Add(2 * time.Hour), Later: policy.Read},
		"/workspace/file": {},
		"/workspace/dir":  {Access: policy.Read, Later: policy.Read},
		"/data":           {Access: policy.Read, Until: start.Add(2 * time.Hour), Later: none},
	} {
		got := Judged{Path: at}
		j.say(&got)
		if got.Access != want.Access || got.Later != want.Later || !got.Until.Equal(want.Until) {
			t.Errorf("%s: %v until %v, then %v; want %v until %v, then %v", at, got.Access, got.Until, got.Later, want.Access, want.Until, want.Later)
		}
	}
	for at, want := range map[string]policy.Access{"/workspace/less": readWrite, "/workspace/file": readWrite, "/workspace/dir": readWrite, "/data": policy.Read} {
		if access, _ := j.ends[0].said.effective(at); access != want {
			t.Errorf("after an hour %s: %v, want %v", at, access, want)
		}
	}
}

// TestSayPrograms: what process.ask and process.deny say of a file stands above what is said of its directory, and of a script it is about
// reading, since its interpreter is what is executed.
func TestSayPrograms(t *testing.T) {
	t.Parallel()
	around := said{entries: []entry{
		{path: "/tools", access: policy.Read | policy.Write | policy.Execute, by: [3]policy.RuleID{1, 1, 1}},
		{path: "/asked", access: policy.Read | policy.Execute, asked: policy.Read, by: [3]policy.RuleID{2, 2, 2}},
	}}
	for _, test := range []struct {
		path        string
		rule        ProgramRule
		access, ask policy.Access
		by          [3]policy.RuleID
	}{
		{"/tools/x", ProgramRule{Rule: 7}, policy.Read | policy.Write, 0, [3]policy.RuleID{1, 1, 7}},
		{"/tools/x", ProgramRule{Rule: 7, Ask: true}, policy.Read | policy.Write, policy.Execute, [3]policy.RuleID{1, 1, 7}},
		{"/tools/x", ProgramRule{Rule: 7, Script: true}, policy.Write, 0, [3]policy.RuleID{7, 1, 7}},
		{"/tools/x", ProgramRule{Rule: 7, Script: true, Ask: true}, policy.Write, policy.Read | policy.Execute, [3]policy.RuleID{7, 1, 7}},
		{"/asked/x", ProgramRule{Rule: 7, Script: true}, 0, 0, [3]policy.RuleID{7, 2, 7}},
		{"/none/x", ProgramRule{Rule: 7, Script: true, Ask: true}, 0, policy.Execute, [3]policy.RuleID{0, 0, 7}},
	} {
		j := judging{said: &around, named: map[string]ProgramRule{test.path: test.rule}}
		p := Judged{Path: test.path}
		j.say(&p)
		if p.Access != test.access || p.Ask != test.ask || p.By != test.by {
			t.Errorf("%s, %+v: %s, asked %s, by %v", test.path, test.rule, p.Access, p.Ask, p.By)
		}
	}
}
