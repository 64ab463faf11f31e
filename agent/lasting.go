package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// instanceFile is what an instance leaves in its run directory for the next daemon. It is there once all rules are in force.
const instanceFile = "instance.json"

// instanceState is what can't be learnt again from the kernel.
type instanceState struct {
	Started  time.Time     `json:"started"`
	Programs []keptProgram `json:"programs"`
	Mounts   []keptMount   `json:"mounts,omitempty"` // where BPF LSM judges files
	GPUs     *gpu.Given    `json:"gpus,omitempty"`
}

type keptMount struct {
	Path string        `json:"path"`
	Root loader.FileID `json:"root"`
}

type keptProgram struct {
	Command string        `json:"command"`
	Path    string        `json:"path"`
	Rule    policy.RuleID `json:"rule,omitempty"`
	ID      loader.FileID `json:"id"` // of what was allowed at the start it stays valid: Landlock's rules hold the inodes as long as the sandbox lives
}

// Start makes a sandbox and puts it into force, with nothing running in it yet. What it can't enforce it refuses; nothing is
// left behind then.
func Start(c Config, l *loader.Loader) (*Instance, error) {
	c.Level = l.Level()
	i := newInstance(c)
	i.began = time.Now()
	err := i.prepare()
	if err == nil {
		err = i.enforce(l)
	}
	if err == nil && c.Lasting {
		if err = i.keep(); err == nil {
			i.box.ReleasePrograms()
		}
	}
	if err != nil {
		return nil, errors.Join(err, i.end(func() {}, func() {}))
	}
	i.wire.set(i, nil)
	return i, nil
}

// keep writes down what the next daemon needs.
func (i *Instance) keep() error {
	state := instanceState{Started: i.began, GPUs: i.gpus}
	for _, p := range i.local.programs.list {
		state.Programs = append(state.Programs, keptProgram{p.command, p.path, p.rule, p.id})
	}
	if roots := i.recorder.roots.Load(); roots != nil {
		for id, at := range *roots {
			state.Mounts = append(state.Mounts, keptMount{at, id})
		}
	}
	text, err := json.Marshal(state)
	if err == nil {
		err = atomicfile.Swap(filepath.Join(i.c.RunDir, i.c.Name, instanceFile), text)
	}
	if err != nil {
		return fmt.Errorf("keeping what the next daemon needs: %w", err)
	}
	return nil
}

// Adopt takes over a lasting sandbox whose daemon is gone, with everything that runs in it. c.Policy is the policy that it
// was started with, now the one whose network rules are to be in force. sandbox.ErrNotWhole says that there is nothing to
// take; after any error sandbox.Discard removes what is left.
func Adopt(c Config, l *loader.Loader, now *policy.Compiled) (*Instance, error) {
	text, err := os.ReadFile(filepath.Join(c.RunDir, c.Name, instanceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, sandbox.ErrNotWhole
	}
	var state instanceState
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what the last daemon kept of %s: %w", c.Name, err)
	}
	i := newInstance(c)
	if err := i.openAuthority(); err != nil {
		return nil, err
	}
	i.began, i.gpus = state.Started, state.GPUs
	i.loader = l
	i.record()
	var list []program
	for _, p := range state.Programs {
		list = append(list, program{p.Command, p.Path, p.ID, p.Rule})
	}
	i.local.programs = newPrograms(list)
	i.recorder.programs.Store(i.local.programs)
	if len(state.Mounts) > 0 {
		roots := make(mountRoots)
		for _, m := range state.Mounts {
			roots[m.Root] = m.Path
		}
		i.recorder.roots.Store(&roots)
	}
	if i.box, err = sandbox.Adopt(i.spec()); err != nil {
		return nil, err
	}
	if err := i.adopt(now); err != nil {
		i.Detach()
		return nil, err
	}
	i.wire.set(i, nil)
	return i, nil
}

// adopt takes over what the kernel holds, and opens the way out again. Until the new rules are whole the old ones judge.
func (i *Instance) adopt(now *policy.Compiled) (err error) {
	if i.guard, err = i.loader.Adopt(i.box.CgroupDir(), loader.Options{OnEvent: i.recorder.event}); err != nil {
		return err
	}
	close(i.guarded)
	i.recorder.policies.set(i.guard.Revision(), now)
	highest, err := i.guard.DropStaged()
	if err != nil {
		return err
	}
	if err := i.steer(); err != nil {
		return err
	}
	rules := i.guard.NewRuleset(highest+1, now.Network.Default)
	if i.rules, err = newNetRules(now, i.local.programs, i.guard, rules, highest+1, i.c.Started, &i.recorder.policies, i.c.Failed); err != nil {
		return err
	}
	if err := i.makeProxy(now); err != nil {
		return err
	}
	if err := i.guard.Swap(rules); err != nil {
		return err
	}
	i.rules.begin()
	return i.serveAll()
}

