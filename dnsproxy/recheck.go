package dnsproxy

import (
	"fmt"

	"github.com/nemoclaw/nemoclaw/policy"
)

// rejudge closes the connections that a new policy does not allow any longer, and returns how many that were.
func (l *loop) rejudge() (closed int) {
	p := l.s.pol.Load()
	for c := range l.conns {
		switch c.state {
		case stProxyHead:
			c.pol = p // it has not said yet where it wants to go
		case stHead, stWait, stDial, stRelay:
			l.guarded(c, func() { c.rejudge(p) })
			if c.state == stClosed {
				closed++
			}
		}
	}
	return closed
}

// ungrant closes connections that a person let through who has taken it back, also those that are not there yet.
func (l *loop) ungrant(f func(policy.Decision) bool) (closed int) {
	for c := range l.conns {
		if c.consent == "" || c.state == stLinger || !f(c.record(policy.Allow, "")) {
			continue
		}
		l.guarded(c, func() {
			c.consent = ""
			c.cut("what a person had allowed was taken back, or its time is over")
		})
		if c.state == stClosed {
			closed++
		}
	}
	return closed
}

func (c *conn) rejudge(p *policy.Compiled) {
	r := c.s.judge(p, c.to, c.peer.Caller)
	c.pol = p
	fine := r.verdict == policy.Allow || c.consent != "" && (r.rule == nil || r.verdict == policy.Ask)
	if fine && (sameProtocol(r.mode, c.rule.mode) || r.rule == nil) && (r.ech || !c.rule.ech) {
		if r.rule != nil {
			c.rule = r
		}
		c.readmit()
		return
	}
	if c.state == stWait && r.verdict == policy.Ask && c.rule.verdict == policy.Ask {
		return // still being asked about
	}
	if c.denial != nil && c.state != stRelay || c.bySNI && c.to.name == "" {
		return // refused already, or not judged yet; in a relay answers to earlier requests still come
	}
	c.rule = r
	c.cut("no rule allows this connection any longer: the policy changed, or the rule that allowed it expired")
}

// readmit judges the addresses that were found for the destination again. Which of them it went to does not matter: a client
// that connects anew gets those that are left.
func (c *conn) readmit() {
	_, bad, by, why := c.s.admitted(c.pol, c.addrs, c.to.port, c.peer.Caller)
	if why == "" {
		return
	}
	pos := "builtin"
	if by != nil {
		pos = rulePos(c.pol, by)
	}
	c.cutBy(pos, fmt.Sprintf("the policy changed: it leads to %s, and %s", bad, why))
}

// cut ends an established connection by a decision.
func (c *conn) cut(reason string) { c.cutBy(rulePos(c.pol, c.rule.rule), reason) }

func (c *conn) cutBy(pos, reason string) {
	d := c.record(policy.Deny, reason)
	d.Rule = pos
	c.decided(d)
	c.s.cfg.Record(d)
	c.abort()
}
