package dnsproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// denial is a refusal as it is told to a client that speaks HTTP.
type denial struct {
	status int
	Error  string   `json:"error"`
	Tried  string   `json:"tried"`
	Rule   string   `json:"rule,omitempty"`
	Reason string   `json:"reason"`
	Next   []string `json:"next"`
}

// bytes makes the whole response.
func (d *denial) bytes() []byte {
	body, err := json.Marshal(d)
	if err != nil { // strings only: can't be
		body = []byte("{}")
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\nX-Nemoclaw: refused\r\n\r\n%s\n",
		d.status, http.StatusText(d.status), len(body)+1, body)
}

// refuse records that this connection is denied and tells the client in the way it would understand. rule is "file:line",
// "default" or "builtin"; alert is the TLS alert.
func (c *conn) refuse(rule, reason string, alert byte) {
	d := c.record(policy.Deny, reason)
	if d.Rule != rule {
		d.Rule, d.Suggest = rule, ""
	}
	c.recorded = true
	c.came(ConnRefused)
	c.decided(d)
	c.s.cfg.Record(d)
	c.say(&denial{status: http.StatusForbidden, Error: "blocked by the sandbox's policy", Tried: "connect " + d.Object, Rule: d.Rule, Reason: reason, Next: nextSteps(d)}, alert)
}

// nextSteps is what a program (or the model behind it) can do about a refusal.
func nextSteps(d policy.Decision) []string {
	switch {
	case d.Suggest != "":
		return []string{
			"Do without it, or ask the person who runs this sandbox to allow it.",
			"They can add to the policy:\n" + d.Suggest,
		}
	case d.Rule == "builtin":
		return []string{"Correct the request; no rule of the policy is against it.", "If it is right as it is, tell the person who runs this sandbox."}
	default:
		return []string{"Do without it: a rule of the policy refuses it on purpose.", "If that is wrong, the person who runs this sandbox can change " + d.Rule + "."}
	}
}

// fail ends a connection that the policy allows and that can't be made.
func (c *conn) fail(reason string) {
	c.came(ConnFailed)
	if !c.recorded {
		c.recorded = true
		d := c.record(policy.Allow, strings.TrimPrefix(c.consent+"; allowed, but "+reason, "; "))
		c.decided(d)
		c.s.cfg.Record(d)
	}
	c.say(&denial{status: http.StatusBadGateway, Error: "the connection could not be made", Tried: "connect " + c.to.String(), Reason: reason,
		Next: []string{"The policy allows it; try again later, or check the name and the port."}}, 0)
}

// say tells a refusal: JSON to a client that speaks HTTP (after its request is in), an alert to one that speaks TLS, a reset
// to the others. alert 0: no alert describes it, so a reset, which clients retry.
func (c *conn) say(d *denial, alert byte) {
	if c.state == stClosed {
		return
	}
	c.dropDials()
	switch {
	case c.explicit && !c.answered:
		c.answer(d)
	case c.rule.mode == policy.HTTP && !c.headOK && c.state != stHead:
		c.denial = d
		c.readHead(stHead)
	case c.rule.mode == policy.HTTP:
		c.answer(d)
	case isTLS(c.rule.mode) && alert != 0:
		c.linger(tlsAlert(alert))
	default:
		c.abort()
	}
}

// answer sends a refusal in HTTP as the last thing on the connection.
func (c *conn) answer(d *denial) {
	c.denial = nil
	c.linger(d.bytes())
}

// refuseRequest refuses one request: by policy (403, one record) or because its framing is unsafe (4xx/5xx, one record too:
// it was an attempt). h is nil when the head could not be read.
func (c *conn) refuseRequest(h *requestHead, err error) {
	if c.denial != nil { // refused already; this was only waited for
		c.answer(c.denial)
		return
	}
	d := c.requestDenial(h, err)
	c.recorded = true
	c.came(ConnRefused)
	c.answer(d)
}

// requestDenial records a refused request and makes the answer to it.
func (c *conn) requestDenial(h *requestHead, err error) *denial {
	tried := "request"
	if h != nil {
		tried = clip(string(h.method)) + " " + clip(string(h.target))
	}
	object := c.to.String()
	if c.to.port == 0 || !c.to.addr.IsValid() && c.to.name == "" {
		object = c.wanted.String()
	}
	rec := c.s.decision(c.pol, policy.PlaneNetwork, "request", object, policy.Deny, c.rule.rule, tried+": "+err.Error())
	rec.Subject = c.peer.Subject
	status := http.StatusForbidden
	var he *httpError
	if errors.As(err, &he) {
		status = he.status
		rec.Rule, rec.Suggest = "builtin", ""
	}
	c.decided(rec)
	c.s.cfg.Record(rec)
	return &denial{status: status, Error: "blocked by the sandbox's policy", Tried: tried, Rule: rec.Rule, Reason: err.Error(), Next: nextSteps(rec)}
}
