package agent

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// mountRoots are the roots of a view's mounts, and where they are inside. What the kernel says of a refused file is a root and
// the names below it.
type mountRoots map[loader.FileID]string

// path is where a refused file is inside; names alone where its mount is not known.
func (m mountRoots) path(f loader.FileAttempt) string {
	root, ok := m[f.Mount]
	if !ok && f.Tail {
		return loader.Cut + "/" + f.Below
	}
	if !ok {
		return f.Below
	}
	return path.Join(root, f.Below)
}

// localRules are a policy's rules for files and programs, as the kernel takes them.
type localRules struct {
	policy   *policy.Compiled
	nodes    []loader.FileNode // where BPF LSM judges files
	exec     []loader.ExecEntry
	programs *programs
	roots    mountRoots
	held     *sandbox.Rules // what makes the programs' identities last; nil: Landlock's rules do
}

// judgeFiles puts the file rules into the kernel. From then on nothing inside opens, changes or executes a file unjudged.
func (i *Instance) judgeFiles() error {
	places, err := i.box.Judged()
	if err != nil {
		return err
	}
	defer closeFiles(places)
	if i.local.nodes, i.local.roots, err = i.fileNodes(places); err != nil {
		return err
	}
	i.recorder.roots.Store(&i.local.roots)
	return i.guard.SetFiles(i.local.nodes)
}

func closeFiles(places []sandbox.Judged) {
	for _, p := range places {
		p.File.Close()
	}
}

func (i *Instance) fileNodes(places []sandbox.Judged) ([]loader.FileNode, mountRoots, error) {
	fds := make([]int, len(places))
	for n, p := range places {
		fds[n] = int(p.File.Fd())
	}
	ids, err := i.loader.IdentifyAll(fds)
	if err != nil {
		return nil, nil, err
	}
	nodes := make([]loader.FileNode, len(places))
	roots := make(mountRoots)
	for n, p := range places {
		nodes[n] = fileNode(p, ids[n])
		if p.Mount {
			roots[loader.FileID{Ino: ids[n].Ino, Dev: ids[n].Dev, Gen: ids[n].Gen}] = p.Path
		}
	}
	return nodes, roots, nil
}

func fileNode(p sandbox.Judged, id loader.FileID) loader.FileNode {
	n := loader.FileNode{
		File: id, Name: p.Name, Allow: p.Access, Ask: p.Ask, Rules: p.By,
		Until: p.Until, Later: p.Later, Anchor: p.Anchor, Mount: p.Mount, Named: p.Named, Socket: p.Socket,
	}
	if p.Map {
		n.Allow |= loader.Map
	}
	if p.List || p.Access&policy.Read != 0 {
		n.Allow |= loader.List
	}
	if p.Ask&policy.Read != 0 {
		n.Ask |= loader.List
	}
	if p.List || p.Later&policy.Read != 0 {
		n.Later |= loader.List
	}
	if p.Map && p.Later&policy.Read != 0 && p.Later&policy.Execute == p.Access&policy.Execute {
		n.Later |= loader.Map
	}
	return n
}

// execEntries is the exec list as the kernel takes it, and what is known of its programs.
func (i *Instance) execEntries(c *policy.Compiled, list []sandbox.Program, trees []sandbox.ExecTree) ([]loader.ExecEntry, *programs, error) {
	var fds []int
	var entries []loader.ExecEntry
	now := c.At(time.Since(i.c.Started))
	helped := newHelped(list)
	for _, p := range list {
		fds = append(fds, int(p.File.Fd()))
		entries = append(entries, helped.entry(p))
	}
	full := i.box.Full()
	for _, t := range trees {
		st, err := t.File.Stat()
		if err != nil {
			return nil, nil, fmt.Errorf("%s, which may be executed: %w", t.Path, err)
		}
		_, rule, _ := now.Files.Access(t.Path)
		fds = append(fds, int(t.File.Fd()))
		entries = append(entries, loader.ExecEntry{Tree: st.IsDir(), Known: full && !st.IsDir(), Rule: rule.RuleFor(policy.Execute)})
	}
	ids, err := i.loader.IdentifyAll(fds)
	if err != nil {
		return nil, nil, err
	}
	for n := range entries {
		entries[n].File = ids[n]
	}
	known := make([]program, len(list))
	listed := slices.Clone(entries[len(list):])
	for n, p := range list {
		known[n] = program{p.Command, p.Path, ids[n], p.Rule}
		if p.Kind != sandbox.KindAsked { // which the file rules ask about
			listed = append(listed, entries[n])
		}
	}
	return listed, newPrograms(known), nil
}

// Waits lists what of a policy can't be in force before the sandbox is started again; an error says what can't be at all. What runs
// inside stands still meanwhile.
func (i *Instance) Waits(next *policy.Compiled) (waits []string, err error) {
	base, local := i.Base(), false
	for _, c := range policy.Changes(base, next) {
		switch {
		case c.Section == policy.SectionNetwork, c.Section == policy.SectionAudit, c.Section == policy.SectionOther && base.Enforcement == next.Enforcement:
		case c.Section == policy.SectionInference && (base.Inference == nil) == (next.Inference == nil): // its certificate is there, or not
		case i.box.Full() && (c.Section == policy.SectionFilesystem || c.Section == policy.SectionProcess):
			local = true
		default:
			waits = append(waits, c.String())
		}
	}
	if !local {
		return waits, nil
	}
	err = i.standing(func() error {
		more, err := i.box.Waits(base, next)
		waits = append(waits, more...)
		return err
	})
	return waits, err
}

