package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/redact"
	"github.com/nemoclaw/nemoclaw/agent/revisions"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// compile compiles one revision of the policy, the latest for 0. What a rule's `expires` says counts from when the rule came
// into the policy, and goes on while the sandbox is stopped.
func (b *box) compile(number int) (*policy.Compiled, int, error) {
	r, text, err := b.revision(number)
	if err != nil {
		return nil, 0, err
	}
	c, err := compile(r.Name, text)
	if err != nil {
		return nil, 0, err
	}
	return c, r.Number, b.age(c, r)
}

func compile(name, text string) (*policy.Compiled, error) {
	p, err := policy.Parse(name, []byte(text))
	if err != nil {
		return nil, err
	}
	return policy.Compile(p)
}

// age makes the times of rules that expire count from the sandbox's creation.
func (b *box) age(c *policy.Compiled, r revisions.Revision) error {
	born := map[string]time.Time{}
	for _, e := range c.Expiring() {
		born[e.Key] = r.When
	}
	// Backwards, as long as one of them was there already.
	left := len(born)
	for n := r.Number - 1; n > 0 && left > 0; n-- {
		older, text, err := b.revisions.Get(n)
		if err != nil {
			return err
		}
		old, err := compile(older.Name, string(text))
		if err != nil {
			break // it was never in force
		}
		left = 0
		for _, e := range old.Expiring() {
			if at, ok := born[e.Key]; ok && at.After(older.When) {
				born[e.Key] = older.When
				left++
			}
		}
	}
	for _, e := range c.Expiring() {
		*e.Expires = max(born[e.Key].Sub(b.spec.Created)+*e.Expires, 1)
	}
	return nil
}

// revision returns a revision and its text, the latest for 0.
func (b *box) revision(number int) (revisions.Revision, string, error) {
	if number == 0 {
		number = b.revisions.Latest().Number
	}
	r, text, err := b.revisions.Get(number)
	if errors.Is(err, revisions.ErrNone) {
		err = &api.Error{Code: api.NotFound, Message: fmt.Sprintf("%s has no policy revision %d; `nemoclaw %s policy history` lists them", b.name, number, b.name)}
	}
	return r, string(text), err
}

func (b *box) policyText(r revisions.Revision, text string) api.PolicyText {
	b.mu.Lock()
	defer b.mu.Unlock()
	return api.PolicyText{
		PolicyState: api.PolicyState{Name: r.Name, Revision: r.Number, Hash: r.Hash, Running: b.inForce},
		Text:        text, Who: r.Who, When: r.When, What: r.What,
	}
}

// Policy returns one revision of a sandbox's policy, the latest for 0.
func (d *Daemon) Policy(name string, revision int) (api.PolicyText, error) {
	b, err := d.find(name)
	if err != nil {
		return api.PolicyText{}, err
	}
	r, text, err := b.revision(revision)
	if err != nil {
		return api.PolicyText{}, err
	}
	p := b.policyText(r, text)
	p.Expired = b.expired(r.Number)
	return p, nil
}

// expired lists the rules of a revision whose time is over. One that can't be compiled any more has none that hold.
func (b *box) expired(number int) (over []string) {
	c, _, err := b.compile(number)
	if err != nil {
		return nil
	}
	age := time.Since(b.spec.Created)
	for _, e := range c.Expiring() {
		if *e.Expires <= age {
			ref := c.Rule(e.ID)
			over = append(over, ref.Pos+": "+ref.Text)
		}
	}
	return over
}

// Revisions lists a sandbox's policies without their texts, the newest first.
func (d *Daemon) Revisions(name string) ([]api.PolicyText, error) {
	b, err := d.find(name)
	if err != nil {
		return nil, err
	}
	list := b.revisions.List()
	out := make([]api.PolicyText, 0, len(list))
	for _, r := range slices.Backward(list) {
		out = append(out, b.policyText(r, ""))
	}
	return out, nil
}

