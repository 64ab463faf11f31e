package risk

import (
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/policy"
)

// place tells of where a connection or a look-up leads.
func (n *notes) place(a Attempt) {
	if strings.HasPrefix(a.Object, "/") {
		if secret := policy.Reveals(a.Object); secret != "" { // a socket of the host
			n.danger("credentials", "what is there may be secret: %s", secret)
		}
		return
	}
	host, num, err := net.SplitHostPort(a.Object)
	if err != nil {
		host = a.Object
	}
	port, _ := strconv.ParseUint(num, 10, 16) // 0 where there is none
	host = strings.TrimSuffix(host, ".")
	if len(host) > longestName {
		n.note("data-in-name", "the name has %d characters, and may itself carry data away", len(host))
		return
	}
	switch addr, err := netip.ParseAddr(host); {
	case err == nil:
		n.address(addr)
	default:
		if addr, ok := numeric(host); ok {
			n.danger("raw-ip", "%s is the address %s, spelt so that it is hard to see", host, addr.String())
			n.inward(addr)
			break
		}
		n.name(host, a.Policy)
	}
	n.port(port, host)
	if a.Plane == policy.PlaneNetwork {
		n.volume(a.Sent)
	}
}

// longestName is the most characters of a host name: RFC 1035, 2.3.4.
const longestName = 253

func (n *notes) address(addr netip.Addr) {
	n.inward(addr)
	n.note("raw-ip", "%s is an address: no name and no certificate say whose it is", addr.String())
}

// inward tells of an address that is not of the internet.
func (n *notes) inward(addr netip.Addr) {
	addr = addr.Unmap().WithZone("")
	what, inward := dnsproxy.Inward(addr)
	switch {
	case policy.IsMetadata(addr) || strings.Contains(what, "metadata"):
		n.danger("metadata", "%s may be a cloud's metadata service, which gives away the credentials of the machine", addr.String())
	case inward:
		n.note("private", "%s is no address of the internet (%s): it may be this host or a neighbour", addr.String(), what)
	}
}

// numeric reads an IPv4 address that is spelt in a way that only resolvers and URL parsers take for one: 2130706433, 0x7f.1, 010.0.0.1
// (WHATWG URL, "IPv4 parser").
func numeric(host string) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 || host == "" {
		return netip.Addr{}, false
	}
	var value uint64
	for i, p := range parts {
		base := 10
		switch low := strings.ToLower(p); {
		case strings.HasPrefix(low, "0x"):
			base, p = 16, "0"+p[2:]
		case len(p) > 1 && p[0] == '0':
			base = 8
		}
		v, err := strconv.ParseUint(p, base, 64)
		room := 8
		if i == len(parts)-1 {
			room = 8 * (5 - len(parts))
		}
		if err != nil || v>>room != 0 {
			return netip.Addr{}, false
		}
		value = value<<room | v
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// metadataNames are names that clouds give their metadata service.
var metadataNames = []string{"metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal", "metadata.azure.internal", "metadata.tencentyun.com"}

// privateTops are top-level domains that are not of the internet: RFC 6761, 6762, 8375, 9476, and what is used all the same.
const privateTops = " local localhost internal intranet lan home corp private localdomain test alt onion arpa "

func (n *notes) name(host string, c *policy.Compiled) {
	name := strings.ToLower(host)
	if ascii, ok := policy.Canonical(host); ok {
		name = ascii
	}
	spelt := name // in letters
	if u, err := idna.Punycode.ToUnicode(name); err == nil {
		spelt = u
	}
	if slices.Contains(metadataNames, name) {
		n.danger("metadata", "%s is a cloud's metadata service, which gives away the credentials of the machine", name)
	}
	known := knownOf(c)
	like, how := known.like(name, spelt)
	if like != "" {
		n.danger("lookalike", "%s is not %s, which the policy allows, but %s", text.Host(name), like, how)
	}
	n.letters(name, spelt)
	labels := strings.Split(name, ".")
	top := labels[len(labels)-1]
	switch {
	case len(labels) == 1 || has(privateTops, top):
		n.note("private", "%s is a name of a private network: it may lead to this host or a neighbour, which needs a cidr rule besides", name)
	case known.tops != nil && !known.tops[top]:
		n.note("new-tld", "no name that the policy allows ends in .%s", top)
	}
	for _, l := range labels {
		if carriesData(l) {
			n.note("data-in-name", "the name itself may carry data away: %s", l)
			return
		}
	}
	if len(labels) > 7 || len(name) > 120 {
		n.note("data-in-name", "the name has %d parts and %d characters, and may itself carry data away", len(labels), len(name))
	}
}

// letters tells of names that are not spelt in plain letters.
func (n *notes) letters(name, spelt string) {
	for _, l := range strings.Split(spelt, ".") {
		if mixed := text.Scripts(l); mixed != nil {
			n.danger("mixed-script", "%s mixes letters of scripts that are not written together: %s", text.Host(name), strings.Join(mixed, ", "))
			return
		}
	}
	for _, l := range strings.Split(spelt, ".") {
		if strings.ContainsFunc(l, foreign) && isASCII(text.Skeleton(l)) {
			n.danger("mixed-script", "%s is written in letters that look like Latin ones", text.Host(name))
			return
		}
	}
	if spelt != name || strings.Contains(name, "xn--") {
		n.note("punycode", "the name is not spelt in plain letters: %s", text.Host(name))
	}
}

// foreign reports whether a letter is of another script than Latin.
func foreign(r rune) bool {
	return unicode.IsLetter(r) && !unicode.In(r, unicode.Latin, unicode.Common)
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }

// carriesData reports whether a label looks more like bytes than like a word.
func carriesData(label string) bool {
	if strings.HasPrefix(label, "xn--") {
		return false
	}
	digits := 0
	count := map[byte]int{}
	for i := range len(label) {
		if label[i] >= '0' && label[i] <= '9' {
			digits++
		}
		count[label[i]]++
	}
	entropy := 0.0
	for _, k := range count {
		p := float64(k) / float64(len(label))
		entropy -= p * math.Log2(p)
	}
	longest := 0
	for _, word := range strings.Split(label, "-") {
		longest = max(longest, len(word))
	}
	return longest >= 32 || longest >= 18 && digits >= 3 && entropy > 3.2 || len(label) >= 50
}

// ports that are worth a word, where what answers there may be told to act.
var ports = map[uint64]string{
	23: "a remote shell, not encrypted", 25: "mail is handed over there, to anybody", 445: "shared files of Windows", 2375: "a container engine without a password, and who commands it is root there",
	3389: "a remote desktop", 5900: "a remote desktop", 6379: "a database, often without a password", 9200: "a database, often without a password", 10250: "a node of Kubernetes",
	11211: "a database without a password", 27017: "a database, often without a password",
}

func (n *notes) port(port uint64, host string) {
	what := ports[port]
	if _, err := netip.ParseAddr(host); err == nil && port == 22 {
		what = "a remote shell, which carries anything both ways"
	}
	if what != "" {
		n.note("port", "port %d: %s", port, what)
	}
}

// volumes are how much a sandbox has sent when that is worth a word: more than source code and questions come to.
const someData = 32 << 20

func (n *notes) volume(sent int64) {
	if sent >= someData {
		n.note("data-volume", "the sandbox has sent %s so far in this session", megabytes(sent))
	}
}

func megabytes(b int64) string {
	if b >= 1<<30 {
		return strconv.FormatFloat(float64(b)/(1<<30), 'f', 1, 64) + " GiB"
	}
	return strconv.FormatInt(b>>20, 10) + " MiB"
}
