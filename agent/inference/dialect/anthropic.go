package dialect

import (
	"errors"
	"strings"
)

// Anthropic messages, as in anthropic-sdk-typescript's resources/messages/messages.ts.

// defaultMaxTokens is for requests that name no limit: Anthropic wants one, and all its models allow this; those since Claude 4
// allow more, and an agent's answer may be a whole file.
func defaultMaxTokens(model string) int {
	if strings.HasPrefix(model, "claude-") && !strings.HasPrefix(model, "claude-3") {
		return 32000
	}
	return 4096
}

func readAnthropic(r *Request, f *fields) error {
	ms := f.take("messages")
	if !ms.is(array) {
		return errors.New("messages is not an array")
	}
	r.System = r.readBlocks(f.take("system"))
	r.Messages = make([]Message, 0, len(ms.items))
	for _, m := range ms.items {
		mf := r.open(m, "messages: ")
		role := mf.take("role").str()
		if role != "user" && role != "assistant" && role != "system" {
			r.unsay("a message with the role " + nameOf(role))
		}
		r.Messages = append(r.Messages, Message{Role: Role(role), Parts: r.readBlocks(mf.take("content"))})
		of := r.open(mf.take("output_config"), "output_config: ")
		of.take("effort") // a hint, from this message on; that of the request is handed on
		of.rest()
		mf.rest()
	}
	r.nameResults()
	for _, t := range f.take("tools").list() {
		if k := t.get("type").str(); k != "" && k != "custom" {
			r.unsay("a tool of the type " + nameOf(k))
			continue
		}
		r.readFunction(t, "input_schema")
	}
	c := f.take("tool_choice")
	r.readChoice(c)
	if c.get("disable_parallel_tool_use").isTrue() {
		r.parallel = boolv(false)
	}
	r.maxTokens, r.temperature, r.topP, r.topK = f.take("max_tokens"), f.take("temperature"), f.take("top_p"), f.take("top_k")
	r.stop = stops(f.take("stop_sequences"))
	// How much a model may think is a hint. Only an effort is handed on: a budget would have to be guessed into one.
	if f.take("thinking").get("type").str() == "disabled" {
		r.effort = "none"
	}
	if o := f.take("output_config"); o != nil {
		of := r.open(o, "output_config: ")
		if e := of.take("effort").str(); e != "" {
			r.effort = e
		}
		if s := of.take("format"); s != nil {
			r.readFormat(r.open(s, "output_config: "), s)
		}
		of.rest()
	}
	if f.v.get("container") == nil {
		f.take("container")
	}
	// Claude Code's beta request of what the server may forget of the history: an optimisation of Anthropic's own.
	f.take("context_management")
	return nil
}

func (r *Request) readBlocks(v *value) []Part { return r.readParts(v, "a block", r.readBlock) }

func (r *Request) readBlock(f *fields) Part {
	switch t := f.take("type").str(); t {
	case "text":
		return Part{Kind: Text, Text: f.take("text").str()}
	case "thinking":
		return Part{Kind: Thinking, Text: f.take("thinking").str(), Signature: f.take("signature").str()}
	case "redacted_thinking":
		return Part{Kind: Thinking, Signature: f.take("data").str()}
	case "tool_use":
		in := f.take("input")
		if in == nil {
			in = obj()
		}
		return Part{Kind: ToolCall, ID: f.take("id").str(), Name: f.take("name").str(), Arguments: in.json()}
	case "tool_result":
		return Part{Kind: ToolResult, ID: f.take("tool_use_id").str(), Failed: f.take("is_error").isTrue(),
			Parts: r.readBlocks(f.take("content"))}
	case "image":
		return r.readSource(f, Part{Kind: Image})
	case "document":
		return r.readSource(f, Part{Kind: File, Name: f.take("title").str()})
	default:
		return Part{Kind: Unknown, Type: t}
	}
}

func (r *Request) readSource(f *fields, p Part) Part {
	s := r.open(f.take("source"), "source: ")
	switch t := s.take("type").str(); t {
	case "base64":
		p.Data, p.MediaType = s.take("data").str(), s.take("media_type").str()
	case "url":
		p.URL = s.take("url").str()
	case "text":
		p.Text = s.take("data").str()
		s.take("media_type")
	default:
		return Part{Kind: Unknown, Type: t}
	}
	s.rest()
	return p
}

