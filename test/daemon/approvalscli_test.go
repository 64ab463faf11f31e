//go:build e2e

package daemon

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// bot is a script as somebody would write it: it reads the stream of requests, allows what is about one host and rejects all else.
const bot = `
nemoclaw approvals list --follow -o json | jq --unbuffered -r '.request // empty | select(.state == "held") | .id + " " + .object' |
while read -r id object; do
	case $object in
	good.*) nemoclaw approvals approve "$id" --yes </dev/null ;;
	*) nemoclaw approvals reject "$id" </dev/null ;;
	esac
done`

// TestBot: a script answers by what the stream says, and finds the daemon again after a restart.
func TestBot(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	good, _ := name(t, "good.bot.test")
	bad, badServer := name(t, "bad.bot.test")
	probeBox(t, d, "box", "hold: 50s\n"+harness.Base+"network:\n  default: ask\n")
	cmd := exec.Command("sh", "-c", bot)
	cmd.Env, cmd.SysProcAttr = harness.W.BinFirst(d.Env()), &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(d.Dir, "bot"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("the bot said\n%s", said)
		}
	})
	for range 2 {
		if !reaches(t, d, "box", good) {
			t.Error("what the bot allows was not connected")
		}
		if reaches(t, d, "box", bad) || badServer.Conns() != 0 {
			t.Error("what the bot rejects was connected")
		}
		d.Kill()
		d.Start(t)
	}
	logs := d.Do(t, "box", "logs")
	if strings.Count(logs, "root (uid 0), by nemoclaw approvals allowed it (once)") != 2 || strings.Count(logs, "denied it (once)") != 2 {
		t.Errorf("the log does not say who answered:\n%s", logs)
	}
}

// id waits for the request about a name and returns its id, shortened.
func id(t *testing.T, c *api.Client, name string) string {
	t.Helper()
	return request(t, c, name+":7000").ID[:6]
}

