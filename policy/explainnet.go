package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func (c *Compiled) explainConnect(a *Answer, age time.Duration) {
	q, n := a.Query, &c.Network
	if q.Path != "" {
		c.explainSocket(a)
		return
	}
	var who Caller
	if q.Command != "" {
		who.Is = func(rule string) bool { return sameCommand(rule, q.Command) }
	}
	rules := n.MatchAddr(q.Addr)
	if q.Name != "" {
		rules = n.Match(q.Name)
	}
	var lapsed *NetRule
	rules = slices.DeleteFunc(slices.Clone(rules), func(r *NetRule) bool {
		gone := r.Expires > 0 && r.Expires <= age
		if gone && r.hasPort(q.Port) {
			lapsed = r
		}
		return gone
	})
	verdict, rule := n.Judge(rules, q.Port, who)
	if rule == nil {
		a.set(verdict, c.Rule(0), "%s", c.whyNoRule(q, rules))
		if lapsed != nil {
			a.Reason = fmt.Sprintf("the rule at %s has expired", c.Rule(lapsed.ID).Pos)
		}
		if verdict == Ask {
			a.Reason += "; " + c.held()
		}
		return
	}
	why := beatsAllow
	switch verdict {
	case Ask:
		why = c.held()
	case Allow:
		why = map[Protocol]string{
			HTTPS: "https: the TLS handshake must name " + q.Name,
			TLS:   "tls: the TLS handshake must name " + q.Name,
			HTTP:  "http: the Host of each request must be " + q.Name,
			TCP:   "tcp: bytes pass as they come",
		}[rule.Protocol]
		if rule.Name == InferenceName {
			why = "the privacy router answers: it decides for each request which model may have it (nemoclaw route explain)"
		}
	}
	if len(rule.Commands) > 0 {
		why += "; for " + strings.Join(rule.Commands, ", ") + " only"
	}
	switch {
	case rule.Expires > 0 && age > 0:
		why += fmt.Sprintf("; for %s more", span((rule.Expires - age).Round(time.Second)))
	case rule.Expires > 0:
		why += fmt.Sprintf("; for %s after the start", span(rule.Expires))
	}
	a.set(verdict, c.Rule(rule.ID), "%s", why)
}

func (c *Compiled) explainSocket(a *Answer) {
	for _, s := range c.Network.Unix {
		if s.Path == a.Query.Path {
			a.set(Allow, c.Rule(s.ID), "a socket of the host, connectable at the same path")
			return
		}
	}
	a.set(Deny, c.Rule(0), "no entry of network.unix names this socket of the host; sockets made inside are not judged")
}

func (c *Compiled) held() string {
	return "held until a person answers, denied after " + span(c.Hold)
}

// whyNoRule says what was missing: the port, the command, a label, or any rule at all.
func (c *Compiled) whyNoRule(q Query, rules []*NetRule) string {
	for _, r := range rules { // the nearest miss first: name and port are right
		if r.Verdict != Deny && r.hasPort(q.Port) {
			who := q.Command + " is none of them"
			if q.Command == "" {
				who = "name the program that connects with --by"
			}
			return fmt.Sprintf("the rule at %s is for %s only; %s", c.Rule(r.ID).Pos, strings.Join(r.Commands, ", "), who)
		}
	}
	for _, r := range rules {
		if r.Verdict != Deny {
			does := map[Verdict]string{Allow: "is allowed", Ask: "is asked about"}[r.Verdict]
			return fmt.Sprintf("no rule allows port %d; %s %s on %s at %s", q.Port, r.target(), does, portList(r.Ports), c.Rule(r.ID).Pos)
		}
	}
	if q.Name == "" {
		return "no cidr rule covers this address, and names don't count for an address"
	}
	if miss := c.wildcardMiss(q.Name); miss != "" {
		return miss
	}
	return "no rule is about " + q.Name
}

// wildcardMiss finds a wildcard that a person may have thought to cover name.
func (c *Compiled) wildcardMiss(name string) string {
	if at := c.Network.index.names[name]; at != nil {
		for _, r := range extend(at.one, at.deep) {
			if r.Verdict != Deny {
				return fmt.Sprintf("%s at %s covers names below %s, not %s itself", r.Name, c.Rule(r.ID).Pos, name, name)
			}
		}
	}
	for parent := name; ; {
		_, above, more := strings.Cut(parent, ".")
		if !more {
			return ""
		}
		parent = above
		at := c.Network.index.names[parent]
		if at == nil {
			continue
		}
		for _, r := range at.one {
			if r.Verdict != Deny {
				return fmt.Sprintf("%s at %s covers exactly one label more; *%s would cover this name", r.Name, c.Rule(r.ID).Pos, r.Name)
			}
		}
	}
}

func portList(ports []uint16) string {
	words := make([]string, 0, len(ports))
	for i, p := range ports {
		if i == 8 { // enough to see what is meant
			words = append(words, "...")
			break
		}
		words = append(words, fmt.Sprint(p))
	}
	return strings.Join(words, ", ")
}

// span writes a duration without the parts that are nothing: 1h, not 1h0m0s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
