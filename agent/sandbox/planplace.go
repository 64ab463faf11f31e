package sandbox

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// systemDirs are the parts of the baseline that are directories of the root, /etc and /proc apart.
func systemDirs() []string {
	return slices.DeleteFunc(slices.Clone(policy.BaselineRead), func(dir string) bool { return dir == "/etc" || dir == "/proc" })
}

// baseTrees plans what every sandbox has: the system, /etc, and its private directories.
func (p *planner) baseTrees() error {
	for _, dir := range systemDirs() {
		access, _ := p.effective(dir)
		if access&readWrite == 0 {
			continue
		}
		target, kind, err := p.system.lstat(dir)
		switch {
		case err != nil:
			return fmt.Errorf("sandbox: %w", err)
		case target != "":
			p.plan.links = append(p.plan.links, link{dir, target})
		case kind == kindDir:
			write := access&policy.Write != 0
			t := tree{path: dir, source: p.root + dir, kind: treeBase, readOnly: !write, idmap: write}
			if write {
				t.kind = treeBind
			}
			p.plan.trees = append(p.plan.trees, t)
		}
	}
	etc, _ := p.effective("/etc")
	if etc&policy.Write != 0 {
		for i := range p.entries {
			if e := &p.entries[i]; e.path == "/etc" {
				return e.refuse("/etc inside is composed of the host's, without its secrets, and generated files",
					"name the file or directory below /etc that has to be written")
			}
		}
	}
	if etc&policy.Read != 0 {
		source, err := p.etcSource()
		if err != nil {
			return err
		}
		p.plan.trees = append(p.plan.trees, tree{path: "/etc", source: source, kind: treeEtc, readOnly: true})
	}
	for _, dir := range policy.PrivateDirs {
		access, _ := p.effective(dir)
		if access&readWrite == 0 {
			continue
		}
		// A library can be mapped from shared memory nowhere: nothing asks for it, and it is a way around the exec guard.
		p.plan.trees = append(p.plan.trees, tree{path: dir, kind: treePrivate, readOnly: access&policy.Write == 0, noExec: dir == "/dev/shm"})
	}
	return nil
}

// place plans the mount that a rule needs, if it needs one.
func (p *planner) place(e *entry) error {
	if e.path == "/" {
		return nil
	}
	access, denied := p.effective(e.path)
	t := p.treeAt(e.path)
	if e.source == "" && e.kind == kindMissing && e.own && underAny(e.path, policy.PrivateDirs) {
		p.warn(e.text, e.written+" is a path of the sandbox's own private directory, which starts empty: what the host has there is not visible")
	}
	switch {
	case under(e.path, "/proc"):
		return p.placeProc(e, access)
	case t == nil && access == 0:
		return nil // not in the view, and its parent can't be written
	case t == nil:
		if err := p.checkLinks(e); err != nil {
			return err
		}
		return p.bind(e, access)
	case t.path == e.path && t.kind != treeBind:
		return nil // baseTrees took the rule into account
	case t.path == e.path:
		t.readOnly = t.readOnly && access&policy.Write == 0 // a second name of the same directory
		return nil
	}
	around, aroundDenied := p.effective(parent(e.path))
	more, less := access&^around&readWrite, around&^access&readWrite
	loseExec := executable(around, aroundDenied) && denied&policy.Execute != 0
	writable := around&policy.Write != 0
	if err := p.checkLinks(e); err != nil && (more != 0 || less != 0 || loseExec) {
		return err
	}
	switch {
	case p.full && (more != 0 && less != 0 || less&policy.Read != 0 && access != 0):
		if more&policy.Write != 0 {
			return p.bind(e, access)
		}
		return p.checkJudged(e, access)
	case more != 0 && less != 0, less&policy.Read != 0 && access != 0:
		return e.needsFull("what may be read, written and executed differ here in a way that mounts can't express",
			"allow read as well, or deny everything")
	case more&policy.Write != 0:
		return p.bind(e, access)
	case less == 0 && !loseExec:
		if e.own && access&policy.Read != 0 && p.secretAbove(e.path) != "" && t.kind == treeEtc {
			return p.bind(e, access) // a rule that names a secret shows it
		}
		return nil // what is around it says the same, or Landlock alone grants the rest
	case e.varies && t.kind == treeEtc:
		return e.refuse("/etc inside is put together when the sandbox starts", "leave `expires` out")
	case e.varies:
		return p.checkJudged(e, access) // no mount, which would stay when the rule ends
	case access == 0 && t.kind == treeEtc:
		// Leaving it out holds for what appears later as well, and for what the host renames.
		p.plan.hidden = append(p.plan.hidden, e.path)
		return nil
	case !writable:
		return p.narrowReadOnly(e, t, access, denied)
	}
	return p.narrowWritable(e, t, access, denied)
}

