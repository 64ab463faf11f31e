package dialect

import (
	"errors"
	"fmt"
	"strings"
)

// The stream of OpenAI responses: https://platform.openai.com/docs/api-reference/responses-streaming and, for what a client
// insists on, openai-node's internal/responses/response-accumulator.ts.

// responsesDecoder reads response.* events.
type responsesDecoder struct {
	n    int
	open map[string]Delta // by place: what was opened
	said map[string]bool  // by place: whether it had text
	call bool
}

// place is which block an event is about.
func place(t *value) string {
	return fmt.Sprintf("%d/%d/%d", t.get("output_index").int(), t.get("content_index").int(), t.get("summary_index").int())
}

// The deltas of the events that carry text, and of those that end it.
var (
	responsesText = map[string]PartKind{"response.output_text": Text, "response.refusal": Refusal,
		"response.reasoning_summary_text": Thinking, "response.reasoning_text": Thinking,
		"response.function_call_arguments": ToolCall, "response.custom_tool_call_input": CustomCall}
	responsesItems = map[string]PartKind{"function_call": ToolCall, "custom_tool_call": CustomCall}
)

func (d *responsesDecoder) event(_ string, t *value) ([]Delta, error) {
	kind := t.get("type").str()
	switch kind {
	case "response.created":
		d.open, d.said = map[string]Delta{}, map[string]bool{}
		return []Delta{{Kind: Started, ID: t.get("response", "id").str(), Model: t.get("response", "model").str()}}, nil
	case "error":
		return []Delta{{Kind: Failed, Message: t.get("message").str() + t.get("error", "message").str()}}, nil
	case "response.failed", "response.cancelled":
		return []Delta{{Kind: Failed, Message: t.get("response", "error", "message").str()}}, nil
	}
	if d.open == nil {
		return nil, nil // response.queued
	}
	switch kind {
	case "response.output_item.added":
		item := t.get("item")
		part, ok := responsesItems[item.get("type").str()]
		if ok {
			d.call = true
			return d.start(t, Delta{Part: part, ID: item.get("call_id").str(),
				Name: inNamespace(item.get("namespace").str(), item.get("name").str())}), nil
		}
		if k := item.get("type").str(); k != "message" && k != "reasoning" {
			return d.start(t, Delta{Part: Unknown}), nil
		}
	case "response.output_item.done":
		return d.close(place(t)), nil
	case "response.completed", "response.incomplete":
		r := t.get("response")
		var out []Delta
		for p := range d.open {
			out = append(out, d.close(p)...)
		}
		stop := responsesStop(r)
		if d.call && stop == StopEnd {
			stop = StopTools
		}
		return append(out, Delta{Kind: Finished, Stop: stop}, Delta{Kind: Counted, Usage: responsesUsage(r.get("usage"))},
			Delta{Kind: Ended}), nil
	}
	if k, ok := strings.CutSuffix(kind, ".delta"); ok && responsesText[k] != 0 {
		return d.more(t, responsesText[k], t.get("delta")), nil
	}
	if k, ok := strings.CutSuffix(kind, ".done"); ok && responsesText[k] != 0 {
		p := place(t)
		if !d.said[p] { // a server that sends it all at once
			for _, key := range []string{"text", "refusal", "arguments", "input"} {
				if x := t.get(key); x.is(text) && x.text != "" {
					return append(d.more(t, responsesText[k], x), d.close(p)...), nil
				}
			}
		}
		return d.close(p), nil
	}
	return nil, nil
}

func (d *responsesDecoder) start(t *value, opened Delta) []Delta {
	opened.Kind, opened.Block = Opened, d.n
	d.n++
	d.open[place(t)] = opened
	return []Delta{opened}
}

func (d *responsesDecoder) more(t *value, part PartKind, x *value) []Delta {
	if !x.is(text) {
		return nil
	}
	var out []Delta
	p := place(t)
	if _, ok := d.open[p]; !ok {
		out = d.start(t, Delta{Part: part})
	}
	d.said[p] = true
	return append(out, Delta{Kind: More, Block: d.open[p].Block, Part: part, Text: &x.text})
}

func (d *responsesDecoder) close(p string) []Delta {
	o, ok := d.open[p]
	if !ok {
		return nil
	}
	delete(d.open, p)
	return []Delta{{Kind: Closed, Block: o.Block, Part: o.Part}}
}

func (d *responsesDecoder) end() ([]Delta, error) { return nil, errEarly }

// responsesEncoder writes response.* events. It keeps what was said, since the last event says all of it again.
type responsesEncoder struct {
	*common
	response *value
	items    *value
	open     map[int]*item
	sequence int
	size     int
}

type item struct {
	p     Part
	v     *value
	index int
	text  strings.Builder
}

