package learn

import (
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// helper is a program that a command of the policy may start.
type helper struct {
	rule
	owner, path string
}

// file is one filesystem rule for what was refused.
type file struct {
	rule
	path   string
	access policy.Access
	secret string // why it is proposed as a comment only; "" where it is a rule
}

// exec sorts an execution.
func (l *learner) exec(f *fact) {
	if f.Verdict == policy.Deny {
		l.execRefused(f)
		return
	}
	l.script(f)
	if f.Rule == "default" {
		return // env, the launcher of scripts, which comes with any program
	}
	found := l.programsAt(func(p Program) bool { return p.Path == f.Object && l.policy.Rule(p.Rule).Pos == f.Rule })
	if found == nil {
		l.tree(f)
		return
	}
	l.ran(*found, f)
}

// programsAt returns the first program that is meant, a command before a helper.
func (l *learner) programsAt(meant func(Program) bool) *Program {
	var found *Program
	for i := range l.o.Programs {
		if p := &l.o.Programs[i]; meant(*p) && (found == nil || found.Helper && !p.Helper) {
			found = p
		}
	}
	return found
}

// ran notes that a program was used.
func (l *learner) ran(p Program, f *fact) {
	if !p.Helper {
		l.program(p.Command, f, used, false)
		return
	}
	for _, h := range l.helpers {
		if h.path == p.Path {
			h.add(f, used)
			return
		}
	}
	h := &helper{owner: p.Command, path: p.Path}
	h.add(f, used)
	l.helpers = append(l.helpers, h)
}

func (l *learner) program(command string, f *fact, how how, refused bool) {
	if l.programs[command] == nil {
		l.programs[command] = &rule{refused: refused}
	}
	l.programs[command].add(f, how)
}

// script finds the script whose interpreter was executed. Its path is the caller's word, so it only keeps what the
// policy allowed.
func (l *learner) script(f *fact) {
	if f.Called == "" || f.Called == f.Object {
		return
	}
	called := path.Base(f.Called)
	p := l.programsAt(func(p Program) bool {
		return p.Script && (p.Path == f.Called || p.Command == f.Called || p.Command == called)
	})
	if p != nil {
		l.ran(*p, f)
	}
}

// tree notes that a filesystem rule with execute was used.
func (l *learner) tree(f *fact) {
	for _, g := range l.files {
		if g.Verdict == policy.Allow && g.Access&policy.Execute != 0 && l.policy.Rule(g.RuleFor(policy.Execute)).Pos == f.Rule {
			if l.trees[g.Path] == nil {
				l.trees[g.Path] = &rule{}
			}
			l.trees[g.Path].add(f, used)
		}
	}
}

// execRefused proposes a program that was refused.
func (l *learner) execRefused(f *fact) {
	p := proposal(f.Decision)
	if f.Rule != "default" || p == nil || p.Process == nil || len(p.Process.Allow) != 1 {
		l.leave(f, f.Reason)
		return
	}
	l.program(string(p.Process.Allow[0].Command.V), f, refused, true)
}

// file proposes a path that was refused.
func (l *learner) file(f *fact) {
	p := proposal(f.Decision)
	if f.Rule != "default" || p == nil || p.Filesystem == nil || len(p.Filesystem.Allow) != 1 {
		l.leave(f, f.Reason)
		return
	}
	e := p.Filesystem.Allow[0]
	at := string(e.Path.V)
	i := slices.IndexFunc(l.paths, func(x *file) bool { return x.path == at })
	if i < 0 {
		i = len(l.paths)
		l.paths = append(l.paths, &file{path: at, secret: policy.Reveals(at), rule: rule{refused: true}})
	}
	x := l.paths[i]
	for _, word := range e.Permissions {
		x.access |= map[policy.Word]policy.Access{"read": policy.Read, "write": policy.Write, "execute": policy.Execute}[word.V]
	}
	// A rule for a path replaces that of a directory above, so it gives no less.
	above, _, _ := l.policy.Files.Access(at)
	x.access |= above
	x.add(f, refused)
}

// generalisePaths makes one rule for a directory of two or more files in it that are used in the same way; never of a
// directory that is a home or the system's, or that has a secret in it.
func (l *learner) generalisePaths() {
	type family struct {
		dir     string
		access  policy.Access
		refused bool
	}
	members := map[family][]*file{}
	for _, x := range l.paths {
		if dir := path.Dir(x.path); x.secret == "" && l.mayBeWhole(dir) {
			of := family{dir, x.access, x.refused}
			members[of] = append(members[of], x)
		}
	}
	for of, list := range members {
		dir := of.dir
		if len(list) < 2 {
			continue
		}
		whole := &file{path: dir, rule: rule{refused: of.refused}}
		for _, x := range list {
			whole.access |= x.access
			whole.evidence = append(whole.evidence, x.evidence...)
		}
		l.paths = slices.DeleteFunc(l.paths, func(x *file) bool { return slices.Contains(list, x) })
		if i := slices.IndexFunc(l.paths, func(x *file) bool { return x.path == dir && x.refused == of.refused }); i >= 0 {
			l.paths[i].access |= whole.access
			l.paths[i].evidence = append(l.paths[i].evidence, whole.evidence...)
			continue
		}
		l.paths = append(l.paths, whole)
	}
}

// mayBeWhole reports whether a directory may become a rule.
func (l *learner) mayBeWhole(dir string) bool {
	parent := path.Dir(dir)
	if dir == "/" || parent == "/" || parent == "/home" || policy.Reveals(dir) != "" {
		return false
	}
	holds := func(p string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
	if slices.ContainsFunc(policy.BaselineSecrets, func(s policy.Secret) bool { return holds(s.Path) }) {
		return false
	}
	return !slices.ContainsFunc(l.paths, func(x *file) bool { return x.secret != "" && holds(x.path) })
}