// checkJudged refuses a rule that BPF LSM could not anchor: to the file, or to its name in a directory that is there.
func (p *planner) checkJudged(e *entry, access policy.Access) error {
	around, _ := p.effective(parent(e.path))
	if e.kind != kindMissing || around == access {
		return nil
	}
	if len(path.Base(e.path)) > judgedName {
		return e.refuse(fmt.Sprintf("the name %q is longer than %d bytes, and there is no such file", path.Base(e.path), judgedName), "create it")
	}
	dir := parent(e.path)
	if e.source == "" { // in a private directory, which starts empty
		if slices.Contains(policy.PrivateDirs, dir) || p.running {
			return nil // of one that runs judge sees what is there
		}
	} else if _, kind, err := p.system.lstat(path.Dir(e.source)); err != nil || kind == kindDir {
		return err
	}
	return e.refuse("the directory "+dir+" does not exist either, so there is nothing to anchor it to", "create the directory")
}

// placeProc plans a deny below /proc; what else a rule says about it does not matter, it can be read and not written.
func (p *planner) placeProc(e *entry, access policy.Access) error {
	rest := strings.TrimPrefix(strings.TrimPrefix(e.path, "/proc"), "/")
	first, _, _ := strings.Cut(rest, "/")
	switch {
	case access&policy.Write != 0:
		return e.refuse("/proc inside is read-only", "remove write from the rule")
	case access&policy.Read != 0 || !p.baseline || e.kind == kindMissing:
		return nil
	case e.varies:
		return e.refuse("what is below /proc inside is covered when the sandbox starts", "leave `expires` out")
	case rest == "" || strings.Trim(first, "0123456789") == "" || first == "self" || first == "thread-self":
		return e.needsFull("processes need their own entries of /proc", "name what else below /proc is not to be seen")
	}
	mark := "f"
	if e.kind == kindDir {
		mark = "d"
	}
	p.plan.procMasks = append(p.plan.procMasks, mark+rest)
	return nil
}

// bind plans a host path that a rule grants.
func (p *planner) bind(e *entry, access policy.Access) error {
	if e.kind == kindMissing {
		if e.own || e.access != 0 {
			p.warn(e.text, e.written+" does not exist "+p.where()+", so nothing is granted")
		}
		return nil
	}
	if e.kind == kindOther {
		return e.refuse(e.written+" is neither a file nor a directory", "sockets are granted by network.unix, devices by the section `devices`")
	}
	if p.secretAbove(e.path) != "" && p.inEtc(e.path) {
		p.plan.revealed = append(p.plan.revealed, e.path)
	}
	p.addTree(tree{
		path: e.path, source: e.source, kind: treeBind, file: e.kind == kindFile,
		readOnly: access&policy.Write == 0, idmap: true, rule: e.rule,
	})
	if !under(e.path, workspaceDir) {
		p.plan.links = append(p.plan.links, e.links...)
	}
	return nil
}

