package loader

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Options are what a sandbox is guarded with from the start.
type Options struct {
	MaxConns int            // TCP connections at a time, towards anything but the sandbox itself; 0: none
	Default  policy.Verdict // of connections that no rule matches: Deny or Ask
	Revision uint32         // of the rules that are put first
	Hold     bool           // what a file rule asks about waits until Resume; OnEvent has to see to that. Otherwise it is denied
	Listed   bool           // to map a file to execute it takes the right Map; programs of SetExec have it
	OnEvent  func(Event)    // called for each event, one at a time, in order; must not block for long, nor call Drain or Close
}

// Guard is what the kernel holds of one sandbox. Its methods may be called from any goroutine. An entry that can't be
// made is an error, and what it would have allowed stays denied.
type Guard struct {
	l       *Loader
	cgid    uint64
	onEvent func(Event)

	mu      sync.Mutex
	closed  bool
	sandbox bpf.GateSandbox
	live    *Ruleset
	staged  map[*Ruleset]struct{}
	exec    map[bpf.GateExecKey]struct{}
	devices map[bpf.GateDeviceKey]struct{}
	grants  map[bpf.GateGrantKey]struct{}
	files   fileSet

	fileGrants map[bpf.LsmFileGrantKey]struct{}
}

// NewGuard puts a cgroup below CgroupParent under the programs' control. From then on its processes may execute
// nothing, connect nowhere but to themselves, and open the default devices. Call it before a process is in the cgroup.
func (l *Loader) NewGuard(dir *os.File, opt Options) (*Guard, error) {
	inside, err := l.parent.contains(dir)
	if err != nil {
		return nil, fmt.Errorf("guard cgroup %s: %w", dir.Name(), err)
	}
	if !inside {
		return nil, fmt.Errorf("guard cgroup %s: it is not below %s, where the BPF programs are", dir.Name(), l.parent.path)
	}
	id, err := cgroupID(dir)
	if err != nil {
		return nil, err
	}
	if opt.Default == policy.Allow {
		return nil, errors.New("guard: the default of a sandbox is deny or ask, never allow")
	}
	g := &Guard{
		l: l, cgid: id, onEvent: opt.OnEvent,
		sandbox: bpf.GateSandbox{
			Revision: opt.Revision, Ring: l.ring.index, MaxConns: uint32(opt.MaxConns), Verdict: uint8(opt.Default),
		},
		staged:  make(map[*Ruleset]struct{}),
		exec:    make(map[bpf.GateExecKey]struct{}),
		devices: make(map[bpf.GateDeviceKey]struct{}),
		grants:  make(map[bpf.GateGrantKey]struct{}),

		fileGrants: make(map[bpf.LsmFileGrantKey]struct{}),
	}
	if opt.Hold {
		g.sandbox.Hold, g.sandbox.Owner = 1, l.owner()
	}
	if opt.Listed {
		g.sandbox.Listed = 1
	}
	g.live = newRuleset(g, opt.Revision)
	// The sandbox's own entry is first in and last out: as long as anything is left, Sweep can see whose it is.
	if err := l.maps.sandboxes.Update(id, g.sandbox, ebpf.UpdateNoExist); err != nil {
		if errors.Is(err, ebpf.ErrKeyExist) {
			return nil, fmt.Errorf("guard cgroup %s: it has a guard already", dir.Name())
		}
		return nil, putError("the sandbox", err)
	}
	l.mu.Lock()
	l.guards[id] = g
	l.mu.Unlock()
	if err := g.start(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

func (g *Guard) start() error {
	m := &g.l.maps
	if err := m.counts.Put(g.cgid, make([]bpf.GateCounters, g.l.cpus)); err != nil {
		return putError("the sandbox's counters", err)
	}
	if err := m.conns.Put(g.cgid, uint64(0)); err != nil {
		return putError("the sandbox's connection count", err)
	}
	return g.setDevices(DefaultDevices())
}

// putError explains why an entry could not be made.
func putError(what string, err error) error {
	if errors.Is(err, os.ErrExist) || !isFull(err) {
		return fmt.Errorf("put %s into the kernel: %w", what, err)
	}
	return fmt.Errorf("put %s into the kernel: %w: the map that all sandboxes share is full; end some, or use fewer rules", what, err)
}

// ExecEntry is a program that a sandbox may execute, or a directory below which it may execute everything.
type ExecEntry struct {
	File  FileID
	Tree  bool // File is a directory
	Deny  bool // not to be executed, although a tree above it is allowed
	Quiet bool // executed by the sandbox itself, not by what runs in it: no event
	Known bool // a file rule says whether it may be executed; this, which command it is
	Rule  policy.RuleID

	Helper   bool   // only for the commands that it helps, and what they start; where LSM programs judge
	Commands uint64 // one bit for each command that has helpers: which it is, or which it helps
}

// The flags of exec_value, as in bpf/abi.h.
const (
	execFile = 1 << iota
	execTree
	execQuiet
	execDeny
	execHelper
)

// SetExec replaces what the sandbox may execute. An entry that stays in force is never absent meanwhile.
func (g *Guard) SetExec(entries []ExecEntry) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	wanted := make(map[bpf.GateExecKey]bpf.GateExecValue, len(entries))
	trees := uint8(0)
	for _, e := range entries {
		if e.File.IsZero() {
			return errors.New("put a program into the kernel: it has no identity: call Identify on an open descriptor of it")
		}
		flags := uint32(execFile)
		if e.Tree {
			flags, trees = execTree, 1
		}
		if e.Known {
			flags = 0
		}
		if e.Deny {
			flags |= execDeny
		}
		if e.Quiet {
			flags |= execQuiet
		}
		if e.Helper {
			flags |= execHelper
		}
		key := bpf.GateExecKey{Cgid: g.cgid, File: e.File.key()}
		// One inode can be listed under several names: a deny among them wins.
		old, again := wanted[key]
		if again && old.Flags&execDeny != 0 {
			continue
		}
		if again && !e.Helper && !e.Deny {
			flags &^= execHelper
		}
		if again && e.Known {
			flags = old.Flags
		}
		wanted[key] = bpf.GateExecValue{Rule: uint32(e.Rule), Flags: flags, Commands: e.Commands | old.Commands}
	}
	for key := range g.exec {
		if _, ok := wanted[key]; !ok {
			if err := remove(g.l.maps.executables, key); err != nil {
				return err
			}
			delete(g.exec, key)
		}
	}
	for key := range wanted {
		g.exec[key] = struct{}{}
	}
	if err := putAll(g.l.maps.executables, wanted); err != nil {
		return putError("the programs that may be executed", err)
	}
	if g.sandbox.Trees != trees {
		g.sandbox.Trees = trees
		return g.update()
	}
	return nil
}

// update writes the sandbox's own entry, in one step for the programs.
func (g *Guard) update() error {
	if err := g.l.maps.sandboxes.Put(g.cgid, g.sandbox); err != nil {
		return putError("the sandbox", err)
	}
	return nil
}

// Detach lets go of the guard and leaves everything in force, for the agent that adopts it.
func (g *Guard) Detach() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.sandbox.Owner = 0 // nobody is there to answer
	_ = g.update()
	g.l.ring.drain()
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	if g.l.guards[g.cgid] == g {
		delete(g.l.guards, g.cgid)
	}
}

