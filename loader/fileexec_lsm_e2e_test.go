//go:build e2e && lsm

package loader

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestFileExec: what may be executed, by name, script, memory, and without a name, and what may be mapped for it.
func TestFileExec(t *testing.T) {
	b := newFileBox(t)
	d := b.dir + "/"
	script := func(path, first string) string {
		must(t, os.WriteFile(d+path, []byte("#!"+first+"\n"), 0o755))
		return d + path
	}
	must(t, b.SetFiles(append(b.rules(t), b.node(t, "rw/dir", policy.Read|policy.Write|policy.Execute, ruleProgram))))
	for _, copied := range []string{"rw/dir/prog", "rw/dir/removed"} {
		copyProgram(t, "/bin/true", d+copied)
	}
	rel := strings.TrimPrefix(d, "/")
	type attempt struct {
		try, want, path string // below the root's mount; "": no event
		rule            policy.RuleID
	}
	attempts := []attempt{
		{"exec " + d + "prog/true", "ok", "", 0},
		{"exec " + d + "ro/prog", "EACCES", rel + "ro/prog", ruleRead},
		{"exec " + d + "rw/prog", "EACCES", rel + "rw/prog", ruleWrite},
		{"exec " + script("rw/good", d+"prog/true"), "ok", "", 0},
		{"exec " + script("rw/bad", d+"ro/prog"), "EACCES", rel + "ro/prog", ruleRead},
		{"exec " + script("none/script", d+"prog/true"), "EACCES", rel + "none/script", 0}, // it may not be read
		{"memfd " + d + "prog/true", "EACCES", "memfd:copy", RuleBuiltin},
		{"exec " + d + "rw/dir/prog", "ok", "", 0},
		{"removed " + d + "rw/dir/removed", "EACCES", rel + "rw/dir/removed", RuleBuiltin},
	}
	loader, err := filepath.Glob("/lib64/ld-linux-*.so.*")
	must(t, err)
	if len(loader) > 0 {
		at, err := filepath.EvalSymlinks(loader[0])
		must(t, err)
		attempts = append(attempts, attempt{"exec " + loader[0] + " " + d + "rw/prog", "EACCES", at[1:], ruleRead})
	}
	for _, c := range attempts {
		b.take()
		b.wants(c.want, "%s", c.try)
		// The Go runtime of the victim's children asks for what it may not read, too.
		events := slices.DeleteFunc(b.take(), func(e Event) bool { return e.File.Op != OpExecute })
		switch {
		case c.path == "" && len(events) == 0:
		case c.path == "" || len(events) != 1:
			t.Errorf("%s: %d events: %+v", c.try, len(events), events)
		default:
			if e := events[0]; e.File.Below != c.path || e.Rule != c.rule || e.Verdict != policy.Deny || e.Args != b.args {
				t.Errorf("%s: the event says %q by rule %d (%s), %q", c.try, e.File.Below, e.Rule, e.Reason, e.Args)
			}
		}
	}
	// Who is outside may do all of it.
	outside := startVictim(t, newNet(t), nil)
	copyProgram(t, "/bin/true", d+"rw/dir/removed")
	for _, c := range attempts {
		outside.wants("ok", "%s", c.try)
	}

	// The same sandbox, where what may be mapped to be executed is listed.
	b.Guard.mu.Lock()
	b.sandbox.Listed = 1
	must(t, b.update())
	b.Guard.mu.Unlock()
	must(t, b.SetFiles(append(b.rules(t), b.node(t, "rw/dir", policy.Read|policy.Write|Map, ruleWrite))))
	must(t, b.SetExec([]ExecEntry{{File: self(t, b.l), Quiet: true}, {File: held(t, b.l, d+"ro/prog")}}))
	for _, c := range []struct{ try, want, path string }{
		{"map prog/true", "ok", ""},
		{"protect prog/true", "ok", ""},
		{"map ro/file", "EACCES", "ro/file"},
		{"protect ro/file", "EACCES", "ro/file"},
		{"map rw/file", "EACCES", "rw/file"},
		{"map ro/prog", "ok", ""}, // a program
		{"map rw/dir/sub", "ok", ""},
		{"map-removed rw/dir/sub", "EACCES", "rw/dir/sub"},
		{"map-memory ro/prog", "EACCES", "memfd:copy"},
		{"map-own ro/file", "ok", ""},
	} {
		op, path, _ := strings.Cut(c.try, " ")
		b.take()
		b.wants(c.want, "file %s %s", op, d+path)
		events := b.take()
		switch {
		case c.path == "" && len(events) == 0:
		case len(events) != 1 || events[0].Reason != ReasonUnlisted || events[0].File.Op != OpMap || !strings.HasSuffix(events[0].File.Below, c.path) || events[0].Args != b.args:
			t.Errorf("%s: %+v", c.try, events)
		}
	}
	b.wants("ok", "exec %sprog/true", d)
	b.wants("ok", "exec %sro/prog", d)
	b.wants("EACCES", "exec %srw/prog", d)
}

