package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// ProgramKind says why a program may be executed.
type ProgramKind uint8

// The kinds of Program.
const (
	KindCommand ProgramKind = iota // a rule of process.allow names it
	KindHelper                     // a rule's helpers name it
	KindEnv                        // /usr/bin/env, the launcher in the first line of scripts
	KindAsked                      // a rule of process.ask names it: a person may let it run
)

// ProgramRule is what process.ask or process.deny says of one file of the view, whatever is said of the directories above it.
type ProgramRule struct {
	Rule   policy.RuleID
	Ask    bool
	Script bool   // to run it is to read it: what is executed is its interpreter
	text   string // where the rule stands and what it says
}

// Program is one file that may be executed, held open so that its inode stays its own.
type Program struct {
	Command string // as the policy writes it; of a helper, the command it helps
	Path    string // inside, symbolic links followed
	File    *os.File
	Rule    policy.RuleID
	Kind    ProgramKind
	Until   time.Duration   // after Spec.Started: from then on it may not be; 0: it always may
	Helps   []policy.RuleID // of a helper: the rules of all commands that it helps
	Script  bool            // starts with #!: what the kernel executes is its interpreter
}

// ExecTree is a directory, or file, below which anything may be executed: a filesystem rule says execute.
type ExecTree struct {
	Path string // inside
	File *os.File
}

// headSize is how much of a program is read to know its interpreter: the kernel reads as much of a script, and program
// headers lie right behind an ELF header.
const headSize = 4096

// maxShebang is how many interpreters of interpreters the kernel follows.
const maxShebang = 5

// programs resolves the exec list in the composed view. It is in the way of every start, and a policy with git has 200
// names for a few files, so a name costs little more than its opening.
type programs struct {
	root     int // of the view
	plan     *viewPlan
	prefix   string
	rules    *ruleset
	list     []Program
	known    map[inode]int // in list
	denied   map[inode]string
	judged   map[string]ProgramRule // for BPF LSM, by path
	loaders  map[string]bool
	many     bool                           // so many names are looked for that listing directories pays
	listed   map[string]map[string]struct{} // names in the smaller directories of PATH
	buf      []byte                         // for what is read of files, links and directories
	warnings []string
}

type inode struct{ dev, ino uint64 }

// resolvePrograms finds the policy's commands in the view and gives each the Landlock right to be executed. prefix is
// where the view's root is mounted in the calling thread's mount namespace.
func resolvePrograms(c *policy.Compiled, plan *viewPlan, root int, prefix string, rules *ruleset, full bool) (*programs, error) {
	p := &programs{
		root: root, plan: plan, prefix: prefix, rules: rules, known: map[inode]int{}, denied: map[inode]string{}, judged: map[string]ProgramRule{},
		loaders: map[string]bool{}, many: len(c.Exec.Allow) > fewNames, listed: map[string]map[string]struct{}{}, buf: make([]byte, max(headSize, smallDir, unix.PathMax)),
	}
	for _, d := range c.Exec.Deny {
		if err := p.deny(d.ID, c.Rule(d.ID), d.Name, plan, full); err != nil {
			return p, err
		}
	}
	for _, a := range c.Exec.Ask {
		if err := p.add(a, a.Name, KindAsked, c.Rule(a.ID).Pos); err != nil {
			return p, err
		}
	}
	for _, a := range c.Exec.Allow {
		if err := p.add(a, a.Name, KindCommand, c.Rule(a.ID).Pos); err != nil {
			return p, err
		}
	}
	for _, a := range c.Exec.Allow {
		for _, h := range a.Helpers {
			for _, name := range p.expand(h) {
				if err := p.add(a, name, KindHelper, c.Rule(a.ID).Pos); err != nil {
					return p, err
				}
			}
		}
	}
	if full && c.Exec.Default == policy.Ask {
		p.denyLoaders()
	}
	if c.Exec.Any() {
		if err := p.add(policy.Command{Name: "env"}, "env", KindEnv, ""); err != nil {
			return p, err
		}
	}
	return p, p.checkScripts()
}

