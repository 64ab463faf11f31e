//go:build e2e

package test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

func TestConnectIsRefusedInTheCall(t *testing.T) {
	t.Parallel()
	a4, a6 := harness.W.Addr()
	harness.W.DNS.Set("allowed.refuse.test", a4)
	harness.W.DNS.Set("other.refuse.test", a4, a6)
	server := harness.W.TCP(t, a4, 443)
	policy := network(`{domain: allowed.refuse.test, ports: [443], protocol: tcp}`) +
		"  deny:\n    - {domain: never.refuse.test}\n    - {cidr: 203.0.113.250/32}\n"
	r, out := harness.W.Probe(t, harness.Box{Policy: policy},
		"tcp-to other.refuse.test 443",
		"tcp-to allowed.refuse.test 8443",
		fmt.Sprintf("tcp %s 443", a4),
		fmt.Sprintf("tcp %s 443", a6),
		fmt.Sprintf("tcp ::ffff:%s 444", a4),
		"tcp 203.0.113.250 22",
		fmt.Sprintf("udp %s 9", a4),
		fmt.Sprintf("udpconn %s 10", a4),
		fmt.Sprintf("udp %s 11", a6),
		fmt.Sprintf("fastopen %s 12", a4),
		"tcp 198.51.100.1 443",
		"tcp 169.254.169.254 80",
		"say allowed.refuse.test 443 "+b64("hello"), // last: shows that the sandbox did reach what it may
	)
	for _, o := range out[:len(out)-1] {
		check(t, o, "EPERM")
	}
	check(t, out[len(out)-1], "")
	for object, rule := range map[string]string{
		"other.refuse.test:443":     "default",
		"allowed.refuse.test:8443":  "default",
		fmt.Sprintf("%s:443", a4):   "default",
		fmt.Sprintf("[%s]:443", a6): "default",
		fmt.Sprintf("%s:444", a4):   "default",
		"203.0.113.250:22":          r.PolicyFile() + ":13",
		fmt.Sprintf("%s:9", a4):     "builtin",
		fmt.Sprintf("%s:10", a4):    "builtin",
		fmt.Sprintf("[%s]:11", a6):  "builtin",
		fmt.Sprintf("%s:12", a4):    "default",
		"198.51.100.1:443":          "default",
		"169.254.169.254:80":        "default",
	} {
		e := once(t, r, "network", object)
		if e.Rule != rule {
			t.Errorf("%s: the rule is %q, want %q", object, e.Rule, rule)
		}
		if e.Subject.Exe != "/workspace/probe" {
			t.Errorf("%s: the subject is %+v, want the probe", object, e.Subject)
		}
	}
	if n := harness.W.DNS.Asked("other.refuse.test"); n != 0 {
		t.Errorf("a name without a rule was asked upstream %d times", n)
	}
	if n := server.Conns(); n != 1 {
		t.Errorf("the server saw %d connections, want the allowed one only", n)
	}
	quiet(t)
}

// TestRefusalsAreQuick runs before the parallel tests. A machine may be busy for other reasons, so the quickest of some counts.
func TestRefusalsAreQuick(t *testing.T) {
	const soon = 50 * time.Millisecond // the figure
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("quick.test", a4)
	policy := network(`{domain: quick.test, ports: [443], protocol: https, commands: [python3]}`, `{domain: other.quick.test, ports: [80], protocol: http}`) +
		"  deny:\n    - {domain: denied.quick.test}\n"
	harness.W.DNS.Set("other.quick.test", a4)
	harness.W.HTTP(t, a4, 80, harness.Hello)
	kinds := []string{
		"tcp-to nobody.quick.test 443", "tcp-to quick.test 443", "tcp " + a4.String() + " 443", "udp " + a4.String() + " 53000", "lookup denied.quick.test",
		"say other.quick.test 80 " + b64("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"), "read /etc/shadow", "write /etc/x y", "exec /usr/bin/id", "listen 192.0.2.7 80",
	}
	const times = 5
	var attempts []string
	for range times {
		attempts = append(attempts, kinds...)
	}
	_, out := harness.W.Probe(t, harness.Box{Policy: policy}, attempts...)
	for i, kind := range kinds {
		best := time.Hour
		for n := range times {
			o := out[n*len(kinds)+i]
			if o.Errno == "" && !strings.Contains(o.Out, "403") {
				t.Errorf("%q was not refused: %q", kind, o.Out)
			}
			best = min(best, time.Duration(o.Us)*time.Microsecond)
		}
		if best > soon {
			t.Errorf("%q is refused after %s, want less than %s", kind, best, soon)
		}
	}
}

func TestDenyRuleHidesTheName(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("sub.denied.test", a4)
	policy := network(`{domain: "**.denied.test", ports: [443], protocol: tcp}`) + "  deny:\n    - {domain: \"sub.denied.test\"}\n"
	r, out := harness.W.Probe(t, harness.Box{Policy: policy}, "dns 198.18.0.2 sub.denied.test A", "lookup sub.denied.test")
	if out[0].Out != "NXDOMAIN; EDE 15" {
		t.Errorf("the answer was %q (%s), want NXDOMAIN with extended error 15 (Blocked)", out[0].Out, out[0].Errno)
	}
	if out[1].Errno == "" {
		t.Errorf("a denied name has addresses: %s", out[1].Out)
	}
	if e := once(t, r, "dns", "sub.denied.test"); e.Subject.Exe != "/workspace/probe" || e.Subject.PID == 0 {
		t.Errorf("the record does not say who asked: %+v", e.Subject)
	}
	if n := harness.W.DNS.Asked("sub.denied.test"); n != 0 {
		t.Errorf("a denied name was asked upstream %d times", n)
	}
}

