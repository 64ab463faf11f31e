package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// DefaultPIDs is how many tasks a sandbox may have when its policy does not say.
const DefaultPIDs = 4096

// defaultMemoryParts: of so many parts of the host's memory a sandbox may have all but one when the policy does not say,
// so that the host's own programs are not what runs out first.
const defaultMemoryParts = 4

const (
	cpuPeriod   = 100_000 // microseconds, the kernel's default
	minCPUQuota = 1000    // microseconds, the kernel's least
)

// hierarchies are the cgroup file systems that this process sees.
type hierarchies struct {
	v2 string            // mount point of cgroup2; "" for none
	v1 map[string]string // mount point by controller
}

// findHierarchies reads a mountinfo file. Of several mounts of one hierarchy the last counts: it covers the others.
func findHierarchies(mountinfo io.Reader) (hierarchies, error) {
	h := hierarchies{v1: map[string]string{}}
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		at, fstype := strings.Fields(before), strings.Fields(after)
		if !ok || len(at) < 6 || len(fstype) < 3 {
			continue
		}
		point := unescapeMount(at[4])
		switch fstype[0] {
		case "cgroup2":
			h.v2 = point
		case "cgroup":
			for _, option := range strings.Split(fstype[2], ",") {
				h.v1[option] = point // options that are no controllers are never asked for
			}
		}
	}
	return h, lines.Err()
}

// unescapeMount undoes mountinfo's \040 and the like.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hostHierarchies finds the host's cgroup file systems; cgroup2 replaces what is found when it is not "".
func hostHierarchies(cgroup2 string) (hierarchies, error) {
	text, err := readFile("/proc/thread-self/mountinfo")
	if err != nil {
		return hierarchies{}, fmt.Errorf("sandbox: looking for cgroup mounts: %w; is /proc mounted?", err)
	}
	h, err := findHierarchies(bytes.NewReader(text))
	if err != nil {
		return h, fmt.Errorf("sandbox: looking for cgroup mounts: reading mountinfo: %w", err)
	}
	if cgroup2 != "" {
		h.v2 = cgroup2
	}
	if h.v2 == "" {
		return h, errors.New("sandbox: no cgroup2 file system is mounted, and without one no connection can be judged; " +
			"mount it: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified")
	}
	return h, nil
}

// cgroup is a sandbox's group in each hierarchy that it needs.
type cgroup struct {
	v2       string
	v1       []string // without doubles
	dir      *os.File // of v2
	warnings []string
}

// newCgroup makes the groups and sets the limits. A limit that the policy names and nothing here can enforce is an
// error; where is the rule's place for messages.
func newCgroup(h hierarchies, parent, name string, limits policy.Limits, where string) (*cgroup, error) {
	c := &cgroup{v2: filepath.Join(h.v2, parent, name)}
	if err := makeGroup(c.v2); err != nil {
		return nil, err
	}
	var err error
	if c.dir, err = os.Open(c.v2); err != nil {
		os.Remove(c.v2)
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	var unlimited []string
	var why error
	for _, l := range wantedLimits(limits, hostMemory()) {
		switch err := c.limit(h, parent, name, l); {
		case err == nil:
		case l.named:
			return nil, errors.Join(fmt.Errorf("sandbox: %s: limits.%s can't be enforced: %w", where, l.key, err), c.remove())
		default:
			unlimited, why = append(unlimited, l.key), err
		}
	}
	if why != nil {
		c.warnings = append(c.warnings, fmt.Sprintf("the sandbox has no limit of %s: %v", strings.Join(unlimited, " and "), why))
	}
	return c, nil
}

// hostMemory is the host's memory in bytes; 0 when it is not known.
func hostMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return int64(info.Totalram * uint64(info.Unit))
}

// setting is one limit and how each version of cgroups writes it.
type setting struct {
	key, controller string
	named           bool // by the policy
	v1, v2          [][2]string
	optional        []string // files that not every kernel has
}

func wantedLimits(l policy.Limits, hostMemory int64) []setting {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	pids := setting{key: "pids", controller: "pids", named: l.PIDs > 0}
	most := int64(DefaultPIDs)
	if pids.named {
		most = l.PIDs
	}
	pids.v1 = [][2]string{{"pids.max", number(most)}}
	pids.v2 = pids.v1
	list := []setting{pids}
	memory := l.Memory
	if memory == 0 {
		memory = hostMemory / defaultMemoryParts * (defaultMemoryParts - 1)
	}
	if memory > 0 {
		list = append(list, setting{
			key: "memory", controller: "memory", named: l.Memory > 0,
			// Memory means memory: without these a sandbox at its limit would go on in the host's swap.
			v1: [][2]string{{"memory.limit_in_bytes", number(memory)}, {"memory.memsw.limit_in_bytes", number(memory)}},
			v2: [][2]string{{"memory.max", number(memory)}, {"memory.swap.max", "0"}},
			// Absent where the kernel does not account swap.
			optional: []string{"memory.memsw.limit_in_bytes", "memory.swap.max"},
		})
	}
	if l.CPUs > 0 {
		quota := number(max(int64(math.Ceil(l.CPUs*cpuPeriod)), minCPUQuota))
		list = append(list, setting{
			key: "cpus", controller: "cpu", named: true,
			v1: [][2]string{{"cpu.cfs_period_us", number(cpuPeriod)}, {"cpu.cfs_quota_us", quota}},
			v2: [][2]string{{"cpu.max", quota + " " + number(cpuPeriod)}},
		})
	}
	return list
}