// deny takes a program off the list. Below a path whose files may be executed, by a rule or because scripts may, no list
// is asked, so a rule for one of them could not be kept without BPF LSM.
func (p *programs) deny(id policy.RuleID, rule policy.RuleRef, name string, plan *viewPlan, full bool) error {
	at, script := name, false
	f, err := p.find(name)
	if err == nil {
		p.denied[f.inode] = rule.Pos
		at, err = p.real(f)
		var head []byte
		if err == nil {
			head, err = p.head(f.fd)
			script = isScript(head)
		}
		f.close()
		if err != nil {
			return fmt.Errorf("sandbox: %s: %w", rule.Pos, err)
		}
	}
	if full {
		if at[0] == '/' {
			p.judged[at] = ProgramRule{Rule: id, Script: script, text: rule.Pos + ": " + rule.Text}
		}
		return nil
	}
	for _, g := range plan.grants {
		if (g.script || g.access&policy.Execute != 0) && under(at, g.path) {
			return fmt.Errorf("sandbox: %s: %s: this rule needs enforcement level full (BPF LSM), and the level here is static: "+
				"%s is below %s, whose scripts or programs may be executed; take it out of there, or the rule out of the policy", rule.Pos, rule.Text, at, g.path)
		}
	}
	return nil // what is not there can't be executed
}