// Close removes everything the kernel holds of the sandbox, after delivering its last events. The sandbox's processes
// have to be dead: one that lives on is denied everything.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	m := &g.l.maps
	var errs []error
	// From here on deny rules go, so nothing may depend on the default any more.
	g.sandbox.Verdict, g.sandbox.MaxConns, g.sandbox.Trees = uint8(policy.Deny), 0, 0
	g.sandbox.Files = g.files.revision + 1 // it has no entries
	errs = append(errs, g.update())
	g.live.remove(&errs)
	for rs := range g.staged {
		rs.remove(&errs)
	}
	for key := range g.grants {
		errs = append(errs, remove(m.grants, key))
	}
	errs = append(errs, removeAll(m.executables, g.exec), removeAll(m.devices, g.devices), g.removeFiles(g.files), g.removeAsked(),
		remove(m.conns, g.cgid), remove(m.counts, g.cgid))
	g.l.ring.drain()
	g.l.mu.Lock()
	if g.l.guards[g.cgid] == g {
		delete(g.l.guards, g.cgid)
	}
	g.l.mu.Unlock()
	errs = append(errs, remove(m.sandboxes, g.cgid))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove a sandbox's entries from the kernel: %w; the next start removes the rest", err)
	}
	return nil
}

var errClosed = errors.New("the sandbox's guard is closed")

// Drain returns when every event that happened before the call has been delivered.
func (g *Guard) Drain() { g.l.ring.drain() }

// dispatch gives a record of the ring to the guard of its sandbox. Records of others (a killed owner of the ring before
// us) are dropped: their sandboxes died with it.
func (l *Loader) dispatch(raw []byte) {
	cgid, event, err := decodeEvent(raw)
	if err != nil {
		return // no sandbox can be named; not possible while programs and loader are of one version
	}
	l.mu.Lock()
	g := l.guards[cgid]
	l.mu.Unlock()
	if g != nil && g.onEvent != nil {
		g.onEvent(event)
	}
}
