package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

const (
	maxName  = 253 // characters of a host name without its trailing dot: RFC 1035, 2.3.4
	maxLabel = 63
)

// profile maps international names as browsers do (UTS 46, not transitional). Hyphens are not checked, since real
// hosts have them in the third and fourth place.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.CheckHyphens(false), idna.StrictDomainName(false))

// Canonical returns a host name as the policy compares it: ASCII (punycode), lower case, no trailing dot. It is false
// for what can't be a host name: empty labels, other characters, too long, an address in any spelling.
func Canonical(name string) (string, bool) {
	s, p := canonicalName(name)
	return s, p == nil
}

// canonicalName is Canonical with the reason.
func canonicalName(name string) (string, *problem) {
	s := strings.TrimSuffix(name, ".")
	if s == "" {
		return "", &problem{"the name is empty", ""}
	}
	if len(s) > 4*maxName {
		return "", &problem{fmt.Sprintf("the name is longer than %d characters", maxName), ""}
	}
	if !utf8.ValidString(s) {
		return "", &problem{"the name " + cut(name) + " is not UTF-8", ""}
	}
	if isASCII(s) {
		s = lower(s)
	}
	if !isASCII(s) || strings.Contains(s, "xn--") {
		ascii, err := profile.ToASCII(s)
		if err == nil {
			s = strings.TrimSuffix(ascii, ".")
			// What was mapped is checked as it stands: the mapping of the whole may not be valid by itself.
			ascii, err = profile.ToASCII(s)
		}
		if err == nil && ascii != s {
			err = errors.New("it has no canonical form")
		}
		if err != nil {
			return "", &problem{"the name " + cut(name) + " is not a valid international name: " + strings.TrimPrefix(err.Error(), "idna: "), ""}
		}
	}
	if len(s) > maxName {
		return "", &problem{fmt.Sprintf("the name has %d characters; at most %d are possible", len(s), maxName), ""}
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if msg := badLabel(label); msg != "" {
			return "", &problem{"the name " + cut(name) + " " + msg, ""}
		}
		last = label
	}
	if endsInNumber(last) {
		return "", &problem{cut(name) + " is an address, or would be taken for one", "write it as cidr"}
	}
	return s, nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// lower is strings.ToLower for ASCII, without an allocation where nothing changes.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

func badLabel(label string) string {
	switch {
	case label == "":
		return "has an empty label"
	case len(label) > maxLabel:
		return fmt.Sprintf("has a label of %d characters; at most %d are possible", len(label), maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return "has a label that starts or ends with a hyphen"
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Sprintf("holds the character %q", rune(c))
		}
	}
	return ""
}

// endsInNumber reports whether resolvers and URL parsers take a name with this last label for an IPv4 address
// (WHATWG URL, "ends in a number checker"): 1.2.3.4, 127.1, 0x7f.1, 2130706433.
func endsInNumber(last string) bool {
	if strings.HasPrefix(last, "0x") {
		_, err := strconv.ParseUint("0"+last[2:], 16, 64)
		return err == nil || len(last) > 17
	}
	return strings.Trim(last, "0123456789") == ""
}

// canonicalDomain checks what `domain` says and writes it in its one form: a name, "*." or "**." and a name.
func canonicalDomain(s string) (string, *problem) {
	if p := notAName(s); p != nil {
		return "", p
	}
	prefix, rest := "", s
	for _, wild := range []string{"**.", "*."} {
		if strings.HasPrefix(s, wild) {
			prefix, rest = wild, s[len(wild):]
			break
		}
	}
	switch {
	case strings.Trim(s, "*.") == "":
		return "", &problem{cut(s) + " would be every host", "name the hosts; what no rule covers is decided by network.default"}
	case strings.Contains(rest, "*"):
		return "", &problem{"a wildcard is possible as the whole first label only, found " + cut(s),
			`"*.example.org" is one label more, "**.example.org" one or more`}
	}
	name, p := canonicalName(rest)
	if p != nil {
		return "", p
	}
	if prefix == "" {
		return name, nil
	}
	if len(prefix)+len(name) > maxName {
		return "", &problem{fmt.Sprintf("the name has more than %d characters, so nothing can match", maxName), ""}
	}
	if suffix, icann := publicsuffix.PublicSuffix(name); suffix == name {
		why := "under which anybody can have a name"
		if icann || !strings.Contains(name, ".") {
			why = "a public suffix"
		}
		return "", &problem{cut(s) + " is a wildcard over " + name + ", " + why, "name the hosts"}
	}
	return prefix + name, nil
}

// notAName answers the usual mistakes: addresses and URLs.
func notAName(s string) *problem {
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return &problem{cut(s) + " is an address", "write cidr: " + hostPrefix(addr)}
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return &problem{cut(s) + " is a prefix of addresses", "write cidr: " + p.Masked().String()}
	}
	if _, rest, url := strings.Cut(s, "://"); url {
		host, _, _ := strings.Cut(rest, "/")
		return &problem{cut(s) + " is a URL", "write the name alone: " + cut(host)}
	}
	if host, _, found := strings.Cut(s, "/"); found {
		return &problem{"a path can't be judged, found " + cut(s), "write the name alone: " + cut(host)}
	}
	if host, port, found := strings.Cut(s, ":"); found {
		return &problem{"a name without a port is expected, found " + cut(s), "write domain: " + cut(host) + " and ports: [" + cut(port) + "]"}
	}
	return nil
}

// hostPrefix is the prefix that covers one address.
func hostPrefix(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen()).String()
}

func (v *Domain) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if tag := n.ShortTag(); p != nil && (tag == "!!int" || tag == "!!float") {
		s, p = n.Value, nil // 127.1 and 2130706433 are addresses rather than texts without quotes
	}
	if p != nil {
		return p
	}
	s, p = canonicalDomain(s)
	*v = Domain(s)
	return p
}

func (v *CIDR) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p != nil {
		return p
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return &problem{"expected a prefix, found the address " + cut(s), "write " + hostPrefix(addr)}
	}
	prefix, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return &problem{"expected a prefix of addresses, found " + cut(s), "write it as 10.1.0.0/16 or 2001:db8::/32; a name goes to domain"}
	case prefix.Addr().Is4In6():
		return &problem{cut(s) + " is an IPv4 address in IPv6 spelling", "write the IPv4 prefix"}
	case prefix != prefix.Masked():
		return &problem{fmt.Sprintf("%s has bits set after the first %d", cut(s), prefix.Bits()), "write " + prefix.Masked().String()}
	case prefix.String() != s:
		return &problem{cut(s) + " is not in its plain form", "write " + prefix.String()}
	}
	*v = CIDR(prefix)
	return nil
}
