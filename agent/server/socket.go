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
	node unix.Stat_t
	once sync.Once
}

// Listen makes the socket. A daemon that lives keeps its socket: the error says so. What a dead one has left behind is
// replaced, at once: whoever connects meets the old socket or the new one.
func (s *Server) Listen(path string) (*Socket, error) {
	l, err := s.listen(path)
	if err != nil {
		return nil, fmt.Errorf("making the daemon's socket %s: %w", path, err)
	}
	return l, nil
}

func (s *Server) listen(path string) (_ *Socket, err error) {
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := vacant(path); err != nil {
		return nil, err
	}
	fresh := path + ".new"
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

// Close stops listening, and takes the socket away if it is still this one.
func (l *Socket) Close() (err error) {
	l.once.Do(func() { err = l.close() })
	return err
}

func (l *Socket) close() error {
	err := l.UnixListener.Close()
	var now unix.Stat_t
	if unix.Lstat(l.path, &now) == nil && now.Dev == l.node.Dev && now.Ino == l.node.Ino {
		os.Remove(l.path)
	}
	os.Remove(l.lock.Name()) // before it is given free: see takeLock
	l.lock.Close()
	return err
}