// ChangePolicy makes another revision of a sandbox's policy and puts it into force.
func (d *Daemon) ChangePolicy(ctx context.Context, who server.Caller, name string, c api.PolicyChange) (res api.PolicyResult, err error) {
	_, err = d.operate(name, func(b *box) error {
		res, err = b.changePolicy(ctx, who, c)
		return err
	})
	return res, err
}

// changePolicy is ChangePolicy of one sandbox. The caller holds ops.
func (b *box) changePolicy(ctx context.Context, who server.Caller, c api.PolicyChange) (api.PolicyResult, error) {
	return b.changeBy(ctx, who.Name, c, func(file, text string) (policy.Edited, error) { return b.edited(file, text, c) })
}

// changeBy changes the policy as edited does with its text. The caller holds ops.
func (b *box) changeBy(ctx context.Context, who string, c api.PolicyChange, edited func(file, text string) (policy.Edited, error)) (res api.PolicyResult, err error) {
	bad := func(err error) error { return &api.Error{Code: api.Invalid, Message: err.Error()} }
	latest, was, err := b.revision(0)
	if err != nil {
		return res, err
	}
	if c.Expect != 0 && c.Expect != latest.Number {
		return res, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("the policy of %s is at revision %d, not %d: somebody changed it meanwhile; look at it and try again", b.name, latest.Number, c.Expect)}
	}
	file := latest.Name
	if c.Text != "" && c.PolicyName != "" {
		file = c.PolicyName
	}
	e, err := edited(file, was)
	if err != nil {
		var known *api.Error
		if errors.As(err, &known) {
			return res, err
		}
		return res, bad(err)
	}
	text, what, next := string(e.Text), strings.Join(e.Did, "; "), e.Policy
	res.Policy = b.policyText(latest, was)
	if text == was && file == latest.Name {
		res.Policy.What, res.Live = what, true
		return res, nil // nothing to do is no revision
	}
	res.Diff = policy.TextDiff(fmt.Sprintf("%s, revision %d", latest.Name, latest.Number), fmt.Sprintf("%s, revision %d", file, latest.Number+1), []byte(was), []byte(text))
	if err = b.age(next, revisions.Revision{Number: latest.Number + 1, When: time.Now()}); err != nil {
		return res, err
	}
	without, err := redact.New(next)
	if err != nil {
		return res, bad(err)
	}
	i, notRunning := b.running()
	if notRunning == nil {
		if res.Restart, err = i.Waits(next); err != nil {
			return res, bad(err)
		}
	}
	if c.DryRun {
		return res, nil
	}
	if len(res.Restart) > 0 && !c.Restart {
		return res, &api.Error{Code: api.NeedsRestart, Message: fmt.Sprintf("at enforcement level %s this can't change while %s runs:\n  %s\nNothing was changed. With --restart the sandbox is stopped and started under the new policy",
			i.Level(), b.name, strings.Join(res.Restart, "\n  "))}
	}
	var warned []string
	if notRunning == nil {
		warned = i.Warnings()
	}
	r, err := b.revisions.Append([]byte(text), revisions.Change{Name: file, Hash: next.Revision, Who: who, What: what}, latest.Number)
	if err != nil {
		return res, err
	}
	b.records.Redact(without)
	b.note("policy", fmt.Sprintf("revision %d", r.Number), fmt.Sprintf("%s, by %s", what, who))
	switch {
	case notRunning != nil:
	case len(res.Restart) > 0:
		if err = b.stop(); err == nil {
			err = b.start(ctx)
		}
		if err != nil {
			err = errors.Join(b.takeBack(latest, was, r, err), b.start(ctx))
		}
		res.Live = err == nil
	default:
		// Written down first: a daemon that is killed in the middle leaves a sandbox whose rules the next one knows.
		if i.ChangesLocal(next) {
			err = b.change(func(s *spec) { s.Running = r.Number })
		}
		if err == nil {
			res.Closed, err = b.apply(i, next, r)
		}
		if err != nil {
			err = b.takeBack(latest, was, r, err)
		}
		res.Live = err == nil
	}
	if err == nil {
		b.reconsider(next)
		res.Warnings = b.newWarnings(warned)
	}
	res.Policy = b.policyText(r, text)
	return res, err
}

