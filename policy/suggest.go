package policy

import (
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Suggest returns the least YAML that allows what d refused: a section to merge into the policy, ending in a newline.
// It is "" where no rule could allow it, or where a rule, not a missing one, refused it. What d says comes from inside
// the sandbox: only a name, an address or a path that the language takes is ever written.
func Suggest(d Decision) string {
	if d.Verdict == Allow || d.Rule != "" && d.Rule != "default" {
		return ""
	}
	switch d.Plane {
	case PlaneNetwork, PlaneDNS:
		return suggestNetwork(d, nil)
	case PlaneExec:
		return suggestCommand(d.Object)
	case PlaneFile:
		return suggestPath(d)
	case PlaneDevice:
		if d.Action == QueryGPU.String() {
			return "devices:\n  gpus: [" + d.Object + "]\n"
		}
	}
	return ""
}

// SuggestAlways returns the least YAML that allows what a person was asked about, as the rule that asks says it: spoken
// in the same way, and by the same commands.
func (c *Compiled) SuggestAlways(d Decision) string {
	switch d.Plane {
	case PlaneExec:
		return suggestCommand(d.Object)
	case PlaneFile:
		return suggestPath(d)
	}
	var asks *NetRule
	for i := range c.Network.Rules {
		if r := &c.Network.Rules[i]; r.Verdict == Ask && c.Rule(r.ID).Pos == d.Rule {
			asks = r
		}
	}
	return suggestNetwork(d, asks)
}

// ProtocolOf is what is usually spoken on a port; a person reads the suggestion before it is used.
func ProtocolOf(port uint16) Protocol {
	switch port {
	case 443, 8443:
		return HTTPS
	case 80, 8080:
		return HTTP
	case 465, 636, 853, 993, 995, 5671, 6697, 8883:
		return TLS
	}
	return TCP
}

// suggestNetwork writes a network rule. like, where there is one, is a rule that it says a part of.
func suggestNetwork(d Decision, like *NetRule) string {
	if strings.HasPrefix(d.Object, "/") {
		if socketPath(d.Object) != nil || !shows(d.Object) {
			return ""
		}
		return "network:\n  unix: [" + Quote(d.Object) + "]\n"
	}
	switch d.Action {
	case "bind", "sendto", "socket", "listen": // no rule is about these
		return ""
	}
	host, port := d.Object, uint16(443) // a name that was only resolved has no port yet
	if h, p, err := net.SplitHostPort(d.Object); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return ""
		}
		host, port = h, uint16(n)
	}
	if host == InferenceName {
		if port != 80 && port != 443 { // the router answers nowhere else
			return ""
		}
		return "inference:\n  local: {model: ollama/llama3.3:70b}\n"
	}
	var target string
	protocol := ProtocolOf(port)
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if IsMetadata(addr) {
			return "" // a cloud's credentials: not by copy and paste
		}
		target, protocol = "cidr: "+Quote(hostPrefix(addr)), TCP
	} else if name, ok := Canonical(host); ok && name[0] != '_' { // _http._tcp.x.org is a service, which is looked up and not connected to
		target = "domain: " + Quote(name)
	} else {
		return ""
	}
	commands := ""
	if like != nil {
		protocol = like.Protocol
		if len(like.Commands) > 0 {
			quoted := make([]string, len(like.Commands))
			for i, c := range like.Commands {
				quoted[i] = Quote(c)
			}
			commands = "      commands: [" + strings.Join(quoted, ", ") + "]\n"
		}
	}
	return "network:\n  allow:\n    - " + target + "\n      ports: [" + strconv.Itoa(int(port)) + "]\n      protocol: " + protocol.String() + "\n" + commands
}

// metadata is where clouds have their metadata service beside link-local addresses: Azure, Alibaba, Oracle, AWS.
var metadata = []netip.Addr{
	netip.AddrFrom4([4]byte{168, 63, 129, 16}), netip.AddrFrom4([4]byte{100, 100, 100, 200}), netip.AddrFrom4([4]byte{192, 0, 0, 192}),
	netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54}),
}

// IsMetadata reports whether a cloud may have its metadata service, with the machine's credentials, at an address.
func IsMetadata(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsLinkLocalUnicast() || slices.Contains(metadata, addr.WithZone(""))
}

func suggestCommand(object string) string {
	command := SuggestedCommand(object)
	if command == "" {
		return ""
	}
	return "process:\n  allow:\n    - command: " + Quote(command) + "\n"
}

// SuggestedCommand is how a rule of process.allow names the program at a path: by its name where it lies on the search path. It is ""
// where no rule is suggested: for the dynamic loader, which starts any program it is given, for what lies in a directory that is the
// sandbox's own, and for descriptors (/proc/PID/fd), which are another file in the next run.
func SuggestedCommand(object string) string {
	if command(object) != nil || !shows(object) || object == "" || strings.HasPrefix(path.Base(object), "ld-") {
		return ""
	}
	for _, own := range append([]string{"/proc"}, PrivateDirs...) {
		if strings.HasPrefix(object, own+"/") {
			return ""
		}
	}
	if slices.Contains(strings.Split(SearchPath, ":"), path.Dir(object)) {
		object = path.Base(object)
	}
	return object
}

// ReadsOnly reports whether a `read` permission is enough for an action on a file, as records call it.
func ReadsOnly(action string) bool { return slices.Contains(readOnly, action) }

// readOnly are the actions on files that a `read` permission is enough for.
var readOnly = []string{"", "access", "chdir", "map", "open", "read", "readdir", "readlink", "stat"}

func suggestPath(d Decision) string {
	if filePath(d.Object) != nil || !shows(d.Object) {
		return ""
	}
	permissions := "[read, write]"
	switch {
	case ReadsOnly(d.Action):
		permissions = "[read]"
	case d.Action == "exec":
		permissions = "[read, execute]"
	}
	return "filesystem:\n  allow:\n    - path: " + Quote(d.Object) + "\n      permissions: " + permissions + "\n"
}

// shows reports whether a text can stand in a policy: valid UTF-8, no control characters, not too long.
func shows(s string) bool {
	if len(s) > maxText {
		return false
	}
	for _, r := range s {
		if r == '\uFFFD' || !printable(r) {
			return false
		}
	}
	return true
}
