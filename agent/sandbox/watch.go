package sandbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// watchedMount is a mount whose loss would break a rule.
type watchedMount struct {
	id      uint64       // as in mountinfo
	moves   []int32      // inotify watches of what it lies on
	sources []keptSource // that is
	path    string       // inside
	pos     string       // of the rule
}

// watcher waits for what takes a sandbox's masks away. Inside nobody can; but when somebody on the host replaces a file or
// removes a directory that a mask lies on, the kernel drops the mask, and when they rename it, or a directory above it, the
// mask goes along, and what comes to its place has none.
type watcher struct {
	file int    // mountinfo of the init; not an os.File: Go's poller would take the events
	wake [2]int // a pipe; closing its end stops the watcher
	done chan struct{}
}

// watchMoves watches for renames of what a tree is going to lie on, and of the directories between that and the tree around it.
func (v *view) watchMoves(t *tree) (w watchedMount, err error) {
	w.path = t.path
	top := "/"
	if in := v.plan.around(t.path); in != nil {
		top = in.path
	}
	for at, source := t.path, t.source; at != top; at, source = parent(at), parent(source) {
		wd, is, err := v.watchMove(source)
		if err != nil {
			return w, err
		}
		w.moves, w.sources = append(w.moves, wd), append(w.sources, is)
	}
	return w, nil
}

// watchMove watches for a rename of one file or directory of the host, and says which it is.
func (v *view) watchMove(source string) (wd int32, is keptSource, err error) {
	if v.moves < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return 0, is, fmt.Errorf("watching for renames: %w; see fs.inotify.max_user_instances (sysctl)", err)
		}
		v.moves = fd
	}
	fd, err := openReal(source)
	if err != nil {
		return 0, is, err
	}
	defer unix.Close(fd)
	var at unix.Stat_t
	n, err := unix.InotifyAddWatch(v.moves, "/proc/thread-self/fd/"+strconv.Itoa(fd), unix.IN_MOVE_SELF)
	if err == nil {
		err = unix.Fstat(fd, &at)
	}
	if err != nil {
		return 0, is, fmt.Errorf("watching for a rename of %s: %w", source, err)
	}
	return int32(n), keptSource{source, at.Dev, at.Ino}, nil
}

// watchAgain watches what an earlier daemon watched. A mask whose place is not the same any more counts as lost, which the
// watcher finds by its mount's number.
func (v *view) watchAgain(list []keptMount) error {
	for _, k := range list {
		w := watchedMount{id: k.ID, path: k.Path, pos: k.Pos, sources: k.Sources}
		for _, s := range k.Sources {
			wd, is, err := v.watchMove(s.Path)
			if err != nil && v.moves < 0 {
				return fmt.Errorf("sandbox: %w", err)
			}
			if err != nil || is != s {
				w.id = 0 // no mount has it
			}
			w.moves = append(w.moves, wd)
		}
		v.watched = append(v.watched, w)
	}
	return nil
}

// watchMasks starts watching. A sandbox without masks that could be lost has a watcher that does nothing.
func (s *Sandbox) watchMasks() (*watcher, error) {
	w := &watcher{file: -1, wake: [2]int{-1, -1}}
	if len(s.view.watched) == 0 {
		return w, nil
	}
	var err error
	if w.file, err = unix.Open("/proc/"+strconv.Itoa(s.pid)+"/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("sandbox: watching the masks: %w", err)
	}
	if err := unix.Pipe2(w.wake[:], unix.O_CLOEXEC); err != nil {
		closeFD(&w.file)
		return nil, fmt.Errorf("sandbox: watching the masks: %w", err)
	}
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		w.loop(s)
	}()
	return w, nil
}

// loop looks at the mounts at once, and then after each change: there is a moment between composing and watching.
func (w *watcher) loop(s *Sandbox) {
	watch := []unix.PollFd{{Fd: int32(w.file), Events: unix.POLLPRI}, {Fd: int32(w.wake[0]), Events: unix.POLLIN}, {Fd: int32(s.view.moves), Events: unix.POLLIN}}
	left := s.view.watched
	for {
		mounts, err := readAll(w.file)
		if err == nil {
			left = s.report(lost(left, mounts, moved(s.view.moves)), left)
		} else {
			left = s.report(left, left) // nothing is known any more
		}
		if len(left) == 0 {
			return
		}
		for {
			_, err := unix.Poll(watch, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if watch[1].Revents != 0 {
			return
		}
	}
}

// lost returns the watched mounts that a mountinfo file does not have, or that lie on something that was renamed.
func lost(watched []watchedMount, mountinfo []byte, moved func(int32) bool) []watchedMount {
	there := map[uint64]bool{}
	for line := range bytes.Lines(mountinfo) {
		field, _, _ := bytes.Cut(line, []byte(" "))
		if id, err := strconv.ParseUint(string(field), 10, 64); err == nil {
			there[id] = true
		}
	}
	var gone []watchedMount
	for _, w := range watched {
		if !there[w.id] || slices.ContainsFunc(w.moves, moved) {
			gone = append(gone, w)
		}
	}
	return gone
}

// moved reads which inotify watches have seen a rename since the last time.
func moved(inotify int) func(int32) bool {
	seen, all := map[int32]bool{}, false
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(inotify, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n < unix.SizeofInotifyEvent {
			break
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			wd, mask := int32(binary.NativeEndian.Uint32(buf[at:])), binary.NativeEndian.Uint32(buf[at+4:])
			seen[wd] = seen[wd] || mask&unix.IN_MOVE_SELF != 0
			all = all || mask&unix.IN_Q_OVERFLOW != 0
			at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[at+12:]))
		}
	}
	return func(wd int32) bool { return all || seen[wd] }
}

// report freezes the sandbox when masks are gone, and returns the masks that are left.
func (s *Sandbox) report(gone, watched []watchedMount) []watchedMount {
	if len(gone) == 0 {
		return watched
	}
	s.mu.Lock()
	s.unmasked = true // from here on Thaw does not undo it
	err := s.cgroup.freeze()
	s.mu.Unlock()
	if err != nil {
		_ = unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
	}
	var left []watchedMount
	for _, w := range watched {
		if !contains(gone, w.id) {
			left = append(left, w)
		} else if s.spec.Unmasked != nil {
			s.spec.Unmasked(Unmasked{w.path, w.pos, err})
		}
	}
	return left
}

func contains(list []watchedMount, id uint64) bool {
	for _, w := range list {
		if w.id == id {
			return true
		}
	}
	return false
}

// stop ends the watcher and waits for it.
func (w *watcher) stop() {
	if w == nil || w.done == nil {
		return
	}
	closeFD(&w.wake[1])
	<-w.done
	closeFD(&w.wake[0])
	closeFD(&w.file)
}
