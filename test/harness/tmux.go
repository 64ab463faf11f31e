package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Screen is a terminal that a person sits at: a shell in a tmux of its own.
type Screen struct {
	socket string
}

// NewScreen opens one of 120 columns and 40 rows, with the environment of env.
func NewScreen(t T, env []string) *Screen {
	t.Helper()
	s := &Screen{socket: filepath.Join(t.TempDir(), "tmux")}
	cmd := exec.Command("tmux", "-S", s.socket, "-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40",
		"env", "PS1=$ ", "HISTFILE=", "TERM=screen", "bash", "--norc", "--noprofile")
	cmd.Env = env
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tmux (scripts/setup installs it): %v\n%s", err, said)
	}
	t.Cleanup(func() { _ = s.tmux("kill-server").Run() }) // it may have ended with its shell
	s.Wait(t, "$")
	return s
}

func (s *Screen) tmux(args ...string) *exec.Cmd {
	return exec.Command("tmux", append([]string{"-S", s.socket}, args...)...)
}

// Text is what is on the screen and above it, without blanks at the ends of lines.
func (s *Screen) Text(t T) string {
	t.Helper()
	out, err := s.tmux("capture-pane", "-p", "-S", "-2000").Output()
	if err != nil {
		t.Fatalf("tmux capture-pane: %v", err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// Type types text as it is.
func (s *Screen) Type(t T, text string) {
	t.Helper()
	if err := s.tmux("send-keys", "-l", text).Run(); err != nil {
		t.Fatalf("tmux send-keys: %v", err)
	}
}

// Key presses a key by tmux's name: Enter, C-c, C-d.
func (s *Screen) Key(t T, name string) {
	t.Helper()
	if err := s.tmux("send-keys", name).Run(); err != nil {
		t.Fatalf("tmux send-keys: %v", err)
	}
}

// Line types a line.
func (s *Screen) Line(t T, text string) {
	t.Helper()
	s.Type(t, text)
	s.Key(t, "Enter")
}

// Resize gives the window another size.
func (s *Screen) Resize(t T, cols, rows string) {
	t.Helper()
	if err := s.tmux("resize-window", "-x", cols, "-y", rows).Run(); err != nil {
		t.Fatalf("tmux resize-window: %v", err)
	}
}

// Wait waits until text is the end of what the screen shows.
func (s *Screen) Wait(t T, text string) {
	t.Helper()
	s.until(t, "the end to be "+text, func(shown string) bool { return strings.HasSuffix(shown, text) })
}

// WaitFor waits until text is anywhere on the screen.
func (s *Screen) WaitFor(t T, text string) {
	t.Helper()
	s.until(t, text, func(shown string) bool { return strings.Contains(shown, text) })
}

// Run types a command line and returns what it shows, once the prompt is back.
func (s *Screen) Run(t T, line string) string {
	t.Helper()
	s.Clear(t)
	s.Line(t, line)
	s.until(t, "the prompt after "+line, func(shown string) bool {
		return strings.HasPrefix(shown, "$ ") && strings.HasSuffix(shown, "\n$")
	})
	_, shown, _ := strings.Cut(s.Text(t), "\n")
	return strings.TrimSuffix(shown, "$")
}

// Clear empties the screen and what is above it.
func (s *Screen) Clear(t T) {
	t.Helper()
	tmux := "tmux -S " + s.socket
	s.Line(t, "clear; "+tmux+" clear-history; "+tmux+" wait-for -S cleared")
	// A screen that has nothing but the prompt yet looks like one that was cleared.
	if err := s.tmux("wait-for", "cleared").Run(); err != nil {
		t.Fatalf("tmux wait-for: %v", err)
	}
	s.until(t, "an empty screen", func(shown string) bool { return shown == "$" })
}

func (s *Screen) until(t T, what string, is func(string) bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		shown := s.Text(t)
		if is(shown) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s; the screen shows\n%s", what, shown)
		}
	}
}

// BinFirst is env with the directory of the binaries first on the PATH, as for somebody who installed them.
func (w *World) BinFirst(env []string) []string {
	return append(env, "PATH="+filepath.Dir(w.Bin)+":"+os.Getenv("PATH"))
}
