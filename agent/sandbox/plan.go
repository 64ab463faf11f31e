package sandbox

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// workspaceDir is where the workspace appears inside.
const workspaceDir = "/workspace"

// treeKind says how a part of the view comes about.
type treeKind uint8

const (
	treeBase    treeKind = iota // part of the read-only system, owners as they are on the host (shown as nobody)
	treeEtc                     // the system's /etc without secrets, with generated files; no source: it has none
	treeBind                    // a host path that a rule grants
	treePrivate                 // a directory of the sandbox's own scratch file system
	treeNarrow                  // a part of a tree, bound onto itself with fewer rights
	treePin                     // a part of a tree, bound onto itself so that it can't be renamed from inside
	treeMask                    // nothing can be read or written here
	treeSocket                  // a unix socket of the host that can be connected to
)

// tree is one mount of the view.
type tree struct {
	path     string // inside
	source   string // real path on the host, of an image's files below its root; "" for treePrivate and what lies in it
	kind     treeKind
	file     bool // a single file
	readOnly bool
	noExec   bool
	idmap    bool // the owner on disk appears as the sandbox's user
	watch    bool // losing this mount would break a rule: the daemon watches it
	rule     policy.RuleID
}

// grant is one Landlock rule, for everything below a path.
type grant struct {
	path   string
	access policy.Access
	script bool // files may be executed as far as Landlock goes: scripts in trees that can be written
	list   bool // directories may be listed, no more
	file   bool
}

// viewPlan is what a sandbox will see: pure data, computed before anything is touched.
type viewPlan struct {
	trees     []tree // parents first
	links     []link // symbolic links of the host above or beside the trees
	grants    []grant
	exec      []grant  // paths with an explicit execute, for the exec guard
	hidden    []string // paths below /etc that the view leaves out, secrets and denied ones
	revealed  []string // paths below hidden ones that a rule names: mount points for trees
	procMasks []string // 'd' or 'f' and a path below /proc
	warnings  []string
	said      said // what all of it comes from
}

// entry is a rule of the policy (or a protected path of the daemon's) at its real place in the view.
type entry struct {
	path    string // inside, symbolic links followed
	source  string // real path on the host; "" in private directories
	kind    fileKind
	links   []link
	access  policy.Access // allowed by the nearest rule, or asked about
	asked   policy.Access // of access
	denied  policy.Access
	own     bool // an allow rule stands at this very path
	ruled   bool // it is the policy's
	alias   bool // it repeats the denies of another place of the same files
	varies  bool // it depends on rules that end
	rule    policy.RuleID
	by      [3]policy.RuleID // of reading, writing, executing
	text    string           // where the rule stands and what it says, for messages
	written string
}

// planner turns a policy and what the host has into a viewPlan.
type planner struct {
	host      host   // the machine
	system    host   // whose files the view shows: the machine's, or an image's
	root      string // real path of the image on the host; "": the view shows the host
	full      bool   // BPF LSM judges: what mounts can't express is not their affair
	running   bool   // the sandbox runs already: its private directories are not empty any more
	workspace string // real path on the host; "" for none
	libraries []Library
	said
	plan viewPlan
}

// said is what the policy and the daemon say of paths.
type said struct {
	entries  []entry
	baseline bool
	askExec  bool // process.default: ask
}

const readWrite = policy.Read | policy.Write

// view computes the view. It reads the host through p.host and changes nothing; an error names the rule that can't be enforced, why, and
// what to do.
func (p *planner) view(c *policy.Compiled, workspace, root string, protected []string) (*viewPlan, error) {
	p.system, p.said = p.host, said{baseline: c.Files.Baseline, askExec: c.Exec.Default == policy.Ask}
	h := p.host
	if err := errors.Join(p.checkEnds(c), p.checkAsks(c), p.checkListed(c)); err != nil {
		return nil, err
	}
	if workspace != "" {
		at, err := h.resolve(workspace)
		if err != nil {
			return nil, fmt.Errorf("sandbox: the workspace %s: %w", workspace, err)
		}
		if at.kind != kindDir {
			return nil, fmt.Errorf("sandbox: the workspace %s is not a directory on this host: create it, or name another", workspace)
		}
		p.workspace = at.real
	}
	if root != "" {
		if err := p.useImage(root); err != nil {
			return nil, err
		}
	}
	for i := range c.Files.Rules {
		if err := p.addRule(c, &c.Files.Rules[i]); err != nil {
			return nil, err
		}
	}
	for _, dir := range protected {
		if err := p.addProtected(dir); err != nil {
			return nil, err
		}
	}
	p.addAliases()
	p.addSecrets()
	slices.SortStableFunc(p.entries, func(a, b entry) int { return strings.Compare(a.path, b.path) })
	if err := p.baseTrees(); err != nil {
		return nil, err
	}
	for i := range p.entries {
		if err := p.place(&p.entries[i]); err != nil {
			return nil, err
		}
	}
	for _, socket := range c.Network.Unix {
		if err := p.addSocket(c, socket); err != nil {
			return nil, err
		}
	}
	if err := p.addDevices(c); err != nil {
		return nil, err
	}
	p.hideSecrets()
	p.plan.links = slices.DeleteFunc(p.plan.links, func(l link) bool { return p.treeAt(l.path) != nil })
	slices.SortStableFunc(p.plan.trees, func(a, b tree) int { return strings.Compare(a.path, b.path) })
	p.addGrants()
	p.plan.said = p.said
	if workspace != "" && p.plan.workspaceTree() == nil {
		p.warn("", "no rule allows "+workspaceDir+", so the workspace "+workspace+" is not visible; "+
			"add `path: "+workspaceDir+"` to filesystem.allow")
	}
	return &p.plan, nil
}

