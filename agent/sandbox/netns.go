package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// netSysctls are set in each network namespace: servers inside may use any port, an address that does not exist must
// not answer a ping as if it did, and TCP is not paced (many hosts' default, BBR, does it) where all it meets is
// loopback. The IPv6 ones are missing where the host has IPv6 off.
var netSysctls = []struct {
	file, value string
	optional    bool
}{
	{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0", false},
	{"/proc/sys/net/ipv4/icmp_echo_ignore_all", "1", false},
	{"/proc/sys/net/ipv4/tcp_congestion_control", "reno", false}, // always built in
	{"/proc/sys/net/ipv6/icmp/echo_ignore_all", "1", true},
	{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "0", true},
	{"/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0", true},
}

// configureNetns turns the calling thread's new network namespace into the air gap: loopback is up, and every address
// is local, so that nothing can leave and the proxy's sockets can have any address.
func configureNetns() error {
	for _, s := range netSysctls {
		err := writeFile(s.file, s.value)
		if err != nil && (!s.optional || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("sandbox: setting up the network namespace: %w; /proc/sys must be writable here (in a container: --privileged)", err)
		}
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("sandbox: setting up the network namespace: netlink: %w", err)
	}
	defer unix.Close(fd)
	if err := rtnetlink(fd, linkUp(1), "setting lo up"); err != nil {
		return err
	}
	if err := rtnetlink(fd, anyIP(unix.AF_INET, net.IPv4zero.To4(), net.IPv4(127, 0, 0, 1).To4()), "adding the route `local 0.0.0.0/0 dev lo src 127.0.0.1`"); err != nil {
		return err
	}
	err = rtnetlink(fd, anyIP(unix.AF_INET6, net.IPv6zero, net.IPv6loopback), "adding the route `local ::/0 dev lo src ::1`")
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		return nil // no IPv6 on this host: nothing to close
	}
	return err
}

// linkUp is the request that sets interface index up.
func linkUp(index uint32) []byte {
	m := message(unix.RTM_NEWLINK, 0)
	m = append(m, unix.AF_UNSPEC, 0, 0, 0)
	m = binary.NativeEndian.AppendUint32(m, index)
	m = binary.NativeEndian.AppendUint32(m, unix.IFF_UP)
	return binary.NativeEndian.AppendUint32(m, unix.IFF_UP)
}

// anyIP is the request for a route that makes every address of a family local. A packet without an address of its
// own gets src: else it would get the address that it goes to, and could connect to itself past the proxy.
func anyIP(family byte, all, src net.IP) []byte {
	m := message(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	m = append(m, family, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL)
	m = binary.NativeEndian.AppendUint32(m, 0)
	m = attribute(m, unix.RTA_DST, all)
	m = attribute(m, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, 1))
	return attribute(m, unix.RTA_PREFSRC, src)
}

func message(kind, flags uint16) []byte {
	m := make([]byte, 4, 128) // the length is known at the end
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return append(m, make([]byte, 8)...)
}

func attribute(m []byte, kind uint16, value []byte) []byte {
	m = binary.NativeEndian.AppendUint16(m, uint16(unix.SizeofRtAttr+len(value)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	return append(m, value...) // addresses and numbers: always a multiple of four bytes
}

// rtnetlink sends one request and waits for its acknowledgement.
func rtnetlink(fd int, m []byte, what string) error {
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	answer := make([]byte, 4096)
	err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	n := 0
	if err == nil {
		n, _, err = unix.Recvfrom(fd, answer, 0)
	}
	if err == nil && (n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR) {
		err = fmt.Errorf("an answer of %d bytes is no acknowledgement", n)
	}
	if err == nil {
		if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
			err = syscall.Errno(-code)
		}
	}
	if err != nil {
		return fmt.Errorf("sandbox: setting up the network namespace: %s: %w", what, err)
	}
	return nil
}

// inNetns runs f on a thread that is in the sandbox's network namespace. Sockets stay in the namespace that they were
// made in.
func (s *Sandbox) inNetns(f func() error) error {
	s.use.RLock()
	defer s.use.RUnlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("no socket can be opened: %w", ErrGone)
	}
	netns := s.NetnsFD()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(home)
			if err = unix.Setns(netns, unix.CLONE_NEWNET); err == nil {
				err = f()
				if unix.Setns(home, unix.CLONE_NEWNET) == nil {
					runtime.UnlockOSThread() // otherwise the thread ends with this goroutine
				}
			} else {
				runtime.UnlockOSThread()
			}
		}
		result <- err
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("sandbox: in the network namespace: %w", err)
	}
	return nil
}

// listenConfig makes sockets that can have any address of the sandbox's namespace, and enter a sockmap: an MPTCP
// socket, Go's default, can't.
func listenConfig() net.ListenConfig {
	lc := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			if failed == nil && network[len(network)-1] == '6' {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
		return errors.Join(err, failed)
	}}
	lc.SetMultipathTCP(false)
	return lc
}

// Open runs f in the sandbox's network namespace, with what opens sockets there: the cheap way to open several.
func (s *Sandbox) Open(f func(*net.ListenConfig) error) error {
	return s.inNetns(func() error {
		lc := listenConfig()
		return f(&lc)
	})
}

// Listen opens a stream listener in the sandbox's network namespace; network and addr are net.Listen's.
func (s *Sandbox) Listen(network, addr string) (net.Listener, error) {
	var l net.Listener
	err := s.inNetns(func() (err error) {
		lc := listenConfig()
		l, err = lc.Listen(context.Background(), network, addr)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket in the sandbox's network namespace; network and addr are net.ListenPacket's.
func (s *Sandbox) ListenPacket(network, addr string) (net.PacketConn, error) {
	var c net.PacketConn
	err := s.inNetns(func() (err error) {
		lc := listenConfig()
		c, err = lc.ListenPacket(context.Background(), network, addr)
		return err
	})
	return c, err
}
