package sandbox

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// data is struct seccomp_data. The VM reads big-endian words where the kernel reads its own, so each word is written
// big-endian, at the place where the kernel of a little-endian machine has it.
func data(arch, nr uint32, args ...uint64) []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[offNumber:], nr)
	binary.BigEndian.PutUint32(b[offArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(b[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(b[offArgs+8*i+4:], uint32(a>>32))
	}
	return b
}

var architectures = []struct {
	name string
	id   uint32
}{{"amd64", unix.AUDIT_ARCH_X86_64}, {"arm64", unix.AUDIT_ARCH_AARCH64}}

func newFilter(t testing.TB, arch string, noMemfd bool) *bpf.VM {
	t.Helper()
	program, err := filterFor(arch, noMemfd)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func run(t testing.TB, vm *bpf.VM, in []byte) verdict {
	t.Helper()
	out, err := vm.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	return verdict(uint32(out))
}

// reference says what the filter has to answer, written without its tables' structure.
func reference(name string, noMemfd bool, args [6]uint64) verdict {
	low := func(i int) uint32 { return uint32(args[i]) }
	errno := func(e unix.Errno) verdict { return verdict(0x50000 | uint32(e)) }
	const namespaces = 0x7e020000
	switch name {
	case "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick",
		"mount_setattr", "open_tree_attr", "quotactl", "quotactl_fd", "swapon", "swapoff", "open_by_handle_at", "fanotify_init",
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "setns", "bpf",
		"perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key", "kexec_load", "kexec_file_load", "init_module",
		"finit_module", "delete_module", "create_module", "get_kernel_syms", "query_module", "reboot", "acct", "syslog",
		"settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "vhangup", "iopl", "ioperm",
		"modify_ldt", "uselib", "lookup_dcookie", "nfsservctl":
		return errno(unix.EPERM)
	case "clone3", "io_setup", "io_uring_setup", "io_uring_enter", "io_uring_register", "memfd_secret":
		return errno(unix.ENOSYS)
	case "memfd_create":
		if noMemfd {
			return errno(unix.ENOSYS)
		}
	case "clone":
		if low(0)&namespaces != 0 {
			return errno(unix.EPERM)
		}
	case "chmod", "fchmod", "mknod":
		if low(1)&0o6000 != 0 {
			return errno(unix.EPERM)
		}
	case "fchmodat", "fchmodat2", "mknodat":
		if low(2)&0o6000 != 0 {
			return errno(unix.EPERM)
		}
	case "setrlimit":
		if low(0) == 4 {
			return errno(0)
		}
	case "prlimit64":
		if low(1) == 4 && args[2] != 0 {
			return errno(0)
		}
	case "unshare":
		if low(0)&(namespaces|0x80) != 0 {
			return errno(unix.EPERM)
		}
	case "seccomp":
		if low(1)&8 != 0 {
			return errno(unix.EPERM)
		}
	case "personality":
		if low(0) != 0 && low(0) != 0xffffffff {
			return errno(unix.EPERM)
		}
	case "ioctl":
		if low(1) == 0x5412 || low(1) == 0x541c || low(1) == 0x5423 {
			return errno(unix.EPERM)
		}
	case "socketpair":
		if low(0) != 1 {
			return errno(unix.EAFNOSUPPORT)
		}
	case "socket":
		kind := low(1) & 0xf
		switch low(0) {
		case 1:
		case 16:
			if low(2) != 0 {
				return errno(unix.EPROTONOSUPPORT)
			}
		case 2, 10:
			switch {
			case kind == 1 && (low(2) == 0 || low(2) == 6), kind == 2 && (low(2) == 0 || low(2) == 17):
			case kind == 3:
				return errno(unix.EPERM)
			default:
				return errno(unix.EPROTONOSUPPORT)
			}
		default:
			return errno(unix.EAFNOSUPPORT)
		}
	}
	return 0x7fff0000
}

// numbers reads an architecture's system calls from x/sys, so that the table can't have a wrong number.
func numbers(t testing.TB, arch string) map[int]string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "zsysnum_linux_"+arch+".go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{}
	for _, m := range regexp.MustCompile(`SYS_(\w+)\s+= (\d+)`).FindAllStringSubmatch(string(text), -1) {
		nr, _ := strconv.Atoi(m[2])
		names[nr] = strings.ToLower(m[1])
	}
	return names
}

func TestFilterNumbers(t *testing.T) {
	for _, arch := range architectures {
		names := numbers(t, arch.name)
		for _, c := range calls {
			nr := c.amd64
			if arch.name == "arm64" {
				nr = c.arm64
			}
			if nr >= 0 && names[nr] != c.name {
				t.Errorf("%s: %s is said to be %d, which is %q", arch.name, c.name, nr, names[nr])
			}
			if nr < 0 {
				for other, name := range names {
					if name == c.name {
						t.Errorf("%s: %s is said not to exist; it is %d", arch.name, c.name, other)
					}
				}
			}
		}
	}
}

// interesting are argument values at which a decision may change; each is also tried with bits above the low 32.
var interesting = []uint64{0, 1, 2, 3, 4, 5, 0o755, 0o4755, 0o2755, 1 << 32, 6, 8, 10, 16, 17, 40, 58, 132, 262, 0x80, 0x801, 0x80002, 0x80803, 0x5412, 0x541c,
	0x5423, 0x5401, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x7e020000, 0x3d0f00,
	0x1200011, 0x7fffffff, 0x80000000, 0xffffffff}

func TestFilterAgainstReference(t *testing.T) {
	for _, arch := range architectures {
		for _, noMemfd := range []bool{false, true} {
			vm, names := newFilter(t, arch.name, noMemfd), numbers(t, arch.name)
			for nr := range uint32(lastKnown + 1) {
				values := interesting
				if !strings.Contains(" clone unshare seccomp personality ioctl socket socketpair chmod fchmod fchmodat fchmodat2 mknod mknodat setrlimit prlimit64 ", " "+names[int(nr)]+" ") {
					values = []uint64{0, rand.Uint64()} // the arguments do not count
				}
				for _, a := range values {
					for _, b := range values {
						args := [6]uint64{a, b, b, a, b, a}
						expect(t, vm, arch.id, nr, args, reference(names[int(nr)], noMemfd, args))
						for i := range args {
							args[i] |= 1 << (32 + rand.IntN(32))
						}
						expect(t, vm, arch.id, nr, args, reference(names[int(nr)], noMemfd, args))
					}
				}
			}
		}
	}
}

func TestFilterSockets(t *testing.T) {
	for _, arch := range architectures {
		vm := newFilter(t, arch.name, false)
		nr := map[string]uint32{"amd64": 41, "arm64": 198}[arch.name]
		for family := range uint64(50) {
			for kind := range uint64(16) {
				for _, protocol := range interesting {
					args := [6]uint64{family, kind | unix.SOCK_CLOEXEC | rand.Uint64()<<32, protocol}
					expect(t, vm, arch.id, nr, args, reference("socket", false, args))
				}
			}
		}
	}
}

func expect(t *testing.T, vm *bpf.VM, arch, nr uint32, args [6]uint64, want verdict) {
	t.Helper()
	if got := run(t, vm, data(arch, nr, args[:]...)); got != want {
		t.Fatalf("arch %#x call %d args %#x: the filter says %#x, not %#x", arch, nr, args, got, want)
	}
}

func TestFilterForeign(t *testing.T) {
	const i386, arm = 0x40000003, 0x40000028
	for _, arch := range architectures {
		vm := newFilter(t, arch.name, false)
		for nr := range uint32(600) {
			for _, foreign := range []uint32{i386, arm, 0, arch.id ^ 1} {
				expect(t, vm, foreign, nr, [6]uint64{}, callKill)
			}
			expect(t, vm, arch.id, nr|x32Bit, [6]uint64{}, callErrno(unix.ENOSYS))
			if nr > lastKnown {
				expect(t, vm, arch.id, nr, [6]uint64{}, callErrno(unix.ENOSYS))
			}
		}
		expect(t, vm, arch.id, 0xffffffff, [6]uint64{}, callErrno(unix.ENOSYS))
	}
	if _, err := filterFor("riscv64", false); err == nil {
		t.Error("an architecture without a table got a filter")
	}
}

// longestPath is the most instructions that one call costs.
func longestPath(t *testing.T, program []bpf.Instruction) int {
	t.Helper()
	cost := make([]int, len(program))
	for i := len(program) - 1; i >= 0; i-- {
		switch in := program[i].(type) {
		case bpf.RetConstant:
			cost[i] = 1
		case bpf.Jump:
			cost[i] = 1 + cost[i+1+int(in.Skip)]
		case bpf.JumpIf:
			cost[i] = 1 + max(cost[i+1+int(in.SkipTrue)], cost[i+1+int(in.SkipFalse)])
		default:
			cost[i] = 1 + cost[i+1]
		}
	}
	return cost[0]
}

func TestFilterCost(t *testing.T) {
	for _, arch := range architectures {
		program, err := filterFor(arch.name, true)
		if err != nil {
			t.Fatal(err)
		}
		if n := longestPath(t, program); n > 50 {
			t.Errorf("%s: one call may cost %d instructions", arch.name, n)
		}
		raw, err := encodeFilter(program)
		if err != nil || len(raw) != 8*len(program) || len(raw) > 8192 {
			t.Errorf("%s: %d bytes for %d instructions, %v", arch.name, len(raw), len(program), err)
		}
	}
}

func TestFilterDoubleNumber(t *testing.T) {
	saved := calls
	defer func() { calls = saved }()
	calls = append(calls[:len(calls):len(calls)], call{name: "again", amd64: 165, arm64: 40})
	if _, err := filterFor("amd64", false); err == nil {
		t.Error("two calls with one number passed")
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(uint32(16), uint64(0), uint64(1<<32|0x5412), uint64(0))
	f.Add(uint32(41), uint64(2), uint64(3), uint64(0))
	vm, names := newFilter(f, "amd64", false), numbers(f, "amd64")
	f.Fuzz(func(t *testing.T, nr uint32, a, b, c uint64) {
		args := [6]uint64{a, b, c}
		want := reference(names[int(nr)], false, args)
		if nr > lastKnown {
			want = callErrno(unix.ENOSYS)
		}
		expect(t, vm, unix.AUDIT_ARCH_X86_64, nr, args, want)
	})
}