// TestFileSockets: the host's unix sockets are out of reach in a directory that may be written, unless a rule names them;
// those that were made inside are not. A descriptor is received only if its file could be opened so.
func TestFileSockets(t *testing.T) {
	b := newFileBox(t)
	d := b.dir + "/"
	listen := func(path, give string) {
		l, err := net.Listen("unix", d+path)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if f, err := os.Open(d + give); err == nil {
					_, _, _ = c.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(int(f.Fd())), nil)
					f.Close()
				}
				c.Close()
			}
		}()
	}
	listen("rw/host", "ro/file")
	b.wants("EACCES", "file connect %srw/host", d)
	listen("rw/named", "ro/file")
	listen("rw/leak", "none/file")
	nodes := b.rules(t)
	for _, path := range []string{"rw/named", "rw/leak"} {
		nodes = append(nodes, FileNode{File: b.id(t, d+path), Anchor: true, Socket: true})
	}
	must(t, b.SetFiles(nodes))
	b.wants("ok", "file connect %srw/named", d)
	b.wants("ok", "file receive %srw/named", d)
	b.wants("EACCES", "file receive %srw/leak", d)
	events := b.take()
	if len(events) != 2 || events[0].File.Op != OpConnect || events[0].Reason != ReasonForeign || events[0].File.Below != d[1:]+"rw/host" ||
		events[0].Rule != RuleBuiltin || events[0].Args != b.args ||
		events[1].File.Op != OpReceive || events[1].File.Below != d[1:]+"none/file" || events[1].Rule != 0 || events[1].Args != b.args {
		t.Errorf("%+v", events)
	}
}

// TestFileKept: what a descriptor does to the file's size, mode and memory is judged by where the file is by then. What is read and written
// through it was judged when it was opened.
func TestFileKept(t *testing.T) {
	b := newFileBox(t)
	d := b.dir + "/"
	at := d + "rw/other"
	b.wants("ok", "file keep %s", at)
	for _, step := range []struct {
		move  string // the host moves the file there
		tries []string
		want  string
		op    FileOp
		rule  policy.RuleID
	}{
		{"rw/other", []string{"kept-read", "kept-write", "kept-truncate", "kept-chmod", "kept-map", "kept-reopen"}, "ok", 0, 0},
		{"ro/other", []string{"kept-read", "kept-write", "kept-map", "kept-reopen"}, "ok", 0, 0},
		{"ro/other", []string{"kept-truncate"}, "EACCES", OpTruncate, ruleRead},
		{"ro/other", []string{"kept-chmod"}, "EACCES", OpAttributes, ruleRead},
		{"none/other", []string{"kept-read", "kept-write"}, "ok", 0, 0},
		{"none/other", []string{"kept-truncate"}, "EACCES", OpTruncate, 0},
		{"none/other", []string{"kept-map"}, "EACCES", OpMap, 0},
		{"none/other", []string{"kept-reopen"}, "EACCES", OpOpen, 0},
	} {
		must(t, os.Rename(at, d+step.move)) // onto itself: nothing
		at = d + step.move
		for _, try := range step.tries {
			b.take()
			b.wants(step.want, "file %s %s", try, at)
			events := b.take()
			switch {
			case step.want == "ok" && len(events) == 0:
			case step.want == "ok" || len(events) != 1:
				t.Errorf("%s %s: %d events: %+v", try, step.move, len(events), events)
			default:
				if e := events[0]; e.File.Op != step.op || e.File.Below != at[1:] || e.Rule != step.rule || e.Args != b.args || e.PID != b.cmd.Process.Pid {
					t.Errorf("%s: the event says %s of %q by rule %d, %q", try, e.File.Op, e.File.Below, e.Rule, e.Args)
				}
			}
		}
	}
}