// TestAnswersByCommand: each scope by the command line, and a grant that is listed and taken back.
func TestAnswersByCommand(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	a, _ := name(t, "xn--pple-43d.test") // with a letter that looks like an a
	ws := probeBox(t, d, "box", "hold: 50s\n"+harness.Base+"network:\n  default: ask\n")
	says := func(out string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(out, p) {
				t.Errorf("%q is not in\n%s", p, out)
			}
		}
	}
	answered := func(want bool, args ...string) string {
		t.Helper()
		done := reaching(t, d, "box", a)
		args = append([]string{"approvals", args[0], id(t, c, a)}, args[1:]...)
		out := d.Do(t, args...)
		if <-done != want {
			t.Errorf("%q: reached: %t", args, !want)
		}
		return out
	}

	// What there is, before it is answered.
	const shown = "network connect xn--pple-43d.test (\u0430pple.test, looks like apple.test):7000"
	done := reaching(t, d, "box", a)
	short := id(t, c, a)
	says(d.Do(t, "approvals", "list"), "held, ", " left", "!! "+shown+" by /workspace/probe")
	says(d.Do(t, "approvals", "show", short), "attempted  "+shown, "by         /workspace/probe [", "rule       default", "!! risk    ", "offer      this: ", "domain: "+a)
	if out := d.Do(t, "approvals", "list", "-o", "json", "--sandbox", "box"); !json.Valid([]byte(out)) {
		t.Errorf("%s", out)
	}
	if out := d.Do(t, "__complete", "approvals", "approve", ""); !strings.Contains(out, short) || !strings.Contains(out, "\tbox: !! "+shown) {
		t.Errorf("it completes %q", out)
	}
	if out := d.Do(t, "__complete", "approvals", "approve", short, "--offer", ""); !strings.Contains(out, "host\t") {
		t.Errorf("it completes %q", out)
	}
	says(d.Do(t, "box", "status"), "approvals  1 to answer: nemoclaw approvals list --sandbox box")
	status, _, said := d.Call(t, "approvals", "approve", short)
	if status != 1 || !strings.Contains(said, "this request is dangerous, and there is no terminal to ask on") || !strings.Contains(said, "give --yes") {
		t.Errorf("%d: %s", status, said)
	}
	says(d.Do(t, "approvals", "approve", short, "--dry-run", "--scope", "session"), "would be allowed until the sandbox stops")
	status, _, said = d.Call(t, "approvals", "approve", short, "--yes", "--offer", "everything")
	if status != 1 || !strings.Contains(said, "everything") {
		t.Errorf("%d: %s", status, said)
	}
	says(d.Do(t, "approvals", "approve", short, "--yes"), "approved once: ")
	if !<-done {
		t.Error("it was approved")
	}
	if status, _, said = d.Call(t, "approvals", "approve", short, "--yes"); status != 1 || !strings.Contains(said, "needs no answer any more") {
		t.Errorf("%d: %s", status, said)
	}

	says(answered(false, "reject"), "rejected once: ")
	answered(true, "approve", "--yes", "--for", "1s")
	until(t, "the time is over", func() bool {
		list, err := c.Grants(t.Context(), "box")
		return err == nil && len(list) == 0
	})
	says(answered(true, "approve", "--yes", "--scope", "session"), "approved until the sandbox stops: ", "nemoclaw box policy revoke ")

	open := talk(t, c, "box", ws, a)
	says(d.Do(t, "box", "policy", "list"), "VERDICT  GRANT", shown+" by /workspace/probe", "the sandbox stops", "root (uid 0")
	var both struct {
		Rules  []struct{ Verdict, Rule, At string }
		Grants []api.Grant
	}
	if err := json.Unmarshal([]byte(d.Do(t, "box", "policy", "list", "-o", "json")), &both); err != nil || len(both.Grants) != 1 || len(both.Rules) == 0 {
		t.Fatalf("%v: %+v", err, both)
	}
	says(d.Do(t, "box", "policy", "revoke", both.Grants[0].ID), "revoked: allow "+shown, "; 1 connection was closed")
	until(t, "the connection is closed", func() bool { return open.answers() < 0 })
	if status, _, said = d.Call(t, "box", "policy", "revoke", both.Grants[0].ID); status != 1 || !strings.Contains(said, both.Grants[0].ID) {
		t.Errorf("%d: %s", status, said)
	}

	out := answered(true, "approve", "--yes", "--scope", "always", "--offer", "host")
	says(out, "approved always: ", "+    - domain: "+a)
	if s := get(t, c, "box"); s.Policy.Revision != 2 || s.Policy.Running != 2 {
		t.Errorf("%+v", s.Policy)
	}

	// All at once.
	b, _ := name(t, "b.command.test")
	e, _ := name(t, "e.command.test")
	doneB, doneE := reaching(t, d, "box", b), reaching(t, d, "box", e)
	id(t, c, b)
	id(t, c, e)
	says(d.Do(t, "approvals", "reject", "--all", "--sandbox", "box"), b, e, "rejected once: ")
	if <-doneB || <-doneE {
		t.Error("what was rejected was connected")
	}
	if status, out, said := d.Call(t, "approvals", "reject", "--all"); status != 0 || out != "" || !strings.Contains(said, "nothing waits for an answer") {
		t.Errorf("%d: %q, %q", status, out, said)
	}
	d.Verify(t)
}

// TestPersonApproves: on a terminal what is dangerous, and what changes the policy, is asked about.
func TestPersonApproves(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	a, _ := name(t, "xn--pple-43d.test")
	probeBox(t, d, "box", "hold: 50s\n"+harness.Base+"network:\n  default: ask\n")
	screen := harness.NewScreen(t, harness.W.BinFirst(d.Env()))
	done := reaching(t, d, "box", a)
	short := id(t, c, a)
	screen.Line(t, "nemoclaw approvals approve "+short+" --scope always")
	screen.WaitFor(t, "Type yes to approve it, allowed always:")
	if shown := screen.Text(t); !strings.Contains(shown, "!! risk ") || !strings.Contains(shown, "+    - domain: "+a) {
		t.Errorf("it asks\n%s", shown)
	}
	screen.Line(t, "y")
	screen.WaitFor(t, `"y" is not yes; it was not answered`)
	if p, err := c.Policy(t.Context(), "box", 0); err != nil || p.Revision != 1 {
		t.Errorf("revision %d, %v", p.Revision, err)
	}
	screen.Clear(t)
	screen.Line(t, "nemoclaw approvals approve "+short)
	screen.WaitFor(t, "Type yes to approve it, allowed once:")
	screen.Line(t, "yes")
	screen.WaitFor(t, "approved once: ")
	if !<-done {
		t.Error("it was approved")
	}
	screen.Clear(t)
	screen.Line(t, "nemoclaw approvals watch")
	done = reaching(t, d, "box", a)
	screen.WaitFor(t, " box held, ")
	d.Do(t, "approvals", "reject", id(t, c, a))
	screen.WaitFor(t, " box rejected (root (uid 0")
	if <-done {
		t.Error("it was rejected")
	}
	screen.Key(t, "C-c")
}

