package dialect

import (
	"errors"
	"fmt"
)

// openAIDecoder reads chat.completion.chunk objects, and text_completion ones.
type openAIDecoder struct {
	blocks
	finished bool
	calls    map[string]int // by choice: the highest index of a tool call
}

func (d *openAIDecoder) event(_ string, t *value) ([]Delta, error) {
	if e := t.get("error"); e != nil {
		return []Delta{{Kind: Failed, Message: e.get("message").str()}}, nil
	}
	var out []Delta
	if !d.started {
		d.started = true
		out = append(out, Delta{Kind: Started, ID: t.get("id").str(), Model: t.get("model").str()})
	}
	for _, c := range t.get("choices").list() {
		choice := fmt.Sprintf("%d:", c.get("index").int())
		deltas, err := d.choice(choice, c.get("delta"))
		if err != nil {
			return nil, err
		}
		out = append(out, deltas...)
		if x := c.get("text"); x.is(text) && x.text != "" { // of the elder
			out = append(out, d.more(choice, "content", Delta{Part: Text}, Delta{Text: &x.text})...)
		}
		if f := c.get("finish_reason").str(); f != "" {
			out = append(out, d.closeAll(choice)...)
			out = append(out, Delta{Kind: Finished, Stop: openAIStops[f]})
			d.finished = true
		}
	}
	if u := t.get("usage"); u != nil {
		out = append(out, Delta{Kind: Counted, Usage: openAIUsage(u)})
	}
	return out, nil
}

func (d *openAIDecoder) choice(choice string, v *value) ([]Delta, error) {
	var out []Delta
	for _, key := range []string{"reasoning_content", "reasoning"} { // some send both
		if x := v.get(key); x.is(text) && x.text != "" {
			out = append(out, d.more(choice, "reasoning", Delta{Part: Thinking}, Delta{Text: &x.text})...)
			break
		}
	}
	if x := v.get("content"); x.is(text) && x.text != "" {
		out = append(out, d.more(choice, "content", Delta{Part: Text}, Delta{Text: &x.text})...)
	}
	if x := v.get("refusal"); x.is(text) && x.text != "" {
		out = append(out, d.more(choice, "refusal", Delta{Part: Refusal}, Delta{Text: &x.text})...)
	}
	for _, c := range v.get("tool_calls").list() {
		i := c.get("index").int()
		key := fmt.Sprintf("tool %d", i)
		fn := c.get("function")
		if d.calls == nil {
			d.calls = map[string]int{}
		}
		if n, ok := d.calls[choice]; ok && i < n {
			return nil, errors.New("the stream goes back to a tool call that it has left")
		}
		d.calls[choice] = i
		more := Delta{}
		args := fn.get("arguments")
		part := ToolCall
		if k := c.get("custom"); k != nil {
			fn, args, part = k, k.get("input"), CustomCall
		}
		if args.is(text) && args.text != "" {
			more.Text = &args.text
		}
		opened := Delta{Part: part, ID: c.get("id").str(), Name: fn.get("name").str()}
		if opened.ID == "" {
			opened.ID = newCallID()
		}
		deltas := d.more(choice, key, opened, more)
		if len(deltas) == 1 && deltas[0].Kind == More && deltas[0].Text == nil {
			deltas = nil
		}
		out = append(out, deltas...)
	}
	return out, nil
}

func (d *openAIDecoder) end() ([]Delta, error) {
	if !d.finished {
		return nil, errEarly
	}
	return []Delta{{Kind: Ended}}, nil
}

// anthropicDecoder reads message_start, content_block_start, ... events.
type anthropicDecoder struct {
	usage Usage
	parts map[int]PartKind
}