func writeAnthropic(r *Request) (*value, error) {
	t := obj("model", r.Model)
	// What the system says later in a conversation goes to the front: that is where Anthropic's models take it.
	system := r.System
	ms := arr()
	for _, m := range r.Messages {
		if m.Role == System {
			system = append(system[:len(system):len(system)], m.Parts...)
			continue
		}
		blocks, err := anthropicBlocks(m)
		if err != nil {
			return nil, err
		}
		if len(blocks) == 0 {
			continue
		}
		// Speakers take turns: the results of parallel calls come as messages of their own elsewhere.
		if n := len(ms.items); n > 0 && ms.items[n-1].get("role").str() == string(m.Role) {
			ms.items[n-1].get("content").add(blocks...)
			continue
		}
		ms.add(obj("role", string(m.Role), "content", arr(blocks...)))
	}
	s, err := plain(system)
	if err != nil {
		return nil, err
	}
	if s != "" {
		t.set("system", s)
	}
	t.set("messages", ms)
	if t.set("max_tokens", r.maxTokens); r.maxTokens == nil {
		t.set("max_tokens", defaultMaxTokens(r.Model))
	}
	if r.Stream {
		t.set("stream", true)
	}
	t.set("temperature", r.temperature).set("top_p", r.topP).set("top_k", r.topK)
	if err := r.noPenalties(); err != nil {
		return nil, err
	}
	t.set("stop_sequences", texts(r.stop))
	if err := r.anthropicOutput(t); err != nil {
		return nil, err
	}
	r.anthropicTools(t)
	return t, nil
}

func (r *Request) noPenalties() error {
	for _, p := range []*value{r.presence, r.frequency} {
		if p != nil && strings.Trim(p.text, "0.-") != "" {
			return has("a presence or frequency penalty")
		}
	}
	return nil
}

func (r *Request) anthropicOutput(t *value) error {
	// An effort is a hint, and older models refuse it; not to think it may say to any.
	if r.effort == "none" {
		t.set("thinking", obj("type", "disabled"))
	}
	switch r.format {
	case "json":
		return has("an answer in JSON without a schema")
	case "schema":
		t.set("output_config", obj("format", obj("type", "json_schema", "schema", r.schema)))
	}
	return nil
}

func (r *Request) anthropicTools(t *value) {
	if len(r.Tools) == 0 {
		return
	}
	l := arr()
	for _, x := range r.Tools {
		l.add(x.function("input_schema"))
	}
	t.set("tools", l)
	c := obj()
	switch r.choice {
	case "auto", "none":
		c.set("type", r.choice)
	case "required":
		c.set("type", "any")
	case "tool":
		c.set("type", "tool").set("name", r.choiceTool)
	}
	if r.parallel.is(boolean) && !r.parallel.isTrue() && r.choice != "none" {
		if len(c.keys) == 0 {
			c.set("type", "auto")
		}
		c.set("disable_parallel_tool_use", true)
	}
	if len(c.keys) > 0 {
		t.set("tool_choice", c)
	}
}

// anthropicBlocks are the blocks of a message, what tools gave first: nothing may stand between a call and its result.
func anthropicBlocks(m Message) ([]*value, error) {
	var results, rest []*value
	for _, p := range m.Parts {
		if p.Kind == Thinking { // its signature is its maker's
			continue
		}
		if (p.Kind == Text || p.Kind == Refusal) && p.Text == "" { // Anthropic refuses empty blocks
			continue
		}
		b, err := anthropicBlock(p)
		if err != nil {
			return nil, err
		}
		if p.Kind == ToolResult {
			results = append(results, b)
		} else {
			rest = append(rest, b)
		}
	}
	return append(results, rest...), nil
}

func anthropicBlock(p Part) (*value, error) {
	switch p.Kind {
	case Text, Refusal:
		return obj("type", "text", "text", p.Text), nil
	case ToolCall:
		in, err := p.argumentsObject()
		return obj("type", "tool_use", "id", p.ID, "name", p.Name, "input", in), err
	case ToolResult:
		blocks, err := anthropicBlocks(Message{Parts: p.Parts})
		b := obj("type", "tool_result", "tool_use_id", p.ID)
		if len(blocks) > 0 {
			b.set("content", arr(blocks...))
		}
		if p.Failed {
			b.set("is_error", true)
		}
		return b, err
	case Image:
		return obj("type", "image", "source", p.anthropicSource()), nil
	case File:
		b := obj("type", "document", "source", p.anthropicSource())
		if p.Name != "" {
			b.set("title", p.Name)
		}
		return b, nil
	}
	return nil, p.cant()
}

func (p Part) anthropicSource() *value {
	switch {
	case p.Data != "":
		return obj("type", "base64", "media_type", p.MediaType, "data", p.Data)
	case p.URL != "":
		return obj("type", "url", "url", p.URL)
	}
	return obj("type", "text", "media_type", "text/plain", "data", p.Text)
}
