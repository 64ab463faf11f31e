package dialect

import (
	"fmt"
	"time"
)

// openAIEncoder writes chat.completion.chunk objects: one with the role, the deltas, one with the reason to stop, one with the
// usage if it was asked for, and [DONE].
type openAIEncoder struct {
	*common
	id      string
	created int
	tool    map[int]int    // the index of a block's tool call
	custom  map[int]string // the arguments so far of a tool that takes a text: they come as JSON and go when complete
}

func (e *openAIEncoder) chunk(choices *value) *value {
	return obj("id", e.id, "object", "chat.completion.chunk", "created", e.created, "model", e.model, "choices", choices)
}

func (e *openAIEncoder) put(delta *value) error {
	return e.e.put("", e.chunk(arr(obj("index", 0, "delta", delta, "finish_reason", nothing))).json())
}

func (e *openAIEncoder) delta(d Delta) error {
	if e.note(d) {
		return nil
	}
	switch d.Kind {
	case Started:
		e.id, e.created, e.tool, e.custom = "chatcmpl-"+random(), now(), map[int]int{}, map[int]string{}
		return e.put(obj("role", "assistant", "content", ""))
	case Opened:
		if d.Part == Unknown {
			return Part{Kind: Unknown}.cant()
		}
		if d.Part == ToolCall {
			i := len(e.tool)
			e.tool[d.Block] = i
			if e.e.r.isCustom(d.Name) {
				e.custom[d.Block] = ""
				return e.put(obj("tool_calls", arr(obj("index", i, "id", d.ID, "type", "custom", "custom", obj("name", d.Name, "input", "")))))
			}
			return e.put(obj("tool_calls", arr(obj("index", i, "id", d.ID, "type", "function", "function", obj("name", d.Name, "arguments", "")))))
		}
	case More:
		return e.more(d)
	case Closed:
		if s, ok := e.custom[d.Block]; ok {
			return e.put(obj("tool_calls", arr(obj("index", e.tool[d.Block], "custom", obj("input", customInput(s))))))
		}
	case Ended:
		return e.end()
	}
	return nil
}

// customInput is the text in the arguments of a function that stands for a tool that takes a text.
func customInput(args string) string {
	v, err := parse([]byte(args))
	if err != nil {
		return args
	}
	return v.get("input").str()
}

func (e *openAIEncoder) more(d Delta) error {
	switch d.Part {
	case Thinking:
		return e.put(obj("reasoning_content", d.Said()))
	case Refusal:
		return e.put(obj("refusal", d.Said()))
	case ToolCall:
		if s, ok := e.custom[d.Block]; ok {
			e.custom[d.Block] = s + d.Said()
			return nil
		}
		return e.put(obj("tool_calls", arr(obj("index", e.tool[d.Block], "function", obj("arguments", d.Said())))))
	}
	return e.put(obj("content", d.Said()))
}

func (e *openAIEncoder) end() error {
	t := e.chunk(arr(obj("index", 0, "delta", obj(), "finish_reason", toOpenAIStop[e.reason()])))
	if err := e.e.put("", t.json()); err != nil {
		return err
	}
	if e.e.r.wantUsage {
		if err := e.e.put("", e.chunk(arr()).set("usage", toOpenAIUsage(e.usage)).json()); err != nil {
			return err
		}
	}
	return e.e.put("", "[DONE]")
}

// anthropicEncoder writes message_start, for each block content_block_start, content_block_delta, content_block_stop, then
// message_delta with the reason to stop, and message_stop.
// https://docs.anthropic.com/en/docs/build-with-claude/streaming
type anthropicEncoder struct {
	*common
	index map[int]int // blocks are numbered from 0 without gaps
}

func (e *anthropicEncoder) put(t *value) error { return e.e.put(t.get("type").str(), t.json()) }

