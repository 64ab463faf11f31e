package sandbox

import "golang.org/x/sys/unix"

// Argument values that x/sys has no name for, or not on every architecture.
const (
	typeMask      = 0xf // of a socket's type: the rest are flags
	tiocsti       = 0x5412
	tioclinux     = 0x541c
	tiocsetd      = 0x5423
	setIDs        = unix.S_ISUID | unix.S_ISGID
	queryPersona  = 0xffffffff
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
)

var (
	denied  = callErrno(unix.EPERM)
	unknown = callErrno(unix.ENOSYS) // for what programs try first and have an older way for
	ignored = callErrno(0)           // says that it worked, and does nothing
)

// is, masked and has write conditions.
func is(arg int, any ...uint32) condition    { return condition{arg: arg, any: any} }
func isNot(arg int, any ...uint32) condition { return condition{arg: arg, any: any, negate: true} }
func masked(arg int, mask uint32, any ...uint32) condition {
	return condition{arg: arg, mask: mask, any: any}
}
func has(arg int, bits uint32) condition {
	return condition{arg: arg, mask: bits, any: []uint32{0}, negate: true}
}

// calls is everything that is not simply allowed. Most of it needs a capability that nobody inside has; it is listed
// all the same, because the code behind it is the host kernel's.
var calls = []call{
	// Mounts.
	{name: "mount", amd64: 165, arm64: 40, otherwise: denied},
	{name: "umount2", amd64: 166, arm64: 39, otherwise: denied},
	{name: "pivot_root", amd64: 155, arm64: 41, otherwise: denied},
	{name: "chroot", amd64: 161, arm64: 51, otherwise: denied},
	{name: "open_tree", amd64: 428, arm64: 428, otherwise: denied},
	{name: "move_mount", amd64: 429, arm64: 429, otherwise: denied},
	{name: "fsopen", amd64: 430, arm64: 430, otherwise: denied},
	{name: "fsconfig", amd64: 431, arm64: 431, otherwise: denied},
	{name: "fsmount", amd64: 432, arm64: 432, otherwise: denied},
	{name: "fspick", amd64: 433, arm64: 433, otherwise: denied},
	{name: "mount_setattr", amd64: 442, arm64: 442, otherwise: denied},
	{name: "open_tree_attr", amd64: 467, arm64: 467, otherwise: denied},
	{name: "quotactl", amd64: 179, arm64: 60, otherwise: denied},
	{name: "quotactl_fd", amd64: 443, arm64: 443, otherwise: denied},
	{name: "swapon", amd64: 167, arm64: 224, otherwise: denied},
	{name: "swapoff", amd64: 168, arm64: 225, otherwise: denied},
	{name: "open_by_handle_at", amd64: 304, arm64: 265, otherwise: denied},
	{name: "fanotify_init", amd64: 300, arm64: 262, otherwise: denied},

	// A file in the workspace belongs to the workspace's owner on the host, and nosuid is only the sandbox's own mount:
	// whoever starts a set-user-ID file there becomes that owner, root perhaps. Creating a file with such a mode makes an
	// empty one, and writing to it takes the bits away; so only these can give them to a program.
	{name: "chmod", amd64: 90, arm64: -1, otherwise: callAllow, checks: []check{{[]condition{has(1, setIDs)}, denied}}},
	{name: "fchmod", amd64: 91, arm64: 52, otherwise: callAllow, checks: []check{{[]condition{has(1, setIDs)}, denied}}},
	{name: "fchmodat", amd64: 268, arm64: 53, otherwise: callAllow, checks: []check{{[]condition{has(2, setIDs)}, denied}}},
	{name: "fchmodat2", amd64: 452, arm64: 452, otherwise: callAllow, checks: []check{{[]condition{has(2, setIDs)}, denied}}},
	{name: "mknod", amd64: 133, arm64: -1, otherwise: callAllow, checks: []check{{[]condition{has(1, setIDs)}, denied}}},
	{name: "mknodat", amd64: 259, arm64: 33, otherwise: callAllow, checks: []check{{[]condition{has(2, setIDs)}, denied}}},

	// Other processes. RLIMIT_CORE stays 1, the one value with which a crash does not start the host's core_pattern
	// program, as root (fs/coredump.c); programs that set it to 0 have what they want.
	{name: "setrlimit", amd64: 160, arm64: 164, otherwise: callAllow, checks: []check{
		{[]condition{is(0, unix.RLIMIT_CORE)}, ignored}}},
	{name: "prlimit64", amd64: 302, arm64: 261, otherwise: callAllow, checks: []check{
		{[]condition{is(1, unix.RLIMIT_CORE), isNot(2, 0)}, ignored},
		{[]condition{is(1, unix.RLIMIT_CORE), {arg: 2, any: []uint32{0}, negate: true, high: true}}, ignored}}},
	{name: "ptrace", amd64: 101, arm64: 117, otherwise: denied},
	{name: "process_vm_readv", amd64: 310, arm64: 270, otherwise: denied},
	{name: "process_vm_writev", amd64: 311, arm64: 271, otherwise: denied},
	{name: "process_madvise", amd64: 440, arm64: 440, otherwise: denied},
	{name: "kcmp", amd64: 312, arm64: 272, otherwise: denied},
	{name: "pidfd_getfd", amd64: 438, arm64: 438, otherwise: denied},

	// Namespaces. clone3 keeps its flags in memory, where a filter can't look; libc falls back to clone.
	{name: "setns", amd64: 308, arm64: 268, otherwise: denied},
	{name: "clone3", amd64: 435, arm64: 435, otherwise: unknown},
	{name: "unshare", amd64: 272, arm64: 97, otherwise: callAllow, checks: []check{
		{[]condition{has(0, newNamespaces|unix.CLONE_NEWTIME)}, denied}}},
	{name: "clone", amd64: 56, arm64: 220, otherwise: callAllow, checks: []check{
		{[]condition{has(0, newNamespaces)}, denied}}}, // CLONE_NEWTIME is part of the exit signal here

	// Kernel interfaces with a history.
	{name: "bpf", amd64: 321, arm64: 280, otherwise: denied},
	{name: "perf_event_open", amd64: 298, arm64: 241, otherwise: denied},
	{name: "userfaultfd", amd64: 323, arm64: 282, otherwise: denied},
	{name: "io_uring_setup", amd64: 425, arm64: 425, otherwise: unknown},
	{name: "io_uring_enter", amd64: 426, arm64: 426, otherwise: unknown},
	{name: "io_uring_register", amd64: 427, arm64: 427, otherwise: unknown},
	// The machine has so many asynchronous I/O contexts (fs.aio-max-nr), whoever takes them.
	{name: "io_setup", amd64: 206, arm64: 0, otherwise: unknown},
	{name: "keyctl", amd64: 250, arm64: 219, otherwise: denied},
	{name: "add_key", amd64: 248, arm64: 217, otherwise: denied},
	{name: "request_key", amd64: 249, arm64: 218, otherwise: denied},
	{name: "memfd_secret", amd64: 447, arm64: 447, otherwise: unknown},
	{name: "memfd_create", amd64: 319, arm64: 279, otherwise: unknown}, // only where memfds may be executed
	{name: "seccomp", amd64: 317, arm64: 277, otherwise: callAllow, checks: []check{
		{[]condition{has(1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)}, denied}}},
	{name: "personality", amd64: 135, arm64: 92, otherwise: denied, checks: []check{
		{[]condition{is(0, 0, queryPersona)}, callAllow}}},
	{name: "ioctl", amd64: 16, arm64: 29, otherwise: callAllow, checks: []check{
		{[]condition{is(1, tiocsti, tioclinux, tiocsetd)}, denied}}},

	// The machine.
	{name: "kexec_load", amd64: 246, arm64: 104, otherwise: denied},
	{name: "kexec_file_load", amd64: 320, arm64: 294, otherwise: denied},
	{name: "init_module", amd64: 175, arm64: 105, otherwise: denied},
	{name: "finit_module", amd64: 313, arm64: 273, otherwise: denied},
	{name: "delete_module", amd64: 176, arm64: 106, otherwise: denied},
	{name: "create_module", amd64: 174, arm64: -1, otherwise: denied},
	{name: "get_kernel_syms", amd64: 177, arm64: -1, otherwise: denied},
	{name: "query_module", amd64: 178, arm64: -1, otherwise: denied},
	{name: "reboot", amd64: 169, arm64: 142, otherwise: denied},
	{name: "acct", amd64: 163, arm64: 89, otherwise: denied},
	{name: "syslog", amd64: 103, arm64: 116, otherwise: denied},
	{name: "settimeofday", amd64: 164, arm64: 170, otherwise: denied},
	{name: "clock_settime", amd64: 227, arm64: 112, otherwise: denied},
	{name: "adjtimex", amd64: 159, arm64: 171, otherwise: denied},
	{name: "clock_adjtime", amd64: 305, arm64: 266, otherwise: denied},
	{name: "sethostname", amd64: 170, arm64: 161, otherwise: denied},
	{name: "setdomainname", amd64: 171, arm64: 162, otherwise: denied},
	{name: "vhangup", amd64: 153, arm64: 58, otherwise: denied},
	{name: "iopl", amd64: 172, arm64: -1, otherwise: denied},
	{name: "ioperm", amd64: 173, arm64: -1, otherwise: denied},
	{name: "modify_ldt", amd64: 154, arm64: -1, otherwise: denied},
	{name: "uselib", amd64: 134, arm64: -1, otherwise: denied},
	{name: "lookup_dcookie", amd64: 212, arm64: 18, otherwise: denied},
	{name: "nfsservctl", amd64: 180, arm64: 42, otherwise: denied},

	// Sockets: what connect4/6, sendmsg4/6 and the proxy judge, unix sockets, and the netlink that says which addresses
	// there are. MPTCP and SCTP get the error on which programs fall back to TCP.
	{name: "socket", amd64: 41, arm64: 198, otherwise: callErrno(unix.EPROTONOSUPPORT), checks: []check{
		{[]condition{isNot(0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK)}, callErrno(unix.EAFNOSUPPORT)},
		{[]condition{is(0, unix.AF_UNIX)}, callAllow},
		{[]condition{is(0, unix.AF_NETLINK), is(2, unix.NETLINK_ROUTE)}, callAllow},
		{[]condition{is(0, unix.AF_NETLINK)}, callErrno(unix.EPROTONOSUPPORT)},
		{[]condition{masked(1, typeMask, unix.SOCK_STREAM), is(2, 0, unix.IPPROTO_TCP)}, callAllow},
		{[]condition{masked(1, typeMask, unix.SOCK_DGRAM), is(2, 0, unix.IPPROTO_UDP)}, callAllow},
		{[]condition{masked(1, typeMask, unix.SOCK_RAW)}, denied}}},
	{name: "socketpair", amd64: 53, arm64: 199, otherwise: callErrno(unix.EAFNOSUPPORT), checks: []check{
		{[]condition{is(0, unix.AF_UNIX)}, callAllow}}},
}
