package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/api/wire"
)

// role is what a caller may do.
type role int

const (
	nothing role = iota
	watch
	steer
)

func (r role) String() string { return [...]string{"nothing", "watch", "steer"}[r] }

// peer is a connection and who has made it: what the kernel kept at connect(2), groups included. A process that was handed
// the connection by another is that other.
type peer struct {
	*wire.Conn
	caller Caller // its Name is looked up when it is needed
	role   role
	busy   bool // beyond its bounds: it is told so, and no more
	leave  func()
	once   sync.Once
}

type peerKey struct{}

func withPeer(ctx context.Context, p *peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(r *http.Request) *peer { return r.Context().Value(peerKey{}).(*peer) }

// Close closes the connection.
func (p *peer) Close() error {
	err := p.Conn.Close()
	p.once.Do(p.leave)
	return err
}

// unixListener is a *net.UnixListener, or one that is more.
type unixListener interface {
	net.Listener
	AcceptUnix() (*net.UnixConn, error)
}

// listener accepts connections, and drops those of a caller that has far too many.
type listener struct {
	unixListener
	server *Server
}

// overdrawn is how many connections beyond a bound are told that there are too many. More are closed without a word.
const overdrawn = 32

// Accept returns the next connection, a *peer.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if p := l.server.meet(c); p != nil {
			return p, nil
		}
		_ = c.Close()
	}
}

// meet finds out who has connected. It is nil where nothing can be said of them, or to them.
func (s *Server) meet(c *net.UnixConn) *peer {
	p := &peer{}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var groups []uint32
	if e := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		p.caller = Caller{UID: cred.Uid, GID: cred.Gid, PID: int(cred.Pid)}
		if cred.Uid != 0 {
			groups, err = peerGroups(int(fd))
		}
	}); e != nil || err != nil {
		return nil
	}
	p.role = s.roleOf(p.caller, groups)
	quota := &s.limits.conns
	if p.role == nothing {
		quota = &s.limits.strange
	}
	uid := p.caller.UID
	p.busy = !quota.take(uid, 0)
	if p.busy && !quota.take(uid, overdrawn) {
		return nil
	}
	p.leave = func() { quota.give(uid) }
	// Nobody but who may start commands has a reason to send descriptors.
	p.Conn = wire.NewConn(c, p.role != steer)
	return p
}

func (s *Server) roleOf(c Caller, groups []uint32) role {
	in := func(g group) bool {
		if !g.is {
			return false
		}
		for _, gid := range append(groups, c.GID) {
			if gid == g.gid {
				return true
			}
		}
		return false
	}
	switch {
	case c.UID == 0 || in(s.steer):
		return steer
	case in(s.watch):
		return watch
	}
	return nothing
}

// peerGroups returns the supplementary groups that the peer had when it connected (SO_PEERGROUPS).
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case unix.ERANGE:
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}

// name is the account's, as the history shows it.
func (c Caller) name() string {
	id := strconv.FormatUint(uint64(c.UID), 10)
	if c.UID == 0 {
		return "root"
	}
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// admit refuses those who may nothing, and those who have too many connections.
func (s *Server) admit(p *peer) error {
	switch {
	case p.role == nothing:
		return &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("user %s (uid %d) may not use the NemoClaw daemon: %s", p.caller.name(), p.caller.UID, s.whoMay())}
	case p.busy:
		return &api.Error{Code: api.Busy, Message: fmt.Sprintf("user %s has too many connections to the NemoClaw daemon: close some, or use them again", p.caller.name())}
	}
	return nil
}

// whoMay says who may steer, and what to do to be one of them.
func (s *Server) whoMay() string {
	if !s.steer.is {
		return "only root may; use sudo, or name a group as steer_group in the daemon's configuration"
	}
	text := "root and members of the group " + s.steer.name + " may"
	if s.watch.is {
		text += ", and members of the group " + s.watch.name + " may watch"
	}
	return text + fmt.Sprintf("; as root, `usermod -aG %s USER`, then log in again", s.steer.name)
}

// quota counts what users hold. Root's share is its own: others can't use it up.
type quota struct {
	each, all int

	mu    sync.Mutex
	held  map[uint32]int
	total int
}

// take takes one for uid, with extra more allowed than the bounds say.
func (q *quota) take(uid uint32, extra int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[uid] >= q.each+extra || uid != 0 && q.total >= q.all+extra {
		return false
	}
	if q.held == nil {
		q.held = map[uint32]int{}
	}
	q.held[uid]++
	if uid != 0 {
		q.total++
	}
	return true
}

func (q *quota) give(uid uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[uid]--; q.held[uid] == 0 {
		delete(q.held, uid)
	}
	if uid != 0 {
		q.total--
	}
}
