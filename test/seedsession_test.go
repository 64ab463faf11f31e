//go:build e2e

package test

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// provider stands in for every provider of models: it takes one key.
func provider(t *testing.T, key string) (server *harness.Server, env []string) {
	t.Helper()
	a4, _ := harness.W.Addr()
	server = harness.W.HTTPS(t, a4, 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+key {
			http.Error(w, "no such key", http.StatusUnauthorized)
		}
	}))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, harness.W.CA.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	return server, []string{"SSL_CERT_FILE=" + ca, "HTTPS_PROXY=" + harness.W.ConnectProxy(t, server.Addr)}
}

// TestSeedSession types what seed/nemoclaw.txt shows, as a new user on a fresh machine would.
func TestSeedSession(t *testing.T) {
	t.Parallel()
	const key = "nvapi-of-the-test"
	asked, env := provider(t, key)
	d := harness.W.StartDaemon(t)
	s := harness.NewScreen(t, harness.W.BinFirst(append(d.Env(), env...)))
	shows := func(line string, want ...string) {
		t.Helper()
		got := s.Run(t, line)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q is not in\n%s", line, w, got)
			}
		}
	}

	// The wizard. A wrong name and a wrong key are asked about again.
	s.Line(t, "nemoclaw onboard")
	s.Wait(t, "Name [my-assistant]:")
	s.Line(t, "list")
	s.WaitFor(t, "is a command of nemoclaw")
	s.Wait(t, "Name [my-assistant]:")
	s.Key(t, "Enter")
	s.Wait(t, "Key (not shown; Enter: none now):")
	s.Line(t, "nvapi-wrong")
	s.WaitFor(t, "nvidia/nemotron-3-super-120b")
	s.Wait(t, "A number, or PROVIDER/MODEL [1]:")
	s.Key(t, "Enter")
	s.WaitFor(t, "the provider does not take this key")
	s.Wait(t, "Another key (Enter: none now):")
	s.Line(t, key)
	s.WaitFor(t, "the key works")
	s.Wait(t, "Presets, or none [pypi npm]:")
	s.Line(t, "pypi npm telegram")
	s.WaitFor(t, "my-assistant: running")
	s.Wait(t, "$")
	if shown := s.Text(t); strings.Contains(shown, "nvapi-") {
		t.Errorf("the key was shown:\n%s", shown)
	}
	if asked.Conns() != 2 {
		t.Errorf("the provider was asked %d times, want twice", asked.Conns())
	}

	shows("nemoclaw my-assistant status", "my-assistant: running, enforcement level", "nvidia/nemotron-3-super-120b, key verified", "revision 1")

	// A shell inside, that knows the size of the window.
	s.Clear(t)
	s.Line(t, "nemoclaw my-assistant connect")
	s.Wait(t, "$")
	s.Line(t, "echo inside as $(id -un) in $PWD")
	s.WaitFor(t, "inside as agent in /workspace")
	s.Resize(t, "100", "30")
	s.Line(t, "shopt -s checkwinsize; /usr/bin/true; echo size $LINES $COLUMNS")
	s.WaitFor(t, "size 30 100")
	s.Line(t, "exit 7")
	s.Wait(t, "exit\n$")
	s.Line(t, "echo status $?")
	s.WaitFor(t, "status 7")
	s.Resize(t, "120", "40")
	if got := s.Run(t, "stty -a"); strings.Contains(got, "-icanon") || strings.Contains(got, " -echo ") {
		t.Errorf("the terminal was not restored:\n%s", got)
	}

	shows(`nemoclaw my-assistant policy add --domain "api.openai.com" --port 443`, "api.openai.com", "revision 2 of my-assistant is in force")
	shows("nemoclaw my-assistant policy list", "{domain: api.openai.com, ports: [443], protocol: https}", "preset:telegram:")
	shows("nemoclaw my-assistant policy explain --connect api.openai.com:443", "allow connect api.openai.com:443")
	shows(`nemoclaw my-assistant policy remove --domain "api.openai.com"`, "revision 3 of my-assistant is in force")
	shows("nemoclaw my-assistant policy explain --connect api.openai.com:443 --expect deny", "deny  connect api.openai.com:443")

	for _, model := range []string{"ollama/llama3.3:70b", "nvidia/nemotron-3-super-120b", "openai/gpt-4o"} {
		shows("nemoclaw my-assistant config set model "+model, model)
		shows("nemoclaw my-assistant config get model", model)
	}

	// The log is live: what happens after it was opened comes.
	s.Clear(t)
	s.Line(t, "nemoclaw my-assistant logs --follow")
	s.WaitFor(t, "system")
	if status, _, _ := d.Call(t, "my-assistant", "exec", "--", "bash", "-c", "exec 3<>/dev/tcp/refused.follow.test/443"); status == 0 {
		t.Error("a refused connection succeeded")
	}
	s.WaitFor(t, "refused.follow.test")
	s.Key(t, "C-c")
	s.Wait(t, "$")

	shows("nemoclaw my-assistant stop", "my-assistant: stopped")
	shows("nemoclaw start", "nothing to start")
	shows("nemoclaw my-assistant start", "my-assistant: running")
	shows("nemoclaw start", "nothing to start")

	s.Clear(t)
	s.Line(t, "nemoclaw destroy my-assistant")
	s.Wait(t, "Type its name to destroy it:")
	s.Line(t, "my-asistant")
	s.WaitFor(t, "is not its name; nothing was done")
	s.Wait(t, "$")
	s.Line(t, "nemoclaw my-assistant destroy")
	s.Wait(t, "Type its name to destroy it:")
	s.Line(t, "my-assistant")
	s.WaitFor(t, "my-assistant: destroyed")
	s.Wait(t, "$")
	shows("nemoclaw list", "there are no sandboxes")
}

