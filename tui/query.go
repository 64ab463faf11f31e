package tui

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A query says which of many are to be shown, as it is typed after "/": words that all have to be in it, whatever their case, and
// NAME:VALUE for one part. The zero query fits everything.
type query struct {
	typed   string
	words   []string // lower case
	sandbox string
	planes  []string
	verdict []string
	from    time.Time
	to      time.Time
}

// queryHelp is what can be typed.
const queryHelp = "words, sandbox:NAME plane:NAME verdict:allow|ask|deny; of the audit log also from:TIME to:TIME (1h30m ago, 2006-01-02T15:04)"

// parseQuery reads what was typed. ranges says whether from: and to: mean anything here.
func parseQuery(typed string, ranges bool, now time.Time) (q query, err error) {
	q.typed = strings.TrimSpace(typed)
	for word := range strings.FieldsSeq(typed) {
		name, value, named := strings.Cut(word, ":")
		switch {
		case named && name == "sandbox":
			q.sandbox = value
		case named && name == "plane":
			q.planes = strings.Split(value, ",")
			for _, p := range q.planes {
				if _, err := policy.ParsePlane(p); err != nil {
					return q, err
				}
			}
		case named && name == "verdict":
			q.verdict = strings.Split(value, ",")
			for _, v := range q.verdict {
				if err := new(policy.Verdict).UnmarshalText([]byte(v)); err != nil {
					return q, err
				}
			}
		case named && ranges && name == "from":
			if q.from, err = api.ParseTime(value, now); err != nil {
				return q, fmt.Errorf("from: %w", err)
			}
		case named && ranges && name == "to":
			if q.to, err = api.ParseTime(value, now); err != nil {
				return q, fmt.Errorf("to: %w", err)
			}
		default:
			q.words = append(q.words, strings.ToLower(word))
		}
	}
	return q, nil
}

// events is the part of the query that the daemon answers.
func (q query) events() api.Events {
	return api.Events{Sandbox: q.sandbox, Planes: q.planes, Verdict: q.verdict, From: q.from, To: q.to}
}

// all reports whether each word is in one of the texts.
func (q query) all(texts ...string) bool {
	for _, word := range q.words {
		if !slices.ContainsFunc(texts, func(s string) bool { return contains(s, word) }) {
			return false
		}
	}
	return true
}

// contains looks for a word of lower case.
func contains(s, word string) bool {
	return strings.Contains(s, word) || strings.Contains(strings.ToLower(s), word)
}

// decision reports whether a decision fits.
func (q query) decision(d *policy.Decision) bool {
	return (q.sandbox == "" || q.sandbox == d.Sandbox) &&
		(q.planes == nil || slices.Contains(q.planes, string(d.Plane))) &&
		(q.verdict == nil || slices.Contains(q.verdict, d.Verdict.String())) &&
		q.all(append(called(d.Inference), d.Sandbox, d.Action, d.Object, d.Subject.Exe, d.Subject.Args, d.Rule, d.Reason)...)
}

// called are the texts of a model call.
func called(c *policy.ModelCall) []string {
	if c == nil {
		return nil
	}
	list := []string{c.ID, c.Asked, c.Model, c.Route}
	if c.Tool != nil {
		list = append(append(list, c.Tool.Params, c.Tool.Result), c.Tool.Through...)
	}
	return list
}

// request reports whether a request fits. It has no verdict yet.
func (q query) request(r *api.Request) bool {
	return (q.sandbox == "" || q.sandbox == r.Sandbox) &&
		(q.planes == nil || slices.Contains(q.planes, r.Plane)) &&
		q.all(r.Sandbox, r.Action, r.Object, r.Program, r.Args, r.Rule)
}

// box reports whether a sandbox fits.
func (q query) box(b *api.Sandbox) bool {
	return (q.sandbox == "" || q.sandbox == b.Name) && q.all(b.Name, string(b.State), b.Level, b.Image)
}