// edited is what a change makes of the text that is there.
func (b *box) edited(file, text string, c api.PolicyChange) (policy.Edited, error) {
	whole := func(text, what string) (policy.Edited, error) {
		means, err := compile(file, text)
		return policy.Edited{Text: []byte(text), Did: []string{what}, Policy: means}, err
	}
	switch {
	case c.Text != "":
		e, err := whole(c.Text, "")
		if err == nil {
			e.Did = changed(file, text, e.Policy)
		}
		return e, err
	case c.Rollback != 0:
		_, was, err := b.revision(c.Rollback)
		if err != nil {
			return policy.Edited{}, err
		}
		return whole(was, fmt.Sprintf("back to revision %d", c.Rollback))
	case c.Add != nil:
		return policy.AddRule(file, []byte(text), policy.RuleSpec(*c.Add))
	case c.Remove != nil:
		return policy.RemoveRule(file, []byte(text), policy.RuleSpec(*c.Remove))
	case c.Preset != "":
		return policy.AddPreset(file, []byte(text), c.Preset)
	case c.Unpreset != "":
		return policy.RemovePreset(file, []byte(text), c.Unpreset)
	}
	return policy.Edited{}, errors.New("a policy change names what is to change")
}

// apply puts a revision's rules into force, and returns how many connections that ended.
func (b *box) apply(i *agent.Instance, c *policy.Compiled, r revisions.Revision) (closed int, err error) {
	if closed, err = i.SetPolicy(c); err != nil {
		return 0, err
	}
	b.mu.Lock()
	b.inForce = r.Number
	b.mu.Unlock()
	return closed, nil
}

// takeBack makes the revision that was in force the latest again, after one that could not be put into force.
func (b *box) takeBack(was revisions.Revision, text string, failed revisions.Revision, cause error) error {
	err := fmt.Errorf("revision %d can't be put into force, and revision %d stays: %w", failed.Number, was.Number, cause)
	what := fmt.Sprintf("back to revision %d: revision %d can't be put into force: %s", was.Number, failed.Number, firstLine(cause))
	r, e := b.revisions.Append([]byte(text), revisions.Change{Name: was.Name, Hash: was.Hash, Who: "nemoclaw", What: what}, failed.Number)
	if e != nil {
		return errors.Join(err, e)
	}
	err = errors.Join(err, b.redactLatest())
	b.note("policy", fmt.Sprintf("revision %d", r.Number), r.What)
	b.mu.Lock()
	running := b.instance != nil
	if running {
		b.inForce = r.Number // it means the same
	}
	b.mu.Unlock()
	if running {
		err = errors.Join(err, b.change(func(s *spec) {
			if s.Running == failed.Number {
				s.Running = r.Number
			}
		}))
	}
	return err
}

// newWarnings lists what is to be known of the rules in force beside what was known before. That a rule stands on another line is
// nothing new.
func (b *box) newWarnings(before []string) []string {
	i, err := b.running()
	if err != nil {
		return nil
	}
	what := func(warning string) string {
		_, said, _ := strings.Cut(warning, ": ")
		return said
	}
	return slices.DeleteFunc(i.Warnings(), func(w string) bool {
		return slices.ContainsFunc(before, func(known string) bool { return known == w || what(known) == what(w) && what(w) != "" })
	})
}

// maxDid is how many changes of a whole policy its history names.
const maxDid = 3

// changed says what a whole policy changes of the one that was.
func changed(file, text string, next *policy.Compiled) (did []string) {
	was, err := compile(file, text)
	if err != nil { // of an older version of this program
		return []string{"the whole policy was set"}
	}
	list := policy.Changes(was, next)
	if len(list) == 0 {
		return []string{"the text was set, which means the same"}
	}
	for n, c := range list {
		if n == maxDid {
			did = append(did, fmt.Sprintf("and %d changes more", len(list)-n))
			break
		}
		did = append(did, string(c.Section)+": "+c.What)
	}
	return did
}
