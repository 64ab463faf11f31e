package loader

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// inherited is what the kernel holds of one sandbox.
type inherited struct {
	exec     map[bpf.GateExecKey]struct{}
	devices  map[bpf.GateDeviceKey]struct{}
	grants   map[bpf.GateGrantKey]struct{}
	rulesets map[uint32]*Ruleset // by revision
	files    map[uint32]*fileSet // likewise

	fileGrants map[bpf.LsmFileGrantKey]struct{}
}

func newInherited() *inherited {
	return &inherited{
		exec: make(map[bpf.GateExecKey]struct{}), devices: make(map[bpf.GateDeviceKey]struct{}),
		grants: make(map[bpf.GateGrantKey]struct{}), rulesets: make(map[uint32]*Ruleset), files: make(map[uint32]*fileSet),
		fileGrants: make(map[bpf.LsmFileGrantKey]struct{}),
	}
}

func (h *inherited) ruleset(revision uint32) *Ruleset {
	rs := h.rulesets[revision]
	if rs == nil {
		rs = newRuleset(nil, revision)
		h.rulesets[revision] = rs
	}
	return rs
}

func (h *inherited) fileSet(revision uint32) *fileSet {
	s := h.files[revision]
	if s == nil {
		s = newFileSet(revision)
		h.files[revision] = s
	}
	return s
}

// Adopt takes over the guard of a cgroup whose agent was killed: every rule, grant and program stays in force but for what was allowed
// once, of which nobody knows any more, and events come to opt.OnEvent from here on. MaxConns, Default, Revision and Hold of opt are not looked at: they are what they were.
// Calls that were held are rejected.
// os.ErrNotExist says that the cgroup has no guard.
func (l *Loader) Adopt(dir *os.File, opt Options) (*Guard, error) {
	id, err := cgroupID(dir)
	if err != nil {
		return nil, err
	}
	g := &Guard{l: l, cgid: id, onEvent: opt.OnEvent}
	if err := l.maps.sandboxes.Lookup(id, &g.sandbox); err != nil {
		return nil, fmt.Errorf("adopt the guard of cgroup %s: %w", dir.Name(), err)
	}
	h, err := l.inherit(id)
	if err != nil {
		return nil, fmt.Errorf("adopt the guard of cgroup %s: %w", dir.Name(), err)
	}
	g.exec, g.devices, g.grants, g.fileGrants = h.exec, h.devices, h.grants, h.fileGrants
	g.live = h.ruleset(g.sandbox.Revision)
	g.staged = make(map[*Ruleset]struct{})
	for _, rs := range h.rulesets {
		rs.g = g
		if rs != g.live {
			g.staged[rs] = struct{}{} // its agent was killed before or after it was live
		}
	}
	// An agent that was killed while it exchanged file rules has left more than those in force.
	g.files = *h.fileSet(g.sandbox.Files)
	delete(h.files, g.sandbox.Files)
	for _, s := range h.files {
		if err := g.removeFiles(*s); err != nil {
			return nil, fmt.Errorf("adopt the guard of cgroup %s: %w", dir.Name(), err)
		}
	}
	l.mu.Lock()
	if _, ours := l.guards[id]; ours {
		l.mu.Unlock()
		return nil, fmt.Errorf("adopt the guard of cgroup %s: this agent has it already", dir.Name())
	}
	l.guards[id] = g
	l.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.maps.pending != nil {
		if err := g.rejectHeld(); err != nil {
			return nil, fmt.Errorf("adopt the guard of cgroup %s: %w", dir.Name(), err)
		}
	}
	if err := errors.Join(dropOnce(l.maps.grants, g.grants), dropOnce(l.maps.fileGrants, g.fileGrants)); err != nil {
		return nil, fmt.Errorf("adopt the guard of cgroup %s: %w", dir.Name(), err)
	}
	g.sandbox.Ring, g.sandbox.Owner = l.ring.index, l.owner()
	return g, g.update()
}

// dropOnce takes away those of a sandbox's grants that the first use takes away.
func dropOnce[K comparable](m *ebpf.Map, keys map[K]struct{}) error {
	for key := range keys {
		var value bpf.GateGrant
		if err := m.Lookup(key, &value); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read an entry of %s: %w", m, err)
		}
		if value.Once == 0 {
			continue
		}
		if err := remove(m, key); err != nil {
			return err
		}
		delete(keys, key)
	}
	return nil
}

// Revision is the number of the ruleset in force.
func (g *Guard) Revision() uint32 { return g.Live().revision }