func (e *anthropicEncoder) delta(d Delta) error {
	if e.note(d) {
		return nil
	}
	switch d.Kind {
	case Started:
		e.index = map[int]int{}
		m := anthropicMessage(&Answer{Model: e.model}, arr()).set("stop_reason", nothing)
		if err := e.put(obj("type", "message_start", "message", m)); err != nil {
			return err
		}
		return e.put(obj("type", "ping"))
	case Opened:
		var b *value
		switch d.Part {
		case Text, Refusal:
			b = obj("type", "text", "text", "")
		case Thinking:
			b = obj("type", "thinking", "thinking", "", "signature", "")
		case ToolCall:
			b = obj("type", "tool_use", "id", d.ID, "name", d.Name, "input", obj())
		default:
			return Part{Kind: d.Part}.cant()
		}
		e.index[d.Block] = len(e.index)
		return e.put(obj("type", "content_block_start", "index", e.index[d.Block], "content_block", b))
	case More:
		var delta *value
		switch d.Part {
		case Thinking:
			delta = obj("type", "thinking_delta", "thinking", d.Said())
		case ToolCall:
			delta = obj("type", "input_json_delta", "partial_json", d.Said())
		default:
			delta = obj("type", "text_delta", "text", d.Said())
		}
		return e.put(obj("type", "content_block_delta", "index", e.index[d.Block], "delta", delta))
	case Closed:
		return e.put(obj("type", "content_block_stop", "index", e.index[d.Block]))
	case Ended:
		m := anthropicMessage(&Answer{Stop: e.reason(), StopText: e.stopText, Usage: e.usage}, arr())
		if err := e.put(obj("type", "message_delta", "delta", obj("stop_reason", m.get("stop_reason"), "stop_sequence", m.raw("stop_sequence")),
			"usage", m.get("usage"))); err != nil {
			return err
		}
		return e.put(obj("type", "message_stop"))
	}
	return nil
}

// raw is a member even if it's null.
func (v *value) raw(key string) *value {
	for i, k := range v.keys {
		if k == key {
			return v.items[i]
		}
	}
	return nothing
}

// ollamaEncoder writes lines: a delta each, a tool call when its arguments are complete, and the counts in the last.
type ollamaEncoder struct {
	*common
	call map[int]*Part
}

func (e *ollamaEncoder) line(content, thinking string, calls *value) *value {
	t := obj("model", e.model, "created_at", time.Now().UTC().Format(time.RFC3339Nano))
	if e.e.dialect == OllamaGenerate {
		t.set("response", content)
		if thinking != "" {
			t.set("thinking", thinking)
		}
		return t.set("done", false)
	}
	m := obj("role", "assistant", "content", content)
	if thinking != "" {
		m.set("thinking", thinking)
	}
	return t.set("message", m.set("tool_calls", calls)).set("done", false)
}

func (e *ollamaEncoder) delta(d Delta) error {
	if e.note(d) {
		return nil
	}
	switch d.Kind {
	case Started:
		e.call = map[int]*Part{}
	case Opened:
		if d.Part == Unknown || d.Part == ToolCall && e.e.dialect == OllamaGenerate {
			return fmt.Errorf("the answer has %s, and that can't be said in %s", partNames[d.Part], e.e.dialect)
		}
		if d.Part == ToolCall {
			e.call[d.Block] = &Part{Kind: ToolCall, ID: d.ID, Name: d.Name}
		}
	case More:
		switch {
		case d.Part == ToolCall:
			e.call[d.Block].Arguments += d.Said()
		case d.Part == Thinking && d.Said() != "":
			return e.e.put("", e.line("", d.Said(), nil).json())
		case d.Said() != "":
			return e.e.put("", e.line(d.Said(), "", nil).json())
		}
	case Closed:
		if d.Part == ToolCall {
			c, err := ollamaCall(*e.call[d.Block])
			if err != nil {
				return err
			}
			return e.e.put("", e.line("", "", arr(c)).json())
		}
	case Ended:
		t := e.line("", "", nil).set("done", true).set("done_reason", toOllamaStop[e.reason()])
		return e.e.put("", ollamaCounts(t, e.usage, time.Since(e.since)).json())
	}
	return nil
}