func (p *planner) warn(where, text string) {
	if where != "" {
		text = where + ": " + text
	}
	p.plan.warnings = append(p.plan.warnings, text)
}

// addRule finds where a rule acts in the view.
func (p *planner) addRule(c *policy.Compiled, r *policy.FileRule) error {
	id := r.ID
	if r.Denied != 0 {
		id = r.DenyID // it is what may turn out not to be enforceable
	}
	ref := c.Rule(id)
	e := entry{access: r.Access | r.Asked, asked: r.Asked, denied: r.Denied, own: r.Denied == 0, ruled: true, varies: r.Varies, rule: id, text: ref.Pos + ": " + ref.Text, written: r.Path}
	for i := range e.by {
		e.by[i] = r.RuleFor(1 << i)
	}
	if err := p.locate(&e); err != nil {
		return err
	}
	if r.Varies && r.Denied != 0 && (slices.Contains(policy.PrivateDirs, e.path) || slices.Contains(policy.BaselineRead, e.path) || e.path == "/") {
		return e.refuse("what every sandbox has can't be denied for a time: it is there from the start or not at all", "name what is below "+e.path)
	}
	p.entries = append(p.entries, e)
	return nil
}

// locate fills in path, source, kind and links of an entry from what is written.
func (p *planner) locate(e *entry) error {
	switch w := e.written; {
	case w == "/" && e.access == 0:
		e.path, e.source, e.kind = "/", "/", kindDir
		return nil
	case w == "/":
		return e.refuse("the view of a sandbox has its own root, so that the daemon's state and the host's secrets stay out",
			"name the directories that are needed")
	case under(w, workspaceDir):
		return p.locateWorkspace(e)
	case underAny(w, policy.PrivateDirs):
		e.path, e.kind = w, kindMissing
		if slices.Contains(policy.PrivateDirs, w) {
			e.kind = kindDir
		}
		return nil
	}
	system := p.system
	if under(e.written, "/proc") {
		system = p.host // an image has none
	}
	at, err := system.resolve(e.written)
	if err != nil {
		return fmt.Errorf("sandbox: %s: %w", e.text, err)
	}
	e.path, e.source, e.kind, e.links = at.real, p.root+at.real, at.kind, at.links
	if p.reserved(at.real) && !p.reserved(e.written) {
		// A link into what is private inside: the place is as written, the content the system's.
		e.path, e.links = e.written, nil
	}
	if p.root != "" {
		if err := p.checkImageRule(e); err != nil {
			return err
		}
	}
	if under(e.path, "/dev") && e.access != 0 && !underAny(e.path, policy.BaselineDevices) {
		return e.refuse("device files are not granted by path", "remove the rule; the section `devices` grants devices")
	}
	for _, private := range policy.PrivateDirs {
		if e.access != 0 && e.path != private && under(private, e.path) {
			return e.refuse("the sandbox has its own "+private+" there", "name the directory below "+e.written+" that is needed")
		}
	}
	return nil
}

// reserved reports whether what is inside at p has nothing to do with what the host has there.
func (p *planner) reserved(at string) bool {
	return under(at, workspaceDir) || underAny(at, policy.PrivateDirs) || under(at, "/dev") || under(at, "/proc")
}

// locateWorkspace follows links below the workspace, and never out of it: they are the agent's own.
func (p *planner) locateWorkspace(e *entry) error {
	e.path, e.kind = e.written, kindMissing
	if p.workspace == "" {
		return nil
	}
	rest := strings.TrimPrefix(e.written, workspaceDir)
	at, err := p.host.resolve(p.workspace + rest)
	if err != nil {
		return fmt.Errorf("sandbox: %s: %w", e.text, err)
	}
	if !under(at.real, p.workspace) {
		return e.refuse(p.workspace+rest+" is a symbolic link that leads out of the workspace, to "+at.real,
			"name "+at.real+" itself, or replace the link")
	}
	e.path = workspaceDir + strings.TrimPrefix(at.real, p.workspace)
	e.source, e.kind, e.links = at.real, at.kind, at.links
	return nil
}

