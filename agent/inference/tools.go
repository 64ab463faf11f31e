package inference

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	maxCalls  = 64       // tool calls of one answer, and results of one request, that have a record each
	maxKept   = 64 << 10 // of a call's parameters that are kept until its record; what is longer is not written down
	maxParams = 1000     // bytes of parameters in a record
	maxResult = 500      // bytes of a result in a record
)

// call is a tool call that a model asked for.
type call struct {
	name, params string
	size         int64    // of the parameters, also where they are not kept
	through      []string // what it was wrapped in
}

// asked is a call whose parameters are still coming.
type asked struct {
	name   string
	params []byte
	size   int64
}

// add adds to the parameters. One that has no place does nothing.
func (a *asked) add(params string) {
	if a == nil {
		return
	}
	a.size += int64(len(params))
	if a.size <= maxKept {
		a.params = append(a.params, params...)
	} else {
		a.params = nil
	}
}

// calls are those of one answer.
type calls struct {
	list []*asked
	more uint64
}

// begin makes place for one more; nil: it is only counted.
func (c *calls) begin(name string) *asked {
	if len(c.list) == maxCalls {
		c.more++
		return nil
	}
	one := &asked{name: name}
	c.list = append(c.list, one)
	return one
}

// asksFor records the calls that the model asked for.
func (rec *record) asksFor() {
	more, n := rec.calls.more, 0
	for _, a := range rec.calls.list {
		for _, c := range unwrap(call{name: a.name, params: string(a.params), size: a.size}) {
			if n++; n > maxCalls {
				more++
				continue
			}
			whole := c.size == int64(len(c.params)) && c.size <= maxKept
			rec.tool(policy.Allow, "tool-call", c.short(), nil, whole && rec.plain() && rec.clean(c.texts()...))
		}
	}
	rec.rest(policy.Allow, "tool-call", more)
}

// plain reports whether the request was any cloud model's without more: what is sensitive in another may come again in other words.
func (rec *record) plain() bool {
	v := rec.verdict
	return v != nil && v.route == policy.RouteCloud && len(v.carried) == 0
}

// texts are all that a record may have of a call.
func (c call) texts() []string { return append([]string{c.name, c.params}, c.through...) }

// short is what a record has of a call. It keeps nothing of a request alive.
func (c call) short() call {
	out := call{name: copied(c.name, maxName), params: copied(c.params, maxParams), size: c.size}
	for _, t := range c.through {
		out.through = append(out.through, copied(t, maxName))
	}
	return out
}

// copied is a text that is cut.
func copied(s string, limit int) string { return strings.Clone(text.Clip(s, limit)) }

// tool records a call, or the result of one. tell: what is in it may be written down.
func (rec *record) tool(v policy.Verdict, action string, c call, r *result, tell bool) {
	d := rec.decision(v, "")
	if v != policy.Allow {
		d.Reason = "the request that returns it was refused, or not answered to its end"
	}
	u := &policy.ToolUse{ParamsBytes: c.size}
	d.Action, d.Object, d.Inference.Tool = action, c.name, u
	if r != nil {
		u.ResultBytes, u.Failed = r.size, r.failed
	}
	if tell || rec.rs.section.LogMatches {
		u.Params, u.Through = c.params, c.through
		if r != nil {
			u.Result = r.text
		}
	} else {
		u.Withheld, d.Object = true, rec.told(c.name)
	}
	rec.r.c.Record(d)
}

// rest counts what has no record of its own.
func (rec *record) rest(v policy.Verdict, action string, n uint64) {
	if n == 0 {
		return
	}
	d := rec.decision(v, fmt.Sprintf("more than %d in one request: these are counted without their parameters", maxCalls))
	d.Action, d.Object, d.Count = action, "(various)", n
	rec.r.c.Record(d)
}

// returned is a result that a request returns, and what it is known by.
type returned struct {
	sent, refused mark
	result        *result // nil: it is only counted
}

// result is what a record has of a result, and of the call that it is of.
type result struct {
	call   call
	text   string
	size   int64
	failed bool
	clean  bool // nothing is found in it
}

// collect takes from a request what it returns of tools, but what was sent before. Nothing of the request is kept.
func (rec *record) collect(q *dialect.Request) {
	var read []func() *result
	type known struct {
		call
		mark
	}
	calls := map[string]known{} // by their ids, which are this request's
	times := map[mark]uint64{}
	var h maphash.Hash // its results are long, and stay here
	h.SetSeed(rec.r.seed)
	root := quick(&h, rootOf(q))
	for i := range q.Messages {
		for _, p := range q.Messages[i].Parts {
			switch p.Kind {
			case dialect.ToolCall:
				calls[p.ID] = known{call{name: p.Name, params: p.Arguments, size: int64(len(p.Arguments))}, quick(&h, string(root[:]), p.Name, p.Arguments)}
			case dialect.ToolResult:
				c, is := calls[p.ID]
				if !is {
					c = known{call{name: p.Name}, quick(&h, string(root[:]), p.Name)}
				}
				said := said(p.Parts)
				// Its id is no part of it: it changes when a caller leaves older messages out. A call is looked through once, however
				// many results say that they are its.
				m := quick(&h, string(c.mark[:]), said)
				times[m]++
				nth := strconv.FormatUint(times[m], 10) // that is just so
				one := returned{sent: quick(&h, "sent", string(m[:]), nth), refused: quick(&h, "refused", string(m[:]), nth)}
				if rec.r.returns.has(one.sent) {
					continue
				}
				rec.results = append(rec.results, one)
				read = append(read, func() *result { return rec.result(c.call, said, p.Failed) })
			}
		}
	}
	for i := max(len(read)-maxCalls, 0); i < len(read); i++ { // the newest
		rec.results[i].result = read[i]()
	}
}

// result reads one.
func (rec *record) result(c call, said string, failed bool) *result {
	if list := unwrap(c); len(list) == 1 { // of several it is anybody's
		c = list[0]
	}
	clean := rec.verdict != nil && len(rec.verdict.matches) == 0
	if !clean && len(c.params)+len(said) <= maxKept { // something is in the request; this may be without
		clean = rec.clean(append(c.texts(), said)...)
	}
	return &result{call: c.short(), text: copied(said, maxResult), size: int64(len(said)), failed: failed, clean: clean}
}

// returned records the results: each once as refused, and once as sent.
func (rec *record) returned(v policy.Verdict) {
	var list []*result
	var more uint64
	for _, one := range rec.results {
		m := one.sent
		if v != policy.Allow {
			m = one.refused
		}
		switch {
		case rec.r.returns.has(one.sent), rec.r.returns.add(1, m) == 0: // another request was quicker
		case one.result != nil:
			list = append(list, one.result)
		default:
			more++
		}
	}
	rec.rest(v, "tool-result", more)
	for _, r := range list {
		rec.tool(v, "tool-result", r.call, r, r.clean && rec.plain())
	}
}

// quick is a mark that only this process makes.
func quick(h *maphash.Hash, words ...string) (m mark) {
	h.Reset()
	for _, w := range words {
		maphash.WriteComparable(h, len(w))
		h.WriteString(w)
	}
	binary.BigEndian.PutUint64(m[:], h.Sum64())
	return m
}

// rootOf is what a conversation is known by: what its user said first.
func rootOf(q *dialect.Request) string {
	for i := range q.Messages {
		if m := &q.Messages[i]; m.Role == dialect.User {
			return said(m.Parts)
		}
	}
	return ""
}
