package term

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/policy"
)

// pair is a pseudo-terminal: what is written to one side is read at the other.
type pair struct {
	master *os.File
	path   string // of the slave
}

func newPair(t *testing.T) pair {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	c, err := m.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var p pair
	if err := c.Control(func(fd uintptr) {
		n, e1 := unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		e2 := unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		e3 := unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})
		err = errors.Join(e1, e2, e3)
		p = pair{m, fmt.Sprintf("/dev/pts/%d", n)}
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p pair) open(t *testing.T) *TTY {
	t.Helper()
	tty, err := Open(p.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty
}

// watch is the person's eyes: everything that was shown.
type watch struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func newWatch(f *os.File) *watch {
	w := &watch{}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := f.Read(b)
			w.mu.Lock()
			w.buf.Write(b[:n])
			w.mu.Unlock()
			if err != nil && !errors.Is(err, unix.EIO) {
				return
			} else if err != nil {
				time.Sleep(time.Millisecond) // no slave is open yet
			}
		}
	}()
	return w
}

func (w *watch) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func (w *watch) wait(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !strings.Contains(w.text(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q was not shown, but %q", want, w.text())
		}
	}
}

func typed(t *testing.T, f *os.File, s string) {
	t.Helper()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func question() approvals.Question {
	return approvals.Question{
		Decision: policy.Decision{
			Plane: policy.PlaneNetwork, Action: "connect", Object: "github.com:443", Rule: "p.yaml:7",
			Subject: policy.Subject{PID: 9, Exe: "/usr/bin/git", Args: "git clone \x1b[2J\u202ehttps://github.com"},
			Suggest: "network:\n  allow:\n    - domain: github.com\n",
		},
		More: 2,
	}
}

func TestRawAndRestore(t *testing.T) {
	tty := newPair(t).open(t)
	before, err := tty.termios()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(tty.Raw(), tty.Raw()); err != nil {
			t.Fatal(err)
		}
		if raw, err := tty.termios(); err != nil || raw.Lflag&(unix.ECHO|unix.ISIG|unix.ICANON) != 0 {
			t.Fatalf("raw: %+v, %v", raw, err)
		}
		if err := errors.Join(tty.Restore(), tty.Restore()); err != nil {
			t.Fatal(err)
		}
		if after, err := tty.termios(); err != nil || *after != *before {
			t.Fatalf("restored to %+v from %+v, %v", after, before, err)
		}
	}
	if rows, cols := tty.Size(); rows != 30 || cols != 100 {
		t.Errorf("size %d by %d", rows, cols)
	}
	if _, err := Open("/dev/null"); err == nil {
		t.Error("/dev/null was taken for a terminal")
	}
}

func TestRelay(t *testing.T) {
	host, box := newPair(t), newPair(t)
	eyes := newWatch(host.master)
	tty, inside := host.open(t), box.open(t)
	if err := inside.Raw(); err != nil {
		t.Fatal(err)
	}
	var sizes []string
	r := NewRelay(tty, box.master, func(rows, cols uint16) { sizes = append(sizes, fmt.Sprint(rows, cols)) })
	typed(t, inside.f, "hello \x1b[31mred\r\n")
	eyes.wait(t, "hello \x1b[31mred\r\n") // bytes as they are
	typed(t, host.master, "ls\x03")
	b := make([]byte, 10)
	if n, err := inside.f.Read(b); err != nil || string(b[:n]) != "ls\x03" {
		t.Errorf("inside read %q, %v", b[:n], err)
	}
	r.Suspend()
	if tio, err := tty.termios(); err != nil || tio.Lflag&unix.ECHO == 0 {
		t.Errorf("suspended, the terminal is still raw: %+v %v", tio, err)
	}
	r.Continue()
	typed(t, host.master, "x")
	if n, err := inside.f.Read(b); err != nil || string(b[:n]) != "x" {
		t.Errorf("after a suspension inside read %q, %v", b[:n], err)
	}
	// What is written just before the last process ends still comes.
	typed(t, inside.f, "bye")
	inside.Close()
	<-r.Done()
	eyes.wait(t, "bye")
	r.Close()
	if tio, err := tty.termios(); err != nil || tio.Lflag&unix.ECHO == 0 {
		t.Errorf("closed, the terminal is still raw: %+v %v", tio, err)
	}
	if len(sizes) != 1 || sizes[0] != "30 100" {
		t.Errorf("sizes told: %v", sizes)
	}
}

