package report

import (
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A framework is the requirements of a law or a standard for which the log has evidence.
type framework struct {
	title, name string
	about       string
	needs       []need
}

// A need is a requirement, by the number that its own text has; what the log shows of it, and what it can't.
type need struct {
	number, asks string
	shows        func(c *collected, logs []*Log) Text
	not          string
}

var frameworks = map[string]*framework{"hipaa": hipaa, "gdpr": gdpr, "soc2": soc2}

// Frameworks lists those that there are.
func Frameworks() []string {
	var list []string
	for name := range frameworks {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// What several requirements have evidence in.

// showsLog is about the log itself.
func showsLog(_ *collected, logs []*Log) Text {
	var records, bad, signed uint64
	for _, l := range logs {
		records += l.records
		if !l.OK() {
			bad++
		}
		if l.OK() && l.Checked.Signed != nil {
			signed++
		}
	}
	if bad > 0 {
		return say("{} in {}, of which {}: see the top of this report.", many(records, "record", "records"), many(len(logs), "log", "logs"), painted{number(bad) + " can't be trusted as a whole", "bad"})
	}
	return say("{} in {}, each chained to the one before by SHA-256; the chain was verified when this was made. {} with signed checkpoints that were verified too.",
		many(records, "record", "records"), many(len(logs), "log", "logs"), many(signed, "log", "logs"))
}

func showsAccess(c *collected, _ []*Log) Text {
	return say("{} allowed by a rule or an answer, {} denied, {} of these by the default, which is to deny; {} rested on a person's answer. Each names the rule (file:line) and the policy's revision.",
		many(c.total(policy.Allow), "attempt", "attempts"), c.total(policy.Deny), c.defaulted, c.granted)
}

func showsAnswers(c *collected, _ []*Log) Text {
	return say("{} by persons ({} allowed, {} denied), {} taken back or ended by their time, {} that nobody answered and so were denied. {} rested on an answer.",
		many(c.answered.all(), "answer", "answers"), c.answered.of(policy.Allow), c.answered.of(policy.Deny), c.ended, many(c.silent, "attempt", "attempts"), many(c.granted, "allowed attempt", "allowed attempts"))
}

func showsChanges(c *collected, _ []*Log) Text {
	return say("{} of policies, each with time, account and what changed; in force was {} (one of each sandbox counted apart); {} of settings.",
		many(c.policies.all, "revision", "revisions"), c.meanings(), many(c.actions["config"], "change", "changes"))
}

// meanings is how many policies were in force: a revision of each sandbox.
func (c *collected) meanings() ours {
	n := many(len(c.inForce.rows), "revision", "revisions")
	if c.inForce.over > 0 {
		return "more than " + n
	}
	return n
}

func showsPeople(c *collected, _ []*Log) Text {
	names := map[string]bool{}
	for k := range c.people.rows {
		name, _, _ := strings.Cut(k.who, " (uid ") // an answer's has its number too
		names[name] = true
	}
	return say("{} named by the kernel for {}: who created, steered, entered, changed and answered. Programs inside are named by the path of their executable.",
		many(len(names), "account", "accounts"), many(c.deeds(), "act", "acts"))
}

func (c *collected) deeds() (n uint64) {
	for _, v := range c.people.rows {
		n += v.n
	}
	return n
}

func showsPrograms(c *collected, _ []*Log) Text {
	return say("{} started, each allowed by a rule; {} of programs that no rule allows were refused.",
		many(c.planes["exec"].of(policy.Allow), "program", "programs"), many(c.planes["exec"].of(policy.Deny), "start", "starts"))
}

func showsNetwork(c *collected, _ []*Log) Text {
	n, d := c.planes["network"], c.planes["dns"]
	return say("{} to names and addresses allowed, {} denied; {} of names refused. Nothing else leaves a sandbox, whose network has no other way out.",
		many(n.of(policy.Allow), "attempt", "attempts"), n.of(policy.Deny), many(d.of(policy.Deny), "query", "queries"))
}

func showsMoves(c *collected, logs []*Log) Text {
	return append(showsNetwork(c, logs), say(" {} into sandboxes and {} out of them by persons; {} to models.",
		many(c.actions["upload"], "upload", "uploads"), many(c.actions["download"], "download", "downloads"), many(c.calls(""), "request", "requests"))...)
}

func showsLosses(c *collected, _ []*Log) Text {
	return say("{} that something was lost, repaired, failed or taken over; {} not written down one by one ({} without their objects).",
		many(c.losses.all, "record", "records"), many(c.folded, "attempt is counted and", "attempts are counted and"), c.various)
}

// calls counts requests to models by their route; "" is all.
func (c *collected) calls(route string) (n uint64) {
	for k, v := range c.models.rows {
		if route == "" || k.route == route {
			n += v.n
		}
	}
	return n
}

// sensitive counts requests in which a class was found ("": any), by what became of them.
func (c *collected) sensitive(class string) (kept, redacted, denied, sent uint64) {
	for k, v := range c.found.rows {
		switch {
		case class != "" && k.class != class:
		case k.verdict == policy.Deny || k.route == "deny":
			denied += v.n
		case k.route == "redact":
			redacted += v.n
		case k.route == "local":
			kept += v.n
		default:
			sent += v.n
		}
	}
	return kept, redacted, denied, sent
}

func showsSensitive(classes ...string) func(*collected, []*Log) Text {
	return func(c *collected, _ []*Log) Text {
		var t Text
		for i, class := range classes {
			kept, redacted, denied, sent := c.sensitive(class)
			name := class
			if name == "" {
				name = "any class"
			}
			if i > 0 {
				t = append(t, say(" ")...)
			}
			kind := ""
			if sent > 0 {
				kind = "ask"
			}
			t = append(t, say("Finds of {} in requests to models: {} stayed with a local model, {} were redacted before they left, {} were denied, {}.", ours(name), kept, redacted, denied,
				painted{number(sent) + " went to a cloud model as they were, because the policy or a person said so", kind})...)
		}
		return t
	}
}

// recipients are the models elsewhere that had requests with something of a class.
func showsRecipients(c *collected, _ []*Log) Text {
	models := map[string]uint64{}
	for k, v := range c.found.rows {
		if k.verdict == policy.Allow && k.route != "local" && k.route != "deny" {
			models[k.model] += v.n
		}
	}
	if len(models) == 0 {
		return say("No request with such a find went to a model elsewhere.")
	}
	names := make([]string, 0, len(models))
	for m := range models {
		names = append(names, m)
	}
	slices.Sort(names)
	t := say("Models elsewhere that answered requests with finds, redacted or not: ")
	for i, m := range names[:min(len(names), 10)] {
		if i > 0 {
			t = append(t, say(", ")...)
		}
		t = append(t, say("{} ({})", m, models[m])...)
	}
	if len(names) > 10 {
		t = append(t, say(" and {} more", len(names)-10)...)
	}
	return append(t, say(".")...)
}
