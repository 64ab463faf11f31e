package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SysctlFile keeps what doctor --fix has raised over a reboot. It begins with SysctlHeader, by which an uninstall knows it.
const (
	SysctlFile   = "/etc/sysctl.d/60-nemoclaw.conf"
	SysctlHeader = "# Written by `nemoclaw doctor --fix`; `nemoclaw uninstall` removes it.\n"
)

func sysctlPath(name string) string { return "/proc/sys/" + strings.ReplaceAll(name, ".", "/") }

// sysctl reads a setting; -1 where the kernel has no such.
func sysctl(name string) int64 {
	b, err := os.ReadFile(sysctlPath(name))
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\t")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// least is a setting that should have no less than a value.
type least struct {
	name  string
	value int64
}

func (l least) low() bool { n := sysctl(l.name); return n >= 0 && n < l.value }

// lows are the settings that are too low, as commands that raise them and as what is found.
func lows(settings []least) (found, commands []string) {
	for _, s := range settings {
		if s.low() {
			found = append(found, fmt.Sprintf("%s=%d", s.name, sysctl(s.name)))
			commands = append(commands, fmt.Sprintf("sysctl -w %s=%d", s.name, s.value))
		}
	}
	return found, commands
}

// raise sets what is too low, now and for the next boot.
func raise(settings []least) (string, error) {
	kept, err := os.ReadFile(SysctlFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	text := string(kept)
	if text == "" {
		text = SysctlHeader
	}
	var did []string
	for _, s := range settings {
		if !s.low() {
			continue
		}
		value := strconv.FormatInt(s.value, 10)
		if err := os.WriteFile(sysctlPath(s.name), []byte(value), 0); err != nil {
			return strings.Join(did, ", "), fmt.Errorf("sysctl %s: %w", s.name, err)
		}
		text += s.name + " = " + value + "\n"
		did = append(did, s.name+"="+value)
	}
	if len(did) == 0 {
		return "", nil
	}
	what := "set " + strings.Join(did, ", ")
	err = os.MkdirAll(filepath.Dir(SysctlFile), 0o755)
	if err == nil {
		err = os.WriteFile(SysctlFile, []byte(text), 0o644)
	}
	if err != nil {
		return what + "; not kept over a reboot (" + err.Error() + ")", nil
	}
	return what + ", and in " + SysctlFile, nil
}

// watches are for hundreds of sandboxes: the daemon takes one instance for all of them, each `nemoclaw run` one of its own.
var watches = []least{{"fs.inotify.max_user_instances", 128}, {"fs.inotify.max_user_watches", 65536}}

func (e *examiner) inotify() Finding {
	found, commands := lows(watches)
	if len(found) > 0 {
		return warning(strings.Join(found, ", "), "what a sandbox is denied is watched with them, and root has one number for all: too few, and the next sandbox does not start",
			strings.Join(commands, "; "))
	}
	return ok(fmt.Sprintf("%d instances, %d watches", sysctl(watches[0].name), sysctl(watches[1].name)))
}

func (e *examiner) raiseInotify() (string, error) { return raise(watches) }

// room is what some hundred sandboxes at work take.
var room = []least{
	{"kernel.pid_max", 131072}, {"kernel.threads-max", 32768}, {"fs.file-max", 262144}, {"fs.nr_open", 262144},
	{"user.max_user_namespaces", 2048}, {"user.max_net_namespaces", 2048}, {"user.max_mnt_namespaces", 2048}, {"user.max_pid_namespaces", 2048},
	{"kernel.keys.root_maxkeys", 2000},
}

func (e *examiner) capacity() Finding {
	found, commands := lows(room)
	for _, s := range room {
		if strings.HasPrefix(s.name, "user.max_") && sysctl(s.name) == 0 {
			return failed(s.name+"=0", "no sandbox can be made without", "sysctl -w "+s.name+"="+strconv.FormatInt(s.value, 10))
		}
	}
	if len(found) > 0 {
		return warning(strings.Join(found, ", "), "a few hundred sandboxes at work take more", strings.Join(commands, "; "))
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Max < 65536 {
		return warning(fmt.Sprintf("at most %d open files for what is started here", files.Max), "a daemon that is started from here has fifteen for each sandbox and two for each connection; systemd's unit has its own limit",
			"ulimit -Hn 1048576, before the daemon is started by hand")
	}
	return ok(fmt.Sprintf("%d processes, %d open files, %d of each namespace at least", sysctl("kernel.pid_max"), sysctl("fs.file-max"), room[4].value))
}

func (e *examiner) raiseCapacity() (string, error) { return raise(room) }

func (e *examiner) userns() Finding {
	// Ubuntu's: programs without privileges get a user namespace in which they may nothing. Root and its children are spared.
	switch {
	case sysctl("kernel.apparmor_restrict_unprivileged_userns") == 1:
		return ok("AppArmor restricts those of unprivileged users; sandboxes are made by root, which it does not concern")
	case sysctl("kernel.unprivileged_userns_clone") == 0:
		return ok("forbidden to unprivileged users; sandboxes are made by root, which it does not concern")
	}
	return ok("not restricted")
}

func (e *examiner) memfd() Finding {
	switch sysctl("vm.memfd_noexec") {
	case -1:
		return ok("the kernel can't make memory files that are never executable (before 6.3): memfd_create is refused inside")
	case 2:
		return ok("memory files are never executable on this host (vm.memfd_noexec=2), nor inside")
	}
	return ok("memory files are never executable inside (vm.memfd_noexec=2 in each sandbox)")
}