// Detach lets go of a lasting sandbox and leaves it running and judged, without a way out, for the next daemon.
func (i *Instance) Detach() {
	i.ending.Store(true)
	i.stopEnds()
	i.asks.close()
	_ = i.closeNetwork() // what it could not close ends with this process
	if i.guard != nil {
		i.guard.Detach()
	}
	if i.box != nil {
		i.box.Detach()
	}
	i.local.close()
}

// Stop ends everything inside and takes the sandbox away. It returns what could not be done.
func (i *Instance) Stop() error { return i.end(func() {}, func() { i.lost() }) }

// SetPolicy makes another policy the one in force. Connections that it does not allow are closed, and closed says how many they
// were; files that are open stay open. What Waits lists can't be in force: the caller sees to it that there is nothing.
func (i *Instance) SetPolicy(c *policy.Compiled) (closed int, err error) {
	i.changes.Lock()
	defer i.changes.Unlock()
	if err := checkLevel(i.loader, c, i.c.PolicyName); err != nil {
		return 0, err
	}
	route := func() {}
	if i.router != nil {
		if route, err = i.router.Prepare(c); err != nil {
			return 0, err
		}
	}
	old, programs := i.recorder.policies.latest(), i.local.programs
	undo, done := func() error { return nil }, func() {}
	if i.ChangesLocal(c) {
		if undo, done, err = i.setLocal(c); err != nil {
			return 0, err
		}
	}
	if err := i.rules.change(c, i.local.programs); err != nil {
		return 0, errors.Join(err, undo())
	}
	if closed, err = i.proxy.SetPolicy(c); err != nil {
		// Names of the new policy could not be had. The proxy still has the old one, and so gets the kernel.
		return 0, errors.Join(err, i.rules.change(old, programs), undo())
	}
	route()
	done()
	i.awaitEnds()
	return closed, nil
}

// ChangesLocal reports whether a policy says something else of files or programs than the one in force.
func (i *Instance) ChangesLocal(c *policy.Compiled) bool {
	return i.box.Full() && slices.ContainsFunc(policy.Changes(i.Base(), c), func(x policy.Change) bool {
		return x.Section == policy.SectionFilesystem || x.Section == policy.SectionProcess
	})
}

// Base is the policy whose rules for files and programs are in force, with everything else that is as it was at the start: of the
// one in force it has all but the network rules.
func (i *Instance) Base() *policy.Compiled { return i.recorder.policies.local() }

// Warnings lists what of the policy in force can't act, and what it asks for and the host does not have. Each names its rule.
func (i *Instance) Warnings() []string {
	list := i.Policy().Warnings()
	if found := i.warnings.Load(); found != nil {
		return append(list, *found...)
	}
	return append(list, i.box.Warnings()...)
}

// Policy is the one whose network rules are in force.
func (i *Instance) Policy() *policy.Compiled { return i.recorder.policies.latest() }

// Program is the path by which the rules in force know an executable; "" for one that they know nothing of, whatever its path is.
func (i *Instance) Program(file policy.Identity) string {
	return i.recorder.programs.Load().path(loader.FileID(file))
}

// Started is when it was put into force.
func (i *Instance) Started() time.Time { return i.began }

// Conns is how many connections are open, towards anything but the sandbox itself.
func (i *Instance) Conns() (int, error) { return i.guard.Conns() }

// Traffic is how many bytes left for anything but the sandbox itself, and came from there, since this daemon has it.
func (i *Instance) Traffic() (sent, received int64) { return i.proxy.Traffic() }

// Proxy is what came to the sandbox's proxy since this daemon has it.
func (i *Instance) Proxy() dnsproxy.Stats { return i.proxy.Stats() }

// Box is the sandbox, for what has nothing to do with rules: its commands, its sockets, its numbers.
func (i *Instance) Box() *sandbox.Sandbox { return i.box }

// Counters are the kernel's own, of every decision since the start.
func (i *Instance) Counters() (loader.Counters, error) { return i.guard.Counters() }

// Exec starts a command inside.
func (i *Instance) Exec(req sandbox.ExecRequest) (*sandbox.Process, error) { return i.box.Exec(req) }
