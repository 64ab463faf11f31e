package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/api/wire"
)

func run(t *testing.T, r *running, e api.Exec, files ...*os.File) *api.Process {
	t.Helper()
	var three [3]*os.File
	copy(three[:], files)
	p, err := r.client.Exec(t.Context(), "box", e, three)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func shell(script string) api.Exec { return api.Exec{Args: []string{"/bin/sh", "-c", script}} }

func TestExecStreams(t *testing.T) {
	t.Parallel()
	r := serve(t, newBackend("box"), nil)
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	taken, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	e := shell(`read line; echo "got $line and $A"; exit 7`)
	e.Set = []string{"A=b"}
	p := run(t, r, e, in, out)
	in.Close()
	out.Close() // the caller's copies may go at once
	fmt.Fprintln(feed, "a line")
	feed.Close()
	said, err := io.ReadAll(taken)
	if string(said) != "got a line and b\n" || err != nil {
		t.Errorf("it said %q, %v", said, err)
	}
	if status, err := p.Wait(); status != 7 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	if p.Terminal() != nil {
		t.Error("a terminal came from nowhere")
	}
	if err := p.Signal(15); err != nil {
		t.Errorf("a signal to a command that has ended: %v", err)
	}
}

func TestExecSignals(t *testing.T) {
	t.Parallel()
	r := serve(t, newBackend("box"), nil)
	taken, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, r, shell(`trap 'echo usr1' USR1; trap 'echo hup; exit 3' HUP; echo ready; while :; do sleep 0.01; done`), nil, out)
	out.Close()
	read := func(want string) {
		t.Helper()
		b := make([]byte, 100)
		n, err := taken.Read(b)
		if string(b[:n]) != want {
			t.Fatalf("it said %q, %v; want %q", b[:n], err, want)
		}
	}
	read("ready\n")
	for range 3 {
		if err := p.Signal(int(unix.SIGUSR1)); err != nil {
			t.Fatal(err)
		}
		read("usr1\n")
	}
	p.Close() // and so the command is hung up
	read("hup\n")
	if n, err := taken.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("it goes on: %v", err)
	}

	p = run(t, r, shell("kill -9 $$"))
	if status, err := p.Wait(); status != 137 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

func TestExecDetached(t *testing.T) {
	t.Parallel()
	r := serve(t, newBackend("box"), nil)
	taken, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	e := shell("sleep 0.2; echo still here")
	e.Detach = true
	p := run(t, r, e, nil, out)
	out.Close()
	p.Close()
	if said, err := io.ReadAll(taken); string(said) != "still here\n" {
		t.Errorf("it said %q, %v", said, err)
	}
	within(t, "the command's place", func() bool { return len(holders(&r.limits.execs)) == 0 })

	master, slave := terminal(t)
	defer master.Close()
	defer slave.Close()
	var refused *api.Error
	if _, err := r.client.Exec(t.Context(), "box", e, [3]*os.File{slave}); !errors.As(err, &refused) || refused.Code != api.Invalid {
		t.Errorf("detached with a terminal: %v", err)
	}
}

func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	var p process
	slave, err := p.terminal()
	if err != nil {
		t.Fatal(err)
	}
	return p.master, slave
}

