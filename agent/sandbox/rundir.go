package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
)

// Host ids of sandboxes: above those of accounts, of containers and of systemd, below what a signed int holds.
const (
	firstHostID = 0x70000000
	hostIDs     = 0x0f000000
)

const idFile = "id" // in a run directory: the sandbox's host uid and gid

// runDir is a sandbox's directory below the daemon's run directory. Its lock is held as long as its owner lives, and
// the kernel releases it when the owner is killed: so the next start knows what to sweep.
type runDir struct {
	path string
	lock *os.File
	id   uint32
}

// lockAll serialises the making and sweeping of run directories: without it a sweep could take a directory that has
// just been made and not yet been locked.
func lockAll(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sandbox: making the run directory: %w; choose another with --run-dir", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sandbox: opening the lock of the run directory: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("sandbox: locking %s: %w", f.Name(), err)
	}
	return f, nil
}

// newRunDir makes and locks a sandbox's run directory and chooses its host id. lasting is the cgroup parent of a sandbox
// that lasts, "" of another.
func newRunDir(dir, name, lasting string) (*runDir, error) {
	all, err := lockAll(dir)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	r := &runDir{path: filepath.Join(dir, name)}
	if err := os.Mkdir(r.path, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("sandbox: %s exists: a sandbox named %s is running, or was killed and not swept; choose another name", r.path, name)
	} else if err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if r.lock, err = lockDir(r.path); err == nil {
		r.id = chooseID(dir)
		err = os.WriteFile(filepath.Join(r.path, idFile), []byte(strconv.FormatUint(uint64(r.id), 10)), 0o600)
	}
	if err == nil && lasting != "" {
		// In one step: a name that was cut short would be another cgroup's.
		err = atomicfile.Swap(filepath.Join(r.path, lastingFile), []byte(lasting))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sandbox: %w", err), r.remove())
	}
	return r, nil
}

// lockDir locks a directory; it fails with EWOULDBLOCK when its owner lives.
func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}

// handOver is how long what a daemon that is gone had may be taken.
const (
	handOver     = 3 * time.Second
	handOverStep = 20 * time.Millisecond
)

// TakeLock locks what a daemon that was killed had locked; EWOULDBLOCK comes late, and says that the other daemon lives.
func TakeLock(f *os.File) error {
	return TakeOver(unix.EWOULDBLOCK, func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
}

// TakeOver calls take, which takes what a daemon that was killed had open, until it does not give taken any more: a child of that
// daemon that was forked and has not executed yet has it a moment longer.
func TakeOver(taken unix.Errno, take func() error) error {
	for until := time.Now().Add(handOver); ; time.Sleep(handOverStep) {
		err := take()
		if !errors.Is(err, taken) || time.Now().After(until) {
			return err
		}
	}
}

// chooseID returns a host id that no other sandbox of this run directory has.
func chooseID(dir string) uint32 {
	taken := map[string]bool{}
	files, _ := filepath.Glob(filepath.Join(dir, "*", idFile))
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			taken[strings.TrimSpace(string(text))] = true
		}
	}
	for {
		id := firstHostID + rand.Uint32N(hostIDs)
		if !taken[strconv.FormatUint(uint64(id), 10)] {
			return id
		}
	}
}

// remove takes the directory away and lets go of its lock.
func (r *runDir) remove() error {
	err := os.RemoveAll(r.path)
	if r.lock != nil {
		r.lock.Close()
		r.lock = nil
	}
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

// Swept is a sandbox that a killed owner left and Sweep removed.
type Swept struct {
	Name   string
	Killed bool // its cgroup still existed
}

// Sweep removes what owners that were killed left below a run directory: processes, cgroups, directories. It touches
// nothing whose owner lives, nor lasting sandboxes, which are for the next daemon. cgroup2 is the cgroup2 mount, found when "".
func Sweep(dir, cgroup2, parent string) ([]Swept, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox: looking for what a killed daemon left: %w", err)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	all, err := lockAll(dir)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	var swept []Swept
	var failed []error
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, e.Name(), lastingFile)); err == nil {
			continue
		}
		lock, err := lockDir(filepath.Join(dir, e.Name()))
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("sandbox: %w", err))
			continue
		}
		s, err := sweepOne(&runDir{path: filepath.Join(dir, e.Name()), lock: lock}, cgroup2, parent, e.Name())
		swept = append(swept, s)
		failed = append(failed, err)
	}
	return swept, errors.Join(failed...)
}

func sweepOne(r *runDir, cgroup2, parent, name string) (Swept, error) {
	s := Swept{Name: name}
	h, err := hostHierarchies(cgroup2)
	if err != nil {
		r.lock.Close()
		return s, err
	}
	// v2 first: it is where the init was cloned to, and killing it empties the others.
	dirs := []string{filepath.Join(h.v2, parent, name)}
	for _, point := range h.v1 {
		dirs = append(dirs, filepath.Join(point, parent, name))
	}
	for _, dir := range dirs {
		there, err := killGroup(dir)
		if err != nil {
			r.lock.Close()
			return s, err // the directory stays, and with it the next start's knowledge
		}
		s.Killed = s.Killed || there
	}
	return s, r.remove()
}