// limit writes one limit: on v2 where the controller is there, else on the v1 hierarchy that holds it.
func (c *cgroup) limit(h hierarchies, parent, name string, s setting) error {
	dir, files := c.v2, s.v2
	if point, ok := h.v1[s.controller]; ok {
		dir, files = filepath.Join(point, parent, name), s.v1
		if !slices.Contains(c.v1, dir) {
			if err := makeGroup(dir); err != nil {
				return err
			}
			c.v1 = append(c.v1, dir)
		}
	} else if err := delegate(h.v2, parent, s.controller); err != nil {
		return err
	}
	for _, f := range files {
		err := writeFile(filepath.Join(dir, f[0]), f[1])
		if errors.Is(err, fs.ErrNotExist) && slices.Contains(s.optional, f[0]) {
			continue
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", f[1], err)
		}
	}
	return nil
}

// countIO has what is read from and written to disks counted, where the kernel can. Nothing depends on it.
func (c *cgroup) countIO(h hierarchies, parent, name string) {
	controller := "io"
	if _, ok := h.v1["blkio"]; ok {
		controller = "blkio" // its name in version 1
	}
	_ = c.limit(h, parent, name, setting{controller: controller}) // where it can't, Usage says so
}

// delegate makes a v2 controller available below the parent group.
func delegate(mount, parent, controller string) error {
	has, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(string(has)), controller) {
		return fmt.Errorf("the %s controller is neither on cgroup2 at %s nor on a cgroup v1 mount; mount it "+
			"(mount -t cgroup -o %s none DIR), or take the limit out of the policy", controller, mount, controller)
	}
	for at := mount; ; {
		file := filepath.Join(at, "cgroup.subtree_control")
		on, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(string(on)), controller) {
			err := writeFile(file, "+"+controller)
			switch {
			case errors.Is(err, unix.EBUSY):
				return fmt.Errorf("the %s controller can't be passed on by %s: processes are in that very group (a container's are); "+
					"move them into a group below it first (mkdir %s/main; for p in $(cat %s/cgroup.procs); do echo $p > %s/main/cgroup.procs; done), "+
					"start the container with --cgroupns=host, or take the limit out of the policy", controller, at, at, at, at)
			case err != nil:
				return fmt.Errorf("passing the %s controller on: %w", controller, err)
			}
		}
		if at != mount || parent == "" {
			return nil
		}
		at = filepath.Join(mount, parent)
	}
}

// makeGroup makes a group that nobody is in, and the parent where it is missing.
func makeGroup(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(dir), 0o755); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Mkdir(dir, 0o755)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		// A left-over of a sandbox whose run directory is gone; the kernel refuses when somebody is in it.
		if os.Remove(dir) == nil {
			err = os.Mkdir(dir, 0o755)
		}
	}
	if err != nil {
		return fmt.Errorf("sandbox: making the cgroup: %w; it is in use when another daemon has the same cgroup parent, and can't be made when %s is mounted read-only",
			err, filepath.Dir(filepath.Dir(dir)))
	}
	return nil
}

// enter moves the calling thread, not its process, into the v1 groups: what it forks starts there. The v2 group is
// entered by clone.
func (c *cgroup) enter() error {
	for _, dir := range c.v1 {
		// "0" in tasks is the one way into a group that takes no lock of all processes, and so no RCU period.
		if err := writeFile(filepath.Join(dir, "tasks"), "0"); err != nil {
			return fmt.Errorf("sandbox: entering the cgroup: %w", err)
		}
	}
	return nil
}

// freeze stops every process of the sandbox where it is.
func (c *cgroup) freeze() error {
	if err := writeFile(filepath.Join(c.v2, "cgroup.freeze"), "1"); err != nil {
		return fmt.Errorf("sandbox: freezing: %w", err)
	}
	return nil
}

// remove takes the groups away; nobody may be in them any more.
func (c *cgroup) remove() error {
	if c.dir != nil {
		c.dir.Close()
		c.dir = nil
	}
	awaitEmpty(c.v2)
	var failed []error
	for _, dir := range append(slices.Clone(c.v1), c.v2) {
		failed = append(failed, removeGroup(dir))
	}
	return errors.Join(failed...)
}

// leaveTime is how long processes that were killed have to be gone. One that frees much memory, or waits for a disk, takes a while.
const leaveTime = 30 * time.Second

// awaitEmpty waits until no process is in a group of v2, which the kernel says. In v1, where it does not, this does nothing.
func awaitEmpty(dir string) {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		return
	}
	defer f.Close()
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
	buf := make([]byte, 256)
	for deadline := time.Now().Add(leaveTime); ; {
		// What poll tells of is what has changed since it was read.
		n, err := f.ReadAt(buf, 0)
		left := time.Until(deadline)
		if err != nil && !errors.Is(err, io.EOF) || !bytes.Contains(buf[:n], []byte("populated 1")) || left <= 0 {
			return
		}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// removeGroup waits for what the kernel still has to do when the last process has left a group, for two seconds at most.
func removeGroup(dir string) error {
	deadline := time.Now().Add(2 * time.Second)
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		err := os.Remove(dir)
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(deadline):
			return fmt.Errorf("sandbox: removing the cgroup: %w; who is in it: cat %s", err, filepath.Join(dir, "cgroup.procs"))
		}
		time.Sleep(wait)
	}
}

// killGroup kills everybody in a group that a dead owner left, and removes it. It says whether there was one.
func killGroup(dir string) (bool, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	// v2 since 5.14; v1 and older kernels have no such file, and each process is killed by its id.
	if writeFile(filepath.Join(dir, "cgroup.kill"), "1") != nil {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return true, fmt.Errorf("sandbox: %w", err)
		}
		for _, field := range strings.Fields(string(procs)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	awaitEmpty(dir)
	return true, removeGroup(dir)
}
