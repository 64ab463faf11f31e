package sandbox

import (
	"fmt"

	"github.com/nemoclaw/nemoclaw/policy"
)

// checkAsks refuses what asks about files or programs where no call can be held.
func (p *planner) checkAsks(c *policy.Compiled) error {
	id, asks := c.AsksAboutFiles()
	if p.full || !asks {
		return nil
	}
	e := entry{text: "default: ask of filesystem or process"}
	if ref := c.Rule(id); id != 0 {
		e.text = ref.Pos + ": " + ref.Text
	}
	return e.needsFull("only there can a call wait for an answer", "write allow or deny instead")
}

// checkListed refuses a list of what may be mapped where no mapping is judged.
func (p *planner) checkListed(c *policy.Compiled) error {
	if p.full || c.Exec.Listed == 0 {
		return nil
	}
	ref := c.Rule(c.Exec.Listed)
	e := entry{text: ref.Pos + ": " + ref.Text}
	return e.needsFull("nothing else judges each library that a program loads", "write `map: any`, or remove the key")
}

// refuse says that a rule can't be enforced.
func (e *entry) refuse(why, remedy string) error {
	return fmt.Errorf("sandbox: %s: this rule can't be enforced here: %s; %s", e.text, why, remedy)
}

// needs says that a rule can't be enforced without BPF LSM, or, where that is there, not even with it.
func (p *planner) needs(e *entry, why, remedy string) error {
	if p.full {
		return e.refuse(why, remedy)
	}
	return e.needsFull(why, remedy)
}

// needsFull says that a rule can't be enforced without BPF LSM.
func (e *entry) needsFull(why, remedy string) error {
	return fmt.Errorf("sandbox: %s: this rule needs enforcement level full (BPF LSM), and the level here is static: %s; %s", e.text, why, remedy)
}

// checkEnds refuses rules for files and programs that end, where only mounts and Landlock would hold them.
func (p *planner) checkEnds(c *policy.Compiled) error {
	for _, x := range c.Expiring() {
		if x.Local && !p.full {
			ref := c.Rule(x.ID)
			e := entry{text: ref.Pos + ": " + ref.Text}
			return e.needsFull("mounts and Landlock stay what they are when the sandbox starts, so the rule could not end", "leave `expires` out")
		}
	}
	return nil
}