// TestHooks: a program and a server are told of what waits; the program answers it.
func TestHooks(t *testing.T) {
	t.Parallel()
	told := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("webhook-signature") == "" {
			t.Errorf("%v, %v", r.Header, err)
		}
		told <- string(body)
	}))
	t.Cleanup(s.Close)
	d := harness.W.PrepareDaemon(t)
	program, key := filepath.Join(d.Dir, "hook"), filepath.Join(d.Dir, "secret")
	write := func(file string, mode os.FileMode, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(program, 0o700, "#!/bin/sh\nexec "+harness.W.Bin+" approvals approve --yes \"$(jq -r .data.id)\"\n")
	write(key, 0o600, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
	write(filepath.Join(d.Dir, "agent.yaml"), 0o600, fmt.Sprintf("hooks:\n  - exec: [%s]\n    states: [held]\n  - webhook: %s\n    secret_file: %s\n", program, s.URL, key))
	d.Start(t)
	a, _ := name(t, "a.hook.test")
	probeBox(t, d, "box", "hold: 50s\n"+harness.Base+"network:\n  default: ask\n")
	probeBox(t, d, "deny", harness.Base)
	if !reaches(t, d, "box", a) {
		t.Errorf("the program did not allow it\n%s", d.Log())
	}
	reaches(t, d, "deny", a)
	seen := map[string]bool{}
	for !seen["box approval.held"] || !seen["deny approval.refused"] {
		select {
		case body := <-told:
			var m struct {
				Type string
				Data api.Request
			}
			if err := json.Unmarshal([]byte(body), &m); err != nil || m.Data.Object != a+":7000" {
				t.Errorf("%v: %s", err, body)
			}
			seen[m.Data.Sandbox+" "+m.Type] = true
		case <-time.After(patience):
			t.Fatalf("it was told of %v\n%s", seen, d.Log())
		}
	}
	// Who is told of it after the daemon has ended is nobody.
	d.Kill()
	write(key, 0o644, "")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	d.Launch(t)
	if code := d.Wait(t); code != 1 || !strings.Contains(d.Log(), "secret_file: "+key+" can be read or changed by others") {
		t.Errorf("exit %d\n%s", code, d.Log())
	}
	write(filepath.Join(d.Dir, "agent.yaml"), 0o600, "")
	d.Start(t)
}

// TestWatchersDoNotAnswer: who may look sees requests as they come, and answers none.
func TestWatchersDoNotAnswer(t *testing.T) {
	t.Parallel()
	watch := groupOf(t, "games")
	d := harness.W.StartDaemon(t, "--steer-group", "daemon", "--watch-group", "games")
	c, _ := dial(t, d)
	a, _ := name(t, "a.watch.test")
	probeBox(t, d, "box", "hold: 50s\n"+harness.Base+"network:\n  default: ask\n")
	bin := filepath.Join(d.Dir, "nemoclaw")
	if out, err := exec.Command("install", "-m", "755", harness.W.Bin, bin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	as := func(args ...string) *exec.Cmd {
		cmd := exec.Command(bin, args...)
		cmd.Env, cmd.Dir = d.Env(), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4242, Gid: watch, Groups: []uint32{}}}
		return cmd
	}
	follow := as("approvals", "list", "--follow", "-o", "json")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_ = follow.Wait() // killed
	}()
	done := reaching(t, d, "box", a)
	var r api.Request
	for lines := bufio.NewScanner(out); r.ID == "" && lines.Scan(); {
		var change api.RequestChange
		if err := json.Unmarshal(lines.Bytes(), &change); err != nil {
			t.Fatalf("%v: %s", err, lines.Bytes())
		}
		if change.Request != nil {
			r = *change.Request
		}
	}
	if r.State != api.Held || r.Object != a+":7000" {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"approvals", "approve", "--yes", r.ID}, {"approvals", "reject", r.ID}, {"approvals", "reject", "--all"}, {"box", "policy", "revoke", "0123"}} {
		if status, out, said := harness.Finish(t, as(args...)); status != 1 || out != "" || !strings.Contains(said, "user 4242 may watch, and not ") {
			t.Errorf("%q: exit %d, %q, %q", args, status, out, said)
		}
	}
	if list, err := c.Requests(t.Context(), ""); err != nil || len(list) != 1 || list[0].Held != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	d.Do(t, "approvals", "reject", r.ID)
	if <-done {
		t.Error("it was connected")
	}
}
