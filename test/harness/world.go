// Package harness gives end-to-end tests and benchmarks a world of their own to run the real nemoclaw binary in: a network
// namespace that plays the host and the internet, a mount namespace with its own BPF file system, servers that count what reaches
// them, and a capture of every packet that leaves. It owns nothing outside those namespaces, so nothing of it survives the
// test process; it never mocks a part of the product and never imports one.
package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The world's addresses: documentation ranges, so that nothing is mistaken for somebody's machine.
var (
	internet4 = netip.MustParsePrefix("203.0.113.0/24")
	internet6 = netip.MustParsePrefix("2001:db8:113::/64")
	private4  = netip.MustParsePrefix("10.9.0.0/16")
	linkLocal = netip.MustParsePrefix("169.254.0.0/16") // where clouds have their metadata
	// Resolver is where the world's DNS server listens.
	Resolver = netip.MustParseAddrPort("203.0.113.53:53")
)

const (
	inside = "NEMOCLAW_TEST_INSIDE" // set in the re-executed process: the pid of the one outside
)

// World is what the tests of one process share.
type World struct {
	Dir      string // private to this process; removed at the end
	Bin      string // the nemoclaw binary
	AgentBin string // the nemoclaw-agent binary, beside it
	ProbeBin string // the static program of test/probe
	BPFFS    string // a BPF file system of the world's own
	Parent   string // the cgroup parent's name, unique to the process
	DNS      *DNS
	CA       *CA

	hostNet *os.File // the network namespace that the test process was started in
	seen    *Capture
	next    atomic.Uint32
	boxes   atomic.Uint32
	resolv  string // of the host, which the world's covers
}

// W is the world, once Main has made it.
var W *World

// Main makes the world, captures what leaves it, runs the tests in it and removes it. It is the whole TestMain of an end-to-end package.
func Main(m *testing.M) {
	os.Exit(Inside(func() int {
		var err error
		if W.seen, err = newCapture(); err != nil {
			fmt.Fprintln(os.Stderr, "harness: capturing packets:", err)
			return 1
		}
		return m.Run()
	}))
}

// Inside runs f in the world and returns its status. Nothing is captured: to look at every packet would take a processor's time from
// those who are measured, and most from those who send the most packets. The process starts itself a second time, because a Go process cannot change
// the namespaces of threads that already run.
func Inside(f func() int) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the end-to-end tests make sandboxes: run them as root")
		return 1
	}
	if os.Getenv(inside) == "" {
		return outside(syscall.CLONE_NEWNS | syscall.CLONE_NEWNET)
	}
	w := &World{Parent: parentOf(os.Getpid())}
	defer w.close()
	if err := w.make(); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	W = w
	return f()
}

func parentOf(pid int) string { return fmt.Sprintf("nemoclaw-test-%d", pid) }

func outside(namespaces uintptr) int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", inside, os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: namespaces,
		Pdeathsig:    syscall.SIGKILL,
	}
	// The parent-death signal is bound to the thread that starts the child.
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "harness: starting again in new namespaces:", err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	endCgroups(cgroupsOf(parentOf(cmd.Process.Pid) + "-")) // the sandboxes of daemons whose test was killed
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	return 0
}

func (w *World) make() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	var err error
	if w.hostNet, err = os.Open("/proc/" + os.Getenv(inside) + "/ns/net"); err != nil {
		return err
	}
	// Below /var/tmp: a workspace on tmpfs would not show what an ordinary file system does.
	if w.Dir, err = os.MkdirTemp("/var/tmp", "nemoclaw-test-"); err != nil {
		return err
	}
	if err := os.Chmod(w.Dir, 0o755); err != nil {
		return err
	}
	w.BPFFS = filepath.Join(w.Dir, "bpf")
	if err := os.Mkdir(w.BPFFS, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("bpf", w.BPFFS, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mounting a BPF file system: %w", err)
	}
	if err := w.network(); err != nil {
		return fmt.Errorf("making the test's network: %w", err)
	}
	if w.CA, err = newCA(); err != nil {
		return err
	}
	if w.DNS, err = newDNS(Resolver.String()); err != nil {
		return err
	}
	if err := w.resolver(); err != nil {
		return fmt.Errorf("making the world's DNS server the host's: %w", err)
	}
	return w.binaries()
}

// resolver makes the world's DNS server what /etc/resolv.conf names, for what asks as the host does: else its queries would
// leave the world.
func (w *World) resolver() error {
	at, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // loopback is asked then
	}
	if err != nil {
		return err
	}
	w.resolv = at
	own := filepath.Join(w.Dir, "resolv.conf")
	if err := os.WriteFile(own, []byte("nameserver "+Resolver.Addr().String()+"\n"), 0o644); err != nil {
		return err
	}
	return unix.Mount(own, at, "", unix.MS_BIND, "")
}