// addSocket plans a unix socket of the host, which appears at the same path.
func (p *planner) addSocket(c *policy.Compiled, socket policy.UnixSocket) error {
	ref := c.Rule(socket.ID)
	e := entry{written: socket.Path, rule: socket.ID, text: ref.Pos + ": " + ref.Text}
	at, err := p.host.resolve(socket.Path)
	if err != nil {
		return fmt.Errorf("sandbox: %s: %w", e.text, err)
	}
	if at.kind != kindSocket {
		return e.refuse(socket.Path+" is not a unix socket on this host", "start its server first, or remove the rule")
	}
	place := at.real
	if p.reserved(at.real) || p.reserved(socket.Path) || p.root != "" {
		place = socket.Path // the links that lead to it are the host's
	} else {
		p.plan.links = append(p.plan.links, at.links...)
	}
	p.addTree(tree{path: place, source: at.real, kind: treeSocket, file: true, readOnly: true, idmap: true, rule: socket.ID})
	return nil
}

// narrowReadOnly takes rights from a part of a tree that can't be written: any existing file or directory can be
// covered, and it is watched because the host may move it away from under its cover.
func (p *planner) narrowReadOnly(e *entry, t *tree, access, denied policy.Access) error {
	if e.kind == kindMissing {
		p.warn(e.text, e.written+" does not exist "+p.where()+"; if it appears while the sandbox runs, it will be visible")
		return nil
	}
	n := tree{path: e.path, source: e.source, kind: treeMask, file: e.kind != kindDir, readOnly: true, watch: true, rule: e.rule}
	if access&policy.Read != 0 {
		n.kind, n.noExec = treeNarrow, denied&policy.Execute != 0 || t.noExec
	}
	p.addTree(n)
	return nil
}

// narrowWritable takes rights from a part of a tree that can be written: only a whole directory holds still.
func (p *planner) narrowWritable(e *entry, t *tree, access, denied policy.Access) error {
	private := e.source == ""
	switch {
	case private: // the sandbox's own: the directory is made before anything runs
	case p.full && e.kind != kindDir:
		return p.checkJudged(e, access)
	case e.kind == kindMissing:
		return e.needsFull(e.written+" does not exist, and the sandbox may create it",
			"create the directory, or allow writing only where it is needed")
	case e.kind != kindDir:
		return e.needsFull(e.written+" is a file in a tree that the sandbox may write, and a mount over a file is lost when the file is replaced",
			"put it into a directory of its own and deny that, or move it out of "+t.path)
	}
	n := tree{path: e.path, source: e.source, kind: treeMask, readOnly: true, watch: !private, rule: e.rule}
	if access&policy.Read != 0 {
		n.kind, n.readOnly = treeNarrow, access&policy.Write == 0
		n.noExec = denied&policy.Execute != 0 || t.noExec
	}
	p.pin(e, t, parent(e.path))
	p.addTree(n)
	return nil
}

// pin binds the directories between a tree's root and a part with fewer rights onto themselves: a mount point can't
// be renamed from inside, so nobody can move the part away and put another in its place.
func (p *planner) pin(e *entry, t *tree, dir string) {
	if dir == t.path || !under(dir, t.path) {
		return
	}
	p.pin(e, t, parent(dir))
	if p.treeAt(dir).path == dir {
		return
	}
	source := ""
	if e.source != "" {
		source = t.source + strings.TrimPrefix(dir, t.path)
	}
	p.addTree(tree{path: dir, source: source, kind: treePin, watch: e.source != "", rule: e.rule, noExec: t.noExec})
}

func (p *planner) addTree(t tree) { p.plan.trees = append(p.plan.trees, t) }

// checkLinks refuses a rule whose path goes through a symbolic link in a tree that a sandbox may write: whoever was
// inside before may have put it there.
func (p *planner) checkLinks(e *entry) error {
	for _, l := range e.links {
		at := l.path
		if p.workspace != "" && under(at, p.workspace) && under(e.path, workspaceDir) {
			at = workspaceDir + strings.TrimPrefix(at, p.workspace)
		}
		if access, _ := p.effective(parent(at)); access&policy.Write != 0 {
			return p.needs(e, l.path+" is a symbolic link in a tree that the sandbox may write", "name "+e.source+" itself")
		}
	}
	return nil
}