// setLocal puts a policy's rules for files and programs into force, in one step for what runs inside: it stands still meanwhile.
// On error the rules of before stay. undo brings them back; done lets go of them. One of the two is due.
func (i *Instance) setLocal(c *policy.Compiled) (undo func() error, done func(), err error) {
	old := i.local
	err = i.standing(func() (err error) {
		found, err := i.box.Rules(c)
		if err != nil {
			return err
		}
		next := localRules{policy: c, held: found}
		if next.nodes, next.roots, err = i.fileNodes(found.Places); err == nil {
			next.exec, next.programs, err = i.execEntries(c, found.Programs, found.Trees)
		}
		if what := newHelped(found.Programs).partial(c); err == nil && c.Enforcement == policy.LevelFull && what != "" {
			err = fmt.Errorf("%s asks for enforcement level full, and %s", i.c.PolicyName, what)
		}
		if err == nil {
			err = i.putLocal(next)
		}
		if err != nil {
			found.Close()
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	undo = func() error {
		failed := i.local.held
		err := i.standing(func() error { return i.putLocal(old) })
		if err == nil {
			failed.Close()
		}
		return err
	}
	return undo, func() {
		old.close()
		i.warnings.Store(&i.local.held.Warnings)
		if i.c.Lasting {
			if err := i.keep(); err != nil {
				i.c.Warn(err.Error()) // the next daemon looks for all of it anew
			}
		}
	}, nil
}

// Renew looks for what the rules of a sandbox that was adopted are about, so that they can be changed again: the programs that are
// allowed have to be held open by this daemon now. now is the policy that is to be in force; a daemon that was killed in the middle of
// a change has left that of before. What can't be found leaves in force what there is. It is for after loader.Deliver.
func (i *Instance) Renew(now *policy.Compiled) {
	if !i.box.Full() {
		return
	}
	i.changes.Lock()
	defer i.changes.Unlock()
	local := i.Base()
	if waits, err := i.Waits(now); err == nil && len(waits) == 0 {
		local = now
	}
	_, done, err := i.setLocal(local)
	if err != nil {
		i.c.Warn(fmt.Sprintf("the rules for files and programs stay as an earlier daemon put them: %v", err))
		i.ends = time.AfterFunc(endsAgain, i.ended)
		return
	}
	done()
	i.awaitEnds()
}

// awaitEnds waits for the next rule for files or programs to end. The kernel lets nothing through by it from then on; what is allowed
// because it has ended, and what ends after it, has to be put there anew. The caller holds changes, or nothing runs yet.
func (i *Instance) awaitEnds() {
	if i.ends != nil {
		i.ends.Stop()
		i.ends = nil
	}
	if next := i.Base().Ends(time.Since(i.c.Started)); i.box.Full() && len(next) > 0 {
		i.ends = time.AfterFunc(time.Until(i.c.Started.Add(next[0])), i.ended)
	}
}

// endsAgain is when rules are put into force anew after an attempt that failed.
const endsAgain = 10 * time.Second

// ended puts into force what is left of the rules for files and programs.
func (i *Instance) ended() {
	i.changes.Lock()
	defer i.changes.Unlock()
	if i.ending.Load() {
		return
	}
	_, done, err := i.setLocal(i.Base())
	if err != nil {
		i.c.Warn(fmt.Sprintf("a rule for files or programs has ended, and what is allowed without it could not be put into force yet: %v", err))
		i.ends = time.AfterFunc(endsAgain, i.ended)
		return
	}
	done()
	i.awaitEnds()
}

// stopEnds waits for no rule any more.
func (i *Instance) stopEnds() {
	i.changes.Lock()
	defer i.changes.Unlock()
	if i.ends != nil {
		i.ends.Stop()
	}
}

// close lets go of the programs' files.
func (l *localRules) close() {
	if l.held != nil {
		l.held.Close()
	}
}

// standing calls f while nothing inside moves.
func (i *Instance) standing(f func() error) error {
	if err := i.box.Freeze(); err != nil {
		return err
	}
	err := f()
	if e := i.box.Thaw(); e != nil {
		i.c.Failed(e) // it would stand still for ever
		err = errors.Join(err, e)
	}
	return err
}

// putLocal exchanges what is in the kernel. Nothing inside may move meanwhile.
func (i *Instance) putLocal(next localRules) error {
	i.guard.Drain() // what was refused until now is named by the rules of then
	old := i.local
	err := i.guard.SetExec(next.exec)
	if err == nil {
		err = i.guard.SetFiles(next.nodes)
	}
	if err != nil {
		if old.policy != nil {
			err = errors.Join(err, i.guard.SetExec(old.exec))
		}
		return err
	}
	i.local = next
	i.recorder.programs.Store(next.programs)
	i.recorder.roots.Store(&next.roots)
	i.recorder.policies.rebase(next.policy)
	return nil
}

// fileAction is what records call an attempt: as where Landlock tells of it, an opening to write is "write".
func fileAction(f loader.FileAttempt) string {
	if f.Op == loader.OpOpen && f.Want&policy.Write != 0 {
		return "write"
	}
	return f.Op.String()
}

// Level is how files are judged in this sandbox: it can be less than the kernel's.
func (i *Instance) Level() policy.Level {
	if i.recorder.roots.Load() != nil {
		return policy.LevelFull
	}
	return policy.LevelStatic
}
