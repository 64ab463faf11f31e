package agent

import (
	"sync"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// policies are the policies that the kernel's numbers of rules are of: files and commands are judged by the one whose rules for
// them were put there last, connections by the one whose ruleset decided.
type policies struct {
	mu       sync.Mutex
	base     *policy.Compiled            // of files and commands
	now      *policy.Compiled            // of the network; nil: base
	rulesets map[uint32]*policy.Compiled // the last ones, by the ruleset's revision
}

// remembered is how many rulesets events can still come of: they wait in a ring, not for long.
const remembered = 16

// set says that a ruleset is a policy's, and that it is the latest.
func (p *policies) set(revision uint32, c *policy.Compiled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rulesets == nil {
		p.rulesets = map[uint32]*policy.Compiled{}
	}
	p.now, p.rulesets[revision] = c, c
	delete(p.rulesets, revision-remembered)
}

// rebase says that the rules of files and commands are a policy's.
func (p *policies) rebase(c *policy.Compiled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base = c
}

// local is the policy of files and commands.
func (p *policies) local() *policy.Compiled {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.base
}

// latest is the policy of the network.
func (p *policies) latest() *policy.Compiled {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil {
		return p.base
	}
	return p.now
}

// of is the policy that an event's rule is of.
func (p *policies) of(e loader.Event) *policy.Compiled {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Hook == loader.HookExec || e.Hook == loader.HookDevice || e.Hook == loader.HookFile {
		return p.base
	}
	if c := p.rulesets[e.Revision]; c != nil {
		return c
	}
	return p.base
}