// addProtected denies a directory of the daemon's own.
func (p *planner) addProtected(dir string) error {
	at, err := p.host.resolve(dir)
	if err != nil {
		return fmt.Errorf("sandbox: the daemon's own directory %s: %w", dir, err)
	}
	if p.workspace != "" && under(p.workspace, at.real) {
		return fmt.Errorf("sandbox: the workspace %s lies in %s, which is the daemon's own and outside every sandbox; choose another", p.workspace, dir)
	}
	e := entry{
		path: at.real, source: at.real, kind: at.kind, written: dir,
		denied: readWrite | policy.Execute, text: "built in: " + dir + " is the daemon's own",
	}
	if p.reserved(at.real) || p.root != "" {
		// What is there inside is the sandbox's own, or the image's; the workspace may still show the host's.
		if p.workspace == "" || !under(at.real, p.workspace) {
			return nil
		}
		e.path = workspaceDir + strings.TrimPrefix(at.real, p.workspace)
	}
	p.entries = append(p.entries, e)
	return nil
}

// addAliases repeats the denies of host paths that lie in the workspace at the place where the workspace shows them, and
// those of the workspace at its place on the host, which another rule may show.
func (p *planner) addAliases() {
	if p.workspace == "" {
		return
	}
	for _, e := range p.entries {
		switch {
		case e.denied == 0 || e.source == "" || !under(e.source, p.workspace):
			continue
		case under(e.path, workspaceDir) && (p.reserved(e.source) || p.root != ""):
			continue // what is there on the host is nowhere inside: the sandbox has its own
		case under(e.path, workspaceDir):
			e.path = e.source
		case e.source == p.workspace:
			continue
		default:
			e.path = workspaceDir + strings.TrimPrefix(e.source, p.workspace)
		}
		e.access, e.own, e.alias = 0, false, true
		p.entries = append(p.entries, e)
	}
}

// effective returns what may be done at a path: the nearest rule's access and what every sandbox has, less every
// deny at or above it. The second value is what a deny took.
func (s *said) effective(at string) (access, denied policy.Access) {
	access, denied, _ = s.decide(at)
	return access, denied
}

// decide is effective, with what decides on reading, writing and executing.
func (s *said) decide(at string) (access, denied policy.Access, by [3]policy.RuleID) {
	var deniedBy [3]policy.RuleID
	nearest, found := "", false
	for i := range s.entries {
		e := &s.entries[i]
		if !under(at, e.path) {
			continue
		}
		denied |= e.denied
		for bit := range deniedBy {
			if e.denied&(1<<bit) != 0 {
				deniedBy[bit] = e.by[bit]
			}
		}
		if e.denied != 0 && !e.own && e.access == 0 {
			continue // only a deny: what is allowed around it stays the nearest rule's
		}
		switch {
		case !found || len(e.path) > len(nearest):
			nearest, found, access, by = e.path, true, e.access, e.by
		case e.path == nearest:
			access |= e.access // two names of one directory
		}
	}
	switch {
	case underAny(at, policy.PrivateDirs):
		access |= readWrite
	case s.baseline && underAny(at, policy.BaselineRead):
		access |= policy.Read
	}
	for bit := range by {
		if denied&(1<<bit) != 0 {
			by[bit] = deniedBy[bit]
		}
	}
	return access &^ denied, denied, by
}

// asked returns what of the access that effective gives a person is asked about.
func (s *said) asked(at string) policy.Access {
	var asked policy.Access
	nearest, found := "", false
	for i := range s.entries {
		e := &s.entries[i]
		if !under(at, e.path) || e.denied != 0 && !e.own && e.access == 0 {
			continue
		}
		switch {
		case !found || len(e.path) > len(nearest):
			nearest, found, asked = e.path, true, e.asked
		case e.path == nearest:
			asked |= e.asked
		}
	}
	_, denied := s.effective(at)
	return asked &^ denied
}

// denies reports whether a rule for files takes away execute at a path, which no rule for programs gives back.
func (p *viewPlan) denies(at string) bool {
	_, denied := p.said.effective(at)
	return denied&policy.Execute != 0
}

// executable reports whether Landlock has to let files be executed at a path: explicitly, or as scripts.
func executable(access, denied policy.Access) bool {
	return access&(policy.Write|policy.Execute) != 0 && denied&policy.Execute == 0
}

// treeAt returns the innermost mount at or above a path.
func (p *planner) treeAt(at string) *tree {
	var best *tree
	for i := range p.plan.trees {
		t := &p.plan.trees[i]
		if under(at, t.path) && (best == nil || len(t.path) >= len(best.path)) {
			best = t
		}
	}
	return best
}

// under reports whether p is dir or lies below it.
func under(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

func underAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return under(p, dir) })
}

// parent is the directory of a path; "" above "/".
func parent(p string) string {
	if p == "/" {
		return ""
	}
	return path.Dir(p)
}
