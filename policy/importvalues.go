package policy

import (
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The scalars of files to import.
type (
	// freeText is any text.
	freeText string
	// foreignPath is a path in OpenShell's image, with its workspace renamed to ours.
	foreignPath string
	// foreignUser is a user or group that is as unprivileged as ours.
	foreignUser string
	// foreignProgram is the path of one program.
	foreignProgram string
	// foreignHost is a domain as a rule here has it, or an address.
	foreignHost string
)

func (v *freeText) read(n *yaml.Node, _ *field) *problem {
	if n.ShortTag() == "!!null" || len(n.Value) > maxText {
		return &problem{"expected a text, found " + kindOf(n), ""}
	}
	*v = freeText(strings.TrimSpace(n.Value)) // of several lines, it may be: it only ever stands in comments and messages
	return nil
}

// foreignWorkspace is where OpenShell has what is /workspace here.
const (
	foreignWorkspace = "/sandbox"
	ourWorkspace     = "/workspace"
)

// renamed gives a path below OpenShell's workspace its name here.
func renamed(p string) string {
	if under(p, foreignWorkspace) {
		return ourWorkspace + strings.TrimPrefix(p, foreignWorkspace)
	}
	return p
}

// hostsOwn are directories that hold something quite different in an image and on a host.
var hostsOwn = []string{"/home", "/root", "/run", "/var/run"}

func (v *foreignPath) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p == nil {
		p = filePath(s)
	}
	switch {
	case p != nil:
	case s == "/":
		p = &problem{"/ is " + noEqual, "in OpenShell it is an image, here it would be the host: name the directories that are needed"}
	case under(s, "/dev") && !slices.Contains(BaselineDevices, s) && !under(s, "/dev/shm"):
		p = &problem{cut(s) + " is " + noEqual, "no device beside the basics of /dev is passed in"}
	case under(s, Home):
	case slices.ContainsFunc(hostsOwn, func(dir string) bool { return under(s, dir) }):
		p = &problem{cut(s) + " is " + noEqual, "in OpenShell it is an image's, here it would be the host's, with its people's files and its sockets; write a rule for what is needed"}
	default:
		if secret, at, found := SecretAt(s); found {
			p = &problem{cut(s) + " is " + noEqual, "in OpenShell it is an image's, here " + at + " is the host's: " + secret.Reason}
		}
	}
	*v = foreignPath(renamed(s))
	return p
}

func (v *foreignUser) read(n *yaml.Node, _ *field) *problem {
	s := n.Value
	switch s {
	case "sandbox":
		*v = foreignUser(s)
		return nil
	case "root", "0":
		return &problem{cut(s) + " is refused", "the command never runs as root"}
	}
	return &problem{"another user than sandbox is " + noEqual + ", found " + kindOf(n), "the command runs as agent, uid 1000, without privileges; remove the key"}
}

func (v *foreignProgram) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	switch {
	case p != nil:
	case strings.ContainsAny(s, "*?["):
		p = &problem{"a pattern of programs is " + noEqual + ", found " + cut(s), "name each program"}
	case !strings.HasPrefix(s, "/"):
		p = &problem{"expected an absolute path, found " + cut(s), ""}
	default:
		p = command(s)
	}
	*v = foreignProgram(renamed(s))
	return p
}

// foreignNames are names that OpenShell and container engines answer themselves.
var foreignNames = []string{"host.openshell.internal", "host.docker.internal", "host.containers.internal", "gateway.docker.internal", "host-gateway", "inference.local", "localhost"}

func (v *foreignHost) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p != nil {
		return p
	}
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		addr = addr.Unmap()
		if addr.IsLoopback() || IsMetadata(addr) || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
			return &problem{cut(s) + " is " + noEqual, "inside, this address is the sandbox's own, leads nowhere, or is a cloud's metadata service; for a service on this host see docs/presets.md"}
		}
		*v = foreignHost(addr.String())
		return nil
	}
	if slices.Contains(foreignNames, lower(s)) {
		return &problem{cut(s) + " is " + noEqual, "nothing answers to this name here; for a service on this host see docs/presets.md"}
	}
	name, p := canonicalDomain(s)
	*v = foreignHost(name)
	return p
}
