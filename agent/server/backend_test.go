package server

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// backend is a daemon small enough for a test: its sandboxes are names, their commands processes of the host, their
// files bytes in memory.
type backend struct {
	mu      sync.Mutex
	boxes   map[string]api.Sandbox
	files   map[string][]byte
	history []string // who did what
	records [][]byte
	more    chan struct{} // closed and made anew with each record
	broken  error         // of streams, after what they have sent
	panics  bool
}

func newBackend(names ...string) *backend {
	b := &backend{boxes: map[string]api.Sandbox{}, files: map[string][]byte{}, more: make(chan struct{})}
	for _, n := range names {
		b.boxes[n] = api.Sandbox{Name: n, State: api.Running, Wanted: api.Running, Env: []string{"TOKEN=secret"}}
	}
	return b
}

func (b *backend) did(who Caller, format string, a ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.history = append(b.history, who.Name+": "+fmt.Sprintf(format, a...))
}

func (b *backend) change(who Caller, name, what string, f func(*api.Sandbox)) (api.Sandbox, error) {
	s, err := b.Get(name)
	if err != nil {
		return s, err
	}
	f(&s)
	b.did(who, "%s %s", what, name)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.boxes[name] = s
	return s, nil
}

func (b *backend) Info() api.Info {
	if b.panics {
		panic("the backend fails")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return api.Info{Version: "test", Sandboxes: len(b.boxes), Seq: uint64(len(b.records))}
}

func (b *backend) List() []api.Sandbox {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []api.Sandbox
	for _, n := range slices.Sorted(maps.Keys(b.boxes)) {
		list = append(list, b.boxes[n])
	}
	return list
}

func (b *backend) Get(name string) (api.Sandbox, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.boxes[name]
	if !ok {
		return s, &api.Error{Code: api.NotFound, Message: "there is no sandbox " + name}
	}
	return s, nil
}

func (b *backend) Create(_ context.Context, who Caller, c api.Create) (api.Sandbox, error) {
	if _, err := b.Get(c.Name); err == nil {
		return api.Sandbox{}, &api.Error{Code: api.Conflict, Message: "there is a sandbox " + c.Name}
	}
	b.did(who, "create %s", c.Name)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.boxes[c.Name] = api.Sandbox{Name: c.Name, State: api.Stopped, Wanted: api.Stopped, Config: c.Config, Env: c.Env}
	return b.boxes[c.Name], nil
}

func (b *backend) Start(_ context.Context, who Caller, name string) (api.Sandbox, error) {
	return b.change(who, name, "start", func(s *api.Sandbox) { s.State = api.Running })
}

func (b *backend) Stop(_ context.Context, who Caller, name string) (api.Sandbox, error) {
	return b.change(who, name, "stop", func(s *api.Sandbox) { s.State = api.Stopped })
}

func (b *backend) Destroy(_ context.Context, who Caller, name string) error {
	if _, err := b.Get(name); err != nil {
		return err
	}
	b.did(who, "destroy %s", name)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.boxes, name)
	return nil
}

func (b *backend) GPUs(context.Context) api.GPUs {
	return api.GPUs{State: api.GPUsAbsent, Reason: "none", GPUs: []api.GPU{}}
}

func (b *backend) Usage(name string) (api.Usage, error) {
	_, err := b.Get(name)
	return api.Usage{Processes: 3}, err
}

func (b *backend) Changes(_ context.Context, name string, from, _ time.Time) (api.Changes, error) {
	_, err := b.Get(name)
	return api.Changes{Files: []api.Changed{{Path: "/workspace/x", What: api.Added, Time: from}}, Added: 1}, err
}

func (b *backend) Models(name string) (api.Models, error) {
	_, err := b.Get(name)
	return api.Models{Models: []api.Model{{Name: "fast"}}}, err
}

func (b *backend) Upload(_ context.Context, who Caller, name, path string, r io.Reader) error {
	if _, err := b.Get(name); err != nil {
		return err
	}
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			b.did(who, "upload %s", path)
			return nil
		}
		if err != nil {
			return &api.Error{Code: api.Invalid, Message: err.Error()}
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		b.mu.Lock()
		b.files[path+"/"+h.Name] = data
		b.mu.Unlock()
	}
}

