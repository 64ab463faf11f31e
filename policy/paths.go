package policy

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxElement    = 255 // bytes of one element of a path: NAME_MAX
	maxSocketPath = 107 // bytes of a socket's path: sun_path holds 108 with its NUL
	maxNameLength = 63  // characters of a sandbox's name: a host name's label
)

// commandsOfCLI are the words that `nemoclaw` takes as its first argument, now or later. A sandbox of that name could
// not be addressed (`nemoclaw NAME status`).
var commandsOfCLI = map[string]bool{
	"agent": true, "apply": true, "approvals": true, "audit": true, "bench": true, "completion": true, "config": true,
	"connect": true, "create": true, "daemon": true, "debug": true, "delete": true, "destroy": true, "doctor": true,
	"download": true, "exec": true, "explain": true, "export": true, "gpu": true, "gpus": true, "help": true, "import": true,
	"inference": true, "init": true, "inspect": true, "install": true, "learn": true, "list": true, "login": true,
	"logs": true, "ls": true, "man": true, "metrics": true, "models": true, "onboard": true, "openshell": true, "policy": true,
	"preset": true, "presets": true, "proposals": true, "ps": true, "publish": true, "report": true, "restart": true, "resume": true,
	"rm": true, "route": true, "run": true, "schema": true, "serve": true, "setup": true, "snapshot": true, "start": true, "status": true,
	"stop": true, "term": true, "tools": true, "tui": true, "uninstall": true, "unpublish": true, "update": true,
	"upgrade": true, "upload": true, "usage": true, "version": true,
}

var nameForm = lazily(`^[a-z0-9][a-z0-9-]*$`)

// ValidName reports why name can't be a sandbox's: it is 1 to 63 lower-case letters, digits and hyphens, no hyphen
// first, and no command of nemoclaw.
func ValidName(name string) error {
	switch {
	case len(name) > maxNameLength:
		return fmt.Errorf("the sandbox name %s has %d characters; at most %d are possible", cut(name), len(name), maxNameLength)
	case !nameForm.MatchString(name):
		return fmt.Errorf("the sandbox name %s must be lower-case letters, digits and hyphens, and not start with a hyphen", show(name))
	case commandsOfCLI[name]:
		return fmt.Errorf("the sandbox name %s is a command of nemoclaw, so the sandbox could not be addressed; choose another", name)
	}
	return nil
}

// cleanPath checks that s is the one way to write an absolute path.
func cleanPath(s string) *problem {
	switch {
	case strings.HasPrefix(s, "~") || strings.HasPrefix(s, "$"):
		return &problem{"expected an absolute path, found " + cut(s), "the home inside is /home/agent; nothing is expanded"}
	case s == "" || s[0] != '/':
		return &problem{"expected an absolute path, found " + cut(s), "start it with /"}
	case path.Clean(s) != s:
		return &problem{"the path " + cut(s) + " is not in its plain form", "write " + cut(path.Clean(s))}
	}
	for _, element := range strings.Split(s, "/") {
		if len(element) > maxElement {
			return &problem{fmt.Sprintf("an element of the path has %d bytes; at most %d are possible", len(element), maxElement), ""}
		}
	}
	return nil
}

// filePath checks the path of a rule.
func filePath(s string) *problem {
	if p := cleanPath(s); p != nil {
		return p
	}
	if strings.ContainsAny(s, "*?") {
		return &problem{"a pattern is not possible in a path", "name the directory: a rule covers everything below it"}
	}
	return nil
}

// socketPath checks the path of a unix socket.
func socketPath(s string) *problem {
	if p := cleanPath(s); p != nil {
		return p
	}
	switch {
	case len(s) > maxSocketPath:
		return &problem{fmt.Sprintf("the path has %d bytes; a socket's has at most %d", len(s), maxSocketPath), ""}
	case s == "/" || strings.ContainsAny(s, "*?"):
		return &problem{"expected the path of one socket, found " + cut(s), "name each socket"}
	}
	return nil
}

func (v *Path) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p == nil {
		p = filePath(s)
	}
	*v = Path(s)
	return p
}

func (v *SocketPath) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p == nil {
		p = socketPath(s)
	}
	*v = SocketPath(s)
	return p
}

// fileName checks a command without a slash.
func fileName(s string) *problem {
	switch {
	case s == "." || s == "..":
		return &problem{"expected a command, found " + s, "write a name found on PATH, or an absolute path"}
	case strings.ContainsAny(s, " \t"):
		return &problem{"expected one program, found " + cut(s), "name the program alone: its arguments are not judged"}
	case len(s) > maxElement:
		return &problem{fmt.Sprintf("the name has %d bytes; at most %d are possible", len(s), maxElement), ""}
	}
	return nil
}

// command checks a name or an absolute path, without patterns.
func command(s string) *problem {
	switch {
	case strings.ContainsAny(s, "*?"):
		return &problem{"a pattern is not possible in a command", "name each program; `helpers` of a command may be a pattern"}
	case !strings.Contains(s, "/"):
		return fileName(s)
	case s[0] != '/':
		return &problem{"expected a name without a slash or an absolute path, found " + cut(s), ""}
	case s == "/":
		return &problem{"expected a program, found /", ""}
	}
	return cleanPath(s)
}

func (v *CommandName) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p == nil {
		p = command(s)
	}
	*v = CommandName(s)
	return p
}

func (v *Helper) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p != nil {
		return p
	}
	*v = Helper(s)
	if !strings.ContainsAny(s, "*?[") || s == "[" { // the program of that name is test
		return command(s)
	}
	dir, last := path.Split(s)
	switch {
	case dir == "":
		return &problem{"a pattern needs a directory, found " + cut(s), "write it as /usr/lib/git-core/*"}
	case dir == "/":
		return &problem{"a pattern of the root directory is refused", "name each program"}
	case strings.ContainsAny(dir, "*?["):
		return &problem{"a pattern is possible in the last element only, found " + cut(s), "name each directory"}
	}
	if _, err := path.Match(last, ""); err != nil {
		return &problem{"the pattern " + cut(last) + " is broken", "a [ needs its ]"}
	}
	return cleanPath(s)
}
