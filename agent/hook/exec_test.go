package hook

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/tempfile"
)

// script is a program of /bin/sh that runs in a directory of the test, which is the last of its arguments. The kernel would not
// execute a file that another test's child, just forked, has open for writing still.
func script(t *testing.T, text string) (argv []string) {
	t.Helper()
	return []string{"/bin/sh", tempfile.Write(t, 0o600, "cd \"$1\" || exit\n"+text+"\n"), t.TempDir()}
}

// startScript starts a hook that is a script, and returns the directory that it runs in.
func startScript(t *testing.T, c config.Hook, text string, n *notes) (tell func(...api.RequestChange), dir string) {
	t.Helper()
	argv := script(t, text)
	c.Exec = argv
	return start(t, c, n), argv[2]
}

// read waits until a file has been written.
func read(t *testing.T, name string) (text string) {
	t.Helper()
	until(t, name+" is there", func() bool {
		b, err := os.ReadFile(name)
		text = string(b)
		return err == nil && strings.HasSuffix(text, "\n")
	})
	return text
}

func TestExec(t *testing.T) {
	t.Parallel()
	var n notes
	tell, dir := startScript(t, config.Hook{}, `cat > body.new; echo >> body.new; mv body.new body; { pwd; env | sort; ls -l /proc/self/fd | wc -l; } > env.new; mv env.new env`, &n)
	tell(held("one"))
	var c content
	if body := read(t, filepath.Join(dir, "body")); json.Unmarshal([]byte(body), &c) != nil || c.Data.ID != "one" || c.Type != "approval.held" {
		t.Errorf("its standard input was %q", body)
	}
	env := read(t, filepath.Join(dir, "env"))
	for _, line := range strings.Split(strings.TrimSpace(env), "\n") {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case dir, "PATH", "LANG", "HOME", "PWD", "OLDPWD", "_":
		case "NEMOCLAW_SOCKET":
			if line != "NEMOCLAW_SOCKET=/run/test.sock" {
				t.Error(line)
			}
		default:
			if _, err := strconv.Atoi(strings.TrimSpace(line)); err != nil {
				t.Errorf("its environment has %q", line)
			}
		}
	}
	if n.all() != "" {
		t.Errorf("it recorded %s", n.all())
	}
}

// TestExecFails: what it said is recorded; it is not run again, unless it says so by its exit status.
func TestExecFails(t *testing.T) {
	t.Parallel()
	var n notes
	tell, dir := startScript(t, config.Hook{}, `echo x >> runs; printf 'no \033[31m way' >&2; exit 3`, &n)
	tell(held("one"))
	until(t, "it is recorded", func() bool { return strings.Contains(n.all(), `exit status 3: no \x1b[31m way`) })
	if runs := read(t, filepath.Join(dir, "runs")); runs != "x\n" {
		t.Errorf("it ran %d times", strings.Count(runs, "\n"))
	}
	n = notes{}
	tell, dir = startScript(t, config.Hook{}, `echo x >> runs; [ "$(wc -l < runs)" = 3 ] || exit 75; echo > done`, &n)
	tell(held("one"))
	read(t, filepath.Join(dir, "done"))
	if n.all() != "" {
		t.Errorf("it recorded %s", n.all())
	}
}

// TestExecEnds: nothing of a program is left when its time is over, and when its first process has ended.
func TestExecEnds(t *testing.T) {
	t.Parallel()
	for what, text := range map[string]string{
		"one that hangs":            `sleep 1000 & echo $! > child.new; mv child.new child; sleep 1000`,
		"one that leaves something": `sleep 1000 & echo $! > child.new; mv child.new child`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var n notes
			argv := script(t, text)
			hooks, err := Open([]config.Hook{{Exec: argv}}, "", n.add)
			if err != nil {
				t.Fatal(err)
			}
			hooks[0].sender.(*program).time = 2 * time.Second
			run(t, hooks)(held("one"))
			pid, err := strconv.Atoi(strings.TrimSpace(read(t, filepath.Join(argv[2], "child"))))
			if err != nil {
				t.Fatal(err)
			}
			until(t, "its child ends", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
			if what == "one that hangs" {
				until(t, "it is recorded", func() bool { return strings.Contains(n.all(), "it was ended after 2s") })
			} else if n.all() != "" {
				t.Errorf("it recorded %s", n.all())
			}
		})
	}
}

// zombie reports whether a process has ended and is not waited for yet: whose parent is gone waits for the machine's init.
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.Contains(string(b), ") Z ")
}

// TestExecAtOnce: of many requests a few are told at the same time.
func TestExecAtOnce(t *testing.T) {
	t.Parallel()
	var n notes
	tell, dir := startScript(t, config.Hook{Rate: 600}, `mkdir run.$$; ls -d run.* | wc -l >> most; sleep 0.1; rmdir run.$$; echo x >> ran`, &n)
	for i := range 20 {
		tell(held(strconv.Itoa(i)))
	}
	until(t, "all have run", func() bool { return strings.Count(read(t, filepath.Join(dir, "ran")), "\n") == 20 })
	for line := range strings.Lines(read(t, filepath.Join(dir, "most"))) {
		if k, err := strconv.Atoi(strings.TrimSpace(line)); err != nil || k > atOnce {
			t.Errorf("%q ran at once", line)
		}
	}
}
