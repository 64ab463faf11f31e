//go:build e2e

package daemon

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// curls is a policy under which curl is asked about each connection.
const curls = "hold: 60s\n" + harness.Files + "process:\n  allow:\n    - {command: curl}\n    - {command: sh}\n    - {command: cat}\nnetwork:\n  default: ask\n"

// served serves a page under a name of its own.
func served(t *testing.T, name string) {
	t.Helper()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set(name, a4)
	harness.W.HTTP(t, a4, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "the page of %s\n", name) }))
}

// fetched is what curl did inside.
type fetched struct {
	out    string
	status int
}

// fetch has curl fetch a page, and returns where it says what it did.
func fetch(t *testing.T, d *harness.Daemon, box, name string) <-chan fetched {
	t.Helper()
	done := make(chan fetched, 1)
	cmd := d.Command(box, "exec", "--", "sh", "-c", "curl -fsS -m 50 http://"+name+"/; exit $?")
	go func() {
		out, _ := cmd.CombinedOutput() // the status says it
		done <- fetched{string(out), cmd.ProcessState.ExitCode()}
	}()
	return done
}

// console opens one on a screen.
func console(t *testing.T, d *harness.Daemon, flags ...string) *harness.Screen {
	t.Helper()
	s := harness.NewScreen(t, harness.W.BinFirst(d.Env()))
	s.Line(t, strings.Join(append(flags, "nemoclaw term"), " "))
	s.WaitFor(t, "Requests")
	return s
}

// press presses a key that answers what is on the screen, once it can have been read there; again, as a person would, where the
// console says that the list moved meanwhile, or was late to take the key before.
func press(t *testing.T, s *harness.Screen, key string) {
	t.Helper()
	for range 5 {
		time.Sleep(400 * time.Millisecond)
		s.Key(t, key)
		time.Sleep(100 * time.Millisecond)
		if !strings.Contains(s.Text(t), "nothing was answered") {
			return
		}
	}
}

// approve approves the request under the cursor, twice where it is dangerous.
func approve(t *testing.T, s *harness.Screen) {
	t.Helper()
	dangerous := strings.Contains(s.Text(t), "!!")
	press(t, s, "a")
	if dangerous {
		s.WaitFor(t, "Allow it all the same?")
		press(t, s, "y")
	}
}

// TestConsoleAnswers: a held curl prints its page after one key, and fails after another.
func TestConsoleAnswers(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", curls)
	served(t, "yes.console.test")
	s := console(t, d)
	s.WaitFor(t, "nothing waits for an answer")
	done := fetch(t, d, "box", "yes.console.test")
	s.WaitFor(t, "yes.console.test:80")
	approve(t, s)
	if got := <-done; got.out != "the page of yes.console.test\n" || got.status != 0 {
		t.Errorf("approved, curl ended with %d and said %q", got.status, got.out)
	}
	s.WaitFor(t, "nothing waits for an answer")
	done = fetch(t, d, "box", "yes.console.test")
	s.WaitFor(t, "1 held") // the name is among the decisions since the first
	press(t, s, "r")
	s.WaitFor(t, "rejected (once)")
	if got := <-done; got.status != 22 || strings.Contains(got.out, "the page") { // 22: the answer is an error
		t.Errorf("rejected, curl ended with %d and said %q", got.status, got.out)
	}
	d.Verify(t)
}

// TestTwoConsoles answers in one what two show.
func TestTwoConsoles(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", curls)
	served(t, "two.console.test")
	one, two := console(t, d), console(t, d, "NO_COLOR=1")
	done := fetch(t, d, "box", "two.console.test")
	one.WaitFor(t, "two.console.test:80")
	two.WaitFor(t, "two.console.test:80")
	approve(t, one)
	if got := <-done; got.status != 0 {
		t.Errorf("%+v", got)
	}
	one.WaitFor(t, "nothing waits")
	two.WaitFor(t, "nothing waits")
	two.WaitFor(t, "approved (once) by root")
}