func (d *anthropicDecoder) event(_ string, t *value) ([]Delta, error) {
	i := t.get("index").int()
	switch t.get("type").str() {
	case "message_start":
		m := t.get("message")
		d.usage, d.parts = anthropicUsage(m.get("usage")), map[int]PartKind{}
		return []Delta{{Kind: Started, ID: m.get("id").str(), Model: m.get("model").str()}, {Kind: Counted, Usage: d.usage}}, nil
	case "content_block_start":
		return d.start(i, t.get("content_block"))
	case "content_block_delta":
		part, ok := d.parts[i]
		if !ok {
			return nil, errors.New("the stream has text for a block that isn't open")
		}
		delta := t.get("delta")
		for _, k := range []string{"text", "partial_json", "thinking"} {
			if x := delta.get(k); x.is(text) {
				return []Delta{{Kind: More, Block: i, Part: part, Text: &x.text}}, nil
			}
		}
	case "content_block_stop":
		part, ok := d.parts[i]
		if !ok {
			return nil, errors.New("the stream closes a block that isn't open")
		}
		delete(d.parts, i)
		return []Delta{{Kind: Closed, Block: i, Part: part}}, nil
	case "message_delta":
		u := anthropicUsage(t.get("usage"))
		d.usage.Output, d.usage.Reasoning = u.Output, u.Reasoning
		if u.Input > 0 {
			d.usage.Input, d.usage.Cached = u.Input, u.Cached
		}
		out := []Delta{{Kind: Counted, Usage: d.usage}}
		if s := t.get("delta", "stop_reason").str(); s != "" {
			out = append(out, Delta{Kind: Finished, Stop: anthropicStops[s], StopText: t.get("delta", "stop_sequence").str()})
		}
		return out, nil
	case "message_stop":
		return []Delta{{Kind: Ended}}, nil
	case "error":
		return []Delta{{Kind: Failed, Message: t.get("error", "message").str()}}, nil
	}
	return nil, nil // ping, and what is yet to come
}

var anthropicParts = map[string]PartKind{"text": Text, "thinking": Thinking, "redacted_thinking": Thinking, "tool_use": ToolCall}

func (d *anthropicDecoder) start(i int, b *value) ([]Delta, error) {
	if d.parts == nil {
		return nil, errors.New("the stream has a block before it has started")
	}
	if _, ok := d.parts[i]; ok {
		return nil, errors.New("the stream opens a block that is open")
	}
	part, ok := anthropicParts[b.get("type").str()]
	if !ok {
		part = Unknown
	}
	d.parts[i] = part
	out := []Delta{{Kind: Opened, Block: i, Part: part, ID: b.get("id").str(), Name: b.get("name").str()}}
	for _, k := range []string{"text", "thinking"} {
		if x := b.get(k); x.is(text) && x.text != "" {
			out = append(out, Delta{Kind: More, Block: i, Part: part, Text: &x.text})
		}
	}
	if in := b.get("input"); in.is(object) && len(in.keys) > 0 {
		out = append(out, Delta{Kind: More, Block: i, Part: part, whole: in})
	}
	return out, nil
}

func (d *anthropicDecoder) end() ([]Delta, error) { return nil, errEarly }

// ollamaDecoder reads the lines of /api/chat and /api/generate.
type ollamaDecoder struct {
	blocks
	calls int
}

func (d *ollamaDecoder) event(_ string, t *value) ([]Delta, error) {
	if e := t.get("error"); e != nil {
		return []Delta{{Kind: Failed, Message: e.str()}}, nil
	}
	var out []Delta
	if !d.started {
		d.started = true
		out = append(out, Delta{Kind: Started, Model: t.get("model").str()})
	}
	m := t.get("message")
	if m == nil {
		m = t
	}
	if x := m.get("thinking"); x.is(text) && x.text != "" {
		out = append(out, d.more("", "thinking", Delta{Part: Thinking}, Delta{Text: &x.text})...)
	}
	for _, k := range []string{"content", "response"} {
		if x := m.get(k); x.is(text) && x.text != "" {
			out = append(out, d.more("", "text", Delta{Part: Text}, Delta{Text: &x.text})...)
		}
	}
	for _, c := range m.get("tool_calls").list() {
		d.calls++
		id := c.get("id").str()
		if id == "" {
			id = newCallID()
		}
		args := c.get("function", "arguments")
		if args == nil {
			args = obj()
		}
		out = append(out, d.more("", fmt.Sprintf("tool %d", d.calls), Delta{Part: ToolCall, ID: id, Name: c.get("function", "name").str()},
			Delta{whole: args})...)
	}
	if t.get("done").isTrue() {
		out = append(out, d.closeAll("")...)
		stop := ollamaStop(t)
		if d.calls > 0 && stop == StopEnd {
			stop = StopTools
		}
		out = append(out, Delta{Kind: Finished, Stop: stop}, Delta{Kind: Counted, Usage: ollamaUsage(t)}, Delta{Kind: Ended})
	}
	return out, nil
}

func (d *ollamaDecoder) end() ([]Delta, error) { return nil, errEarly }
