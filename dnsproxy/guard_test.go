package dnsproxy

import (
	"net/netip"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

// What a name may lead to, without a rule, and with rules that name the address itself, its range, or everything.
func TestGuard(t *testing.T) {
	none := compile(t, "network:\n  allow:\n    - domain: a.example\n      ports: [443]\n      protocol: https\n")
	ten := compile(t, `
network:
  allow:
    - cidr: 10.1.0.0/16
      ports: [443]
      protocol: tcp
    - cidr: 10.2.0.0/16
      ports: [443]
      protocol: tcp
      commands: [psql]
    - cidr: 169.254.169.254/32
      ports: [443]
      protocol: tcp
    - cidr: fd00:1::/32
      ports: [443]
      protocol: tcp
    - cidr: 198.18.0.0/15
      ports: [443]
      protocol: tcp
  deny:
    - cidr: 203.0.113.66/32
    - cidr: 10.1.9.0/24
`)
	wide := compile(t, "network:\n  allow:\n    - cidr: 128.0.0.0/1\n      ports: [443]\n      protocol: tcp\n    - cidr: 0.0.0.0/1\n      ports: [443]\n      protocol: tcp\n")
	for _, tc := range []struct {
		policy *policy.Compiled
		addr   string
		port   uint16
		want   bool
	}{
		{none, "93.184.216.34", 443, true},
		{none, "2606:2800:220:1::1", 443, true},
		{none, "203.0.113.7", 443, true},  // a documentation range
		{none, "198.51.100.7", 443, true}, // another
		{none, "2001:db8::1", 443, true},  // and another
		{none, "64:ff9b::5db8:d822", 443, true},
		{none, "0.0.0.0", 443, false},
		{none, "0.1.2.3", 443, false},
		{none, "10.1.2.3", 443, false},
		{none, "100.64.0.1", 443, false},
		{none, "127.0.0.1", 443, false},
		{none, "127.255.255.254", 443, false},
		{none, "169.254.169.254", 443, false},
		{none, "168.63.129.16", 443, false}, // Azure's metadata
		{none, "169.254.0.1", 443, false},
		{none, "172.16.0.1", 443, false},
		{none, "172.31.255.255", 443, false},
		{none, "172.32.0.1", 443, true},
		{none, "192.168.0.1", 443, false},
		{none, "198.18.1.0", 443, false},
		{none, "198.19.255.255", 443, false},
		{none, "224.0.0.1", 443, false},
		{none, "255.255.255.255", 443, false},
		{none, "::", 443, false},
		{none, "::1", 443, false},
		{none, "fe80::1", 443, false},
		{none, "fc00::1", 443, false},
		{none, "fd6e:656d:6f63::1:0", 443, false},
		{none, "fd00:ec2::254", 443, false},
		{none, "ff02::1", 443, false},
		{none, "::ffff:127.0.0.1", 443, false},
		{none, "::ffff:93.184.216.34", 443, true},
		{none, "::127.0.0.1", 443, false},
		{none, "64:ff9b::7f00:1", 443, false},
		{none, "64:ff9b::a9fe:a9fe", 443, false},
		{none, "64:ff9b:1::a00:1", 443, false},
		{none, "2002:a00:1::1", 443, false},
		{none, "2002:5db8:d822::1", 443, true},
		{none, "2001:0:a00:1::", 443, false},                 // Teredo server 10.0.0.1
		{none, "2001:0:5db8:d822:0:0:f5ff:fffe", 443, false}, // Teredo client 10.0.0.1
		{none, "2606:2800::5efe:a00:1", 443, false},          // ISATAP
		{none, "2606:2800::200:5efe:a00:1", 443, false},
		{ten, "10.1.2.3", 443, true},
		{ten, "10.1.2.3", 80, false},
		{ten, "10.1.9.3", 443, false},
		{ten, "10.2.0.1", 443, false}, // for another command
		{ten, "10.3.0.1", 443, false},
		{ten, "169.254.169.254", 443, true},
		{ten, "fd00:1::1", 443, true},
		{ten, "fd00:2::1", 443, false},
		{ten, "198.18.1.0", 443, false}, // never: it is not a place
		{ten, "203.0.113.66", 443, false},
		{ten, "203.0.113.67", 443, true},
		{wide, "10.1.2.3", 443, false}, // containing a range is not naming it
		{wide, "169.254.169.254", 443, false},
		{wide, "93.184.216.34", 443, true},
	} {
		s := &Server{}
		ok, _, why := admits(&tc.policy.Network, s.live, netip.MustParseAddr(tc.addr), tc.port, policy.Caller{Is: func(c string) bool { return c == "node" }})
		if ok != tc.want || ok != (why == "") {
			t.Errorf("%s:%d: %v %q, want %v", tc.addr, tc.port, ok, why, tc.want)
		}
	}
}

func TestCanonicalName(t *testing.T) {
	for in, want := range map[string]string{
		"a": "a", "A.Example": "a.example", "_dmarc.x-y.example": "_dmarc.x-y.example", "1.2.example": "1.2.example",
		"": "", ".": "", "a.": "", ".a": "", "a..b": "", "a b": "", "a\x00b": "", "ä.example": "", "a/b": "", "*.example": "",
		string(make([]byte, 254)): "",
	} {
		got, ok := canonicalName(in)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q %v", in, got, ok)
		}
	}
}