// TestSeedPolicyHasNoShell: under the seed's own YAML connect says which line to add, and works with it.
func TestSeedPolicyHasNoShell(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	if status, _, errs := d.Call(t, "create", "seed", "--policy", "../examples/seed.yaml"); status != 0 {
		t.Fatalf("status %d, %s", status, errs)
	}
	s := harness.NewScreen(t, harness.W.BinFirst(d.Env()))
	if got := s.Run(t, "nemoclaw seed connect; echo status $?"); !strings.Contains(got, "command: bash") || !strings.Contains(got, "status 126") {
		t.Errorf("without a shell:\n%s", got)
	}
	if got := s.Run(t, "nemoclaw seed connect -- python3 -c 'print(6 * 7)'"); !strings.Contains(got, "42") {
		t.Errorf("a program instead of a shell:\n%s", got)
	}
	if got := s.Run(t, "nemoclaw seed policy add --exec bash --restart"); !strings.Contains(got, "revision 2 of seed is in force") {
		t.Errorf("adding a shell:\n%s", got)
	}
	s.Clear(t)
	s.Line(t, "nemoclaw seed connect")
	s.Wait(t, "$")
	s.Line(t, "echo $((6 * 7)) inside")
	s.WaitFor(t, "42 inside")
	s.Key(t, "C-d")
	s.Wait(t, "exit\n$")
	s.Line(t, "echo outside $?")
	s.WaitFor(t, "outside 0")
}

// TestOnboardInterrupted: Ctrl-C at any question leaves nothing, and the terminal as it was.
func TestOnboardInterrupted(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	s := harness.NewScreen(t, harness.W.BinFirst(d.Env()))
	for _, question := range []string{"Name [my-assistant]:", "Key (not shown; Enter: none now):", "A number, or PROVIDER/MODEL [1]:", "Presets, or none [pypi npm]:"} {
		s.Clear(t)
		s.Line(t, "nemoclaw onboard")
		for _, before := range []string{"Name [my-assistant]:", "Key (not shown; Enter: none now):", "A number, or PROVIDER/MODEL [1]:", "Presets, or none [pypi npm]:"} {
			s.Wait(t, before)
			if before == question {
				break
			}
			s.Key(t, "Enter")
		}
		s.Key(t, "C-c")
		s.WaitFor(t, "onboard: interrupted")
		s.Wait(t, "$")
		if got := s.Run(t, "stty -a"); strings.Contains(got, " -echo ") {
			t.Errorf("after %s nothing that is typed is shown:\n%s", question, got)
		}
	}
	if _, out, errs := d.Call(t, "list"); out != "" || !strings.Contains(errs, "there are no sandboxes") {
		t.Errorf("something was made: %s%s", out, errs)
	}
}

// TestDaemonKilledUnderneath: who is connected gets the terminal back and is told; who follows the log misses nothing.
func TestDaemonKilledUnderneath(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	refused := func(name string) {
		t.Helper()
		_, _, _ = c.d.Call(t, "box", "exec", "--", "bash", "-c", "exec 3<>/dev/tcp/"+name+"/443")
	}
	var log lines
	follow := c.d.Command("box", "logs", "--follow", "--verdict", "deny")
	follow.Stdout = &log
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_ = follow.Wait()
	}()
	refused("before.kill.test")
	wait(t, "the first refusal", func() bool { return strings.Contains(log.String(), "before.kill.test") })

	s := harness.NewScreen(t, harness.W.BinFirst(c.d.Env()))
	s.Line(t, "nemoclaw box connect")
	s.Wait(t, "box:/workspace$")
	c.d.End(syscall.SIGKILL)
	s.WaitFor(t, "daemon ended the connection")
	s.Line(t, "echo status $?")
	s.WaitFor(t, "status 125")
	if got := s.Run(t, "stty -a"); strings.Contains(got, "-icanon") || strings.Contains(got, " -echo ") {
		t.Errorf("the terminal was not restored:\n%s", got)
	}
	if got := s.Run(t, "nemoclaw box status"); !strings.Contains(got, "the NemoClaw daemon does not run") {
		t.Errorf("without a daemon:\n%s", got)
	}
	c.d.Start(t)
	refused("after.kill.test")
	wait(t, "the second refusal", func() bool { return strings.Contains(log.String(), "after.kill.test") })
	if n := strings.Count(log.String(), "before.kill.test"); n != 1 {
		t.Errorf("the first refusal came %d times:\n%s", n, log.String())
	}
	if out := c.ok("box", "status"); !strings.HasPrefix(out, "box: running") {
		t.Errorf("after the restart:\n%s", out)
	}
}

// TestOnboardInterruptedAnywhere: a signal at any moment leaves a sandbox that runs, or nothing.
func TestOnboardInterruptedAnywhere(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c := &cli{t, d}
	for i := range 8 {
		cmd := d.Command("onboard", "--yes", "--name", "box")
		var said lines
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // while the sandbox is made, else at any time
			wait(t, "the last step", func() bool { return strings.Contains(said.String(), "[6/6]") })
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGINT) // it may have ended
		_ = cmd.Wait()                         // the status says how
		status, list := cmd.ProcessState.ExitCode(), c.ok("list")
		t.Logf("status %d", status)
		switch {
		case (status == 0 || status == -1) && strings.Contains(list, "box   running"): // -1: when all was done
			c.ok("destroy", "--yes", "box")
		case status == 1 && list == "" && strings.Contains(said.String(), "interrupted"):
		case status == -1 && list == "": // before it took the signal over
		default:
			t.Fatalf("status %d, %q\n%s", status, list, said.String())
		}
	}
}
