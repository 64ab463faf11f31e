package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxSlices is how many bars a chart of things has.
const maxSlices = 12

// An Activity is what one sandbox did in a time, from its records as a daemon gives them.
type Activity struct {
	c *collected
	s *Source

	changes *api.Changes // nil: nobody looked
	unseen  string       // why not
}

// Changed takes which files of the sandbox were changed in the time, or why that can't be said.
func (a *Activity) Changed(found api.Changes, err error) {
	if err != nil {
		a.unseen = err.Error()
		return
	}
	a.changes = &found
}

// NewActivity is that of a sandbox from a time on, until another; the zero time is no bound.
func NewActivity(sandbox string, from, until time.Time) *Activity {
	c := newCollected()
	c.gpus.from, c.gpus.until = from, until
	return &Activity{c: c, s: &Source{Live: true, Filter: audit.Filter{Sandbox: sandbox, From: from, To: until}}}
}

// Late is how long after the end of a time there may be records that are about it: what a GPU was used for is written down afterwards.
// Whoever reads records for an Activity reads them up to then.
const Late = 20 * time.Minute

// Add takes a record. Records come in the order of the log.
func (a *Activity) Add(d *policy.Decision) {
	if until := a.s.Filter.To; !until.IsZero() && d.Time.After(until) {
		a.c.gpus.add(d)
		return
	}
	a.c.add(d)
}

// Document makes the report. box is how the sandbox is now.
func (a *Activity) Document(box *api.Sandbox, now time.Time, version string) *Document {
	c, s := a.c, a.s
	c.gpus.now(box)
	d := &Document{
		Title:    "What " + box.Name + " did", // a sandbox's name is plain words
		Subtitle: c.span(s), Figures: slices.Concat(c.activityFigures(), c.gpus.figures(), a.changeFigures()), Made: made(now, version),
	}
	if c.records == 0 {
		d.Alerts = append(d.Alerts, Alert{"warning", say("There is no record of this time: it did nothing that is recorded.")})
	}
	if c.lostTotal > 0 {
		d.Alerts = append(d.Alerts, Alert{"warning", say("The daemon recorded losses: this report is not of all that happened. The last section has them.")})
	}
	d.Sections = []Section{
		c.lifeSection(s, box), c.nameSection(s), a.changeSection(box), c.fileSection(s, box), c.commandSection(s),
		c.accessSection(s, "denied", "What was denied", policy.Deny), c.approvalSection(s), c.accessSection(s, "asked", "What was asked about, and left open", policy.Ask),
		c.tokenSection(s), c.gpus.section(box), c.peopleSection(s), c.policySection(s), c.unseenSection(s),
	}
	for i := range d.Sections {
		d.Sections[i].drop("sandbox") // there is one
	}
	return d
}

// activityFigures are the numbers on top.
func (c *collected) activityFigures() []Figure {
	in, out, cost, guessed := c.taken()
	tokens := Figure{Name: "tokens of models", Value: number(in + out), Note: fmt.Sprintf("%s in, %s out", number(in), number(out))}
	if guessed > 0 {
		tokens.Note += fmt.Sprintf("; of %s estimated", many(guessed, "request", "requests"))
	}
	return []Figure{
		{Name: "names and addresses", Value: number(uint64(len(c.things(policy.PlaneNetwork, policy.PlaneDNS)))), Note: "connected to, asked for or refused"},
		{Name: "attempts allowed", Value: number(c.total(policy.Allow)), Kind: "allow", Note: fmt.Sprintf("%s by a person's answer", number(c.granted))},
		{Name: "attempts denied", Value: number(c.total(policy.Deny)), Kind: "deny", Note: fmt.Sprintf("%s by default", number(c.defaulted))},
		{Name: "answers by persons", Value: number(c.answered.all())},
		{Name: "commands from outside", Value: number(c.commands.all)},
		tokens, {Name: "cost of models", Value: money(cost)},
	}
}

