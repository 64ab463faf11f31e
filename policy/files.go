package policy

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// accesses are the bits of Access, in the order of RuleIDs in fileGrant and FileRule.
var accesses = [3]Access{Read, Write, Execute}

// fileGrant is what the rules of one verb say of exactly one path, and which rule said it first.
type fileGrant struct {
	access Access
	by     [3]RuleID
}

func (m *merge) grant(e *FileEntry, verb Verdict) {
	g := FileGrant{Path: string(e.Path.V), Verdict: verb, Expires: time.Duration(e.Expires.V)}
	id := m.ref(e.At, verb.String(), e.Text)
	for _, word := range e.Permissions {
		for i, name := range []Word{"read", "write", "execute"} {
			if word.V == name {
				g.Access |= accesses[i]
				g.by[i] = id
			}
		}
	}
	m.out.Files.written = append(m.out.Files.written, g)
}

// add merges what another rule says of the same path.
func (g fileGrant) add(o FileGrant) fileGrant {
	for i, bit := range accesses {
		if o.Access&bit != 0 && g.access&bit == 0 {
			g.access |= bit
			g.by[i] = o.by[i]
		}
	}
	return g
}

// at returns the rules that hold at an age of the sandbox. steps counts what that takes.
func (f Files) at(age time.Duration, steps *int) Files {
	f.allow, f.ask, f.deny = map[string]fileGrant{}, map[string]fileGrant{}, map[string]fileGrant{}
	by := map[Verdict]map[string]fileGrant{Allow: f.allow, Ask: f.ask, Deny: f.deny}
	varies := map[string]bool{}
	for _, g := range f.written {
		if g.Expires != 0 && g.Expires <= age {
			continue
		}
		into := by[g.Verdict]
		into[g.Path] = into[g.Path].add(g)
		varies[g.Path] = varies[g.Path] || g.Expires != 0
	}
	f.Rules = nil
	for p := range varies {
		f.Rules = append(f.Rules, f.effectiveAt(p, varies, steps))
	}
	slices.SortFunc(f.Rules, func(a, b FileRule) int { return strings.Compare(a.Path, b.Path) })
	f.index = indexFiles(f.Rules)
	return f
}

// effectiveAt computes what holds at a path that a rule names: the access of the nearest allow at or above it, less what the nearest
// ask at or above it asks about, less every deny at or above it. So a deny beats a deeper allow or ask, an ask a deeper allow, and a
// deeper rule of one verb replaces a higher one.
func (f *Files) effectiveAt(p string, varies map[string]bool, steps *int) FileRule {
	r := FileRule{Path: p}
	allowed, asked := false, false
	for at := range ancestors(p) {
		*steps++
		r.Varies = r.Varies || varies[at]
		if g, ok := f.allow[at]; ok && !allowed {
			allowed, r.Access, r.by, r.allowedAt = true, g.access, g.by, at
		}
		if g, ok := f.ask[at]; ok && !asked {
			asked, r.Asked, r.askedBy, r.askedAt = true, g.access, g.by, at
		}
		g := f.deny[at]
		for i, bit := range accesses {
			if g.access&bit != 0 && r.Denied&bit == 0 { // the nearest deny is the one to name
				r.Denied |= bit
				r.deniedBy[i] = g.by[i]
				if r.DenyID == 0 {
					r.DenyID = g.by[i]
				}
			}
		}
	}
	if f.Default == Ask && (r.Access|r.Asked) != 0 {
		r.Asked |= (Read | Write) &^ r.Access // by no rule: askedBy stays 0
	}
	r.Asked &^= r.Denied
	r.Access &^= r.Denied | r.Asked
	r.ID = r.DenyID
	switch {
	case r.Access != 0:
		r.ID = firstOf(r.by)
	case r.Asked != 0 && r.ID == 0:
		r.ID = firstOf(r.askedBy)
	}
	return r
}

// firstOf is the earliest rule named.
func firstOf(by [3]RuleID) RuleID {
	var first RuleID
	for _, id := range by {
		if id != 0 && (first == 0 || id < first) {
			first = id
		}
	}
	return first
}

// ancestors yields a clean absolute path and all above it, up to "/".
func ancestors(p string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for yield(p) && p != "/" {
			p = path.Dir(p)
		}
	}
}

// indexFiles finds a path's rule.
func indexFiles(rules []FileRule) map[string]int {
	index := make(map[string]int, len(rules))
	for i, r := range rules {
		index[r.Path] = i
	}
	return index
}

// Access returns what the rules (not the baseline: see Baseline) allow at p, an absolute path, and the nearest rule;
// false when no rule is about p. Its cost is one look-up per element of p.
func (f *Files) Access(p string) (Access, FileRule, bool) {
	for at := range ancestors(path.Clean("/" + p)) {
		if i, ok := f.index[at]; ok {
			return f.Rules[i].Access, f.Rules[i], true
		}
	}
	return 0, FileRule{}, false
}

// RuleFor returns the rule that decides one access of r: the deny that takes it away, else the one that asks about it, else the
// allow that gives it; 0 when none does.
func (r *FileRule) RuleFor(a Access) RuleID {
	for i, bit := range accesses {
		switch {
		case a&bit == 0:
		case r.Denied&bit != 0:
			return r.deniedBy[i]
		case r.Asked&bit != 0:
			return r.askedBy[i]
		default:
			return r.by[i]
		}
	}
	return 0
}

// Rule returns what the rules say of exactly one path that they name; false when none names it.
func (f *Files) Rule(p string) (FileRule, bool) {
	i, ok := f.index[p]
	if !ok {
		return FileRule{}, false
	}
	return f.Rules[i], true
}

// A FileGrant is what a rule, or all rules of one verb, say of one path, as they are written.
type FileGrant struct {
	Path    string
	Access  Access
	Verdict Verdict
	Expires time.Duration // of a single rule: after the sandbox's start; 0: never
	by      [3]RuleID
}

// RuleFor returns the rule that says it of one access.
func (g *FileGrant) RuleFor(a Access) RuleID {
	for i, bit := range accesses {
		if a&bit != 0 {
			return g.by[i]
		}
	}
	return 0
}

// Written returns the rules as they are written, allows before asks before denies, sorted by path.
func (f *Files) Written() []FileGrant {
	var out []FileGrant
	for _, from := range []struct {
		grants  map[string]fileGrant
		verdict Verdict
	}{{f.allow, Allow}, {f.ask, Ask}, {f.deny, Deny}} {
		for _, p := range slices.Sorted(maps.Keys(from.grants)) {
			g := from.grants[p]
			out = append(out, FileGrant{Path: p, Access: g.access, Verdict: from.verdict, by: g.by})
		}
	}
	return out
}
