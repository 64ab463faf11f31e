package policy

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Edited is a policy's text after an edit. Where nothing had to be done Text is what it was.
type Edited struct {
	Text   []byte
	Policy *Compiled // what Text means
	Did    []string  // what was done, and what was found done already, in words for a person
}

// An edit works on one policy's text and knows what the text means.
type edit struct {
	*yamlText
	file   string
	policy *Policy
	was    *Compiled
	did    []string
}

func begin(file string, src []byte) (*edit, error) {
	p, err := Parse(file, src)
	if err != nil {
		return nil, err
	}
	e := &edit{file: file, policy: p}
	if e.was, err = Compile(p); err != nil {
		return nil, err
	}
	e.yamlText, err = newYAMLText(file, src)
	return e, err
}

// done checks the new text as a whole.
func (e *edit) done() (Edited, error) {
	src := e.bytes()
	p, err := Parse(e.file, src)
	if err != nil {
		return Edited{}, err
	}
	c, err := Compile(p)
	if err != nil {
		return Edited{}, err
	}
	return Edited{src, c, e.did}, nil
}

// note says what was done.
func (e *edit) note(format string, args ...any) { e.did = append(e.did, fmt.Sprintf(format, args...)) }

// byHand turns errLayout into what to do.
func (e *edit) byHand(err error, what string) error {
	if errors.Is(err, errLayout) {
		return fmt.Errorf("%s: %w: %s by hand, with `policy get` and `policy set`", e.file, err, what)
	}
	return err
}

// AddRule adds a rule to the text of a policy, in its section, after the rules that are there, in their style. file is
// for messages and positions. A rule that is there already is left alone; one that another rule would always beat is
// refused, because it would never act.
func AddRule(file string, src []byte, s RuleSpec) (Edited, error) {
	e, err := begin(file, src)
	if err != nil {
		return Edited{}, err
	}
	section, verb, item, err := s.node()
	if err != nil {
		return Edited{}, err
	}
	rule, err := s.compiled()
	if err != nil {
		return Edited{}, err
	}
	if at, ok := e.was.has(rule); ok {
		e.note("nothing to do: %s says so already", at)
		return Edited{src, e.was, e.did}, nil
	}
	if err := e.was.beats(rule); err != nil {
		return Edited{}, err
	}
	if err := e.insertRule(section, verb, item); err != nil {
		return Edited{}, e.byHand(err, "put `"+flowText(item)+"` under "+section+"."+verb)
	}
	out, err := e.done()
	if err != nil {
		return Edited{}, err
	}
	out.Did = append(out.Did, "added "+section+"."+verb+": "+flowText(item))
	return out, nil
}

func (e *edit) insertRule(section, verb string, item *yaml.Node) error {
	list := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}}
	lines := append([]string{verb + ":"}, itemLines("  - ", item)...)
	at := value(e.root, section)
	if at == nil {
		for i := range lines {
			lines[i] = "  " + lines[i]
		}
		lines = append([]string{"", section + ":"}, lines...)
		key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: verb}
		return e.insertKey(e.root, section, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{key, list}}, lines)
	}
	if there := value(at, verb); there != nil {
		return e.insertItem(there, item)
	}
	return e.insertKey(at, verb, list, lines)
}

// has reports whether the policy says all that a rule says, and where.
func (c *Compiled) has(rule *Compiled) (at string, ok bool) {
	for i := range rule.Network.Rules {
		r := &rule.Network.Rules[i]
		for _, port := range r.Ports {
			j := slices.IndexFunc(c.Network.Rules, func(o NetRule) bool { return o.sameBut(r) && slices.Contains(o.Ports, port) })
			if j < 0 {
				return "", false
			}
			at = c.Rule(c.Network.Rules[j].ID).Pos
		}
		if len(r.Ports) == 0 {
			j := slices.IndexFunc(c.Network.Rules, func(o NetRule) bool { return o.sameBut(r) && len(o.Ports) == 0 })
			if j < 0 {
				return "", false
			}
			at = c.Rule(c.Network.Rules[j].ID).Pos
		}
	}
	for _, want := range rule.Files.written {
		var have fileGrant
		for _, g := range c.Files.written {
			if g.Path == want.Path && g.Verdict == want.Verdict && g.Expires == want.Expires {
				have = have.add(g)
			}
		}
		if want.Access&^have.access != 0 {
			return "", false
		}
		at = c.Rule(firstOf(have.by)).Pos
	}
	for _, set := range []struct{ have, want []Command }{{c.Exec.Allow, rule.Exec.Allow}, {c.Exec.Ask, rule.Exec.Ask}, {c.Exec.Deny, rule.Exec.Deny}} {
		for _, want := range set.want {
			j := slices.IndexFunc(set.have, func(x Command) bool { return x.Name == want.Name && x.Expires == want.Expires })
			if j < 0 {
				return "", false
			}
			at = c.Rule(set.have[j].ID).Pos
		}
	}
	return at, true
}

