// Package redact takes what a policy says out of the texts of records, before they are numbered, hashed, written or handed to anybody:
// what the recognisers of agent/inference/classify find of the classes of audit.redact becomes a mark, as in [financial:card].
//
// It never changes what is decided, nor what is shown to the person who has to decide: a rule is for the name as it is, and so is the
// question. It keeps nothing of what it has taken out.
package redact

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A redactor is made of one policy. Many may use it at once.
type redactor struct {
	classifier *classify.Classifier
	classes    []string
}

// New returns what takes out of a record what the policy says; nil where it says nothing. The record's model call is replaced, never
// changed.
func New(p *policy.Compiled) (func(*policy.Decision), error) {
	if len(p.Audit.Redact) == 0 {
		return nil, nil
	}
	c, err := classify.New(inference.Rules(p.Inference))
	if err != nil {
		return nil, fmt.Errorf("the policy's inference.custom: %w", err)
	}
	return (&redactor{c, p.Audit.Redact}).record, nil
}

// record takes out of a record's texts.
func (r *redactor) record(d *policy.Decision) {
	list := []*string{&d.Object, &d.Subject.Exe, &d.Subject.Args, &d.Reason}
	if d.Inference != nil {
		c := *d.Inference
		d.Inference = &c
		c.Instead, c.Matches = slices.Clone(c.Instead), slices.Clone(c.Matches)
		list = append(list, &d.Inference.Asked)
		for i := range c.Instead {
			list = append(list, &c.Instead[i])
		}
		for i := range c.Matches {
			list = append(list, &c.Matches[i].Text)
		}
		if c.Tool != nil {
			t := *c.Tool
			t.Through = slices.Clone(t.Through)
			d.Inference.Tool = &t
			for i := range t.Through {
				list = append(list, &t.Through[i])
			}
			list = append(list, &d.Inference.Tool.Params, &d.Inference.Tool.Result)
		}
	}
	r.texts(list)
}

// texts takes out of texts that belong together: what is in two of them, a half in each, is found too.
func (r *redactor) texts(list []*string) {
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = *s
	}
	found, err := r.classifier.Parts(parts)
	if err != nil {
		r.each(list)
		return
	}
	for len(found) > 0 { // they are in the order of parts and places
		part := found[0].Part
		n := 0
		for n < len(found) && found[n].Part == part {
			n++
		}
		*list[part] = r.replaced(parts[part], found[:n])
		found = found[n:]
	}
}

// each takes out of texts one by one: what can't be judged goes as a whole.
func (r *redactor) each(list []*string) {
	for _, s := range list {
		if found, err := r.classifier.Parts([]string{*s}); err != nil {
			*s = fmt.Sprintf("(%d bytes that can't be looked into)", len(*s))
		} else {
			*s = r.replaced(*s, found)
		}
	}
}

// replaced puts marks into a text. Finds that overlap are one, by the name of the first.
func (r *redactor) replaced(s string, found []classify.Match) string {
	var b strings.Builder
	end := 0
	for _, m := range found {
		if !slices.Contains(r.classes, string(m.Class)) {
			continue
		}
		if m.Start < end {
			end = max(end, m.End)
			continue
		}
		b.WriteString(s[end:m.Start])
		b.WriteString("[" + string(m.Class) + ":" + m.Kind + "]")
		end = m.End
	}
	if end == 0 {
		return s
	}
	b.WriteString(s[end:])
	return b.String()
}