func TestExecTerminal(t *testing.T) {
	t.Parallel()
	r := serve(t, newBackend("box"), nil)
	master, slave := terminal(t)
	defer master.Close()
	p := run(t, r, api.Exec{Shell: true}, slave, slave, slave)
	slave.Close()
	own := p.Terminal()
	if own == nil {
		t.Fatal("no terminal came")
	}
	if err := unix.IoctlSetWinsize(int(own.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(own, "stty size; test -t 0 && test -t 2 && echo ter''minal; exit 5")
	var said bytes.Buffer
	_, err := io.Copy(&said, own) // ends with EIO when the last process has closed it
	if !strings.Contains(said.String(), "33 77") || !strings.Contains(said.String(), "terminal") {
		t.Errorf("it said %q, %v", said.String(), err)
	}
	if status, err := p.Wait(); status != 5 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	// Whoever loses the terminal loses the command.
	p = run(t, r, api.Exec{Shell: true}, terminalOnly(t), nil, nil)
	p.Terminal().Close()
	if status, err := p.Wait(); err != nil || status == 1 {
		t.Errorf("after its terminal went: status %d, %v", status, err)
	}
}

func terminalOnly(t *testing.T) *os.File {
	t.Helper()
	master, slave := terminal(t)
	t.Cleanup(func() { master.Close(); slave.Close() })
	return slave
}

// TestExecRestart stops the server under a command, which runs on.
func TestExecRestart(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	socket := t.TempDir() + "/s"
	stop := start(t, b, socket)
	taken, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, &running{client: api.Dial(socket)}, shell("trap 'echo hup' HUP; sleep 0.3; echo done"), nil, out)
	out.Close()
	stop()
	if _, err := p.Wait(); !errors.Is(err, api.ErrLost) {
		t.Errorf("the client was told %v", err)
	}
	if said, err := io.ReadAll(taken); string(said) != "done\n" {
		t.Errorf("the command said %q, %v", said, err)
	}
}

// descriptors counts what this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestDescriptors sends more, fewer and other descriptors than are announced. None may stay. It must not run beside
// other tests: it counts.
func TestDescriptors(t *testing.T) {
	b := newBackend("box")
	r := serve(t, b, nil)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := descriptors(t)
	const head = "POST /v1/sandboxes/box/exec HTTP/1.1\r\nHost: n\r\nConnection: upgrade\r\nUpgrade: nemoclaw-exec/1\r\nContent-Length: %d\r\n\r\n%s"
	request := func(body string) string { return fmt.Sprintf(head, len(body), body) }
	for name, test := range map[string]struct {
		text string
		send []int // descriptors with each piece of the text
		want string
	}{
		"as announced":       {request(`{"args":["true"],"files":[true,false,true]}`), []int{2}, "101"},
		"in two pieces":      {request(`{"args":["true"],"files":[true,true,true]}`), []int{1, 2}, "101"},
		"one too few":        {request(`{"args":["true"],"files":[true,true]}`), []int{1}, "2 descriptors come with the request; 1 did"},
		"one too many":       {request(`{"args":["true"],"files":[true]}`), []int{2}, "1 descriptors come with the request; 2 did"},
		"none":               {request(`{"args":["true"],"files":[true]}`), []int{0}, "1 descriptors come with the request; 0 did"},
		"four":               {request(`{"args":["true"],"files":[true,true,true]}`), []int{4}, "more than 3"},
		"two hundred":        {request(`{"args":["true"],"files":[true,true,true]}`), []int{200}, "more than 3"},
		"four pieces":        {request(`{"args":["true"],"files":[true,true,true]}`), []int{1, 1, 1, 1}, "more than 3"},
		"four streams":       {request(`{"args":["true"],"files":[true,true,true,true]}`), []int{3}, "files has 4 entries"},
		"nothing to run":     {request(`{"files":[true]}`), []int{1}, "no command"},
		"not to be found":    {request(`{"args":["/nothing/there"],"files":[true]}`), []int{1}, "no such file"},
		"not JSON":           {request(`{`), []int{3}, "unexpected EOF"},
		"another request":    {"GET /v1/info HTTP/1.1\r\nHost: n\r\n\r\n", []int{3}, "200 OK"},
		"many with another":  {"GET /v1/info HTTP/1.1\r\nHost: n\r\n\r\n", []int{100}, "200 OK"},
		"no HTTP":            {"hello\r\n\r\n", []int{3}, "400"},
		"no Upgrade":         {strings.Replace(request(`{"args":["true"]}`), "Upgrade: nemoclaw-exec/1", "Upgrade: websocket", 1), []int{3}, "Upgrade"},
		"nothing but a head": {"POST /v1/sandboxes/box/exec HTTP/1.1\r\n", []int{3}, ""},
	} {
		c, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		conn := wire.NewConn(c.(*net.UnixConn), false)
		piece := len(test.text) / len(test.send)
		for i, n := range test.send {
			text := test.text[i*piece:]
			if i < len(test.send)-1 {
				text = text[:piece]
			}
			fds := make([]int, n)
			for i := range fds {
				fds[i] = int(f.Fd())
			}
			if _, _, err := conn.WriteMsgUnix([]byte(text), unix.UnixRights(fds...), nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if test.want == "" {
			conn.Close()
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		if !strings.Contains(string(answer[:n]), test.want) {
			t.Errorf("%s: the answer is %q, %v; want %q", name, answer[:n], err, test.want)
		}
		conn.Close()
	}
	within(t, "the end of what was sent", func() bool { return descriptors(t) <= before })
}

// TestHangUp sends what is no signal to a command that runs: the connection ends, and so does the command.
func TestHangUp(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	r := serve(t, b, nil)
	for _, said := range []string{"{\"signal\":0}\n", "{\"signal\":65}\n", "{\"signal\":-9}\n", "{\"exit\":0}\n", "{}\n", "\n", "{\"signal\":1,\"x\":2}\n", strings.Repeat("x", 5000), "\x00\n"} {
		taken, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		body := `{"args":["sleep","60"],"files":[false,true]}`
		c, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		conn := wire.NewConn(c.(*net.UnixConn), false)
		if err := conn.Send(fmt.Appendf(nil, "POST /v1/sandboxes/box/exec HTTP/1.1\r\nHost: n\r\nConnection: upgrade\r\nUpgrade: nemoclaw-exec/1\r\nContent-Length: %d\r\n\r\n%s%s", len(body), body, said), out); err != nil {
			t.Fatal(err)
		}
		out.Close()
		all, err := io.ReadAll(conn)
		if !strings.Contains(string(all), `{"exit":129}`) {
			t.Errorf("%.20q: %q, %v", said, all, err)
		}
		if _, err := taken.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%.20q: the command runs on: %v", said, err)
		}
		taken.Close()
		conn.Close()
	}
}

// ended is a command that has ended already.
type ended struct{ backend }

func (*ended) Exec(context.Context, Caller, string, api.Exec, [3]*os.File) (Process, error) {
	return over, nil
}

var over = func() *process {
	p := &process{cmd: exec.Command("/bin/true"), done: make(chan struct{})}
	_ = p.cmd.Run()
	close(p.done)
	return p
}()

// BenchmarkExchange is what an exec costs beside its command.
func BenchmarkExchange(b *testing.B) {
	r := serve(b, newBackend("box"), nil)
	r.Server.backend = &ended{}
	benchmarkExec(b, r)
}

// BenchmarkExec is a command through the server; BenchmarkNative is the same without.
func BenchmarkExec(b *testing.B) { benchmarkExec(b, serve(b, newBackend("box"), nil)) }

func benchmarkExec(b *testing.B, r *running) {
	b.ReportAllocs()
	for b.Loop() {
		p, err := r.client.Exec(b.Context(), "box", api.Exec{Args: []string{"/bin/true"}}, [3]*os.File{os.Stdin})
		if err != nil {
			b.Fatal(err)
		}
		if status, err := p.Wait(); status != 0 || err != nil {
			b.Fatal(status, err)
		}
		p.Close()
	}
}

func BenchmarkNative(b *testing.B) {
	for b.Loop() {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Files: []*os.File{os.Stdin}, Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
	}
}