func (e *responsesEncoder) put(kind string, pairs ...any) error {
	t := obj("type", kind, "sequence_number", e.sequence)
	for i := 0; i+1 < len(pairs); i += 2 {
		t.set(pairs[i].(string), pairs[i+1])
	}
	e.sequence++
	return e.e.put(kind, t.json())
}

func (e *responsesEncoder) delta(d Delta) error {
	if e.note(d) {
		return nil
	}
	switch d.Kind {
	case Started:
		e.response, e.items, e.open = responseOf(e.e.r, "resp_"+random(), e.model, now()), arr(), map[int]*item{}
		if err := e.put("response.created", "response", e.response); err != nil {
			return err
		}
		return e.put("response.in_progress", "response", e.response)
	case Opened:
		return e.opened(d)
	case More:
		return e.more(d)
	case Closed:
		return e.closed(d)
	case Ended:
		finishResponse(e.response, e.items, e.stop, e.usage)
		return e.put("response."+e.response.get("status").str(), "response", e.response)
	}
	return nil
}

func (e *responsesEncoder) opened(d Delta) error {
	p := Part{Kind: d.Part, ID: d.ID, Name: d.Name, Custom: d.Part == ToolCall && e.e.r.isCustom(d.Name)}
	v, err := outputItem(p, "in_progress")
	if err != nil {
		return err
	}
	e.e.r.splitName(v)
	i := &item{p: p, v: v, index: len(e.items.items)}
	e.open[d.Block] = i
	e.items.add(v)
	empty := v.clone()
	for _, k := range []string{"content", "summary"} {
		if empty.get(k) != nil {
			empty.set(k, arr())
		}
	}
	if err := e.put("response.output_item.added", "output_index", i.index, "item", empty); err != nil {
		return err
	}
	switch p.Kind {
	case Text, Refusal:
		return e.about(i, "response.content_part.added", "content_index", 0, "part", v.get("content").items[0])
	case Thinking:
		return e.about(i, "response.reasoning_summary_part.added", "summary_index", 0, "part", v.get("summary").items[0])
	}
	return nil
}

// about writes an event that is about an item.
func (e *responsesEncoder) about(i *item, kind string, pairs ...any) error {
	return e.put(kind, append([]any{"item_id", i.v.get("id"), "output_index", i.index}, pairs...)...)
}

func (e *responsesEncoder) more(d Delta) error {
	i, s := e.open[d.Block], d.Said()
	if e.size += len(s); e.size > maxEvent {
		return errors.New("the answer is too long to be said once more at its end")
	}
	i.text.WriteString(s)
	switch {
	case i.p.Custom: // comes as JSON, goes as text when it's complete
		return nil
	case i.p.Kind == Text:
		return e.about(i, "response.output_text.delta", "content_index", 0, "delta", s, "logprobs", arr())
	case i.p.Kind == Refusal:
		return e.about(i, "response.refusal.delta", "content_index", 0, "delta", s)
	case i.p.Kind == Thinking:
		return e.about(i, "response.reasoning_summary_text.delta", "summary_index", 0, "delta", s)
	}
	return e.about(i, "response.function_call_arguments.delta", "delta", s)
}

func (e *responsesEncoder) closed(d Delta) error {
	i := e.open[d.Block]
	delete(e.open, d.Block)
	s := i.text.String()
	var err error
	put := func(kind string, pairs ...any) {
		if err == nil {
			err = e.about(i, kind, pairs...)
		}
	}
	switch i.p.Kind {
	case Text:
		part := outputText(s)
		i.v.set("content", arr(part)).set("status", "completed")
		put("response.output_text.done", "content_index", 0, "text", s, "logprobs", arr())
		put("response.content_part.done", "content_index", 0, "part", part)
	case Refusal:
		part := obj("type", "refusal", "refusal", s)
		i.v.set("content", arr(part)).set("status", "completed")
		put("response.refusal.done", "content_index", 0, "refusal", s)
		put("response.content_part.done", "content_index", 0, "part", part)
	case Thinking:
		part := obj("type", "summary_text", "text", s)
		i.v.set("summary", arr(part))
		put("response.reasoning_summary_text.done", "summary_index", 0, "text", s)
		put("response.reasoning_summary_part.done", "summary_index", 0, "part", part)
	case ToolCall:
		i.v.set("status", "completed")
		if i.p.Custom {
			s = customInput(s)
			i.v.set("input", s)
			put("response.custom_tool_call_input.delta", "delta", s)
			put("response.custom_tool_call_input.done", "input", s)
			break
		}
		if s == "" {
			s = "{}"
		}
		i.v.set("arguments", s)
		put("response.function_call_arguments.done", "name", i.v.get("name"), "arguments", s)
	}
	if err != nil {
		return err
	}
	return e.put("response.output_item.done", "output_index", i.index, "item", i.v)
}
