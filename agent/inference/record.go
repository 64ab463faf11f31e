package inference

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/policy"
)

var silent = log.New(io.Discard, "", 0)

const (
	maxMatches = 16  // texts in which something was found, of one record
	maxMatch   = 100 // bytes of one
	maxName    = 100 // bytes of what a caller or a model calls something
)

// record is what is written down of one request. It has no text in which something was found, unless the policy says so.
type record struct {
	r         *Router
	rs        *rules
	who       policy.Subject
	id        string
	began     time.Time
	asked     string   // the model that the caller named
	object    string   // the backend; before there is one, what was called
	model     string   // the backend, once there is one
	instead   []string // models that were asked before it, and why they did not answer
	tried     bool     // a backend was asked, or should have been
	verdict   *verdict
	in, out   int64
	first     time.Duration // until the first token
	usage     dialect.Usage
	estimated bool    // not all of usage was said
	cost      float64 // USD
	results   []returned
	calls     calls
	trace     traced
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// decision begins a record of the router's.
func (rec *record) decision(v policy.Verdict, reason string) policy.Decision {
	who := rec.who
	who.Args = "" // curl's have the request in them
	d := policy.Decision{
		Plane: policy.PlaneInference, Action: "request", Object: rec.object, Subject: who, Verdict: v, Rule: "default", Reason: reason, Revision: rec.rs.policy.Revision,
		Inference: &policy.ModelCall{ID: rec.id, Asked: rec.asked, Model: rec.model},
	}
	if f := rec.rs.section; f != nil {
		d.Rule = rec.rs.policy.Rule(f.ID).Pos
		if rec.verdict != nil && rec.verdict.rule != "" {
			d.Rule = rec.verdict.rule
		}
	}
	return d
}

// sending is the record of a request before it leaves, where that is to be written down first. What became of it is another one.
func (rec *record) sending() policy.Decision {
	d := rec.decision(policy.Allow, "it is sent when this is on the disk")
	d.Action = "send"
	return d
}

// done writes it down. err is why the request was refused or failed.
func (rec *record) done(err error) {
	reason, v := "", policy.Allow
	if rec.verdict != nil {
		reason = rec.verdict.route.String() + ": " + rec.verdict.summary()
	}
	if err != nil && !rec.tried {
		route := policy.RouteDeny
		if rec.verdict != nil {
			route = rec.verdict.route
		}
		rec.r.nowhere.count(route, Refused)
	}
	if err != nil {
		v = policy.Deny
		if reason != "" {
			reason = "; " + reason
		}
		reason = rec.told(asRefusal(err).why()) + reason
	}
	if rec.model == "" {
		rec.object = rec.told(rec.object) // the caller's words
	}
	d := rec.decision(v, reason)
	rec.fill(d.Inference)
	rec.r.c.Record(d)
	rec.returned(v)
	rec.asksFor()
	rec.trace.over(rec, d, err)
}

// fill enters what a record of a request has.
func (rec *record) fill(c *policy.ModelCall) {
	if v := rec.verdict; v != nil {
		c.Route, c.Unseen, c.Sticky = v.route.String(), v.unseen, v.sticky
		if len(v.counts) > 0 {
			c.Classes = v.counts
		}
		c.Matches = v.shown
	}
	c.BytesIn, c.BytesOut = rec.in, rec.out
	c.TokensIn, c.TokensCached, c.TokensOut, c.TokensReasoning = int64(rec.usage.Input), int64(rec.usage.Cached), int64(rec.usage.Output), int64(rec.usage.Reasoning)
	c.Instead, c.Estimated, c.Cost = rec.instead, rec.estimated, int64(math.Round(rec.cost*1e6))
	c.FirstMS, c.MS = rec.first.Milliseconds(), time.Since(rec.began).Milliseconds()
}

// told is what a caller, a model or a server has said, unless there is something sensitive in it.
func (rec *record) told(s string) string {
	if s == "" || rec.clean(s) {
		return s
	}
	return fmt.Sprintf("(%d bytes with something sensitive)", len(s))
}

// clean reports whether texts may be written down by themselves.
func (rec *record) clean(texts ...string) bool {
	if f := rec.rs.section; f != nil && f.LogMatches {
		return true
	}
	found, err := rec.rs.parts(texts)
	return err == nil && len(found) == 0
}
