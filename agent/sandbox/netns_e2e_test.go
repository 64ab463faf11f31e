//go:build e2e

package sandbox

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAirGap checks the network namespace: every address is local and no other interface is there, names are asked of
// the resolver only, and a host's server can't be reached.
func TestAirGap(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	b.want("python3 -c 'import socket; print(socket.if_nameindex())'", "[(1, 'lo')]", 0)
	b.want("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/icmp_echo_ignore_all /proc/sys/net/ipv6/icmp/echo_ignore_all /proc/sys/net/ipv4/tcp_congestion_control", "0\n1\n1\nreno", 0)

	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	port := host.Addr().(*net.TCPAddr).Port
	b.refused(fmt.Sprintf("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", %d), 2)'", port), "refused")
	b.refused("python3 -c 'import socket; socket.create_connection((\"192.0.2.1\", 80), 2)'", "refused")

	for _, addr := range []string{"198.18.0.1:1", "[fd6e:656d:6f63::1]:1", "198.18.0.3:3128"} {
		network := "tcp4"
		if strings.HasPrefix(addr, "[") {
			network = "tcp6"
		}
		l, err := b.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				done <- err.Error()
				return
			}
			done <- c.RemoteAddr().(*net.TCPAddr).IP.String() + " " + c.LocalAddr().String()
			c.Close()
		}()
		h, p, _ := net.SplitHostPort(addr)
		b.want(fmt.Sprintf("python3 -c 'import socket; s = socket.create_connection((\"%s\", %s), 2); print(s.recv(1))'", h, p), "b''", 0)
		want := "127.0.0.1 " + addr
		if network == "tcp6" {
			want = "::1 " + addr
		}
		if got := <-done; got != want {
			t.Errorf("%s: %s, not %s", addr, got, want)
		}
		l.Close()
	}
}

func TestListenPacket(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	c, err := b.ListenPacket("udp4", "198.18.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked := make(chan string, 100)
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			asked <- string(buf[:n])
			buf[2] |= 0x80
			buf[3] = 3 // NXDOMAIN
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
	b.refused("python3 -c 'import socket; socket.getaddrinfo(\"pypi.org\", 443)'", "Name or service not known")
	if len(asked) == 0 {
		t.Error("nobody was asked")
	}
	for seen := map[string]bool{}; len(asked) > 0; {
		if question := <-asked; seen[question] {
			t.Error("the first answer did not come: a question was asked again")
		} else {
			seen[question] = true
		}
	}
}

// Sockets for the proxy are no MPTCP sockets: those can't enter a sockmap.
func TestListenIsTCP(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	l, err := b.Listen("tcp4", "198.18.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err != nil || protocol != unix.IPPROTO_TCP {
			t.Error(protocol, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Listen("tcp4", "198.18.0.1:2"); err == nil {
		t.Error("a socket in a sandbox that is closed")
	}
}