// secretAbove returns the secret that a path is or lies below, or "".
func (p *planner) secretAbove(at string) string {
	_, secret, _ := policy.SecretAt(at)
	return secret
}

// inEtc reports whether a path is in /etc's own tree of the view.
func (p *planner) inEtc(at string) bool {
	t := p.treeAt(at)
	return t != nil && t.kind == treeEtc
}

// addSecrets denies the secrets that lie in a directory below /etc which a rule grants as a whole; /etc itself leaves
// them out by its composition.
func (p *planner) addSecrets() {
	var denies []entry
	for _, s := range policy.BaselineSecrets {
		around, named := "", false
		for _, e := range p.entries {
			if e.access&policy.Write != 0 && e.path != "/etc" && under(path.Dir(s.Path), e.path) {
				around = e.written
			}
			ok, _ := path.Match(s.Path, e.path)
			named = named || ok && e.own
		}
		if around == "" || named {
			continue
		}
		for _, at := range p.system.glob(s.Path) {
			if found, err := p.system.resolve(at); err == nil {
				denies = append(denies, entry{
					path: found.real, source: p.root + found.real, kind: found.kind, links: found.links, denied: readWrite | policy.Execute,
					text: "built in: " + at + " (" + s.Reason + ") is left out of " + around, written: at,
				})
			}
		}
	}
	p.entries = append(p.entries, denies...)
}

// hideSecrets leaves the baseline's secrets out of /etc.
func (p *planner) hideSecrets() {
	if !p.inEtc("/etc") {
		return
	}
	for _, s := range policy.BaselineSecrets {
		found := []string{s.Path} // if it is not there, it may appear while the sandbox runs
		if strings.Contains(s.Path, "*") {
			found = p.system.glob(s.Path)
		}
		for _, at := range found {
			if p.inEtc(at) { // else a rule names it
				p.plan.hidden = append(p.plan.hidden, at)
			}
		}
	}
	slices.Sort(p.plan.hidden)
	above := ""
	p.plan.hidden = slices.DeleteFunc(p.plan.hidden, func(at string) bool {
		if above != "" && under(at, above) {
			return true
		}
		above = at
		return false
	})
}

// addGrants lists the Landlock rules: what each mount may be used for, and execute where a rule says so.
func (p *planner) addGrants() {
	writeOnly := false
	for _, t := range p.plan.trees {
		switch t.kind {
		case treeMask, treePin, treeNarrow:
			continue
		case treeSocket:
			p.plan.grants = append(p.plan.grants, grant{path: t.path, access: readWrite, file: true})
			continue
		}
		access, denied := p.effective(t.path)
		writeOnly = writeOnly || access&policy.Read == 0
		p.plan.grants = append(p.plan.grants, grant{
			path: t.path, access: access & readWrite, file: t.file,
			script: executable(access, denied) && access&policy.Write != 0 && !t.noExec,
		})
	}
	if !writeOnly {
		p.plan.grants = append(p.plan.grants, grant{path: "/", list: true}) // the directories that lead to the trees
	}
	for i := range p.entries {
		e := &p.entries[i]
		access, _ := p.effective(e.path)
		around, _ := p.effective(parent(e.path))
		if access&policy.Execute != 0 && p.treeAt(e.path) != nil && e.kind != kindMissing && e.path != "/" {
			g := grant{path: e.path, access: policy.Execute, file: e.kind == kindFile}
			p.plan.exec = append(p.plan.exec, g)
			p.plan.grants = append(p.plan.grants, g)
		}
		if p.treeAt(e.path) != nil && p.treeAt(e.path).path != e.path && access&^around&policy.Read != 0 && e.kind != kindMissing {
			p.plan.grants = append(p.plan.grants, grant{path: e.path, access: policy.Read, file: e.kind == kindFile})
		}
	}
}
