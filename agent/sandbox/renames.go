package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// renames watches for renames on the host, for all sandboxes of the process with one inotify instance: a user may have 128
// of those, and more sandboxes.
type renames struct {
	mu    sync.Mutex
	file  *os.File // nil: nobody has watched yet; it is open for good afterwards
	users map[int32]map[*moves]struct{}
}

var hostRenames = renames{users: map[int32]map[*moves]struct{}{}}

// moves are the files and directories of the host that one sandbox watches for renames. hostRenames.mu guards it.
type moves struct {
	watches map[int32]struct{}
	seen    map[int32]bool // renamed since the last take
	all     bool           // so may any of them have been
	wake    func()         // is called when something was renamed; nil: nobody waits
}

func newMoves() *moves {
	return &moves{watches: map[int32]struct{}{}, seen: map[int32]bool{}}
}

var errNoInotify = errors.New("watching for renames")

// add watches an open file or directory, and returns the number of the watch. An error that is errNoInotify says that nothing
// can be watched at all.
func (m *moves) add(fd int) (int32, error) {
	r := &hostRenames
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		in, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return 0, fmt.Errorf("%w: %w; see fs.inotify.max_user_instances (sysctl)", errNoInotify, err)
		}
		r.file = os.NewFile(uintptr(in), "inotify")
		go r.read(r.file)
	}
	n, err := inotifyOf(r.file, func(in int) (int, error) {
		return unix.InotifyAddWatch(in, "/proc/thread-self/fd/"+strconv.Itoa(fd), unix.IN_MOVE_SELF)
	})
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w; see fs.inotify.max_user_watches (sysctl)", err)
	}
	if err != nil {
		return 0, err
	}
	wd := int32(n)
	if r.users[wd] == nil { // else another sandbox, or this one, watches the same
		r.users[wd] = map[*moves]struct{}{}
	}
	r.users[wd][m] = struct{}{}
	m.watches[wd] = struct{}{}
	return wd, nil
}

// inotifyOf calls f with the descriptor of an inotify instance, and leaves it with Go's poller.
func inotifyOf(file *os.File, f func(fd int) (int, error)) (n int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) { n, err = f(int(fd)) }); e != nil {
		return 0, e
	}
	return n, err
}

// wakes has f called at every rename, which must return at once; nil: no more.
func (m *moves) wakes(f func()) {
	hostRenames.mu.Lock()
	defer hostRenames.mu.Unlock()
	m.wake = f
}

// take returns which watches have seen a rename since the last time.
func (m *moves) take() func(int32) bool {
	hostRenames.mu.Lock()
	defer hostRenames.mu.Unlock()
	seen, all := m.seen, m.all
	m.seen, m.all = map[int32]bool{}, false
	return func(wd int32) bool { return all || seen[wd] }
}

// close stops watching.
func (m *moves) close() {
	r := &hostRenames
	r.mu.Lock()
	defer r.mu.Unlock()
	for wd := range m.watches {
		delete(m.watches, wd)
		delete(r.users[wd], m)
		if len(r.users[wd]) > 0 {
			continue
		}
		delete(r.users, wd)
		// It fails where what was watched is gone, and the watch with it. Its number is not used again for long.
		_, _ = inotifyOf(r.file, func(in int) (int, error) { return unix.InotifyRmWatch(in, uint32(wd)) })
	}
}

// read tells of renames for as long as the process lives. When it can't any more, everything counts as renamed.
func (r *renames) read(file *os.File) {
	buf := make([]byte, 64<<10)
	for {
		n, err := file.Read(buf)
		r.mu.Lock()
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			wd, mask := int32(binary.NativeEndian.Uint32(buf[at:])), binary.NativeEndian.Uint32(buf[at+4:])
			switch {
			case mask&unix.IN_Q_OVERFLOW != 0:
				r.everything()
			case mask&unix.IN_MOVE_SELF != 0:
				for m := range r.users[wd] {
					m.seen[wd] = true
					m.tell()
				}
			}
			at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[at+12:]))
		}
		if err != nil {
			r.everything()
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

func (r *renames) everything() {
	for _, users := range r.users {
		for m := range users {
			m.all = true
			m.tell()
		}
	}
}

func (m *moves) tell() {
	if m.wake != nil {
		m.wake()
	}
}
