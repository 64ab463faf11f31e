package report

import (
	"cmp"

	"github.com/nemoclaw/nemoclaw/policy"
)

// accessSection is who attempted what with a verdict, plane by plane, the most frequent first.
func (c *collected) accessSection(s *Source, id, title string, v policy.Verdict) Section {
	sec := Section{ID: id, Title: title}
	for _, pl := range policy.Planes() {
		list := c.access.sorted(func(k access, _ *seen) bool { return k.verdict == v && k.plane == pl && !k.granted }, byCount[access])
		if len(list) == 0 {
			continue
		}
		find := s.search("--plane", string(pl), "--verdict", v.String())
		sec.Parts = append(sec.Parts, part("Plane "+string(pl), heads("sandbox", "action", "object", "program", "rule", "revision", "#times", "first (UTC)", "last (UTC)"), list, 0, "", find,
			func(t *Table, r row[access, seen]) {
				k := r.key
				t.row(k.sandbox, k.action, k.object, k.exe, k.rule, k.revision, r.val.n, r.val.first, r.val.last)
			}))
	}
	if len(sec.Parts) == 0 {
		sec.Words = append(sec.Words, say("None."))
	}
	if c.access.over > 0 {
		sec.Parts = append(sec.Parts, Part{Notes: rest(0, c.access.over, s.search("--verdict", v.String()))})
	}
	if v == policy.Allow {
		sec.Words = append(sec.Words, say("What a person's answer let through is in the next section."))
	}
	return sec
}

// approvalSection is what rested on a person's answer, and the answers.
func (c *collected) approvalSection(s *Source) Section {
	granted := c.access.sorted(func(k access, _ *seen) bool { return k.granted }, byCount[access])
	through := part("What was let through because of an answer", heads("sandbox", "action", "object", "program", "who allowed it", "for", "answered (UTC)", "#times", "first (UTC)", "last (UTC)"), granted, 0,
		"Nothing was let through because of an answer.", s.search("--verdict", "allow", "--text", " by a person"), func(t *Table, r row[access, seen]) {
			k := r.key
			g := c.given.rows[attempt{k.sandbox, string(k.plane) + " " + k.action, k.object, k.exe}]
			if g == nil {
				t.row(k.sandbox, k.action, k.object, k.exe, ours("an answer to another attempt that it covers, or one that is not in this report"), ours("-"), ours("-"), r.val.n, r.val.first, r.val.last)
				return
			}
			t.row(k.sandbox, k.action, k.object, k.exe, g.who, g.scope, say("{} (record {})", g.when, g.seq), r.val.n, r.val.first, r.val.last)
		})
	answers := lasts("Answers, the last ones", heads("when (UTC)", "record", "sandbox", "to what", "object", "program", "answer", "who", "for", "after"), &c.answers,
		"No person answered anything.", s.search("--plane", "system"), func(t *Table, a answer) {
			verdict := pieces(a.verdict)
			if a.ended {
				verdict = say("ended")
			}
			t.row(a.when, a.seq, a.what.sandbox, a.what.asked, a.what.object, a.what.exe, verdict, a.said.who, a.said.scope, a.said.waited)
		})
	return Section{ID: "approvals", Title: "Approvals", Words: []Text{
		say("Where an attempt has several answers the last one is named. Who answered is the account that the kernel named to the daemon."),
	}, Parts: []Part{through, answers}}
}

func (c *collected) peopleSection(s *Source) Section {
	list := c.people.sorted(nil, byCount[deed])
	return Section{ID: "people", Title: "Persons, and what they did", Parts: []Part{part("", heads("who", "did", "sandbox", "#times", "first (UTC)", "last (UTC)"), list, c.people.over,
		"No person did anything to a sandbox.", s.search("--plane", "system"), func(t *Table, r row[deed, seen]) {
			t.row(r.key.who, r.key.action, r.key.sandbox, r.val.n, r.val.first, r.val.last)
		})}}
}

func (c *collected) policySection(s *Source) Section {
	list := c.inForce.sorted(nil, func(a, b row[inForce, seen]) int {
		return cmp.Or(cmp.Compare(a.key.sandbox, b.key.sandbox), a.val.first.Compare(b.val.first), cmp.Compare(a.val.seq, b.val.seq))
	})
	return Section{ID: "policies", Title: "Policies", Words: []Text{
		say("A revision is the beginning of a hash of the policy's text; {} shows which one had it, and {} its text.", quoted("nemoclaw NAME policy history -o json"), quoted("nemoclaw NAME policy get REVISION")),
	}, Parts: []Part{
		part("In force when something was decided", heads("sandbox", "revision", "#records", "first (UTC)", "last (UTC)"), list, c.inForce.over, "No decision names a policy.", s.search(), func(t *Table, r row[inForce, seen]) {
			t.row(r.key.sandbox, r.key.revision, r.val.n, r.val.first, r.val.last)
		}),
		lasts("Changes, the last ones", heads("when (UTC)", "record", "sandbox", "made", "what changed", "who"), &c.policies, "No policy was changed.", s.search("--plane", "system"), func(t *Table, p change) {
			t.row(p.when, p.seq, p.sandbox, p.revision, p.what, p.who)
		}),
	}}
}

// modelSection is which models had requests, what they took, and what of a class was in them.
func (c *collected) modelSection(s *Source) Section {
	list := c.models.sorted(nil, func(a, b row[modelKey, modelUse]) int {
		return cmp.Or(cmp.Compare(b.val.cost, a.val.cost), byCount(row[modelKey, seen]{a.key, &a.val.seen}, row[modelKey, seen]{b.key, &b.val.seen}))
	})
	found := c.found.sorted(nil, byCount[finding])
	find := s.search("--plane", "inference")
	sec := Section{ID: "models", Title: "Requests to models", Parts: []Part{
		part("By model and route", heads("sandbox", "model", "route", "verdict", "#requests", "#tokens in", "#tokens out", "#cost", "#with finds"), list, c.models.over, "No model was asked.", find, func(t *Table, r row[modelKey, modelUse]) {
			v := r.val
			t.row(r.key.sandbox, r.key.model, r.key.route, r.key.verdict, v.n, uint64(max(v.in, 0)), uint64(max(v.out, 0)), ours(money(max(v.cost, 0))), v.withFinds)
		}),
	}}
	if len(list) > 0 {
		sec.Parts = append(sec.Parts, part("Requests in which something of a class was found", heads("sandbox", "class", "route", "model", "verdict", "#requests", "first (UTC)", "last (UTC)"), found, c.found.over, "No class was found in a request.", find,
			func(t *Table, r row[finding, seen]) {
				t.row(r.key.sandbox, r.key.class, r.key.route, r.key.model, r.key.verdict, r.val.n, r.val.first, r.val.last)
			}))
	}
	return sec
}
