package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watchedMount is a mount whose loss would break a rule.
type watchedMount struct {
	id      uint64       // as in mountinfo
	moves   []int32      // watches of what it lies on
	sources []keptSource // that is
	path    string       // inside
	pos     string       // of the rule
}

// watcher waits for what takes a sandbox's masks away. Inside nobody can; but when somebody on the host replaces a file or
// removes a directory that a mask lies on, the kernel drops the mask, and when they rename it, or a directory above it, the
// mask goes along, and what comes to its place has none.
type watcher struct {
	file    *os.File      // mountinfo of the init; Go's poller waits for a change
	done    chan struct{} // nil: there is nothing to watch
	stopped atomic.Bool
	moves   *moves
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
	fd, err := openReal(source)
	if err != nil {
		return 0, is, err
	}
	defer unix.Close(fd)
	var at unix.Stat_t
	if wd, err = v.moves.add(fd); err == nil {
		err = unix.Fstat(fd, &at)
	}
	if err != nil {
		return 0, is, fmt.Errorf("watching for a rename of %s: %w", source, err)
	}
	return wd, keptSource{source, at.Dev, at.Ino}, nil
}

// watchAgain watches what an earlier daemon watched. A mask whose place is not the same any more counts as lost, which the
// watcher finds by its mount's number.
func (v *view) watchAgain(list []keptMount) error {
	for _, k := range list {
		w := watchedMount{id: k.ID, path: k.Path, pos: k.Pos, sources: k.Sources}
		for _, s := range k.Sources {
			wd, is, err := v.watchMove(s.Path)
			if errors.Is(err, errNoInotify) {
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
	w := &watcher{moves: s.view.moves}
	if len(s.view.watched) == 0 {
		return w, nil
	}
	// Non-blocking is what makes Go wait for it in its poller, where it costs no thread.
	fd, err := unix.Open("/proc/"+strconv.Itoa(s.pid)+"/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("sandbox: watching the masks: %w", err)
	}
	w.file = os.NewFile(uintptr(fd), "mountinfo")
	if err := w.file.SetReadDeadline(time.Time{}); err != nil { // it is in the poller
		w.file.Close()
		return nil, fmt.Errorf("sandbox: watching the masks: %w", err)
	}
	w.moves.wakes(w.look)
	w.done = make(chan struct{})
	go func() {
		defer close(w.done)
		w.loop(s)
	}()
	return w, nil
}

// look has the loop look at once. It may be called in the middle of a look; then another follows.
func (w *watcher) look() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) }

// loop looks at the mounts at once, and then after each change: there is a moment between composing and watching.
func (w *watcher) loop(s *Sandbox) {
	left := s.view.watched
	look := func(file uintptr) bool {
		mounts, err := readAll(int(file))
		if err == nil {
			left = s.report(lost(left, mounts, w.moves.take()), left)
		} else {
			left = s.report(left, left) // nothing is known any more
		}
		return len(left) == 0
	}
	raw, err := w.file.SyscallConn()
	for err == nil && len(left) > 0 {
		if err = raw.Read(look); errors.Is(err, os.ErrDeadlineExceeded) {
			err = w.file.SetReadDeadline(time.Time{}) // before the next look, so that no rename after that is missed
		}
	}
	if !w.stopped.Load() {
		s.report(left, left) // nobody could say any more when they go
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
	w.moves.wakes(nil)
	w.stopped.Store(true)
	w.file.Close()
	<-w.done
}
