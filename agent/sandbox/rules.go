package sandbox

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Rules are what a policy's rules for files and programs come to in a sandbox that runs, where BPF LSM judges. Its mounts stay as
// they are: they are the outer limit of what rules can allow.
type Rules struct {
	Places   []Judged
	Programs []Program
	Trees    []ExecTree
	Warnings []string // as Sandbox.Warnings, of these rules
}

// Close closes the files.
func (r *Rules) Close() {
	closePlaces(r.Places)
	for _, p := range r.Programs {
		p.File.Close()
	}
	for _, t := range r.Trees {
		t.File.Close()
	}
}

// Rules finds in the view what the policy's rules are about. Nothing inside may move meanwhile, nor until they are in force: see
// Freeze. It refuses rules that can't be held in a sandbox that runs. The caller closes them; whoever lets go of the programs
// relies on their identity alone, as with ReleasePrograms.
func (s *Sandbox) Rules(c *policy.Compiled) (*Rules, error) {
	plan, err := s.planAgain(c)
	if err != nil {
		return nil, err
	}
	r, waits, err := s.find(c, plan)
	if err == nil && len(waits) > 0 {
		r.Close()
		err = fmt.Errorf("sandbox: %s", strings.Join(waits, "\nsandbox: "))
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Waits lists, for rules of files and programs that are to take the place of others, what can't be in force before the sandbox
// is started again, each with its reason. An error says what can't be enforced here at all.
func (s *Sandbox) Waits(old, next *policy.Compiled) ([]string, error) {
	was, err := s.planAgain(old)
	if err != nil {
		return []string{fmt.Sprintf("filesystem: the rules in force can't be looked up on this host any more: %v", err)}, nil
	}
	will, err := s.planAgain(next)
	if err != nil {
		return nil, err
	}
	waits := s.view.plan.waits(was, will, s.ends(next, &will.said))
	r, unheld, err := s.find(next, will)
	if err != nil {
		return nil, err
	}
	r.Close()
	for _, u := range unheld {
		waits = append(waits, "filesystem: "+u)
	}
	return waits, nil
}

// planAgain plans the view that a start would compose now.
func (s *Sandbox) planAgain(c *policy.Compiled) (*viewPlan, error) {
	return (&planner{host: newRealHost(), full: true, running: true, libraries: s.spec.Libraries}).view(c.At(s.age()), s.spec.Workspace, s.spec.Root, s.spec.Protected)
}

// find finds what rules are about, and the rules that nothing in the view could hold.
func (s *Sandbox) find(c *policy.Compiled, plan *viewPlan) (r *Rules, waits []string, err error) {
	r = &Rules{}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	root, err := unix.Open("/proc/"+strconv.Itoa(s.pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return r, nil, fmt.Errorf("sandbox: opening the root of the view: %w", err)
	}
	defer unix.Close(root)
	programs, err := resolvePrograms(c.At(s.age()), plan, root, "", nil, true)
	r.Programs = programs.list
	if err != nil {
		return r, nil, err
	}
	if r.Places, waits, err = s.judge(c, &plan.said, programs.judged); err != nil {
		return r, nil, err
	}
	if r.Places, err = s.addEnding(r.Places, r.Programs); err != nil {
		return r, nil, err
	}
	r.Warnings = slices.Concat(plan.warnings, programs.warnings, s.notes)
	for _, g := range plan.exec {
		at, err := openExec(root, g.path)
		if notThere(err) {
			continue // it is there on the host, and not in the view
		}
		if err != nil {
			return r, nil, err
		}
		r.Trees = append(r.Trees, at)
	}
	return r, waits, nil
}

// waits compares the plans of rules in force and of rules to come by what the view that there is lets through. Less can be
// allowed everywhere, since BPF LSM judges what the mounts let through; more only where they do.
//
// What is allowed again when a rule ends has to fit as well.
func (v *viewPlan) waits(old, next *viewPlan, ends []end) (list []string) {
	for _, at := range placesOf(v, old, next) {
		was, now := old.gives(&old.said, at), next.gives(&next.said, at)
		gained, changed := now&^was, now != was
		for i := range ends {
			then := next.gives(&ends[i].said, at)
			gained, changed = gained|then&^was, changed || then != was
		}
		if !changed {
			continue
		}
		if why := v.fixed(next, at, gained); why != "" {
			list = append(list, "filesystem: "+ruleAt(old, next, at)+": "+why)
		}
	}
	return list
}

// gives is what may be done at a path by rules for a view.
func (v *viewPlan) gives(rules *said, at string) policy.Access {
	if in := v.innermost(at); in != nil && in.kind == treeEtc && underAny(at, v.hidden) {
		return 0 // left out
	}
	access, _ := rules.effective(at)
	return access
}

// fixed says why what may be done at a path can't become another while the sandbox runs; "" when it can. gained is what is
// allowed then and was not before.
func (v *viewPlan) fixed(next *viewPlan, at string, gained policy.Access) string {
	in := v.innermost(at)
	switch {
	case in != nil && in.kind == treeEtc && at != in.path:
		return "what is below /etc inside is put together when the sandbox starts"
	case under(at, "/proc") && at != "/proc":
		return "what is below /proc inside is covered when the sandbox starts"
	}
	missing := gained & next.lets(at) &^ v.lets(at)
	switch {
	case missing != 0 && in == nil:
		return "it is not in the view, which is put together when the sandbox starts"
	case missing != 0 && in.kind == treeMask:
		return "it was denied when the sandbox started, and is hidden by a mount since"
	case missing&policy.Write != 0:
		return "it is mounted read-only since the sandbox started"
	case missing != 0:
		return "it is mounted without the right to execute since the sandbox started"
	case gained != 0 && v.source(at) != next.source(at):
		return "something else is at its place in the view, which is put together when the sandbox starts"
	}
	return ""
}

// lets is what the mounts of a view let through at a path.
func (v *viewPlan) lets(at string) policy.Access {
	in := v.innermost(at)
	switch {
	case under(at, "/dev") && (in == nil || in.kind != treePrivate):
		return readWrite
	case in == nil || in.kind == treeMask || in.kind == treeSocket:
		return 0
	}
	access := policy.Read
	if !in.readOnly {
		access |= policy.Write
	}
	if !in.noExec {
		access |= policy.Execute
	}
	return access
}

// source is what a view shows at a path: a path on the host, or "" for what is the sandbox's own.
func (v *viewPlan) source(at string) string {
	in := v.innermost(at)
	if in == nil || in.source == "" {
		return ""
	}
	return path.Join(in.source, strings.TrimPrefix(at, in.path))
}

// placesOf lists the paths that rules or mounts of any of the plans are about.
func placesOf(plans ...*viewPlan) (list []string) {
	for _, p := range plans {
		for i := range p.said.entries {
			list = append(list, p.said.entries[i].path)
		}
		for i := range p.trees {
			list = append(list, p.trees[i].path)
		}
		list = append(list, p.hidden...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// ruleAt names the rule that changes what may be done at a path.
func ruleAt(old, next *viewPlan, at string) string {
	for i := range next.said.entries {
		if e := &next.said.entries[i]; e.path == at {
			return e.text
		}
	}
	for i := range old.said.entries {
		if e := &old.said.entries[i]; e.path == at {
			return "removed: " + e.text
		}
	}
	return at
}

// keptView is what a change of rules has to fit into.
type keptView struct {
	Root      string     `json:"root,omitempty"` // of an image
	Trees     []keptTree `json:"trees"`
	Hidden    []string   `json:"hidden,omitempty"`
	ProcMasks []string   `json:"proc_masks,omitempty"`
	Notes     []string   `json:"notes,omitempty"`
}

// keptTree is a tree.
type keptTree struct {
	Path     string   `json:"path"`
	Source   string   `json:"source,omitempty"`
	Kind     treeKind `json:"kind"`
	ReadOnly bool     `json:"read_only,omitempty"`
	NoExec   bool     `json:"no_exec,omitempty"`
}

// keepView makes what a change of rules has to fit into.
func (s *Sandbox) keepView() *keptView {
	if !s.full {
		return nil
	}
	k := &keptView{Root: s.spec.Root, Hidden: s.view.plan.hidden, ProcMasks: s.view.plan.procMasks, Notes: s.notes}
	for _, t := range s.view.plan.trees {
		k.Trees = append(k.Trees, keptTree{t.path, t.source, t.kind, t.readOnly, t.noExec})
	}
	return k
}

// takeView takes over what an earlier daemon composed.
func (s *Sandbox) takeView(k *keptView) {
	if k == nil {
		return
	}
	s.full, s.spec.Root, s.notes = true, k.Root, k.Notes
	plan := &viewPlan{hidden: k.Hidden, procMasks: k.ProcMasks}
	for _, t := range k.Trees {
		plan.trees = append(plan.trees, tree{path: t.Path, source: t.Source, kind: t.Kind, readOnly: t.ReadOnly, noExec: t.NoExec})
	}
	s.view.plan = plan
}
