package dnsproxy

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// maxName is the longest host name in text form without a trailing dot (RFC 1035: 255 bytes on the wire).
const maxName = 253

// canonicalName lower-cases a host name and reports whether it is one: letters, digits, hyphen and underscore in labels of
// 1 to 63 bytes, no trailing dot. Anything else (escapes, spaces, UTF-8) is not a name that a policy could list.
func canonicalName(s string) (string, bool) {
	if s == "" || len(s) > maxName {
		return "", false
	}
	label, upper := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = 0
			continue
		case 'A' <= c && c <= 'Z':
			upper = true
		case !nameByte(c):
			return "", false
		}
		if label++; label > 63 {
			return "", false
		}
	}
	if label == 0 {
		return "", false
	}
	if upper {
		s = strings.ToLower(s)
	}
	return s, true
}

// nameByte reports whether c may stand in a lower-case label.
func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// looksNumeric reports whether resolvers and browsers might read the name as an IPv4 address: its last label is decimal or
// 0x-hexadecimal (the WHATWG URL rule), which covers 2130706433, 0x7f.1, 017700000001 and 127.1.
func looksNumeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if rest, ok := strings.CutPrefix(last, "0x"); ok {
		last = rest
		for i := 0; i < len(last); i++ {
			if c := last[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
		return true
	}
	for i := 0; i < len(last); i++ {
		if last[i] < '0' || last[i] > '9' {
			return false
		}
	}
	return true
}

// target is where a connection wants to go: a name or an address literal, and a port.
type target struct {
	name string     // canonical; "" for a literal
	addr netip.Addr // valid for a literal
	port uint16
}

// host returns the name, or the address as text.
func (t target) host() string {
	if t.name != "" {
		return t.name
	}
	return t.addr.String()
}

// String returns "name:port" or "addr:port" ("[addr]:port" for IPv6), the form of Decision.Object.
func (t target) String() string {
	if t.name != "" {
		return t.name + ":" + strconv.Itoa(int(t.port))
	}
	return netip.AddrPortFrom(t.addr, t.port).String()
}

// The ways in which an authority can be refused. They end up in a record and in the client's error body.
var (
	errUserinfo  = errors.New("user information before the host is refused")
	errNumeric   = errors.New("an IP address must be written canonically (four decimal numbers, or IPv6 in brackets)")
	errZone      = errors.New("an IPv6 zone id is refused")
	errNoPort    = errors.New("the port is missing")
	errBadPort   = errors.New("the port is not a decimal number from 1 to 65535")
	errBadHost   = errors.New("the host is not a host name")
	errBadIPv6   = errors.New("the brackets do not hold an IPv6 address")
	errEmptyHost = errors.New("the host is empty")
)

// parseAuthority reads "host:port", "a.b.c.d:port" or "[v6]:port". A missing port is defaultPort, or an error when that is 0.
// Every other way to spell an address is refused rather than normalised: a check and a dial that disagree about a spelling
// is how address filters are passed.
func parseAuthority(s string, defaultPort uint16) (target, error) {
	if strings.IndexByte(s, '@') >= 0 {
		return target{}, errUserinfo
	}
	host, port, bracket := s, "", strings.HasPrefix(s, "[")
	hasPort := false
	if bracket {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return target{}, errBadIPv6
		}
		host = s[1:end]
		rest := s[end+1:]
		if rest != "" {
			if rest[0] != ':' {
				return target{}, errBadIPv6
			}
			port, hasPort = rest[1:], true
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port, hasPort = s[:i], s[i+1:], true
	}
	t := target{port: defaultPort}
	if hasPort {
		p, err := parsePort(port)
		if err != nil {
			return target{}, err
		}
		t.port = p
	} else if defaultPort == 0 {
		return target{}, errNoPort
	}
	if host == "" {
		return target{}, errEmptyHost
	}
	if bracket {
		if strings.IndexByte(host, '%') >= 0 {
			return target{}, errZone
		}
		a, err := netip.ParseAddr(host)
		if err != nil || !a.Is6() {
			return target{}, errBadIPv6
		}
		t.addr = a.Unmap()
		return t, nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
		if a.String() != host {
			return target{}, errNumeric
		}
		t.addr = a
		return t, nil
	}
	name, ok := canonicalName(host)
	if !ok {
		return target{}, errBadHost
	}
	if looksNumeric(name) {
		return target{}, errNumeric
	}
	t.name = name
	return t, nil
}

// parsePort reads a port without sign, space or leading zero.
func parsePort(s string) (uint16, error) {
	if s == "" || len(s) > 5 || s[0] == '0' {
		return 0, errBadPort
	}
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, errBadPort
		}
		n = n*10 + int(s[i]-'0')
	}
	if n > 65535 {
		return 0, errBadPort
	}
	return uint16(n), nil
}
