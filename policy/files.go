package policy

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// accesses are the bits of Access, in the order of RuleIDs in fileGrant and FileRule.
var accesses = [3]Access{Read, Write, Execute}

// fileGrant is what the rules of one verb say of exactly one path, and which rule said it first.
type fileGrant struct {
	access Access
	by     [3]RuleID
}

func (m *merge) grant(into map[string]fileGrant, e *FileEntry, verb string) {
	id := m.ref(e.At, verb, e.Text)
	g := into[string(e.Path.V)]
	for _, word := range e.Permissions {
		for i, name := range []Word{"read", "write", "execute"} {
			if word.V == name && g.access&accesses[i] == 0 {
				g.access |= accesses[i]
				g.by[i] = id
			}
		}
	}
	into[string(e.Path.V)] = g
}

// effective computes what holds at each path that a rule names: the access of the nearest allow at or above it, less
// every deny at or above it. So a deny beats a deeper allow, and a deeper allow replaces a higher one.
func (m *merge) effective() []FileRule {
	var rules []FileRule
	seen := map[string]bool{}
	for _, from := range []map[string]fileGrant{m.allow, m.deny} {
		for p := range from {
			if !seen[p] {
				seen[p] = true
				rules = append(rules, m.effectiveAt(p))
			}
		}
	}
	slices.SortFunc(rules, func(a, b FileRule) int { return strings.Compare(a.Path, b.Path) })
	return rules
}

func (m *merge) effectiveAt(p string) FileRule {
	r := FileRule{Path: p}
	allowed := false
	for at := range ancestors(p) {
		m.steps++
		if g, ok := m.allow[at]; ok && !allowed {
			allowed, r.Access, r.by, r.allowedAt = true, g.access, g.by, at
		}
		g := m.deny[at]
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
	r.Access &^= r.Denied
	r.ID = r.DenyID
	if r.Access != 0 {
		r.ID = firstOf(r.by)
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

// RuleFor returns the rule that decides one access of r: the deny that takes it away, else the allow that gives it;
// 0 when neither does.
func (r *FileRule) RuleFor(a Access) RuleID {
	for i, bit := range accesses {
		switch {
		case a&bit == 0:
		case r.Denied&bit != 0:
			return r.deniedBy[i]
		default:
			return r.by[i]
		}
	}
	return 0
}

// A FileGrant is what the rules of one verb say of one path, as they are written.
type FileGrant struct {
	Path    string
	Access  Access
	Verdict Verdict // Allow or Deny
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

// Written returns the rules as they are written, allows before denies, sorted by path.
func (f *Files) Written() []FileGrant {
	var out []FileGrant
	for _, from := range []struct {
		grants  map[string]fileGrant
		verdict Verdict
	}{{f.allow, Allow}, {f.deny, Deny}} {
		for _, p := range slices.Sorted(maps.Keys(from.grants)) {
			g := from.grants[p]
			out = append(out, FileGrant{p, g.access, from.verdict, g.by})
		}
	}
	return out
}