// TestConsoleComesAndGoes kills a console, and then the daemon below one, with a request pending.
func TestConsoleComesAndGoes(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", curls)
	served(t, "stays.console.test")
	s := console(t, d, "echo $$ > "+d.Dir+"/shell; exec")
	done := fetch(t, d, "box", "stays.console.test")
	s.WaitFor(t, "stays.console.test:80")
	pid, err := os.ReadFile(filepath.Join(d.Dir, "shell"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil { // the console is what the shell has become
		t.Fatal(err)
	}
	again := console(t, d)
	again.WaitFor(t, "stays.console.test:80")
	approve(t, again)
	if got := <-done; got.status != 0 {
		t.Errorf("%+v", got)
	}
	again.WaitFor(t, "nothing waits")

	done = fetch(t, d, "box", "stays.console.test")
	again.WaitFor(t, "1 held") // the name is among the decisions since the first
	d.Kill()
	again.WaitFor(t, "THE DAEMON DOES NOT ANSWER")
	<-done
	d.Start(t)
	again.WaitFor(t, "the daemon answers again")
	again.WaitFor(t, "1 refused") // what was held is denied, and listed still
	approve(t, again)
	again.WaitFor(t, "approved (once)")
	if got := <-fetch(t, d, "box", "stays.console.test"); got.status != 0 {
		t.Errorf("the next try: %+v", got)
	}
	again.Key(t, "q")
	again.Wait(t, "$")
}

// TestConsoleChangesPolicies answers always, with the rule's text shown before, edits the policy by hand, revokes a grant, and
// opens a shell.
func TestConsoleChangesPolicies(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", curls)
	for _, n := range []string{"always", "session"} {
		served(t, n+".console.test")
	}
	s := console(t, d)
	done := fetch(t, d, "box", "always.console.test")
	s.WaitFor(t, "always.console.test:80")
	dangerous := strings.Contains(s.Text(t), "!!")
	press(t, s, "A")
	s.WaitFor(t, "Approve with scope")
	for range 20 { // until an answer that holds always is chosen
		if strings.Contains(s.Text(t), "+    - domain: always.console.test") {
			break
		}
		s.Key(t, "j")
		time.Sleep(300 * time.Millisecond)
	}
	s.WaitFor(t, "+    - domain: always.console.test")
	press(t, s, "Enter")
	if dangerous {
		s.WaitFor(t, "Allow it all the same?")
		press(t, s, "y")
	}
	s.WaitFor(t, "in revision 2 of the policy")
	if got := <-done; got.status != 0 {
		t.Errorf("%+v", got)
	}
	if got := <-fetch(t, d, "box", "always.console.test"); got.status != 0 {
		t.Errorf("asked once more: %+v", got)
	}

	done = fetch(t, d, "box", "session.console.test")
	s.WaitFor(t, "session.console.test:80")
	press(t, s, "A")
	s.WaitFor(t, "Approve with scope")
	s.Key(t, "j")
	s.WaitFor(t, "A grant: allow connect session.console.test:80")
	press(t, s, "Enter")
	if dangerous {
		s.WaitFor(t, "Allow it all the same?")
		press(t, s, "y")
	}
	if got := <-done; got.status != 0 {
		t.Errorf("%+v", got)
	}
	s.Key(t, "BTab")
	s.Key(t, "g")
	s.WaitFor(t, ">allow")
	s.Key(t, "d")
	s.WaitFor(t, "Revoke this grant?")
	press(t, s, "y")
	s.WaitFor(t, "no answer holds longer than once")
	s.Key(t, "Escape")

	s.WaitFor(t, "Decisions")
	s.Key(t, "p")
	s.WaitFor(t, "1  hold: 60s")
	s.Key(t, "e")
	s.WaitFor(t, "Editing the policy")
	s.Type(t, "# by hand")
	s.Key(t, "Enter")
	s.Key(t, "C-s")
	s.WaitFor(t, "+# by hand")
	press(t, s, "y")
	s.WaitFor(t, "has revision 3 of its policy")
	if text := d.Do(t, "box", "policy", "get"); !strings.HasPrefix(text, "# by hand\n") {
		t.Errorf("the policy is\n%s", text)
	}
	s.Key(t, "q")
	s.WaitFor(t, "Decisions")
	s.Key(t, "s")
	s.WaitFor(t, "A shell in box")
	s.Line(t, "echo in$((1+1))side")
	s.WaitFor(t, "in2side")
	s.Line(t, "exit 3")
	s.WaitFor(t, "Decisions")
}

// TestConsoleIsNotMoved gives the console what a hostile program can: names and arguments that would drive a terminal.
func TestConsoleIsNotMoved(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", curls)
	served(t, "evil.console.test")
	s := console(t, d)
	cmd := d.Command("box", "exec", "--", "sh", "-c", "exec curl -sS -m 50 -H \"$(printf 'X: \\033]0;owned\\007\\033[2J\\033[31m[red]\\342\\200\\256\\302\\2332J')\" http://evil.console.test/")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.WaitFor(t, "evil.console.test:80")
	s.Key(t, "Enter")
	s.WaitFor(t, `\x1b]0;owned\x07\x1b[2J\x1b[31m[red]\u202e\u009b2J`)
	s.WaitFor(t, "NemoClaw") // the first line is there still
	press(t, s, "x")
	s.WaitFor(t, "rejected")
	_ = cmd.Wait() // it failed, or said what it was told
}

// TestConsoleOfAWatcher shows a member of the watching group everything, and takes no answer.
func TestConsoleOfAWatcher(t *testing.T) {
	t.Parallel()
	watch := groupOf(t, "games")
	d := harness.W.StartDaemon(t, "--steer-group", "daemon", "--watch-group", "games")
	create(t, d, "box", curls)
	served(t, "seen.console.test")
	s := console(t, d, fmt.Sprintf("setpriv --reuid 4242 --regid %d --clear-groups", watch))
	s.WaitFor(t, "watching only")
	done := fetch(t, d, "box", "seen.console.test")
	s.WaitFor(t, "seen.console.test:80")
	for _, key := range []string{"a", "r", "A", "s"} {
		press(t, s, key)
		s.WaitFor(t, "you may watch")
	}
	select {
	case got := <-done:
		t.Errorf("it did not wait: %+v", got)
	default:
	}
	steering := console(t, d)
	steering.WaitFor(t, "seen.console.test:80")
	approve(t, steering)
	if got := <-done; got.status != 0 {
		t.Errorf("%+v", got)
	}
	s.WaitFor(t, "approved (once) by root")
}

// TestConsoleSmallAndWide draws in terminals of other kinds and sizes, and answers in each.
func TestConsoleSmallAndWide(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", curls)
	served(t, "sizes.console.test")
	for _, c := range []struct{ cols, rows, term, shows string }{
		{"80", "24", "screen", "Requests"},
		{"80", "24", "xterm-256color", "Requests"},
		{"240", "60", "screen-256color", "to allow it always, the policy would have:"}, // beside the panes
	} {
		s := harness.NewScreen(t, harness.W.BinFirst(d.Env()))
		s.Resize(t, c.cols, c.rows)
		s.Line(t, "TERM="+c.term+" nemoclaw term")
		s.WaitFor(t, "nothing waits")
		done := fetch(t, d, "box", "sizes.console.test")
		s.WaitFor(t, "sizes.console.test:80")
		s.WaitFor(t, c.shows)
		approve(t, s)
		if got := <-done; got.status != 0 {
			t.Errorf("%s: %+v", c.term, got)
		}
	}
}
