package report

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Audit makes a framework's report of the logs, and reports whether all of them are whole. One that is not gives a report, which says so.
func Audit(ctx context.Context, frame string, s *Source, now time.Time, version string) (*Document, bool, error) {
	f := frameworks[frame]
	if f == nil {
		return nil, false, fmt.Errorf("%q is no framework that there is a report for", frame)
	}
	c := newCollected()
	logs := s.read(ctx, c)
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	d := &Document{
		Title: "Audit report: " + f.title, Subtitle: append(say("Who accessed what, when, under which rule and which approval. "), c.span(s)...),
		Figures: c.figures(), Made: made(now, version),
	}
	whole := true
	for _, l := range logs {
		d.Alerts = append(d.Alerts, l.alerts()...)
		whole = whole && l.OK() && l.bad == 0
	}
	d.Alerts = append(d.Alerts, unasked(logs)...)
	if c.records == 0 {
		d.Alerts = append(d.Alerts, Alert{"warning", say("No record was selected: this report is evidence of nothing.")})
	}
	d.Sections = []Section{
		logSection(logs), c.gapSection(s, logs), requirementSection(f, c, logs), c.overviewSection(s),
		c.accessSection(s, "allowed", "Access that was allowed", policy.Allow), c.approvalSection(s),
		c.accessSection(s, "denied", "Access that was denied", policy.Deny), c.accessSection(s, "asked", "Access that had to be asked about", policy.Ask),
		c.modelSection(s), c.peopleSection(s), c.policySection(s),
	}
	return d, whole, nil
}

// span says which records a report is about.
func (c *collected) span(s *Source) Text {
	t := say("All sandboxes")
	if s.Filter.Sandbox != "" {
		t = say("The sandbox {}", s.Filter.Sandbox)
	}
	if !s.Filter.From.IsZero() {
		t = append(t, say(", from {} UTC", s.Filter.From)...)
	}
	if !s.Filter.To.IsZero() {
		t = append(t, say(", until {} UTC", s.Filter.To)...)
	}
	if c.records == 0 {
		return append(t, say(".")...)
	}
	return append(t, say(": the records are of {} to {} UTC.", c.first, c.last)...)
}

func (c *collected) figures() []Figure {
	return []Figure{
		{Name: "records", Value: number(c.records)},
		{Name: "attempts allowed", Value: number(c.total(policy.Allow)), Kind: "allow", Note: fmt.Sprintf("%s by a person's answer", number(c.granted))},
		{Name: "attempts denied", Value: number(c.total(policy.Deny)), Kind: "deny", Note: fmt.Sprintf("%s by default", number(c.defaulted))},
		{Name: "attempts left open, with verdict ask", Value: number(c.total(policy.Ask)), Kind: "ask", Note: fmt.Sprintf("%s more unanswered, and denied", number(c.silent))},
		{Name: "answers by persons", Value: number(c.answered.all())},
		{Name: "policy revisions made", Value: number(c.policies.all)},
	}
}

// alerts are what stands on top of a report about a log.
func (l *Log) alerts() (list []Alert) {
	name := quoted(l.Path)
	if l.Err != nil {
		list = append(list, Alert{"bad", say("The log {} could not be verified, so it is no evidence: {}", name, quoted(l.Err.Error()))})
	}
	if f := l.Checked.Fault; f != nil {
		at := name
		if f.File != "" {
			at = quoted(f.File)
		}
		list = append(list, Alert{"bad", say("The log {} is not whole. Line {} of {}: {}. {} of this report's {} are at that place or after it, and are no evidence.",
			name, f.Line, at, f.Error(), ours(number(l.after)), many(l.records, "record", "records"))})
	}
	if l.bad > 0 {
		list = append(list, Alert{"bad", say("The log {} has {}, which are in no count.", name, many(l.bad, "line that is no record", "lines that are no records"))})
	}
	if !l.OK() {
		return list
	}
	switch {
	case l.Asked == "": // unasked says it, of all such logs at once
	case l.unsigned > 0:
		list = append(list, Alert{"warning", say("The chain of {} is whole, and signed with {}; nobody vouches yet for {} after the last checkpoint.", name, ours(l.Asked), many(l.unsigned, "record of this report", "records of this report"))})
	default:
		list = append(list, Alert{"good", say("The chain of {} is whole, and each of its records here is signed for with {}.", name, ours(l.Asked))})
	}
	return list
}