// denyLoaders keeps the dynamic loaders from being asked about as programs: whoever lets one run lets it run any file.
func (p *programs) denyLoaders() {
	for _, dir := range append([]string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"}, p.expand("/usr/lib/*-linux-*")...) {
		for _, name := range p.expand(dir + "/ld-*.so*") {
			f, err := p.open(name)
			if err != nil {
				continue // what is no executable file is no loader
			}
			if at, err := p.real(f); err == nil {
				p.judged[at] = ProgramRule{text: "built in: " + at + " is the dynamic loader"}
			}
			f.close()
		}
	}
}

func (p *programs) close() {
	for _, program := range p.list {
		program.File.Close()
	}
	p.list = nil
}

// found is an executable file of the view, open.
type found struct {
	fd    int
	inode inode
	name  string // as it was opened
	real  bool   // no symbolic link was followed: name is the path
}

func (f found) close() { unix.Close(f.fd) }

// add resolves one name and lets it be executed.
func (p *programs) add(a policy.Command, name string, kind ProgramKind, where string) error {
	f, err := p.find(name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = errors.New("it is not there") // by its path
		}
		if kind == KindCommand {
			p.warnings = append(p.warnings, fmt.Sprintf("%s: the command %s is not allowed to run: %v", where, name, err))
		}
		return nil // a helper that is not installed helps nobody
	}
	if at, ok := p.denied[f.inode]; ok {
		f.close()
		if kind == KindCommand {
			p.warnings = append(p.warnings, fmt.Sprintf("%s: the command %s is denied at %s", where, name, at))
		}
		return nil
	}
	if i, ok := p.known[f.inode]; ok {
		f.close()
		p.until(i, longer(p.list[i].Until, a.Expires))
		if first := p.list[i]; kind == KindCommand && first.Command != a.Name {
			first.Command, first.Rule = a.Name, a.ID // a second name of the same program
			p.list = append(p.list, first)
		}
		if first := &p.list[i]; kind == KindHelper && first.Kind == KindHelper && !slices.Contains(first.Helps, a.ID) {
			first.Helps = append(first.Helps, a.ID)
		}
		return nil
	}
	if at := p.movableLink(f); at != "" {
		f.close()
		p.warnings = append(p.warnings, fmt.Sprintf("%s: %s is not allowed to run: %s is a symbolic link where the sandbox may write, so it may lead to any program; name the program itself", where, name, at))
		return nil
	}
	real, err := p.real(f)
	if err == nil && isLoader(real) {
		f.close()
		return fmt.Errorf("sandbox: %s: %s is the dynamic loader (%s), which starts any program that it is given, so with this rule every program could run: name the programs themselves", where, name, real)
	}
	if err == nil && p.plan.denies(real) {
		f.close()
		if kind == KindCommand {
			p.warnings = append(p.warnings, fmt.Sprintf("%s: the command %s is not allowed to run: a rule of filesystem.deny takes execute from %s", where, name, real))
		}
		return nil
	}
	if kind == KindCommand && err == nil && writableMount(f.fd) {
		p.warnings = append(p.warnings, fmt.Sprintf("%s: the command %s lies where the sandbox may write (%s), so what runs inside can put another program in its place", where, name, real))
	}
	var head []byte
	if err == nil {
		head, err = p.head(f.fd)
	}
	if err == nil {
		err = p.rules.allow(f.fd, llExecute, true)
	}
	if err == nil {
		err = p.allowLoader(head)
	}
	if err != nil {
		f.close()
		return fmt.Errorf("sandbox: %s: letting %s be executed: %w", where, f.name, err)
	}
	if kind == KindAsked {
		p.judged[real] = ProgramRule{a.ID, true, isScript(head), where + ": ask: " + a.Name}
	}
	program := Program{
		Command: a.Name, Path: real, File: os.NewFile(uintptr(f.fd), real), Rule: a.ID, Kind: kind, Until: a.Expires,
		Script: isScript(head),
	}
	if kind == KindHelper {
		program.Helps = []policy.RuleID{a.ID}
	}
	p.known[f.inode] = len(p.list)
	p.list = append(p.list, program)
	return nil
}

// longer is the later of two ends; 0 is none.
func longer(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// until says how long a program may be executed, under all names that it has.
func (p *programs) until(i int, end time.Duration) {
	same := p.list[i].File
	for n := range p.list {
		if p.list[n].File == same {
			p.list[n].Until = end
		}
	}
}

// isScript tells a script by its first bytes.
func isScript(head []byte) bool { return bytes.HasPrefix(head, []byte("#!")) }

// isLoader tells a dynamic loader by the name that loaders have (ld-linux-x86-64.so.2, ld-musl-x86_64.so.1, ...): called as
// a command it maps any program itself, and no execution of that program is seen.
func isLoader(real string) bool {
	name := path.Base(real)
	return strings.HasPrefix(name, "ld-") && strings.Contains(name, ".so")
}

// writableMount reports whether an open file lies on a mount that is writable inside.
func writableMount(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Flags&unix.ST_RDONLY == 0
}

// movableLink returns the first symbolic link on a program's path that a sandbox may have made, "" for none.
func (p *programs) movableLink(f found) string {
	if f.real {
		return ""
	}
	at, err := resolveWith(p.lstat, f.name)
	if err != nil {
		return f.name
	}
	for _, l := range at.links {
		dir, err := openIn(p.root, path.Dir(l.path), unix.O_PATH)
		if err != nil {
			return l.path
		}
		writable := writableMount(dir)
		unix.Close(dir)
		if writable {
			return l.path
		}
	}
	return ""
}

// lstat looks at one path of the view, which has no symbolic links above its last element.
func (p *programs) lstat(name string) (string, fileKind, error) {
	fd, err := openStrict(p.root, path.Dir(name), unix.O_PATH)
	if err != nil {
		return "", 0, err
	}
	defer unix.Close(fd)
	n, err := unix.Readlinkat(fd, path.Base(name), p.buf[:unix.PathMax])
	if errors.Is(err, unix.EINVAL) {
		return "", kindOther, nil // no link: what it is does not matter here
	}
	return string(p.buf[:max(n, 0)]), kindOther, err
}

// allowLoader lets the dynamic loader of a program be executed: the kernel does that on the program's behalf. The
// exec guard knows the difference to a loader that is called as a command.
func (p *programs) allowLoader(head []byte) error {
	loader := interpreterOf(head)
	if loader == "" || p.loaders[loader] {
		return nil
	}
	p.loaders[loader] = true
	return p.rules.allowPath(p.root, loader, llExecute, true)
}
