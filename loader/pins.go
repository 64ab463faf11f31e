package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a directory of pins holds. Its name is that of the parent cgroup and its id: a parent that was removed took
// its programs along, so pins made for it are no good for another of the same name.
const (
	pinsRoot    = "nemoclaw" // below the BPF file system
	mapsDir     = "maps"
	linksDir    = "links"
	lsmDir      = "lsm" // links of the LSM programs, where the kernel fires them
	ringsDir    = "rings"
	ringPin     = "ring" // in ringsDir/NN
	identifyPin = "identify"
	unfinished  = "-new" // suffix of a directory that a loader is filling, or was when it was killed
)

func pinName(parent cgroup) string {
	return filepath.Base(parent.path) + "-" + strconv.FormatUint(parent.id, 16)
}

// splitPinName returns the parent's name and id of a pin directory's name.
func splitPinName(name string) (parent string, id uint64, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", 0, false
	}
	id, err := strconv.ParseUint(name[i+1:], 16, 64)
	return name[:i], id, err == nil
}

// ensureLoaded returns the directory of complete pins for parent, locked against removal, after loading the programs
// if there is none.
func ensureLoaded(cfg Config, parent cgroup) (string, *os.File, error) {
	if err := mountBPFFS(cfg.BPFFS); err != nil {
		return "", nil, err
	}
	root := filepath.Join(cfg.BPFFS, pinsRoot)
	pins := filepath.Join(root, pinName(parent))
	if lock, err := lockPins(pins); err == nil {
		return pins, lock, nil
	}
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", nil, fmt.Errorf("make the directory for BPF pins: %w", err)
	}
	// Whoever comes second waits here for the first one's programs.
	unlock, err := lockDir(root, unix.LOCK_EX)
	if err != nil {
		return "", nil, err
	}
	defer unlock.Close()
	if lock, err := lockPins(pins); err == nil {
		return pins, lock, nil
	}
	if err := removeStale(cfg, root, parent); err != nil {
		return "", nil, err
	}
	if err := checkUnguarded(cfg, parent); err != nil {
		return "", nil, err
	}
	if err := load(pins+unfinished, parent); err != nil {
		return "", nil, errors.Join(err, removePins(pins+unfinished))
	}
	if err := os.Rename(pins+unfinished, pins); err != nil {
		return "", nil, fmt.Errorf("complete the BPF pins: %w", err)
	}
	lock, err := lockPins(pins)
	if err != nil {
		return "", nil, fmt.Errorf("lock the BPF pins: %w", err)
	}
	return pins, lock, nil
}

// lockPins locks a complete directory of pins against removal and checks that it is all there.
func lockPins(pins string) (*os.File, error) {
	lock, err := lockDir(pins, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	// The directory may have been removed while we waited for the lock.
	links, err := os.ReadDir(filepath.Join(pins, linksDir))
	if err == nil && len(links) != linkCount {
		err = fmt.Errorf("%s has %d of %d links", pins, len(links), linkCount)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// lockDir opens a directory and locks it; closing it unlocks. BPF file systems have no files to lock but directories.
func lockDir(path string, how int) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open BPF pins: %w", err)
	}
	for {
		err = unix.Flock(int(dir.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return dir, nil
}

// mountBPFFS mounts a BPF file system on dir unless there is one.
func mountBPFFS(dir string) error {
	if isFS(dir, unix.BPF_FS_MAGIC) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the place for the BPF file system: %w", err)
	}
	// Two that start at once must not mount over each other: each would load its own programs.
	lock, err := lockDir(dir, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	if isFS(dir, unix.BPF_FS_MAGIC) {
		return nil
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a BPF file system on %s: %w; this needs root, in a container CAP_SYS_ADMIN, or `mount -t bpf bpf %s` on the host", dir, err, dir)
	}
	return nil
}

// removeStale removes what nobody needs any more, under the lock of root: directories that a killed loader left
// unfinished, pins whose parent cgroup is gone, and other versions' programs that guard nothing.
func removeStale(cfg Config, root string, parent cgroup) error {
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("list BPF pins: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(root, e.Name())
		name, id, ok := splitPinName(strings.TrimSuffix(e.Name(), unfinished))
		if !ok || !strings.HasPrefix(name, cfg.Parent+"-") {
			continue
		}
		cgroupPath := filepath.Join(filepath.Dir(parent.path), name)
		if strings.HasSuffix(e.Name(), unfinished) || id == parent.id || !cgroupIs(cgroupPath, id) {
			if err := removePins(path); err != nil && !errors.Is(err, errInUse) {
				return err
			}
			continue
		}
		// Another version. Its cgroup can be removed only when no sandbox is in it; nobody who has the pins open
		// could then make one unnoticed, NewGuard looks.
		if err := removeIdle(path, cgroupPath); err != nil && !errors.Is(err, errInUse) {
			return err
		}
	}
	return nil
}

var errInUse = errors.New("in use by a running agent")

// removeIdle removes a parent cgroup without sandboxes together with its pins, or fails with errInUse.
func removeIdle(pins, cgroupPath string) error {
	lock, err := lockDir(pins, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("remove the BPF programs pinned in %s: %w", pins, errInUse)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := removeCgroup(cgroupPath); err != nil {
		return err
	}
	return removeTree(pins)
}

// removePins removes a directory of pins, which detaches the programs. It fails with errInUse when an agent has it open.
func removePins(pins string) error {
	lock, err := lockDir(pins, unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("remove the BPF pins in %s: %w", pins, errInUse)
	case err != nil:
		return err
	}
	defer lock.Close()
	return removeTree(pins)
}

func removeTree(pins string) error {
	if err := os.RemoveAll(pins); err != nil {
		return fmt.Errorf("remove the BPF pins: %w", err)
	}
	return nil
}

// cgroupIs reports whether path is the cgroup with that id.
func cgroupIs(path string, id uint64) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Ino == id
}