func (c *collected) taken() (in, out uint64, cost int64, guessed uint64) {
	for _, v := range c.models.rows {
		in, out, cost, guessed = in+uint64(max(v.in, 0)), out+uint64(max(v.out, 0)), cost+max(v.cost, 0), guessed+v.estimated
	}
	return in, out, cost, guessed
}

// A thing is an object, whatever was done with it, by whom and why.
type thing struct {
	plane  policy.Plane
	object string
}

type thingSeen struct {
	seen
	verdicts
}

// things sums accesses up by their objects; the most frequent comes first.
func (c *collected) things(planes ...policy.Plane) []row[thing, thingSeen] {
	t := newTable[thing, thingSeen](maxKinds, 0)
	for k, v := range c.access.rows {
		if !slices.Contains(planes, k.plane) {
			continue
		}
		sum := t.at(thing{k.plane, k.object}, "", v.n) // there are no more things than accesses, so there is room
		if sum.n == 0 {
			sum.seen = *v
		} else {
			sum.n += v.n
			sum.seq = min(sum.seq, v.seq)
			if v.first.Before(sum.first) {
				sum.first = v.first
			}
			if v.last.After(sum.last) {
				sum.last = v.last
			}
		}
		sum.verdicts.add(k.verdict, v.n)
	}
	return t.sorted(nil, func(a, b row[thing, thingSeen]) int {
		return cmp.Or(cmp.Compare(b.val.n, a.val.n), cmp.Compare(a.val.seq, b.val.seq), cmp.Compare(a.key.plane, b.key.plane), cmp.Compare(a.key.object, b.key.object))
	})
}

// thingPart is a chart of the most frequent things, and a table with more of them.
func (c *collected) thingPart(s *Source, id, title, none string, planes ...policy.Plane) Part {
	list := c.things(planes...)
	if len(list) == 0 {
		return Part{Notes: []Text{say(none)}}
	}
	var drawn []slice
	for _, r := range list[:min(len(list), maxSlices)] {
		drawn = append(drawn, slice{from(r.key.object), []uint64{r.val.of(policy.Allow), r.val.of(policy.Ask), r.val.of(policy.Deny)}})
	}
	var find []string
	for _, p := range planes {
		find = append(find, "--plane", string(p))
	}
	p := part(title, heads("object", "plane", "#allowed", "#asked", "#denied", "first (UTC)", "last (UTC)"), list, c.access.over, none, s.search(find...), func(t *Table, r row[thing, thingSeen]) {
		v := r.val
		t.row(r.key.object, ours(r.key.plane), v.of(policy.Allow), v.of(policy.Ask), v.of(policy.Deny), v.first, v.last)
	})
	p.Chart = bars(id, title+", the most frequent", "object", verdictKeys, drawn)
	return p
}

func (c *collected) lifeSection(s *Source, box *api.Sandbox) Section {
	sec := Section{ID: "life", Title: "When it ran, and what it attempted"}
	if box.Started != nil {
		sec.Words = append(sec.Words, say("It is {} now, since {} UTC, at level {}.", ours(box.State), *box.Started, box.Level))
	} else {
		sec.Words = append(sec.Words, say("It is {} now.", ours(box.State)))
	}
	if ch := c.timeline(); ch != nil {
		sec.Parts = append(sec.Parts, Part{Chart: ch})
	}
	sec.Parts = append(sec.Parts, lasts("Beginnings and ends", heads("when (UTC)", "record", "what", "how"), &c.lives, "It neither began nor ended in this time.", s.search("--plane", "system"), func(t *Table, n note) {
		t.row(n.when, n.seq, n.action, n.reason)
	}))
	return sec
}

func (c *collected) nameSection(s *Source) Section {
	return Section{ID: "names", Title: "Names and addresses", Words: []Text{
		say("One connection may have several records: of its name, of the address, of each request in it."),
	}, Parts: []Part{c.thingPart(s, "names-chart", "Names and addresses", "It asked for no name, and connected to nothing.", policy.PlaneNetwork, policy.PlaneDNS)}}
}