// network makes every address of the world's ranges local, and everything else leave by a device where the capture sees
// it and nothing answers.
func (w *World) network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	up := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "away0"}
	if err := netlink.LinkAdd(up); err != nil {
		return fmt.Errorf("a veth pair: %w", err)
	}
	away, err := netlink.LinkByName(up.PeerName)
	if err != nil {
		return err
	}
	for _, l := range []netlink.Link{up, away} {
		// Without ARP: nobody answers there, and a packet must leave at once to be seen.
		if err := netlink.LinkSetARPOff(l); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	for _, a := range []string{"192.0.2.1/24", "2001:db8:2::1/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags |= unix.IFA_F_NODAD
		if err := netlink.AddrAdd(up, addr); err != nil {
			return err
		}
	}
	for _, p := range []netip.Prefix{internet4, internet6, private4, linkLocal} {
		r := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: unix.RT_SCOPE_HOST}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("a route to %s: %w", p, err)
		}
	}
	// IPv6 lets a server listen on an address that only a route makes local when this says so; IPv4 always does.
	if err := os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0); err != nil {
		return err
	}
	for _, p := range []string{"0.0.0.0/0", "::/0"} {
		r := &netlink.Route{LinkIndex: up.Attrs().Index, Dst: ipNet(netip.MustParsePrefix(p)), Scope: unix.RT_SCOPE_LINK}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("the default route %s: %w", p, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// binaries finds nemoclaw and the daemon (NEMOCLAW and beside it, or built here) and builds the probe.
func (w *World) binaries() error {
	w.Bin = os.Getenv("NEMOCLAW")
	w.AgentBin = filepath.Join(filepath.Dir(w.Bin), "nemoclaw-agent")
	if w.Bin == "" {
		w.Bin, w.AgentBin = filepath.Join(w.Dir, "nemoclaw"), filepath.Join(w.Dir, "nemoclaw-agent")
		for _, bin := range []string{w.Bin, w.AgentBin} {
			if err := goBuild(bin, "github.com/nemoclaw/nemoclaw/cmd/"+filepath.Base(bin)); err != nil {
				return err
			}
		}
	}
	if w.ProbeBin = os.Getenv("NEMOCLAW_PROBE"); w.ProbeBin != "" { // where there is no compiler
		return nil
	}
	w.ProbeBin = filepath.Join(w.Dir, "probe")
	return goBuild(w.ProbeBin, "github.com/nemoclaw/nemoclaw/test/probe")
}

func goBuild(out, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, said)
	}
	return nil
}

// close removes what the kernel would keep: the parent cgroup (its programs and pins go with the BPF file system) and the files.
func (w *World) close() {
	if w.Dir == "" {
		return // it was not even begun
	}
	if err := unix.Unmount(w.BPFFS, unix.MNT_DETACH); err != nil {
		fmt.Fprintln(os.Stderr, "harness: unmounting the BPF file system:", err)
	}
	if w.resolv != "" {
		if err := unix.Unmount(w.resolv, unix.MNT_DETACH); err != nil {
			fmt.Fprintln(os.Stderr, "harness: unmounting the world's resolv.conf:", err)
		}
	}
	for _, c := range w.Cgroups() {
		_ = os.Remove(c)
	}
	if err := os.RemoveAll(w.Dir); err != nil {
		fmt.Fprintln(os.Stderr, "harness: removing", w.Dir, err)
	}
}

// Addr returns an address pair of the internet that nobody has had before.
func (w *World) Addr() (v4, v6 netip.Addr) {
	n := w.next.Add(1)
	const first, last = 60, 250
	if n > last-first {
		panic("harness: out of addresses: make the world's ranges larger")
	}
	a4, a6 := internet4.Addr().As4(), internet6.Addr().As16()
	a4[3], a6[15] = byte(first+n), byte(first+n)
	return netip.AddrFrom4(a4), netip.AddrFrom16(a6)
}

// InHostNet runs f on a thread in the network namespace that the test process was started in: the machine's own network. Processes
// that f starts stay there.
func (w *World) InHostNet(f func() error) error { return InNetns(w.hostNet, f) }

// InNetns runs f on a thread in a network namespace, which sockets that f opens stay in.
func InNetns(netns *os.File, f func() error) error {
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	runtime.LockOSThread()
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread() // it is where it was
		return fmt.Errorf("entering the network namespace %s: %w", netns.Name(), err)
	}
	err = f()
	if back := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); back != nil {
		return fmt.Errorf("returning to the test's network namespace: %w", back) // the thread stays locked and dies
	}
	runtime.UnlockOSThread()
	return err
}
