package agent

import (
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// program is an executable that the sandbox resolved from the policy, with the identity that the kernel gives it.
type program struct {
	command string // as the policy writes it
	path    string // of the inode, symbolic links followed
	id      loader.FileID
	rule    policy.RuleID
}

// programs answers which commands of the policy an executable is. It does not change once it is made.
type programs struct {
	list  []program
	paths map[loader.FileID]string
	ids   []loader.FileID // each once
}

func newPrograms(list []program) *programs {
	p := &programs{list: list, paths: make(map[loader.FileID]string, len(list))}
	for _, x := range list {
		if _, known := p.paths[x.id]; !known {
			p.paths[x.id] = x.path
			p.ids = append(p.ids, x.id)
		}
	}
	return p
}

// path returns the path of an executable; "" when the policy doesn't know it.
func (p *programs) path(id loader.FileID) string { return p.paths[id] }

// rule returns the rule that allows an executable; 0 when the policy doesn't know it.
func (p *programs) rule(id loader.FileID) policy.RuleID {
	if i := slices.IndexFunc(p.list, func(x program) bool { return x.id == id }); i >= 0 {
		return p.list[i].rule
	}
	return 0
}

// is returns the test that policy.Network.Judge takes: whether the executable is a command as a rule names it.
func (p *programs) is(id loader.FileID) func(command string) bool {
	return func(command string) bool {
		return slices.ContainsFunc(p.list, func(x program) bool {
			return x.id == id && (sameCommand(command, x.command) || command == x.path)
		})
	}
}

var searchPath = strings.Split(policy.SearchPath, ":")

// sameCommand compares two ways to write a command: a name and a path below the sandbox's PATH can mean one program.
func sameCommand(a, b string) bool {
	if a == b {
		return true
	}
	if strings.Contains(a, "/") {
		a, b = b, a
	}
	return !strings.Contains(a, "/") && path.Base(b) == a && slices.Contains(searchPath, path.Dir(b))
}