// DropStaged removes the rulesets that are not in force: what an agent that was killed in the middle of a change left. It
// returns the highest of their numbers and of the one in force; a new ruleset takes a higher one.
func (g *Guard) DropStaged() (highest uint32, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	highest = g.live.revision
	var errs []error
	for rs := range g.staged {
		highest = max(highest, rs.revision)
		rs.remove(&errs)
		delete(g.staged, rs)
	}
	for _, e := range errs {
		if e != nil {
			return highest, e
		}
	}
	return highest, nil
}

// inherit returns the entries of a cgroup. The maps are walked once for all that a daemon adopts: nobody else changes the
// entries of a dead agent's sandboxes.
func (l *Loader) inherit(id uint64) (*inherited, error) {
	l.adoptMu.Lock()
	defer l.adoptMu.Unlock()
	h := l.inherited[id]
	if h == nil {
		var err error
		if l.inherited, err = l.walk(); err != nil {
			return nil, err
		}
		if h = l.inherited[id]; h == nil {
			h = newInherited() // it has no entry but its own
		}
	}
	delete(l.inherited, id)
	return h, nil
}

// walk sorts the entries of all maps by cgroup, those of this agent's own sandboxes left out.
func (l *Loader) walk() (map[uint64]*inherited, error) {
	found := make(map[uint64]*inherited)
	l.mu.Lock()
	own := make(map[uint64]struct{}, len(l.guards))
	for id := range l.guards {
		own[id] = struct{}{}
	}
	l.mu.Unlock()
	of := func(id uint64) *inherited {
		if _, ours := own[id]; ours {
			return nil
		}
		h := found[id]
		if h == nil {
			h = newInherited()
			found[id] = h
		}
		return h
	}
	m := &l.maps
	if m.nodes != nil {
		err := errors.Join(
			each[bpf.LsmPlace, bpf.LsmNode](m.nodes, func(k bpf.LsmPlace) {
				if h := of(k.Cgid); h != nil {
					h.fileSet(k.Revision).nodes[k] = struct{}{}
				}
			}),
			each[bpf.LsmNameKey, bpf.LsmNode](m.names, func(k bpf.LsmNameKey) {
				if h := of(k.Dir.Cgid); h != nil {
					h.fileSet(k.Dir.Revision).names[k] = struct{}{}
				}
			}))
		if err != nil {
			return nil, err
		}
	}
	for _, err := range []error{
		each[bpf.GateExecKey, bpf.GateExecValue](m.executables, func(k bpf.GateExecKey) {
			if h := of(k.Cgid); h != nil {
				h.exec[k] = struct{}{}
			}
		}),
		each[bpf.GateDeviceKey, uint32](m.devices, func(k bpf.GateDeviceKey) {
			if h := of(k.Cgid); h != nil {
				h.devices[k] = struct{}{}
			}
		}),
		each[bpf.GateGrantKey, bpf.GateGrant](m.grants, func(k bpf.GateGrantKey) {
			if h := of(k.Cgid); h != nil {
				h.grants[k] = struct{}{}
			}
		}),
		each[bpf.GateRuleKey, bpf.GateRule](m.rules, func(k bpf.GateRuleKey) {
			if h := of(k.Cgid); h != nil {
				h.ruleset(k.Revision).rules[k] = struct{}{}
			}
		}),
		each[bpf.GatePrefixKey, bpf.GateRule](m.prefixes, func(k bpf.GatePrefixKey) {
			if h := of(k.Cgid); h != nil {
				h.ruleset(k.Revision).prefixes[k] = struct{}{}
			}
		}),
		each[bpf.GateMemberKey, bpf.GateMember](m.members, func(k bpf.GateMemberKey) {
			if h := of(k.Cgid); h != nil {
				h.ruleset(k.Revision).members[k] = struct{}{}
			}
		}),
	} {
		if err != nil {
			return nil, err
		}
	}
	if m.fileGrants == nil {
		return found, nil
	}
	return found, each[bpf.LsmFileGrantKey, bpf.GateGrant](m.fileGrants, func(k bpf.LsmFileGrantKey) {
		if h := of(k.What.Cgid); h != nil {
			h.fileGrants[k] = struct{}{}
		}
	})
}

// each calls f for every key of a map.
func each[K comparable, V any](m *ebpf.Map, f func(K)) error {
	keys, err := collect[K, V](m, func(k K) bool { return true })
	for k := range keys {
		f(k)
	}
	return err
}