// sameBut reports whether two rules differ in nothing but their ports and places.
func (r *NetRule) sameBut(o *NetRule) bool {
	return r.Verdict == o.Verdict && r.target() == o.target() && (r.Verdict == Deny || r.Protocol == o.Protocol && r.ECH == o.ECH) &&
		r.Expires == o.Expires && slices.Equal(sorted(r.Commands), sorted(o.Commands))
}

// beats is the error that a rule of the policy decides before an added one, wherever that applies.
func (c *Compiled) beats(rule *Compiled) error {
	refuse := func(what string, id RuleID, verdict Verdict) error {
		ref := c.Rule(id)
		why := "is refused by"
		if verdict == Ask {
			why = "is asked about because of"
		}
		return fmt.Errorf("%s %s %s (%s), so the new rule would never act: %s beats it; remove that rule first", what, why, ref.Pos, ref.Text, verdict)
	}
	for i := range rule.Network.Rules {
		r := &rule.Network.Rules[i]
		for j := range c.Network.Rules {
			if o := &c.Network.Rules[j]; o.defeats(r) {
				return refuse(r.target(), o.ID, o.Verdict)
			}
		}
	}
	for _, g := range rule.Files.written {
		if g.Verdict == Deny {
			continue
		}
		lasting := c.At(lastMoment(g.Expires)).Files // without the rules that this one outlives
		_, at, _ := lasting.Access(g.Path)
		if denied := at.Denied & g.Access; denied != 0 {
			return refuse(g.Path+" ("+denied.String()+")", at.RuleFor(denied), Deny)
		}
		if asked := at.Asked & g.Access; g.Verdict == Allow && asked != 0 && at.RuleFor(asked) != 0 {
			return refuse(g.Path+" ("+asked.String()+")", at.RuleFor(asked), Ask)
		}
	}
	beaten := func(added []Command, verdict Verdict, by func(*Exec) []Command) error {
		for _, x := range added {
			lasting := by(&c.At(lastMoment(x.Expires)).Exec)
			if i := slices.IndexFunc(lasting, func(o Command) bool { return sameCommand(o.Name, x.Name) }); i >= 0 {
				return refuse(x.Name, lasting[i].ID, verdict)
			}
		}
		return nil
	}
	denied, asked := func(x *Exec) []Command { return x.Deny }, func(x *Exec) []Command { return x.Ask }
	return cmp.Or(
		beaten(rule.Exec.Allow, Deny, denied), beaten(rule.Exec.Ask, Deny, denied),
		beaten(rule.Exec.Allow, Ask, asked),
	)
}

// lastMoment is the last age at which a rule holds.
func lastMoment(expires time.Duration) time.Duration {
	if expires == 0 {
		return math.MaxInt64
	}
	return expires - 1
}

// defeats reports whether r decides all that the rule o could.
func (r *NetRule) defeats(o *NetRule) bool {
	return r.Verdict < o.Verdict && len(r.Commands) == 0 && (r.Expires == 0 || o.Expires != 0 && o.Expires <= r.Expires) && r.coversTarget(o) &&
		!slices.ContainsFunc(o.Ports, func(p uint16) bool { return !r.hasPort(p) })
}

// coversTarget reports whether whatever o is about r is about.
func (r *NetRule) coversTarget(o *NetRule) bool {
	if r.Name == "" || o.Name == "" {
		return r.Name == o.Name && r.Prefix.Bits() <= o.Prefix.Bits() && r.Prefix.Contains(o.Prefix.Addr())
	}
	if r.Name == o.Name {
		return true
	}
	if above, deep := strings.CutPrefix(r.Name, "**"); deep {
		return strings.HasSuffix(strings.TrimLeft(o.Name, "*"), above)
	}
	above, one := strings.CutPrefix(r.Name, "*.")
	_, parent, _ := strings.Cut(o.Name, ".")
	return one && parent == above && o.Name[0] != '*'
}
