package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// What a directory's file system has to have free.
const (
	muchRoom  = 1 << 30
	someRoom  = 64 << 20
	someNodes = 10_000
)

// directories are the daemon's, with the modes they get and what they are for.
var directories = map[string]struct {
	mode os.FileMode
	why  string
}{
	"state_dir": {0o700, "sandboxes, their workspaces and snapshots are kept there"},
	"run_dir":   {0o755, "what lives as long as a sandbox is there, and the socket"},
	"audit":     {0o700, "a decision that can't be recorded stops the sandbox"},
}

// storage looks at the directory of a setting, or at what it will be made in.
func storage(key string) func(*examiner) Finding {
	return func(e *examiner) Finding {
		dir, why := e.o.Config.Dirs()[key], directories[key].why
		other := fmt.Sprintf("free some, or name another directory: %s in agent.yaml", key)
		st, err := os.Stat(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return failed(err.Error(), why, other)
		}
		if err == nil && !st.IsDir() {
			return failed(dir+" is not a directory", why, "move it away: mv "+dir+" "+dir+".old")
		}
		missing := err != nil
		at := dir
		for ; err != nil && at != "/"; _, err = os.Stat(at) {
			at = filepath.Dir(at)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(at, &fs); err != nil {
			return failed(at+": "+err.Error(), why, other)
		}
		free := int64(fs.Bavail) * fs.Bsize
		found := fmt.Sprintf("%s: %s free", dir, size(free))
		switch {
		case fs.Flags&unix.ST_RDONLY != 0:
			return failed(dir+" is on a file system that is read-only", why, "mount -o remount,rw "+at)
		case free < someRoom:
			return failed(found, why, other)
		case fs.Files > 0 && fs.Ffree < someNodes:
			return warning(fmt.Sprintf("%s, and room for %d files", found, fs.Ffree), why, other)
		case missing:
			return warning(found+"; it is not there yet", "the daemon makes it when it starts", "mkdir -p -m "+fmt.Sprintf("%04o", directories[key].mode)+" "+dir)
		case key != "run_dir" && free < muchRoom:
			return warning(found, why, other)
		case st.Mode().Perm()&0o022 != 0:
			return failed(fmt.Sprintf("%s can be written by others than its owner (mode %04o)", dir, st.Mode().Perm()), "who writes there decides what sandboxes are", "chmod go-w "+dir)
		}
		return ok(found)
	}
}

func makeDirectory(key string) func(*examiner) (string, error) {
	return func(e *examiner) (string, error) {
		dir := e.o.Config.Dirs()[key]
		if _, err := os.Lstat(dir); err == nil {
			return "", nil
		}
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return "", err
		}
		if err := os.Mkdir(dir, directories[key].mode); err != nil {
			return "", err
		}
		return "made " + dir, nil
	}
}

func size(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

func (e *examiner) clock() Finding {
	const why = "certificates are judged by it, rules expire by it, and records carry it"
	now := time.Now()
	if exe, err := os.Stat("/proc/self/exe"); err == nil && now.Before(exe.ModTime().Add(-24*time.Hour)) {
		return failed(fmt.Sprintf("it is %s by the clock, which is before this program was made (%s)", now.Format(time.DateTime), exe.ModTime().Format(time.DateTime)), why, "timedatectl set-ntp true, or date -s")
	}
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil && (state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0) {
		return warning(now.Format(time.DateTime)+", and nothing keeps it right", why, "timedatectl set-ntp true (or chrony); in a virtual machine the host may keep it")
	}
	return ok(now.Format(time.DateTime) + ", kept right")
}

func (e *examiner) gpu() Finding {
	devices, _ := filepath.Glob("/dev/nvidia[0-9]*")
	version := driverVersion()
	switch {
	case version == "" && len(devices) > 0:
		return warning(fmt.Sprintf("%d devices and no driver", len(devices)), whyGPU, "modprobe nvidia nvidia-uvm")
	case version == "":
		return ok("none")
	case len(devices) == 0 || !present("/dev/nvidiactl"):
		return warning("driver "+version+", and no devices in /dev", whyGPU, makesNodes)
	}
	return ok(fmt.Sprintf("%d, driver %s (nemoclaw doctor --gpu looks closer)", len(devices), version))
}
