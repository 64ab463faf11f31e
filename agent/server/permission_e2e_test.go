//go:build e2e

package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
)

// callerEnv makes this test's program a caller instead: its value is the socket.
const callerEnv = "NEMOCLAW_TEST_CALLER"

func TestMain(m *testing.M) {
	if socket := os.Getenv(callerEnv); socket != "" {
		call(socket)
		return
	}
	os.Exit(m.Run())
}

// said is what a caller was answered.
type said struct {
	Info    api.Info
	Denied  *api.Error            // why Info failed
	Errors  map[string]*api.Error // of other requests
	Secrets []string              // the environment that it sees
}

func call(socket string) {
	c := api.Dial(socket)
	ctx := context.Background()
	s := said{Errors: map[string]*api.Error{}}
	var err error
	if s.Info, err = c.Info(ctx); err != nil {
		s.Denied = asError(err)
	}
	box, err := c.Get(ctx, "box")
	s.Secrets, s.Errors["get"] = box.Env, asError(err)
	_, err = c.Policy(ctx, "box", 0)
	s.Errors["policy"] = asError(err)
	_, err = c.Start(ctx, "box")
	s.Errors["start"] = asError(err)
	_, err = c.EraseAudit(ctx, api.Erase{Records: "1", Reason: "r"})
	s.Errors["erase"] = asError(err)
	s.Errors["destroy"] = asError(c.Destroy(ctx, "nobody"))
	s.Errors["download"] = asError(c.Download(ctx, "box", "/none", io.Discard))
	p, err := c.Exec(ctx, "box", api.Exec{Args: []string{"true"}}, [3]*os.File{os.Stdin})
	if s.Errors["exec"] = asError(err); err == nil {
		_, err = p.Wait()
		s.Errors["exec"] = asError(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		panic(err)
	}
}

func asError(err error) *api.Error {
	var e *api.Error
	if err == nil || errors.As(err, &e) {
		return e
	}
	return &api.Error{Code: "other", Message: err.Error()}
}

// TestWhoMay calls as users in and outside the groups.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: it calls as other users")
	}
	const nobody, steerers, watchers = 65534, 54321, 54322
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program := copyOfSelf(t, dir)
	socket := dir + "/agent.sock"
	b := newBackend("box")
	s, err := New(Config{Backend: b, SteerGroup: strconv.Itoa(steerers), WatchGroup: strconv.Itoa(watchers)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})

	var many []uint32
	for i := range uint32(200) {
		many = append(many, 60000+i)
	}
	ask := func(uid, gid uint32, groups ...uint32) said {
		t.Helper()
		cmd := exec.Command(program)
		cmd.Env = []string{callerEnv + "=" + socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
		var out, trouble bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &trouble
		var s said
		if err := errors.Join(cmd.Run(), json.Unmarshal(out.Bytes(), &s)); err != nil {
			t.Fatalf("uid %d, gid %d: %v: %s", uid, gid, err, trouble.String())
		}
		return s
	}
	may := func(who string, s said, role string, refused ...string) {
		t.Helper()
		if s.Denied != nil || s.Info.Role != role {
			t.Errorf("%s: role %q, %v; want %s", who, s.Info.Role, s.Denied, role)
		}
		for what, err := range s.Errors {
			want := api.Code("")
			for _, r := range refused {
				if r == what {
					want = api.Forbidden
				}
			}
			switch {
			case err == nil && want == "", err != nil && err.Code == want:
			case err != nil && err.Code == api.NotFound && want == "":
			default:
				t.Errorf("%s: %s gives %v, want %q", who, what, err, want)
			}
		}
	}
	acts := []string{"start", "destroy", "download", "exec", "erase"}
	may("root", ask(0, 0), "steer")
	may("a steerer by its own group", ask(nobody, steerers), "steer", "erase")
	may("a steerer by one group more", ask(nobody, nobody, append(many, steerers)...), "steer", "erase")
	watcher := ask(nobody, nobody, watchers)
	may("a watcher", watcher, "watch", acts...)
	may("a watcher by its own group", ask(nobody, watchers), "watch", acts...)
	may("a member of both", ask(nobody, watchers, steerers), "steer", "erase")
	if len(watcher.Secrets) != 1 || watcher.Secrets[0] != "TOKEN" {
		t.Errorf("a watcher sees %q", watcher.Secrets)
	}
	if text := watcher.Errors["start"].Message; !strings.Contains(text, "user nobody may watch, and not start a sandbox") || !strings.Contains(text, "usermod -aG 54321") {
		t.Errorf("a watcher is told %q", text)
	}

	stopped := ask(nobody, nobody, many...) // by the socket's mode
	if e := stopped.Denied; e == nil || e.Code != api.Forbidden || !strings.Contains(e.Message, "members of the group 54321") {
		t.Errorf("a stranger is told %v", e)
	}
	if e := stopped.Errors["exec"]; e == nil || e.Code != api.Forbidden {
		t.Errorf("a stranger that wants to run something is told %v", e)
	}
	if err := os.Chmod(socket, 0o666); err != nil { // and where there is nothing in the way, by the daemon
		t.Fatal(err)
	}
	told := ask(nobody, nobody, many...)
	if e := told.Denied; e == nil || e.Code != api.Forbidden || !strings.Contains(e.Message, "user nobody (uid 65534) may not use") {
		t.Errorf("a stranger is told %v", e)
	}
	for what, e := range told.Errors {
		if e == nil || e.Code != api.Forbidden {
			t.Errorf("a stranger's %s gives %v", what, e)
		}
	}
	// What was done was done in the callers' names.
	for _, want := range []string{"root: start box", "nobody: start box", "nobody: exec true"} {
		if !strings.Contains(strings.Join(b.history, "\n"), want) {
			t.Errorf("the history lacks %q: %q", want, b.history)
		}
	}
}

// copyOfSelf is this program where others may execute it.
func copyOfSelf(t *testing.T, dir string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(dir+"/caller", b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir + "/caller"
}
