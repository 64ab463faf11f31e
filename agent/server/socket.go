package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// backlog is how many callers may wait to be accepted.
const backlog = 1024

// A Socket is a listening Unix socket that only root and the groups of a server may connect to.
type Socket struct {
	*net.UnixListener
	path string
	lock *os.File // held as long as the socket is this process's
	kept bool     // by somebody, for the daemon after this one
	node unix.Stat_t
	once sync.Once
}

// Listen makes the socket. A daemon that lives keeps its socket: the error says so. What a dead one has left behind is
// replaced, at once: whoever connects meets the old socket or the new one. kept is the socket that a daemon before had at
// this path and a service manager has kept open, so that whoever connected meanwhile waits in it; nil: there is none.
func (s *Server) Listen(path string, kept *os.File) (*Socket, error) {
	l, err := s.listen(path, kept)
	if err != nil {
		return nil, fmt.Errorf("making the daemon's socket %s: %w", path, err)
	}
	return l, nil
}

func (s *Server) listen(path string, kept *os.File) (_ *Socket, err error) {
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if l, ok := s.resume(path, kept); ok {
		l.lock = lock
		return l, nil
	}
	if err := vacant(path); err != nil {
		return nil, err
	}
	fresh := path + freshEnd
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	defer os.Remove(fresh)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // the listener has a copy
	if err := s.bind(fd, fresh); err != nil {
		return nil, err
	}
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	socket := &Socket{UnixListener: l.(*net.UnixListener), path: path, lock: lock}
	socket.SetUnlinkOnClose(false) // it has the name that it was bound to; Close takes the right one away
	if err = unix.Stat(fresh, &socket.node); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return socket, nil
}

// freshEnd ends the name that a socket is bound to, before it gets its place.
const freshEnd = ".new"

// resume takes a socket that was kept open, when its file is still in its place. Its groups are those of now.
func (s *Server) resume(path string, kept *os.File) (*Socket, bool) {
	if kept == nil {
		return nil, false
	}
	defer kept.Close() // the listener has a copy
	l, err := net.FileListener(kept)
	if err != nil {
		return nil, false
	}
	socket := &Socket{path: path}
	ours, is := l.(*net.UnixListener)
	if is && ours.Addr().String() == path+freshEnd && unix.Lstat(path, &socket.node) == nil && socket.node.Mode&unix.S_IFMT == unix.S_IFSOCK && s.open(path) == nil {
		ours.SetUnlinkOnClose(false)
		socket.UnixListener = ours
		return socket, true
	}
	_ = l.Close() // it is another path's: a new one is made
	return nil, false
}

// bind makes the file, and listens when nobody but the groups may open it.
func (s *Server) bind(fd int, name string) error {
	// A socket's file gets the mode of its descriptor, so there is no moment at which others may connect.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return fmt.Errorf("fchmod: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return errors.New("the path is too long: with .new it can have 107 bytes")
		}
		return fmt.Errorf("bind: %w", err)
	}
	if err := s.open(name); err != nil {
		return err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// open lets the groups connect.
func (s *Server) open(name string) error {
	first := s.steer
	if !first.is {
		first = s.watch
	}
	if !first.is {
		return nil
	}
	if err := os.Chown(name, -1, int(first.gid)); err != nil {
		return err
	}
	if err := os.Chmod(name, 0o660); err != nil {
		return err
	}
	if !s.watch.is || first == s.watch {
		return nil
	}
	if err := unix.Setxattr(name, "system.posix_acl_access", twoGroups(s.watch.gid), 0); err != nil {
		return fmt.Errorf("letting the group %s connect beside %s needs a file system with ACLs (setxattr: %w): put the socket on one, or name no watch_group", s.watch.name, s.steer.name, err)
	}
	return nil
}

// twoGroups is an access control list as the kernel takes it: the file's owner and group, and one more group, may read and write.
func twoGroups(gid uint32) []byte {
	const version, readWrite, nobody = 2, 6, ^uint32(0)
	const owner, fileGroup, named, mask, others = 0x01, 0x04, 0x08, 0x10, 0x20
	b := binary.LittleEndian.AppendUint32(nil, version)
	for _, e := range []struct {
		tag, may uint16
		id       uint32
	}{{owner, readWrite, nobody}, {fileGroup, readWrite, nobody}, {named, readWrite, gid}, {mask, readWrite, nobody}, {others, 0, nobody}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.may)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// takeLock locks a file for this process's life. Of two daemons that start at once, one gets it.
func takeLock(name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errInUse
			}
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		// Who had it takes it away at its end: a lock on a file that has gone keeps nobody out.
		var own, now unix.Stat_t
		if unix.Fstat(int(f.Fd()), &own) == nil && unix.Lstat(name, &now) == nil && own.Ino == now.Ino && own.Dev == now.Dev {
			return f, nil
		}
		f.Close()
	}
}

var errInUse = errors.New("a daemon that runs has it; stop that one, or give this one paths of its own (socket, state_dir, run_dir)")

// vacant says whether a socket can be made at path: nothing is there, or a socket at which nobody listens.
func vacant(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("what is there is no socket: %s", st.Mode())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return errInUse
	}
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("what listens there is not known: %w", err)
	}
	return nil
}

// Keep says that somebody keeps the socket open for the next daemon: its file stays when this one closes it.
func (l *Socket) Keep() { l.kept = true }

// Close stops listening, and takes the socket away if it is still this one.
func (l *Socket) Close() (err error) {
	l.once.Do(func() { err = l.close() })
	return err
}

func (l *Socket) close() error {
	err := l.UnixListener.Close()
	var now unix.Stat_t
	if !l.kept && unix.Lstat(l.path, &now) == nil && now.Dev == l.node.Dev && now.Ino == l.node.Ino {
		os.Remove(l.path)
	}
	os.Remove(l.lock.Name()) // before it is given free: see takeLock
	l.lock.Close()
	return err
}
