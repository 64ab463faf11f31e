//go:build e2e

package test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"golang.org/x/sys/unix"
)

// terminal is the pty that a person would sit at.
type terminal struct {
	master *os.File
	mu     sync.Mutex
	shown  bytes.Buffer
	done   chan struct{} // closed when nobody has the other end open any more and all was read
}

func openTerminal(t *testing.T) (*terminal, *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	// TIOCGPTPEER opens the other end itself: no path, which a chroot's /dev/pts may not have.
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		t.Fatal(errno)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120}); err != nil {
		t.Fatal(err)
	}
	term := &terminal{master: master, done: make(chan struct{})}
	go func() {
		defer close(term.done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			term.mu.Lock()
			term.shown.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return term, os.NewFile(fd, "terminal")
}

// end waits for a run's end and for the last of what it showed.
func (t *terminal) end(test *testing.T, s *harness.Session) *harness.Result {
	test.Helper()
	r := s.Wait(test, 20*time.Second)
	<-t.done
	return r
}

func (t *terminal) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.String()
}

// askBox starts a box at a terminal; the flag that the harness gives, --no-prompt, is taken out.
func askBox(t *testing.T, b harness.Box, argv ...string) (*harness.Session, *terminal) {
	t.Helper()
	s := harness.W.Prepare(t, b, argv...)
	var args []string
	for _, a := range s.Cmd.Args {
		if a != "--no-prompt" {
			args = append(args, a)
		}
	}
	s.Cmd.Args = args
	term, end := openTerminal(t)
	defer end.Close()
	s.Cmd.Stdin, s.Cmd.Stdout, s.Cmd.Stderr = end, end, end
	s.Cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s, term
}

func askPolicy(name string) string {
	return harness.Base + "network:\n  ask:\n    - {domain: " + name + ", ports: [7000], protocol: tcp}\n"
}

func TestAskOnTheTerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key     string
		reached int // of two attempts
		asked   int
	}{
		{"o", 2, 2}, // once, and asked again the second time
		{"r", 2, 1},
		{"a", 2, 1},
		{"d", 0, 1},
		{"\r", 0, 2}, // denied once
	} {
		t.Run(fmt.Sprintf("key %q", tt.key), func(t *testing.T) {
			name := fmt.Sprintf("key%x.ask.test", tt.key)
			a4, _ := harness.W.Addr()
			harness.W.DNS.Set(name, a4)
			server := harness.W.TCP(t, a4, 7000)
			attempt := "say " + name + " 7000 " + b64("held data")
			s, term := askBox(t, harness.Box{Policy: askPolicy(name)}, "/workspace/probe", attempt, attempt)
			for i := range tt.asked {
				wait(t, "the question", func() bool { return strings.Count(term.text(), "connect "+name+":7000") > i })
				time.Sleep(700 * time.Millisecond) // a key that comes sooner than a person can read is nobody's answer
				if n := server.Conns(); n > i {
					t.Errorf("%d connections before the answer", n)
				}
				if _, err := io.WriteString(term.master, tt.key); err != nil {
					t.Fatal(err)
				}
			}
			r := term.end(t, s)
			if n := strings.Count(term.text(), `"out":"held data"`); n != tt.reached {
				t.Errorf("%d of the attempts were answered, want %d\n%s\n%s", n, tt.reached, term.text(), r.Dump())
			}
			if server.Conns() != tt.reached {
				t.Errorf("%d connections reached the server, want %d", server.Conns(), tt.reached)
			}
			if tt.key == "a" && !strings.Contains(term.text(), "domain: "+name) {
				t.Errorf("`always` shows no line to add:\n%s", term.text())
			}
		})
	}
}

func TestAskWithoutATerminal(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("nobody.ask.test", a4)
	server := harness.W.TCP(t, a4, 7000)
	r, out := harness.W.Probe(t, harness.Box{Policy: askPolicy("nobody.ask.test")}, "say nobody.ask.test 7000 "+b64("x"))
	if out[0].Out != "" || server.Conns() > 0 {
		t.Errorf("asked of nobody, and reached: %q\n%s", out[0].Out, r.Dump())
	}
	if e := once(t, r, "network", "nobody.ask.test:7000"); !strings.Contains(e.Rule, r.PolicyFile()) {
		t.Errorf("the record is %+v", e)
	}
}

// TestHoldRunsOut: a question that nobody answers is a refusal once `hold` is over.
func TestHoldRunsOut(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("late.ask.test", a4)
	server := harness.W.TCP(t, a4, 7000)
	s, term := askBox(t, harness.Box{Policy: "hold: 1s\n" + askPolicy("late.ask.test")}, "/workspace/probe", "say late.ask.test 7000 "+b64("x"))
	start := time.Now()
	term.end(t, s)
	if took := time.Since(start); took < 900*time.Millisecond || took > 8*time.Second {
		t.Errorf("the question was open for %s, want a second\n%s", took, term.text())
	}
	if server.Conns() > 0 {
		t.Error("the connection went out without an answer")
	}
}

// TestTerminalInside: a command at a terminal gets one of its own, of the same size.
func TestTerminalInside(t *testing.T) {
	t.Parallel()
	policy := harness.Files + "process:\n  allow:\n    - {command: python3}\n"
	s, term := askBox(t, harness.Box{Policy: policy}, "python3", "-c", "import os; print(os.isatty(0), os.get_terminal_size(), input('name? '))")
	wait(t, "the prompt", func() bool { return strings.Contains(term.text(), "name? ") })
	if _, err := io.WriteString(term.master, "claw\r"); err != nil {
		t.Fatal(err)
	}
	term.end(t, s)
	if !strings.Contains(term.text(), "True os.terminal_size(columns=120, lines=40) claw") {
		t.Errorf("the terminal shows\n%s", term.text())
	}
}