// TestRulesForCommands: who is asking is the kernel's word, not the program's.
func TestRulesForCommands(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("command.test", a4)
	server := harness.W.TCP(t, a4, 7000)
	policy := harness.Files + "process:\n  allow:\n    - {command: /workspace/probe}\n    - {command: python3}\n" +
		"network:\n  allow:\n    - {domain: command.test, ports: [7000], protocol: tcp, commands: [python3]}\n"
	python := `import socket; s = socket.create_connection(("command.test", 7000)); s.sendall(b"hi"); print(s.recv(2))`
	r := harness.W.Run(t, harness.Box{Policy: policy}, "python3", "-c", python)
	if r.Code != 0 {
		t.Errorf("the command of the rule was refused\n%s", r.Dump())
	}
	r, out := harness.W.Probe(t, harness.Box{Policy: policy}, "tcp-to command.test 7000")
	check(t, out[0], "EPERM")
	if e := once(t, r, "network", "command.test:7000"); e.Subject.Exe != "/workspace/probe" {
		t.Errorf("the subject is %+v", e.Subject)
	}
	// A program that calls itself python3 is still the probe.
	s := harness.W.Prepare(t, harness.Box{Policy: policy})
	r = harness.W.Run(t, harness.Box{Policy: policy, Workspace: s.Workspace}, "python3", "-c",
		`import os; os.execv("/workspace/probe", ["python3", "tcp-to command.test 7000"])`)
	check(t, r.Outcomes(t)[0], "EPERM")
	if n := server.Conns(); n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
}

func TestBindAndListen(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("bind.test", a4)
	server := harness.W.TCP(t, a4, 443)
	policy := network(`{domain: bind.test, ports: [443], protocol: tcp}`)
	_, out := harness.W.Probe(t, harness.Box{Policy: policy},
		"loop 127.0.0.1", "loop ::1", "listen 0.0.0.0 80", "listen :: 8080", // the sandbox's own servers, low ports too
		"lookup bind.test",
	)
	for _, o := range out[:4] {
		check(t, o, "")
	}
	synthetic, err := netip.ParseAddr(firstWord(out[4].Out))
	if err != nil {
		t.Fatalf("bind.test has the addresses %q", out[4].Out)
	}
	_, out = harness.W.Probe(t, harness.Box{Policy: policy},
		fmt.Sprintf("listen %s 443", synthetic),
		"listen 198.18.0.1 8000", "listen 198.18.0.2 53", "listen 198.18.0.3 3128", "listen fd6e:656d:6f63::1 8000",
		fmt.Sprintf("listen %s 80", a4), "listen 192.0.2.1 80",
		fmt.Sprintf("from 198.18.0.3 %s 443", synthetic),
	)
	for _, o := range out {
		if o.Errno != "EPERM" && o.Errno != "EADDRNOTAVAIL" {
			t.Errorf("%q gave %q (%s): bound to an address that is not the sandbox's", o.Op, o.Errno, o.Out)
		}
	}
	if server.Conns() != 0 {
		t.Error("a connection from a stolen address reached the server")
	}
}

// TestProxysOwnAddresses: what listens for redirected connections is not to be talked to directly, or a client could choose
// what the proxy believes.
func TestProxysOwnAddresses(t *testing.T) {
	t.Parallel()
	r, out := harness.W.Probe(t, harness.Box{Policy: network(`{domain: own.test, ports: [443], protocol: tcp}`)},
		"tcp 198.18.0.1 1", "tcp fd6e:656d:6f63::1 1", "tcp 198.18.0.1 443", "tcp ::ffff:198.18.0.1 1",
		"tcp 198.18.0.2 443", "tcp 198.18.0.3 22")
	for _, o := range out {
		check(t, o, "EPERM")
	}
	if len(r.Find("network", "deny", "")) < 5 {
		t.Errorf("refusals are missing from the records\n%s", r.Dump())
	}
}

func TestSocketFamilies(t *testing.T) {
	t.Parallel()
	const (
		unixFamily, inet, inet6, netlinkFamily, packet, vsock, alg, bluetooth = 1, 2, 10, 16, 17, 40, 38, 31
		stream, dgram, raw, seqpacket                                         = 1, 2, 3, 5
		icmp, sctp, mptcp, generic                                            = 1, 132, 262, 16
	)
	allowed := [][3]int{{unixFamily, stream, 0}, {unixFamily, dgram, 0}, {inet, stream, 0}, {inet6, stream, 0}, {inet, dgram, 0}, {netlinkFamily, raw, 0}}
	refused := [][3]int{
		{packet, raw, 0}, {packet, dgram, 0}, {vsock, stream, 0}, {alg, seqpacket, 0}, {bluetooth, raw, 0}, {netlinkFamily, raw, generic},
		{inet, raw, icmp}, {inet6, raw, 58}, {inet, stream, mptcp}, {inet6, stream, mptcp}, {inet, stream, sctp}, {inet, seqpacket, sctp}, {inet, dgram, icmp},
	}
	var attempts []string
	for _, s := range append(append([][3]int{}, allowed...), refused...) {
		attempts = append(attempts, fmt.Sprintf("socket %d %d %d", s[0], s[1], s[2]))
	}
	_, out := harness.W.Probe(t, harness.Box{}, attempts...)
	for i, o := range out {
		switch {
		case i < len(allowed):
			check(t, o, "")
		case o.Errno == "":
			t.Errorf("%q gave a socket", o.Op)
		case o.Errno != "EPERM" && o.Errno != "EACCES" && o.Errno != "EAFNOSUPPORT" && o.Errno != "EPROTONOSUPPORT":
			t.Errorf("%q gave %q", o.Op, o.Errno)
		}
	}
}
