package server

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
)

func newServer(t *testing.T) *Server {
	t.Helper()
	s, err := New(Config{Backend: newBackend()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestKeptSocket: a socket that somebody keeps open is the next daemon's, with those who connected meanwhile.
func TestKeptSocket(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/agent.sock"
	s := newServer(t)
	first, err := s.Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := first.File()
	if err != nil {
		t.Fatal(err)
	}
	first.Keep()
	first.Close()
	waiting, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("nobody can wait: %v", err)
	}
	defer waiting.Close()
	second, err := s.Listen(path, kept)
	if err != nil {
		t.Fatal(err)
	}
	c, err := second.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	second.Close()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the second was not told to leave the file")
	}

	// One of another path is not taken.
	other, err := s.Listen(path+"2", nil)
	if err != nil {
		t.Fatal(err)
	}
	kept, err = other.File()
	if err != nil {
		t.Fatal(err)
	}
	third, err := s.Listen(path, kept)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	defer other.Close()
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func TestSocket(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/agent.sock"
	s := newServer(t)
	first, err := s.Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(path); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket's mode: %v, %v", st.Mode(), err)
	}
	if _, err := s.Listen(path, nil); !errors.Is(err, errInUse) {
		t.Errorf("the socket of a daemon that lives was taken: %v", err)
	}
	os.Remove(path + ".lock") // nor without its lock
	if _, err := s.Listen(path, nil); !errors.Is(err, errInUse) {
		t.Errorf("the socket of a daemon that lives was taken: %v", err)
	}
	// What a killed daemon leaves behind: the file, and no listener.
	first.UnixListener.Close()
	first.lock.Close()
	second, err := s.Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the old one took the new one's socket away: %v", err)
	}
	second.Close()
	if left, err := os.ReadDir(strings.TrimSuffix(path, "/agent.sock")); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(path, nil); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file was replaced: %v", err)
	}
	if _, err := s.Listen(t.TempDir()+"/"+strings.Repeat("a", 120), nil); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a long path: %v", err)
	}
	if _, err := s.Listen(t.TempDir()+"/none/s", nil); err == nil {
		t.Error("a directory was made")
	}
}

// TestSocketRace starts many daemons at once, over what a dead one left behind. One may win.
func TestSocketRace(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	for range 20 {
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		old.Close()
		var wg sync.WaitGroup
		var winner atomic.Pointer[Socket]
		for range 8 {
			s := newServer(t)
			wg.Go(func() {
				if l, err := s.Listen(path, nil); err == nil && !winner.CompareAndSwap(nil, l) {
					t.Error("two have it")
				}
			})
		}
		wg.Wait()
		if winner.Load() == nil {
			t.Fatal("nobody has it")
		}
		winner.Load().Close()
	}
}

// TestUnreachable sees what callers are told who can't connect.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/s"
	says := func(want string) {
		t.Helper()
		_, err := api.Dial(path).Info(t.Context())
		_, other := api.Dial(path).Exec(t.Context(), "box", shell(":"), [3]*os.File{})
		for _, err := range []error{err, other} {
			if !errors.Is(err, api.ErrNotRunning) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "systemctl start nemoclaw-agent") ||
				strings.Contains(err.Error(), "http://") {
				t.Errorf("got %v, want %q", err, want)
			}
		}
	}
	says("there is no socket " + path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	says("nobody listens at " + path)
}

func TestGroups(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{"": true, "12345": true, "no-such-group-here": true, "0": false, "root": false, "-1": true, "4294967295": false} {
		s, err := New(Config{Backend: newBackend(), SteerGroup: name})
		if (err == nil) != ok {
			t.Errorf("steer_group %q: %v", name, err)
		}
		if err == nil && s.steer.is != (name == "12345") {
			t.Errorf("steer_group %q is %+v", name, s.steer)
		}
	}
	s := newServer(t)
	s.steer, s.watch = group{"s", 10, true}, group{"w", 20, true}
	for _, test := range []struct {
		caller Caller
		groups []uint32
		want   role
	}{
		{Caller{UID: 0}, nil, steer}, {Caller{UID: 1}, nil, nothing}, {Caller{UID: 1, GID: 0}, []uint32{0, 1}, nothing},
		{Caller{UID: 1, GID: 10}, nil, steer}, {Caller{UID: 1, GID: 1}, []uint32{5, 10}, steer},
		{Caller{UID: 1, GID: 20}, nil, watch}, {Caller{UID: 1, GID: 1}, []uint32{20, 5}, watch}, {Caller{UID: 1, GID: 20}, []uint32{10}, steer},
	} {
		if got := s.roleOf(test.caller, test.groups); got != test.want {
			t.Errorf("%+v in %v may %s, want %s", test.caller, test.groups, got, test.want)
		}
	}
	s.steer, s.watch = group{}, group{} // no group is not group 0
	if got := s.roleOf(Caller{UID: 1, GID: 0}, []uint32{0}); got != nothing {
		t.Errorf("without groups, a member of group 0 may %s", got)
	}
}