func (b *backend) Download(_ context.Context, _ Caller, name, path string, w io.Writer) error {
	if _, err := b.Get(name); err != nil {
		return err
	}
	b.mu.Lock()
	data, ok := b.files[path]
	b.mu.Unlock()
	if !ok {
		return &api.Error{Code: api.NotFound, Message: "no file " + path}
	}
	archive := tar.NewWriter(w)
	if err := archive.WriteHeader(&tar.Header{Name: path, Size: int64(len(data)), Mode: 0o600}); err != nil {
		return err
	}
	if _, err := archive.Write(data); err != nil {
		return err
	}
	if b.broken != nil {
		return b.broken
	}
	return archive.Close()
}

func (b *backend) Policy(name string, revision int) (api.PolicyText, error) {
	_, err := b.Get(name)
	return api.PolicyText{PolicyState: api.PolicyState{Revision: max(1, revision)}, Text: string(policy.Initial())}, err
}

func (b *backend) Revisions(name string) ([]api.PolicyText, error) {
	_, err := b.Get(name)
	return nil, err
}

func (b *backend) ChangePolicy(_ context.Context, who Caller, name string, c api.PolicyChange) (api.PolicyResult, error) {
	if _, err := b.Get(name); err != nil {
		return api.PolicyResult{}, err
	}
	b.did(who, "policy %d bytes", len(c.Text))
	return api.PolicyResult{Live: true, Policy: api.PolicyText{Text: c.Text}}, nil
}

func (b *backend) Explain(name string, q policy.Query) (policy.Answer, error) {
	if _, err := b.Get(name); err != nil {
		return policy.Answer{}, err
	}
	return initial().Explain(q), nil
}