func (c *collected) fileSection(s *Source, box *api.Sandbox) Section {
	words := say("Which files it read or wrote where its policy lets it is in no record, at any level. ")
	switch box.Level {
	case "full":
		words = append(words, say("At level full each refusal is in the log.")...)
	case "static":
		words = append(words, say("At level static the kernel refuses by the mount view, which leaves no record, and by Landlock, of which there are records only where the kernel's audit tells: what is here may be a part of what was refused.")...)
	default:
		words = append(words, say("What was refused at level static is here only as far as the kernel's audit told.")...)
	}
	return Section{ID: "files", Title: "Files and devices in the log", Words: []Text{words}, Parts: []Part{
		c.thingPart(s, "files-chart", "Files and devices", "No file or device is in a record.", policy.PlaneFile, policy.PlaneDevice),
		lasts("Put in or taken out by persons, the last ones", heads("when (UTC)", "record", "what", "path", "how"), &c.carried, "No person put files in or took any out.", s.search("--plane", "system"), func(t *Table, n note) {
			t.row(n.when, n.seq, n.action, n.object, n.reason)
		}),
	}}
}

func (c *collected) commandSection(s *Source) Section {
	return Section{ID: "commands", Title: "Programs and commands", Parts: []Part{
		c.thingPart(s, "programs-chart", "Programs", "No program is in a record.", policy.PlaneExec),
		lasts("Commands from outside, the last ones", heads("when (UTC)", "record", "command", "how"), &c.commands, "Nobody started a command from outside.", s.search("--plane", "system"), func(t *Table, n note) {
			t.row(n.when, n.seq, n.object, n.reason)
		}),
	}}
}

// tokenSection is the models' section with a chart of their tokens.
func (c *collected) tokenSection(s *Source) Section {
	sec := c.modelSection(s)
	list := c.models.sorted(func(_ modelKey, v *modelUse) bool { return v.in > 0 || v.out > 0 }, func(a, b row[modelKey, modelUse]) int {
		return cmp.Or(cmp.Compare(b.val.in+b.val.out, a.val.in+a.val.out), cmp.Compare(a.val.seq, b.val.seq))
	})
	var drawn []slice
	for _, r := range list[:min(len(list), maxSlices)] {
		name := append(append(from(r.key.model), say(" by ")...), from(r.key.route)...)
		drawn = append(drawn, slice{name, []uint64{uint64(max(r.val.in, 0)), uint64(max(r.val.out, 0))}})
	}
	if ch := bars("tokens-chart", "Tokens by model and route", "model", []Key{{"one", "tokens in"}, {"two", "tokens out"}}, drawn); ch != nil {
		sec.Parts[0].Chart = ch // beside the table of models
	}
	return sec
}

func (c *collected) unseenSection(s *Source) Section {
	return Section{ID: "gaps", Title: "Gaps, and what this is not", Words: []Text{
		say("What is in a connection that is allowed, and what is typed into a shell, is in no record. These are the daemon's records as it gives them, not evidence: {} verifies the log and its signatures.",
			command("nemoclaw", "audit", "report", "--framework", "soc2", "--sandbox", s.Filter.Sandbox)),
	}, Parts: []Part{lasts("What the daemon recorded about losses, erasures, repairs and failures", heads("when (UTC)", "record", "what", "of", "reason"), &c.losses, "The daemon recorded no loss, erasure, repair or failure.", s.search("--plane", "system"),
		func(t *Table, n note) { t.row(n.when, n.seq, n.action, n.object, n.reason) })}}
}

// drop takes a column out of a section's tables.
func (s *Section) drop(name string) {
	for _, p := range s.Parts {
		if p.Table == nil {
			continue
		}
		i := slices.IndexFunc(p.Table.Heads, func(h Head) bool { return h.Name == name })
		if i < 0 {
			continue
		}
		p.Table.Heads = slices.Delete(p.Table.Heads, i, i+1)
		for j, r := range p.Table.Rows {
			p.Table.Rows[j] = slices.Delete(r, i, i+1)
		}
	}
}
