package sandbox

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/policy"
)

// fakeHost is a host as a list: "dir/", "file", "link -> target", "socket=", "device!".
type fakeHost map[string]known

func planView(c *policy.Compiled, workspace, root string, protected []string, h host, full bool) (*viewPlan, error) {
	return (&planner{host: h, full: full}).view(c, workspace, root, protected)
}

func newFakeHost(list ...string) fakeHost {
	h := fakeHost{"/": {kind: kindDir}}
	for _, item := range list {
		name, target, isLink := strings.Cut(item, " -> ")
		k := known{target: target, kind: kindFile}
		switch {
		case isLink:
			k.kind = kindMissing
		case strings.HasSuffix(name, "/"):
			k.kind = kindDir
		case strings.HasSuffix(name, "="):
			k.kind = kindSocket
		case strings.HasSuffix(name, "!"):
			k.kind = kindOther
		}
		name = strings.TrimRight(name, "/=!")
		h[name] = k
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			if _, ok := h[dir]; !ok {
				h[dir] = known{kind: kindDir}
			}
		}
	}
	return h
}

func (h fakeHost) lstat(p string) (string, fileKind, error) { return h[p].target, h[p].kind, nil }
func (h fakeHost) resolve(p string) (resolved, error)       { return resolveWith(h.lstat, p) }
func (h fakeHost) glob(pattern string) []string {
	var found []string
	for name := range h {
		if ok, _ := path.Match(pattern, name); ok {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

var system = []string{"/usr/bin/", "/usr/lib/", "/bin -> usr/bin", "/lib -> usr/lib", "/sbin -> usr/sbin", "/etc/shadow", "/etc/ssl/private/", "/proc/keys", "/proc/sys/"}

// compile makes a policy of lines "allow PATH rwx", "deny PATH rwx", "unix PATH", "baseline none".
func compile(t *testing.T, lines ...string) *policy.Compiled {
	t.Helper()
	var b strings.Builder
	lists := map[string][]string{}
	baseline := "system"
	for _, line := range lines {
		f := strings.Fields(line)
		if f[0] == "baseline" {
			baseline = f[1]
			continue
		}
		if f[0] == "unix" {
			lists["unix"] = append(lists["unix"], f[1])
			continue
		}
		var words []string
		for _, letter := range f[2] {
			words = append(words, map[rune]string{'r': "read", 'w': "write", 'x': "execute"}[letter])
		}
		lists[f[0]] = append(lists[f[0]], fmt.Sprintf("    - {path: %s, permissions: [%s]}\n", f[1], strings.Join(words, ", ")))
	}
	fmt.Fprintf(&b, "filesystem:\n  baseline: %s\n", baseline)
	for _, verb := range []string{"allow", "deny"} {
		if len(lists[verb]) > 0 {
			fmt.Fprintf(&b, "  %s:\n%s", verb, strings.Join(lists[verb], ""))
		}
	}
	if len(lists["unix"]) > 0 {
		fmt.Fprintf(&b, "network:\n  unix: [%s]\n", strings.Join(lists["unix"], ", "))
	}
	parsed, err := policy.Parse("test.yaml", []byte(b.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
	c, err := policy.Compile(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// show writes a plan's trees without what every sandbox has: "kind path<-source flags".
func show(p *viewPlan) []string {
	kinds := map[treeKind]string{treeBase: "base", treeEtc: "etc", treeBind: "bind", treePrivate: "private",
		treeNarrow: "narrow", treePin: "pin", treeMask: "mask", treeSocket: "socket"}
	usual := []string{"base /usr<-/usr ro", "etc /etc<-/etc ro", "private /dev/shm noexec", "private /home/agent", "private /tmp"}
	var list []string
	for _, t := range p.trees {
		line := kinds[t.kind] + " " + t.path
		if t.source != "" {
			line += "<-" + t.source
		}
		for _, flag := range []struct {
			on   bool
			name string
		}{{t.file, "file"}, {t.readOnly, "ro"}, {t.noExec, "noexec"}, {t.watch, "watch"}} {
			if flag.on {
				line += " " + flag.name
			}
		}
		if !slices.Contains(usual, line) {
			list = append(list, line)
		}
	}
	return list
}

func TestPlanTrees(t *testing.T) {
	for _, test := range []struct {
		name      string
		host      []string
		policy    []string
		workspace string
		want      []string
		links     []link
		warn      string // part of a warning
		err       string // part of the error
	}{
		{name: "the workspace", host: []string{"/home/u/ws/"}, policy: []string{"allow /workspace rw"}, workspace: "/home/u/ws",
			want: []string{"bind /workspace<-/home/u/ws"}},
		{name: "the workspace behind a link", host: []string{"/mnt/big/ws/", "/home/u/ws -> /mnt/big/ws"}, policy: []string{"allow /workspace rw"},
			workspace: "/home/u/ws", want: []string{"bind /workspace<-/mnt/big/ws"}},
		{name: "no workspace", policy: []string{"allow /workspace rw"}, warn: "/workspace does not exist"},
		{name: "a workspace that is missing", workspace: "/nowhere", err: "/nowhere is not a directory"},
		{name: "a workspace that is a file", host: []string{"/f"}, workspace: "/f", err: "/f is not a directory"},
		{name: "a workspace without a rule", host: []string{"/ws/"}, workspace: "/ws", warn: "no rule allows /workspace"},
		{name: "only a part of the workspace", host: []string{"/ws/src/"}, workspace: "/ws", policy: []string{"allow /workspace/src r"},
			want: []string{"bind /workspace/src<-/ws/src ro"}},
		{name: "the seed", host: []string{"/ws/", "/root/.ssh/"}, workspace: "/ws",
			policy: []string{"allow /workspace rw", "allow /tmp rw", "deny /etc w", "deny /root/.ssh rw"},
			want:   []string{"bind /workspace<-/ws"}},

		{name: "data", host: []string{"/data/"}, policy: []string{"allow /data r"}, want: []string{"bind /data<-/data ro"}},
		{name: "one file", host: []string{"/data/f"}, policy: []string{"allow /data/f rw"}, want: []string{"bind /data/f<-/data/f file"}},
		{name: "missing data", policy: []string{"allow /data r"}, warn: "/data does not exist on this host, so nothing is granted"},
		{name: "data behind a link", host: []string{"/mnt/d/", "/data -> mnt/d"}, policy: []string{"allow /data rw"},
			want: []string{"bind /mnt/d<-/mnt/d"}, links: []link{{"/data", "mnt/d"}}},
		{name: "two names of one directory", host: []string{"/mnt/d/", "/data -> mnt/d"}, policy: []string{"allow /data r", "allow /mnt/d rw"},
			want: []string{"bind /mnt/d<-/mnt/d"}, links: []link{{"/data", "mnt/d"}}},
		{name: "a link to the host's own tmp", host: []string{"/tmp/shared/", "/data -> /tmp/shared"}, policy: []string{"allow /data r"},
			want: []string{"bind /data<-/tmp/shared ro"}},
		{name: "a device", host: []string{"/d/dev!"}, policy: []string{"allow /d/dev rw"}, err: "neither a file nor a directory"},
		{name: "a device in /dev", host: []string{"/dev/sda!"}, policy: []string{"allow /dev/sda rw"}, err: "device files are not granted by path"},
		{name: "the root", policy: []string{"allow / r"}, err: "has its own root"},
		{name: "all of home", host: []string{"/home/u/"}, policy: []string{"allow /home r"}, err: "its own /home/agent"},
		{name: "a link loop", host: []string{"/a -> /b", "/b -> /a"}, policy: []string{"allow /a r"}, err: "more than 40 symbolic links"},

		{name: "reading the system is the baseline", policy: []string{"allow /usr/lib r", "allow /bin r"}},
		{name: "writing a part of the system", host: []string{"/usr/local/"}, policy: []string{"allow /usr/local rw"},
			want: []string{"bind /usr/local<-/usr/local"}},
		{name: "writing all of /etc", policy: []string{"allow /etc rw"}, err: "/etc inside is composed"},
		{name: "a file of /etc", host: []string{"/etc/motd"}, policy: []string{"allow /etc/motd rw"}, want: []string{"bind /etc/motd<-/etc/motd file"}},
		{name: "no baseline", policy: []string{"baseline none", "allow /usr/bin r"},
			want: []string{"bind /usr/bin<-/usr/bin ro"}},

		{name: "a deny below a read-only directory", host: []string{"/d/secret/", "/d/key"}, policy: []string{"allow /d r", "deny /d/secret rw", "deny /d/key r"},
			want: []string{"bind /d<-/d ro", "mask /d/key<-/d/key file ro watch", "mask /d/secret<-/d/secret ro watch"}},
		{name: "a deny below the system", host: []string{"/usr/share/x/"}, policy: []string{"deny /usr/share/x r"},
			want: []string{"mask /usr/share/x<-/usr/share/x ro watch"}},
		{name: "a deny of what is not there", host: []string{"/d/"}, policy: []string{"allow /d r", "deny /d/none r"},
			want: []string{"bind /d<-/d ro"}, warn: "if it appears"},
		{name: "a deny outside of the view", policy: []string{"deny /srv rw"}},
		{name: "a deny of a part of the system", policy: []string{"deny /usr r"}, want: nil},
		{name: "a deny beats a deeper allow", host: []string{"/d/e/"}, policy: []string{"deny /d r", "allow /d/e r"}},

		{name: "a deny in the workspace", host: []string{"/ws/a/b/secret/"}, workspace: "/ws", policy: []string{"allow /workspace rw", "deny /workspace/a/b/secret rw"},
			want: []string{"bind /workspace<-/ws", "pin /workspace/a<-/ws/a watch", "pin /workspace/a/b<-/ws/a/b watch",
				"mask /workspace/a/b/secret<-/ws/a/b/secret ro watch"}},
		{name: "read-only in the workspace", host: []string{"/ws/docs/"}, workspace: "/ws", policy: []string{"allow /workspace rw", "deny /workspace/docs w"},
			want: []string{"bind /workspace<-/ws", "narrow /workspace/docs<-/ws/docs ro watch"}},
		{name: "a narrower allow in the workspace", host: []string{"/ws/docs/"}, workspace: "/ws", policy: []string{"allow /workspace rw", "allow /workspace/docs r"},
			want: []string{"bind /workspace<-/ws", "narrow /workspace/docs<-/ws/docs ro watch"}},
		{name: "a deny of a file in the workspace", host: []string{"/ws/.env"}, workspace: "/ws", policy: []string{"allow /workspace rw", "deny /workspace/.env r"},
			err: "needs enforcement level full"},
		{name: "a deny in the workspace of what is not there", host: []string{"/ws/"}, workspace: "/ws", policy: []string{"allow /workspace rw", "deny /workspace/.env rw"},
			err: "does not exist, and the sandbox may create it"},
		{name: "a deny of reading only", host: []string{"/ws/d/"}, workspace: "/ws", policy: []string{"allow /workspace rw", "deny /workspace/d r"},
			err: "differ here in a way that mounts can't express"},
		{name: "a link in the workspace that leads out", host: []string{"/root/", "/ws/x -> /root"}, workspace: "/ws", policy: []string{"allow /workspace rw", "allow /workspace/x r"},
			err: "leads out of the workspace"},
		{name: "a link in the workspace", host: []string{"/ws/real/", "/ws/x -> real"}, workspace: "/ws", policy: []string{"allow /workspace rw", "deny /workspace/x rw"},
			err: "/ws/x is a symbolic link in a tree that the sandbox may write"},
		{name: "a link in data that may be written", host: []string{"/d/", "/root/", "/d/x -> /root"}, policy: []string{"allow /d rw", "allow /d/x r"},
			err: "/d/x is a symbolic link in a tree that the sandbox may write"},
		{name: "what a rule says again", host: []string{"/ws/a"}, workspace: "/ws", policy: []string{"allow /workspace rw", "allow /workspace/a rw"},
			want: []string{"bind /workspace<-/ws"}},
		{name: "a host's deny in the workspace", host: []string{"/root/.ssh/"}, workspace: "/root", policy: []string{"allow /workspace rw", "deny /root/.ssh rw"},
			want: []string{"bind /workspace<-/root", "mask /workspace/.ssh<-/root/.ssh ro watch"}},

		{name: "a deny in tmp", policy: []string{"deny /tmp/a/b rw"}, want: []string{"pin /tmp/a", "mask /tmp/a/b ro"}},
		{name: "read-only in HOME", policy: []string{"deny /home/agent/.ssh w"}, want: []string{"narrow /home/agent/.ssh ro"}},
		{name: "no execution in data", host: []string{"/d/bin/", "/d/bin/old/"}, policy: []string{"allow /d/bin rx", "deny /d/bin/old x"},
			want: []string{"bind /d/bin<-/d/bin ro", "narrow /d/bin/old<-/d/bin/old ro noexec watch"}},

		{name: "a socket", host: []string{"/run/db/s=", "/var/run -> /run"}, policy: []string{"unix /var/run/db/s"},
			want: []string{"socket /run/db/s<-/run/db/s file ro"}, links: []link{{"/var/run", "/run"}}},
		{name: "a socket that is missing", policy: []string{"unix /run/s"}, err: "not a unix socket"},
		{name: "a socket that is a file", host: []string{"/run/s"}, policy: []string{"unix /run/s"}, err: "not a unix socket"},
		{name: "writing proc", policy: []string{"allow /proc/sys rw"}, err: "/proc inside is read-only"},
		{name: "a process's entry", host: []string{"/proc/1/"}, policy: []string{"deny /proc/1 r"}, err: "processes need their own"},
		{name: "read-only data with a part to write", host: []string{"/d/out/"}, policy: []string{"allow /d r", "allow /d/out rw"},
			want: []string{"bind /d<-/d ro", "bind /d/out<-/d/out"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHost(append(slices.Clone(system), test.host...)...)
			p, err := planView(compile(t, test.policy...), test.workspace, "", nil, h, false)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error %v, not one with %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, show(p)); diff != "" {
				t.Error(diff)
			}
			links := slices.DeleteFunc(slices.Clone(p.links), func(l link) bool { return slices.Contains([]string{"/bin", "/lib", "/sbin"}, l.path) })
			if diff := cmp.Diff(test.links, links, cmp.AllowUnexported(link{}), cmp.Transformer("nil", func(l []link) []link { return append([]link{}, l...) })); diff != "" {
				t.Error(diff)
			}
			if all := strings.Join(p.warnings, "\n"); !strings.Contains(all, test.warn) || test.warn == "" && all != "" {
				t.Errorf("warnings %q, not %q", all, test.warn)
			}
		})
	}
}

func TestPlanEtc(t *testing.T) {
	h := newFakeHost(append(slices.Clone(system), "/etc/docker/daemon.json", "/etc/app/key", "/etc/shadow-", "/etc/ssl/private/k")...)
	for _, test := range []struct {
		name             string
		policy           []string
		hidden, revealed []string // some of them
		visible          []string
		trees            []string
		err              string
	}{
		{name: "secrets", hidden: []string{"/etc/shadow", "/etc/shadow-", "/etc/docker", "/etc/wireguard", "/etc/ssl/private"}, visible: []string{"/etc/app"}},
		{name: "a deny", policy: []string{"deny /etc/app rw"}, hidden: []string{"/etc/app"}},
		{name: "a deny of what is not there yet", policy: []string{"deny /etc/new r"}, hidden: []string{"/etc/new"}},
		{name: "a secret that a rule names", policy: []string{"allow /etc/docker r"}, hidden: []string{"/etc/shadow"}, visible: []string{"/etc/docker"},
			revealed: []string{"/etc/docker"}, trees: []string{"bind /etc/docker<-/etc/docker ro"}},
		{name: "something in a secret", policy: []string{"allow /etc/docker/daemon.json r"}, hidden: []string{"/etc/docker"},
			revealed: []string{"/etc/docker/daemon.json"}, trees: []string{"bind /etc/docker/daemon.json<-/etc/docker/daemon.json file ro"}},
		{name: "a directory with a secret", policy: []string{"allow /etc/ssl r"}, hidden: []string{"/etc/ssl/private"}},
		{name: "writing a directory with a secret", policy: []string{"allow /etc/ssl rw"},
			trees: []string{"bind /etc/ssl<-/etc/ssl", "mask /etc/ssl/private<-/etc/ssl/private ro watch"}, visible: []string{"/etc/ssl/private"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := planView(compile(t, test.policy...), "", "", nil, h, false)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range test.hidden {
				if !slices.Contains(p.hidden, name) {
					t.Errorf("%s is not hidden", name)
				}
			}
			for _, name := range test.visible {
				if slices.Contains(p.hidden, name) {
					t.Errorf("%s is hidden", name)
				}
			}
			if diff := cmp.Diff(test.revealed, p.revealed); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(test.trees, show(p)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanProtected(t *testing.T) {
	h := newFakeHost(append(slices.Clone(system), "/var/lib/nemoclaw/", "/var/x/")...)
	protected := []string{"/var/lib/nemoclaw"}
	p, err := planView(compile(t, "allow /var r"), "", "", protected, h, false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"bind /var<-/var ro", "mask /var/lib/nemoclaw<-/var/lib/nemoclaw ro watch"}, show(p)); diff != "" {
		t.Error(diff)
	}
	if _, err := planView(compile(t, "allow /workspace rw"), "/var/lib/nemoclaw", "", protected, h, false); err == nil {
		t.Error("the daemon's state became a workspace")
	}
	p, err = planView(compile(t, "allow /workspace rw"), "/var", "", protected, h, false)
	if err != nil {
		t.Fatal(err)
	}
	// A directory below /tmp is the daemon's on the host, and the sandbox's inside; in a workspace it is the daemon's.
	h = newFakeHost(append(slices.Clone(system), "/tmp/w/state/")...)
	if p, err := planView(compile(t), "", "", []string{"/tmp/w/state", "/tmp/w/none"}, h, false); err != nil || len(show(p)) > 0 {
		t.Error(show(p), err)
	}
	if p, err := planView(compile(t, "allow /workspace rw"), "/tmp/w", "", []string{"/tmp/w/state"}, h, false); err != nil || !slices.Contains(show(p), "mask /workspace/state<-/tmp/w/state ro watch") {
		t.Error(show(p), err)
	}
	if last := show(p)[2]; last != "mask /workspace/lib/nemoclaw<-/var/lib/nemoclaw ro watch" {
		t.Errorf("the daemon's state in a workspace: %s", last)
	}
}

func TestPlanGrants(t *testing.T) {
	h := newFakeHost(append(slices.Clone(system), "/ws/", "/d/bin/", "/d/tool", "/drop/")...)
	const read, write, exec = policy.Read, policy.Write, policy.Execute
	for _, test := range []struct {
		name   string
		policy []string
		want   []grant
		exec   []string
	}{
		{name: "the workspace", policy: []string{"allow /workspace rw"}, want: []grant{
			{path: "/dev/shm", access: read | write}, {path: "/etc", access: read}, {path: "/home/agent", access: read | write, script: true},
			{path: "/tmp", access: read | write, script: true}, {path: "/usr", access: read},
			{path: "/workspace", access: read | write, script: true}, {path: "/", list: true}}},
		{name: "execute", policy: []string{"baseline none", "allow /d/bin rx", "allow /d/tool rx"}, exec: []string{"/d/bin", "/d/tool"}, want: []grant{
			{path: "/d/bin", access: read}, {path: "/d/tool", access: read, file: true},
			{path: "/dev/shm", access: read | write}, {path: "/home/agent", access: read | write, script: true},
			{path: "/tmp", access: read | write, script: true}, {path: "/", list: true},
			{path: "/d/bin", access: exec}, {path: "/d/tool", access: exec, file: true}}},
		{name: "write only", policy: []string{"baseline none", "allow /drop w"}, want: []grant{
			{path: "/dev/shm", access: read | write}, {path: "/drop", access: write, script: true},
			{path: "/home/agent", access: read | write, script: true}, {path: "/tmp", access: read | write, script: true}}},
		{name: "no scripts in the workspace", policy: []string{"baseline none", "allow /workspace rw", "deny /workspace x"}, want: []grant{
			{path: "/dev/shm", access: read | write}, {path: "/home/agent", access: read | write, script: true},
			{path: "/tmp", access: read | write, script: true}, {path: "/workspace", access: read | write}, {path: "/", list: true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := planView(compile(t, test.policy...), "/ws", "", nil, h, false)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, p.grants, cmp.AllowUnexported(grant{})); diff != "" {
				t.Error(diff)
			}
			var paths []string
			for _, g := range p.exec {
				paths = append(paths, g.path)
			}
			if diff := cmp.Diff(test.exec, paths); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanProc(t *testing.T) {
	h := newFakeHost(system...)
	p, err := planView(compile(t, "deny /proc/keys r", "deny /proc/sys rw", "deny /proc/none r"), "", "", nil, h, false)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"fkeys", "dsys"}, p.procMasks); diff != "" {
		t.Error(diff)
	}
}
