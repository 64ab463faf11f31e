package doctor

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
)

func (e *examiner) root() Finding {
	if uid := os.Geteuid(); uid != 0 {
		return warning(fmt.Sprintf("this is uid %d, not root", uid), "half of the checks can't be made, and sandboxes are made by root", "sudo nemoclaw doctor")
	}
	return ok("root")
}

// leastKernel is the first kernel that has what the BPF programs need.
const leastMajor, leastMinor = 6, 1

// options are what the kernel has to be built with. Most are proven by other checks; here they explain what those find.
var options = []string{
	"BPF_SYSCALL", "CGROUP_BPF", "DEBUG_INFO_BTF", "SECCOMP_FILTER", "SECURITY_LANDLOCK",
	"NAMESPACES", "USER_NS", "PID_NS", "NET_NS", "IPC_NS", "UTS_NS", "CGROUPS", "TMPFS", "OVERLAY_FS", "INET", "IPV6", "UNIX", "INOTIFY_USER", "AUDIT",
}

func (e *examiner) kernel() Finding {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return failed("uname: "+err.Error(), "the kernel can't be known", "")
	}
	release, machine := unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])
	found := "Linux " + release + " on " + machine
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < leastMajor || major == leastMajor && minor < leastMinor {
		return failed(found, fmt.Sprintf("the BPF programs need Linux %d.%d, Landlock 6.2", leastMajor, leastMinor), "boot a newer kernel (Debian 12: apt install -t bookworm-backports linux-image-amd64)")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return failed(found+", without BTF (/sys/kernel/btf/vmlinux)", "the BPF programs find the kernel's structures by it", "boot a kernel with CONFIG_DEBUG_INFO_BTF (distributions' own have it), or mount sysfs: mount -t sysfs sysfs /sys")
	}
	on, where, err := kernelConfig(release)
	if err != nil {
		return ok(found + ", BTF; how it was configured can't be read (" + err.Error() + ")")
	}
	var off []string
	for _, o := range options {
		if !on["CONFIG_"+o] {
			off = append(off, "CONFIG_"+o)
		}
	}
	if len(off) > 0 {
		return warning(found+", BTF, without "+strings.Join(off, ", ")+" ("+where+")", "what needs these fails, as the checks below show", "boot a kernel that has them")
	}
	return ok(fmt.Sprintf("%s, BTF, all of %d options (%s)", found, len(options), where))
}

// kernelConfig returns the options that are built in or modules.
func kernelConfig(release string) (on map[string]bool, where string, err error) {
	var r io.Reader
	where = "/proc/config.gz"
	f, err := os.Open(where)
	if err == nil {
		r, err = gzip.NewReader(f)
	} else {
		where = "/boot/config-" + release
		f, err = os.Open(where)
		r = f
	}
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	on = map[string]bool{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if key, value, found := strings.Cut(lines.Text(), "="); found && (value == "y" || value == "m") {
			on[key] = true
		}
	}
	return on, where, lines.Err()
}

// landlockGives says what each ABI adds, for those that NemoClaw runs on.
var landlockGives = []struct {
	abi   int
	gives string
}{
	{9, "files, truncate, devices, signals, records of refused files, unix sockets by path"},
	{7, "files, truncate, devices, signals, records of refused files"},
	{6, "files, truncate, devices, signals"},
	{5, "files, truncate, devices"},
	{3, "files, truncate"},
}

func (e *examiner) landlock() Finding {
	abi, err := sandbox.LandlockABI()
	if err != nil {
		found, remedy, _ := strings.Cut(plain(err), ": ")
		return failed(found, "files and programs are kept from what runs inside by Landlock", remedy)
	}
	for _, l := range landlockGives {
		if abi >= l.abi {
			return ok(fmt.Sprintf("ABI %d: %s", abi, l.gives))
		}
	}
	return ok(fmt.Sprintf("ABI %d", abi))
}

func (e *examiner) seccomp() Finding {
	const need = "kill_process errno allow"
	b, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	if err != nil {
		return failed("no seccomp filters: "+err.Error(), "system calls are kept from what runs inside by seccomp", "boot a kernel with CONFIG_SECCOMP_FILTER")
	}
	has := " " + strings.TrimSpace(string(b)) + " "
	for _, action := range strings.Fields(need) {
		if !strings.Contains(has, " "+action+" ") {
			return failed("the kernel's filters can't "+action, "the filter of every sandbox uses it", "boot Linux 6.1 or newer")
		}
	}
	return ok("filters, with" + strings.TrimRight(has, " "))
}

func (e *examiner) lsm() Finding {
	const why = "rules that need level full (single denied files in a writable tree) are refused, helpers are anybody's; all others hold"
	err := loader.ProbeLSM()
	if err == nil {
		return ok("a BPF LSM program refused what it was told to: the hooks fire (level full)")
	}
	list, unknown := os.ReadFile("/sys/kernel/security/lsm")
	active := strings.TrimSpace(string(list))
	if unknown == nil && !strings.Contains(","+active+",", ",bpf,") {
		return warning("bpf is not among the active security modules ("+active+"): level static", why, "add it to the boot parameter: lsm="+active+",bpf (in /etc/default/grub; then update-grub, and reboot)")
	}
	return warning("no BPF LSM program is in force here ("+plain(err)+"): level static", why,
		"boot a kernel with CONFIG_BPF_LSM and lsm=...,bpf that is not locked down; the host of a virtual machine may forbid it")
}

// plain takes from an error what is about packages.
func plain(err error) string {
	return strings.TrimPrefix(loader.Plain(err), "sandbox: ")
}