var initial = sync.OnceValue(func() *policy.Compiled {
	p, err := policy.Parse("initial.yaml", policy.Initial())
	if err != nil {
		panic(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		panic(err)
	}
	return c
})

func (b *backend) Requests(string) ([]api.Request, error) {
	return []api.Request{{ID: "1f", Plane: "network", Offers: []api.Offer{}}}, nil
}

func (b *backend) Request(id string) (api.Request, error) {
	return api.Request{ID: id, Offers: []api.Offer{}}, nil
}

func (b *backend) FollowRequests(ctx context.Context, sandbox string, f func(api.RequestChange) error) error {
	for _, c := range []api.RequestChange{{Reset: true}, {Request: &api.Request{ID: "1f", Sandbox: sandbox}}, {Complete: true}} {
		if err := f(c); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (b *backend) Answer(_ context.Context, who Caller, id string, a api.NewAnswer) (api.AnswerResult, error) {
	return api.AnswerResult{Request: api.Request{ID: id, Offers: []api.Offer{}, Answer: &api.Answered{Verdict: a.Verdict, Who: who.Name}}}, nil
}

func (b *backend) Grants(name string) ([]api.Grant, error) {
	_, err := b.Get(name)
	return []api.Grant{{ID: "2e", Sandbox: name, Plane: "network", Object: "evil.example:443"}}, err
}

func (b *backend) Revoke(_ Caller, name, id string) (api.Revoked, error) {
	_, err := b.Get(name)
	return api.Revoked{Grant: api.Grant{ID: id, Sandbox: name}, Closed: 3}, err
}

func (b *backend) SetConfig(_ context.Context, who Caller, name string, set map[string]string) (api.Sandbox, error) {
	return b.change(who, name, "config", func(s *api.Sandbox) { s.Config = set })
}

func (b *backend) Publish(_ context.Context, who Caller, name string, p api.Published) (api.Published, error) {
	_, err := b.change(who, name, "publish", func(s *api.Sandbox) { s.Publish = append(s.Publish, p) })
	return p, err
}

func (b *backend) Unpublish(_ context.Context, who Caller, name, _ string) error {
	_, err := b.change(who, name, "unpublish", func(s *api.Sandbox) { s.Publish = nil })
	return err
}

func (b *backend) Snapshots(name string) ([]api.Snapshot, error) {
	_, err := b.Get(name)
	return nil, err
}

func (b *backend) Snapshot(_ context.Context, who Caller, name, label string) (api.Snapshot, error) {
	_, err := b.change(who, name, "snapshot "+label, func(*api.Sandbox) {})
	return api.Snapshot{ID: "20261122-1", Name: label}, err
}

func (b *backend) Restore(_ context.Context, who Caller, name, id string) (api.Sandbox, error) {
	return b.change(who, name, "restore "+id, func(*api.Sandbox) {})
}

func (b *backend) DeleteSnapshot(_ context.Context, who Caller, name, id string) error {
	_, err := b.change(who, name, "delete "+id, func(*api.Sandbox) {})
	return err
}

func (b *backend) EraseAudit(_ context.Context, who Caller, e api.Erase) (api.Erased, error) {
	return api.Erased{Records: e.Records, Count: 1}, nil
}

// record adds records to the log.
func (b *backend) record(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range n {
		b.records = append(b.records, fmt.Appendf(nil, `{"seq":%d,"sandbox":"box","plane":"network","verdict":"deny","object":"host-%d:443"}`, len(b.records)+1, len(b.records)+1))
	}
	close(b.more)
	b.more = make(chan struct{})
}

func (b *backend) Events(ctx context.Context, e api.Events, f func(uint64, []byte) error) error {
	next := int(e.Since)
	b.mu.Lock()
	if e.Last > 0 {
		next = max(next, len(b.records)-e.Last)
	}
	b.mu.Unlock()
	for {
		b.mu.Lock()
		records, more := b.records, b.more
		b.mu.Unlock()
		for ; next < len(records); next++ {
			if err := f(uint64(next+1), records[next]); err != nil {
				return err
			}
		}
		if b.broken != nil || !e.Follow {
			return b.broken
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// init has commands end by SIGHUP even where the tests run under nohup(1), whose children ignore it: a sandbox's init sets all signals
// back, and here is none.
func init() { signal.Notify(make(chan os.Signal, 1), unix.SIGHUP) }

// process is a command of the host.
type process struct {
	cmd    *exec.Cmd
	master *os.File
	done   chan struct{}
}

func (b *backend) Exec(_ context.Context, who Caller, name string, e api.Exec, files [3]*os.File) (Process, error) {
	if _, err := b.Get(name); err != nil {
		return nil, err
	}
	args := e.Args
	if e.Shell {
		args = []string{"/bin/sh"}
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Env = append(e.Set, "PATH=/usr/bin:/bin")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	streams := files
	for i, f := range files {
		if f == nil || !isTerminal(f) {
			continue
		}
		if p.master == nil {
			slave, err := p.terminal()
			if err != nil {
				return nil, err
			}
			defer slave.Close()
			streams[i] = slave
			p.cmd.SysProcAttr.Setctty, p.cmd.SysProcAttr.Ctty = true, i
			continue
		}
		streams[i] = streams[p.cmd.SysProcAttr.Ctty]
	}
	for i, to := range []func(*os.File){
		func(f *os.File) { p.cmd.Stdin = f }, func(f *os.File) { p.cmd.Stdout = f }, func(f *os.File) { p.cmd.Stderr = f },
	} {
		if streams[i] != nil {
			_ = unix.SetNonblock(int(streams[i].Fd()), false) // a sandbox opens pipes anew instead
			to(streams[i])
		}
	}
	if err := p.cmd.Start(); err != nil {
		return nil, &api.Error{Code: api.NotFound, Message: err.Error()}
	}
	b.did(who, "exec %s", args[0])
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) terminal() (slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	p.master = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	return os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
}

func (p *process) Terminal() *os.File    { return p.master }
func (p *process) Done() <-chan struct{} { return p.done }
func (p *process) Signal(sig int) error  { return syscall.Kill(-p.cmd.Process.Pid, syscall.Signal(sig)) }

func (p *process) Wait() (int, error) {
	<-p.done
	s := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if s.Signaled() {
		return 128 + int(s.Signal()), nil
	}
	return s.ExitStatus(), nil
}

// running is a server with its client.
type running struct {
	*Server
	*backend
	client *api.Client
	socket string
}

// serve starts a server on a socket of the test's own. change adapts it first.
func serve(t testing.TB, b *backend, change func(*Server)) *running {
	t.Helper()
	socket := t.TempDir() + "/s"
	s, err := New(Config{Backend: b, SteerGroup: strconv.Itoa(steerGID())})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	l, err := s.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	r := &running{s, b, api.Dial(socket), socket}
	t.Cleanup(func() {
		r.client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// steerGID is a group that this process is in, so that it may steer without being root. Root may anyway.
func steerGID() int {
	if gid := os.Getgid(); gid != 0 {
		return gid
	}
	return 4242
}

func archive(t *testing.T, name string, data []byte) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}