// TestPromptInRelay asks while a program writes and reads: its output waits, keys typed too early and the terminal's
// answers to the program's queries don't count, and afterwards everything goes on.
func TestPromptInRelay(t *testing.T) {
	host, box := newPair(t), newPair(t)
	eyes := newWatch(host.master)
	tty, inside := host.open(t), box.open(t)
	if err := inside.Raw(); err != nil {
		t.Fatal(err)
	}
	r := NewRelay(tty, box.master, func(uint16, uint16) {})
	defer r.Close()
	type result struct {
		a   approvals.Reply
		err error
	}
	got := make(chan result, 1)
	go func() {
		a, err := r.Prompter("xterm").Prompt(t.Context(), question())
		got <- result{a, err}
	}()
	eyes.wait(t, "[D] all questions: ")
	typed(t, host.master, "a") // too early
	typed(t, inside.f, "OUTPUT OF THE PROGRAM")
	time.Sleep(settle + 100*time.Millisecond)
	typed(t, host.master, "\x1b]lo\x1b\\") // a title report
	time.Sleep(settle + 100*time.Millisecond)
	typed(t, host.master, "aaaa\r") // pasted
	time.Sleep(settle + 100*time.Millisecond)
	select {
	case res := <-got:
		t.Fatalf("answered %v, %v", res.a, res.err)
	default:
	}
	if s := eyes.text(); strings.Contains(s, "OUTPUT") || strings.Contains(s, "\u202e") || strings.Contains(s, "\x1b[2J") {
		t.Errorf("shown while the question stands: %q", s)
	}
	typed(t, host.master, "a")
	if res := <-got; res.a != approvals.Always || res.err != nil {
		t.Fatalf("answered %v, %v", res.a, res.err)
	}
	eyes.wait(t, "take it out of the rule at p.yaml:7 and add:\r\n\r\n    network:\r\n      allow:\r\n        - domain: github.com\r\n")
	eyes.wait(t, "OUTPUT OF THE PROGRAM")
	typed(t, host.master, "y")
	b := make([]byte, 10)
	if n, err := inside.f.Read(b); err != nil || string(b[:n]) != "y" {
		t.Errorf("the program read %q, %v: a key of the question reached it", b[:n], err)
	}
}

func TestPromptAlone(t *testing.T) {
	host := newPair(t)
	eyes := newWatch(host.master)
	tty := host.open(t)
	typed(t, host.master, "o\r") // before the question
	p := NewPrompter(tty, "dumb")
	ctx, cancel := context.WithTimeout(t.Context(), settle+300*time.Millisecond)
	defer cancel()
	if a, err := p.Prompt(ctx, question()); a != approvals.Deny || !errors.Is(err, approvals.ErrNoAnswer) {
		t.Errorf("without an answer: %v, %v", a, err)
	}
	eyes.wait(t, "no answer: denied")
	if s := eyes.text(); strings.Contains(s, "\x1b") {
		t.Errorf("a dumb terminal was sent %q", s)
	}
	go func() {
		time.Sleep(settle + 200*time.Millisecond)
		_, _ = host.master.WriteString("o")
	}()
	if a, err := p.Prompt(t.Context(), question()); a != approvals.Once || err != nil {
		t.Errorf("answered %v, %v", a, err)
	}
	if tio, err := tty.termios(); err != nil || tio.Lflag&unix.ECHO == 0 {
		t.Errorf("after the question the terminal is raw: %+v %v", tio, err)
	}
}

