package loader

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// cgroup is an open directory of the cgroup v2 hierarchy. Its id is the inode number, on 64-bit machines, and what
// bpf_get_current_cgroup_id returns; the kernel never gives the same id to another cgroup.
type cgroup struct {
	path string
	dir  *os.File
	id   uint64
}

// findParent returns the path of the parent cgroup, which need not exist.
func findParent(cfg Config) (string, error) {
	if strings.ContainsAny(cfg.Parent, "/.") {
		return "", fmt.Errorf("parent cgroup %q: want a name without slashes and dots (BPF file systems have none)", cfg.Parent)
	}
	root := cfg.Cgroup2
	if root == "" {
		var err error
		if root, err = findCgroup2(); err != nil {
			return "", err
		}
	} else if !isFS(root, unix.CGROUP2_SUPER_MAGIC) {
		return "", fmt.Errorf("%s is not a cgroup v2 hierarchy: name the place where one is mounted, or none to have it found", root)
	}
	return filepath.Join(root, cfg.Parent+"-"+bpf.Version()), nil
}

// openParent opens the parent cgroup and makes it if needed.
func openParent(cfg Config) (cgroup, error) {
	path, err := findParent(cfg)
	if err != nil {
		return cgroup{}, err
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return cgroup{}, fmt.Errorf("make the parent cgroup of all sandboxes: %w; this needs root and a writable cgroup v2 hierarchy", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return cgroup{}, fmt.Errorf("open the parent cgroup of all sandboxes: %w", err)
	}
	id, err := cgroupID(dir)
	if err != nil {
		dir.Close()
		return cgroup{}, err
	}
	return cgroup{path, dir, id}, nil
}

// cgroupID returns the id of an open cgroup directory.
func cgroupID(dir *os.File) (uint64, error) {
	info, err := dir.Stat()
	if err != nil {
		return 0, fmt.Errorf("cgroup id: %w", err)
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// findCgroup2 returns where cgroup v2 is mounted. It looks at the usual places first because the mount table of a
// host with containers is long.
func findCgroup2() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if isFS(dir, unix.CGROUP2_SUPER_MAGIC) {
			return dir, nil
		}
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the cgroup v2 hierarchy: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if dir, ok := cgroup2Mount(lines.Text()); ok && isFS(dir, unix.CGROUP2_SUPER_MAGIC) {
			return dir, nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("find the cgroup v2 hierarchy: %w", err)
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted (looked at /sys/fs/cgroup, /sys/fs/cgroup/unified and /proc/self/mountinfo): " +
		"mount one with `mount -t cgroup2 none DIR`")
}

// cgroup2Mount returns the mount point of a line of mountinfo when it is a cgroup2 one.
func cgroup2Mount(line string) (string, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
		return "", false
	}
	return unescapeMount.Replace(fields[4]), true
}

// unescapeMount undoes what the kernel does to white space and backslashes in mount points.
var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func isFS(path string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == magic
}

// contains reports whether the cgroup of dir is below c: a sandbox anywhere else would have no program on it.
func (c cgroup) contains(dir *os.File) (bool, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer func() { unix.Close(fd) }()
	var last uint64
	for {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return false, err
		}
		if st.Ino == c.id {
			return last != 0, nil
		}
		if st.Ino == last || !isFDFS(fd, unix.CGROUP2_SUPER_MAGIC) {
			return false, nil
		}
		last = st.Ino
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, err
		}
		unix.Close(fd)
		fd = up
	}
}

func isFDFS(fd int, magic int64) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == magic
}

// removeCgroup removes a cgroup that has no children. That it does not exist is no error.
func removeCgroup(path string) error {
	err := unix.Rmdir(path)
	switch {
	case err == nil || errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("remove the parent cgroup %s: a sandbox's cgroup is in it: %w", path, errInUse)
	default:
		return fmt.Errorf("remove the parent cgroup %s: %w", path, err)
	}
}