// unasked are the alerts about logs whose chain is whole, and whose signatures were not verified.
func unasked(logs []*Log) (list []Alert) {
	why := map[string][]*Log{}
	for _, l := range logs {
		if l.OK() && l.Asked == "" {
			why[l.Why] = append(why[l.Why], l)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(why)) {
		of := quoted(why[reason][0].Path)
		if n := len(why[reason]); n > 1 {
			of = append(of, say(" and {} below", many(n-1, "other", "others"))...)
		}
		list = append(list, Alert{"warning", say("Signatures were not verified of {}: {}. The chain is whole, but who may write such a log could have written all of it anew.", of, quoted(reason))})
	}
	return list
}

func logSection(logs []*Log) Section {
	t := &Table{Heads: heads("log", "#its records", "#of them here", "from (UTC)", "to (UTC)", "chain", "signed up to", "head")}
	for _, l := range logs {
		chain, signed, numbers, head := Text{{Words: "whole", Kind: "good"}}, say("not verified"), say("-"), say("-")
		switch {
		case l.Err != nil:
			chain = pieces(painted{"not verified", "bad"})
		case l.Checked.Fault != nil:
			chain = append(Text{{Words: "broken", Kind: "bad"}}, say(" (line {}: {})", l.Checked.Fault.Line, ours(l.Checked.Fault.Kind))...)
		}
		if g := l.Checked.Signed; g != nil {
			signed = say("record {}, at {}", g.Seq, g.Time)
		} else if l.Asked != "" {
			signed = say("nothing in it")
		}
		if l.Checked.Lines > 0 {
			numbers = say("{} to {}", l.Checked.First, l.Checked.Head.Seq)
			head = quoted(l.Checked.Head.String())
		}
		t.row(quoted(l.Path), numbers, l.records, l.from, l.to, chain, signed, head)
	}
	return Section{ID: "logs", Title: "The logs, and whether they can be trusted", Parts: []Part{{Table: t, Notes: []Text{
		say("Each record carries the hash of the one before it; checkpoints, signed with a key of root's, vouch for the log up to a record. The chain was verified when this report was made, and the signatures where the table has them. Root of the host has that key: what rules root out is a checkpoint or a head that was kept elsewhere. To verify again, with the key that {} prints: {}",
			command("nemoclaw", "audit", "key"), quoted("nemoclaw audit verify --key KEY LOG")),
	}}}}
}

// gapSection is about what is in no record.
func (c *collected) gapSection(s *Source, logs []*Log) Section {
	var notes []Text
	for _, l := range logs {
		if l.Checked.First > 1 {
			notes = append(notes, say("{} begins with record {}: older ones are not in its files, because retention or somebody removed them.", quoted(l.Path), l.Checked.First))
		}
		if l.Checked.Erased > 0 {
			notes = append(notes, say("The texts of {} of {} were erased: they read [erased] here, and are no evidence of what was attempted. Records of action erase say by whom, and why.",
				many(l.Checked.Erased, "record", "records"), quoted(l.Path)))
		}
		if l.Checked.Lost > 0 {
			notes = append(notes, say("{} of {} were lost while the disk was full. The log says so itself.", many(l.Checked.Lost, "record", "records"), quoted(l.Path)))
		}
	}
	if c.folded > 0 {
		notes = append(notes, say("{} stand in records of several that are alike, which have a count: {} of them without their objects, which were too many.", many(c.folded, "attempt", "attempts"), c.various))
	}
	notes = append(notes, say("In no record, at any time: a file that a rule allows to read or write, once the kernel's own rules let it through; at level static also what the mount view and Landlock refuse, unless the kernel's audit tells; what is in a connection that is allowed; what is typed into a shell."))
	p := lasts("What the daemon recorded about losses, erasures, repairs and failures", heads("when (UTC)", "record", "sandbox", "what", "of", "reason"), &c.losses,
		"The daemon recorded no loss, erasure, repair or failure.", s.search("--plane", "system"), func(t *Table, n note) {
			t.row(n.when, n.seq, n.sandbox, n.action, n.object, n.reason)
		})
	p.Notes = append(p.Notes, notes...)
	return Section{ID: "gaps", Title: "Gaps, and what is not recorded", Parts: []Part{p}}
}

func requirementSection(f *framework, c *collected, logs []*Log) Section {
	t := &Table{Heads: heads("requirement", "asks for", "what this log shows", "what it can't show")}
	for _, n := range f.needs {
		t.row(ours(n.number), ours(n.asks), n.shows(c, logs), ours(n.not))
	}
	return Section{ID: "requirements", Title: "Requirements, and the evidence here", Words: []Text{say(f.about), say("The words of a requirement are shortened here; its own text holds. That this is enough evidence is for an auditor to say.")}, Parts: []Part{{Table: t}}}
}

func (c *collected) overviewSection(s *Source) Section {
	list := c.sandboxes.sorted(nil, func(a, b row[string, boxSeen]) int {
		return cmp.Or(cmp.Compare(b.val.n, a.val.n), cmp.Compare(a.key, b.key))
	})
	p := part("By sandbox", heads("sandbox", "#allowed", "#asked", "#denied", "first (UTC)", "last (UTC)"), list, c.sandboxes.over, "No sandbox attempted anything.", s.search(), func(t *Table, r row[string, boxSeen]) {
		t.row(r.key, r.val.of(policy.Allow), r.val.of(policy.Ask), r.val.of(policy.Deny), r.val.first, r.val.last)
	})
	planes := &Table{Title: "By plane", Heads: heads("plane", "#allowed", "#asked", "#denied")}
	for _, pl := range policy.Planes() {
		if v := c.planes[pl]; v.all() > 0 {
			planes.row(ours(pl), v.of(policy.Allow), v.of(policy.Ask), v.of(policy.Deny))
		}
	}
	sec := Section{ID: "overview", Title: "Attempts, by time, sandbox and plane", Parts: []Part{{Chart: c.timeline()}, p}}
	if len(planes.Rows) > 0 {
		sec.Parts = append(sec.Parts, Part{Table: planes})
	}
	return sec
}