func TestKeys(t *testing.T) {
	start := time.Unix(100, 0)
	type in struct {
		at    time.Duration
		bytes string
	}
	for name, c := range map[string]struct {
		in   []in
		want string
	}{
		"a key":                     {[]in{{600 * time.Millisecond, "o"}}, "o"},
		"too early":                 {[]in{{100 * time.Millisecond, "o"}, {499 * time.Millisecond, "o"}}, ""},
		"typing on":                 {[]in{{400 * time.Millisecond, "m"}, {700 * time.Millisecond, "a"}, {1100 * time.Millisecond, "k"}}, ""},
		"then silent":               {[]in{{400 * time.Millisecond, "m"}, {950 * time.Millisecond, "d"}}, "d"},
		"pasted":                    {[]in{{time.Second, "oo"}}, ""},
		"arrow key":                 {[]in{{time.Second, "\x1b[A"}, {1200 * time.Millisecond, "o"}}, ""},
		"arrow key in parts":        {[]in{{1 * time.Second, "\x1b"}, {1600 * time.Millisecond, "["}, {2200 * time.Millisecond, "a"}}, ""},
		"title report in parts":     {[]in{{1 * time.Second, "\x1b]l"}, {1600 * time.Millisecond, "a"}, {2200 * time.Millisecond, "o"}}, ""},
		"after a report":            {[]in{{1 * time.Second, "\x1b]la\x1b\\"}, {1600 * time.Millisecond, "r"}}, "r"},
		"report ended by BEL":       {[]in{{1 * time.Second, "\x1bP1$ro\a"}, {1600 * time.Millisecond, "r"}}, "r"},
		"a report without end":      {[]in{{1 * time.Second, "\x1b]la"}, {3500 * time.Millisecond, "r"}, {4100 * time.Millisecond, "o"}}, "ro"},
		"cancelled":                 {[]in{{1 * time.Second, "\x1b]la\x18"}, {1600 * time.Millisecond, "r"}}, "r"},
		"the last byte of a report": {[]in{{1 * time.Second, "\x1b[1;1"}, {1600 * time.Millisecond, "R"}}, ""},
		"application key":           {[]in{{1 * time.Second, "\x1bO"}, {1600 * time.Millisecond, "a"}, {2200 * time.Millisecond, "a"}}, "a"},
	} {
		k := keys{shown: start}
		got := ""
		for _, i := range c.in {
			if key, ok := k.feed([]byte(i.bytes), start.Add(i.at)); ok {
				got += string(key)
			}
		}
		if got != c.want {
			t.Errorf("%s: keys %q, want %q", name, got, c.want)
		}
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("\x1b]0;a\a\x1b[<35;1;1Mo"), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, step byte) {
		// Whatever comes without a pause is no answer, however it is cut.
		start := time.Unix(100, 0)
		k := keys{shown: start, last: start.Add(time.Hour)}
		now := start.Add(time.Hour)
		for i := 0; i < len(b); {
			n := min(1+int(step)%5, len(b)-i)
			now = now.Add(settle - time.Millisecond)
			if key, ok := k.feed(b[i:i+n], now); ok {
				t.Fatalf("%q counted", key)
			}
			i += n
		}
	})
}

func TestQuestionText(t *testing.T) {
	p := &Prompter{plain: true, now: func() time.Time { return time.Unix(100, 0) }}
	q := question()
	q.Until = time.Unix(142, 0)
	got := strings.TrimPrefix(p.question(q, 60), calm)
	want := strings.ReplaceAll(bold+`nemoclaw: a program in the sandbox asks`+norm+`
  to        connect github.com:443
  program   /usr/bin/git
  command   git clone \x1b[2J\u202ehttps://github.com
  rule      p.yaml:7
            denied in 42 s, 2 more waiting
  allow: [o]nce, for this [r]un, [a]lways   deny: [Enter] once, [d] for this run, [D] all questions: `, "\n", "\r\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	q.Subject.Args = strings.Repeat("x", 100000)
	if got := p.question(q, 60); strings.Count(got, "\r\n") > 20 {
		t.Errorf("a long command line takes the screen: %d lines", strings.Count(got, "\r\n"))
	}
}
