package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
)

const unified = "/sys/fs/cgroup/unified"

// cgroupRoot is the place where cgroup v2 is, or where it can be mounted.
func (e *examiner) cgroupRoot() (dir string, mounted bool) {
	if parent, err := loader.ParentPath(e.loaderConfig("")); err == nil {
		return filepath.Dir(parent), true
	}
	if e.o.Config.Cgroup2 != "" {
		return e.o.Config.Cgroup2, false
	}
	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.TMPFS_MAGIC {
		return unified, false // beside the hierarchies of version 1
	}
	return "/sys/fs/cgroup", false
}

func (e *examiner) cgroup2() Finding {
	const why = "the rules of a sandbox's network, devices and programs hang on its cgroup: none can start"
	dir, mounted := e.cgroupRoot()
	if !mounted {
		return failed("no cgroup v2 hierarchy is mounted", why, "mkdir -p "+dir+" && mount -t cgroup2 cgroup2 "+dir)
	}
	found := "cgroup v2 at " + dir
	if os.Geteuid() != 0 {
		return ok(found + "; that it can be written was not tried")
	}
	group, err := os.MkdirTemp(dir, "nemoclaw-doctor-")
	if err != nil {
		return failed(found+" can't be written: "+err.Error(), why, "mount -o remount,rw "+dir+"; in a container: --privileged --cgroupns=host")
	}
	if err := os.Remove(group); err != nil {
		return failed(found+": a group can't be removed: "+err.Error(), "each sandbox would leave one behind", "rmdir "+group)
	}
	return ok(found)
}

func (e *examiner) mountCgroup2() (string, error) {
	dir, mounted := e.cgroupRoot()
	if mounted {
		return "", nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount("cgroup2", dir, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, ""); err != nil {
		return "", fmt.Errorf("mount cgroup2 on %s: %w", dir, err)
	}
	return "mounted cgroup2 on " + dir, nil
}

func (e *examiner) controllers() Finding {
	const why = "a policy that names this limit is refused; without a limit one sandbox can take all of it"
	v2, v1, err := sandbox.Controllers()
	if err != nil {
		return failed(plain(err), "limits are set in cgroups", "see cgroup2")
	}
	text, err := os.ReadFile(filepath.Join(v2, "cgroup.controllers"))
	if err != nil {
		return failed(err.Error(), "limits are set in cgroups", "see cgroup2")
	}
	has := strings.Fields(string(text))
	var where, missing []string
	for _, c := range []string{"memory", "pids", "cpu"} {
		switch {
		case v1[c] != "":
			where = append(where, c+" (v1)")
		case slices.Contains(has, c):
			where = append(where, c+" (v2)")
		default:
			missing = append(missing, c)
		}
	}
	found := "limits of " + strings.Join(where, ", ")
	if len(missing) > 0 {
		return warning(found+"; none of "+strings.Join(missing, ", "), why,
			"mount -t cgroup -o "+missing[0]+" none DIR, or boot with systemd.unified_cgroup_hierarchy=1 cgroup_enable="+strings.Join(missing, ","))
	}
	return ok(found)
}

func (e *examiner) bpffs() Finding {
	dir := e.o.Config.BPFFS
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil && !errors.Is(err, unix.ENOENT) {
		return failed(dir+": "+err.Error(), "the programs that enforce are pinned there", "")
	} else if err != nil || st.Type != unix.BPF_FS_MAGIC {
		return warning("no BPF file system is mounted on "+dir, "the programs that enforce are pinned there; who starts first mounts it", "mkdir -p "+dir+" && mount -t bpf bpf "+dir)
	}
	return ok("BPF file system at " + dir)
}

func (e *examiner) mountBPFFS() (string, error) {
	dir := e.o.Config.BPFFS
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("%w (is sysfs mounted? mount -t sysfs sysfs /sys)", err)
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RELATIME, "mode=700"); err != nil {
		return "", fmt.Errorf("mount a BPF file system on %s: %w", dir, err)
	}
	return "mounted a BPF file system on " + dir, nil
}
