package dialect

import (
	"errors"
	"fmt"
	"strings"
)

func writeOpenAIChat(r *Request) (*value, error) {
	ms := arr()
	if err := r.writeSystem(ms); err != nil {
		return nil, err
	}
	for _, m := range r.Messages {
		if err := writeOpenAIMessage(ms, m); err != nil {
			return nil, err
		}
	}
	t := obj("model", r.Model, "messages", ms)
	if r.Stream {
		t.set("stream", true)
		askUsage(t)
	}
	limit := "max_tokens"
	if thinks(r.Model) {
		limit = "max_completion_tokens"
	}
	t.set(limit, r.maxTokens).set("temperature", r.temperature).set("top_p", r.topP).set("seed", r.seed)
	t.set("presence_penalty", r.presence).set("frequency_penalty", r.frequency)
	if r.topK != nil {
		return nil, has("top_k")
	}
	t.set("stop", texts(r.stop))
	if e := r.openAIEffort(); e != "" {
		t.set("reasoning_effort", e)
	}
	switch r.format {
	case "json":
		t.set("response_format", obj("type", "json_object"))
	case "schema":
		t.set("response_format", obj("type", "json_schema", "json_schema", obj("name", r.nameSchema(), "schema", r.schema)))
	}
	if len(r.Tools) > 0 {
		ts := arr()
		for _, x := range r.Tools {
			ts.add(obj("type", "function", "function", x.function("parameters")))
		}
		t.set("tools", ts).set("parallel_tool_calls", r.parallel)
		switch r.choice {
		case "":
		case "tool":
			t.set("tool_choice", obj("type", "function", "function", obj("name", r.choiceTool)))
		default:
			t.set("tool_choice", r.choice)
		}
	}
	return t, nil
}

// writeSystem puts what the system says first.
func (r *Request) writeSystem(ms *value) error {
	s, err := plain(r.System)
	if s != "" {
		ms.add(obj("role", "system", "content", s))
	}
	return err
}

// thinks knows the models of OpenAI's own that want max_completion_tokens and take an effort; others, and compatible servers,
// know max_tokens and may refuse an effort.
func thinks(model string) bool {
	model = model[strings.LastIndexByte(model, '/')+1:]
	for _, p := range []string{"o1", "o3", "o4", "gpt-5", "gpt-6"} {
		if strings.HasPrefix(model, p) {
			return true
		}
	}
	return false
}

// openAIEffort is the effort in OpenAI's words, "" for a model that might refuse it: it is a hint.
func (r *Request) openAIEffort() string {
	switch {
	case !thinks(r.Model), r.effort == "none":
		return ""
	case r.effort == "max", r.effort == "xhigh":
		return "high"
	}
	return r.effort
}

func (r *Request) nameSchema() string {
	if r.schemaName != "" {
		return r.schemaName
	}
	return "answer"
}

// askUsage asks for the usage at the end of a stream: the budgets need it. The encoder leaves it out again for who didn't ask.
func askUsage(t *value) {
	o := obj()
	if old := t.get("stream_options"); old.is(object) {
		o = old.shallow()
	}
	t.set("stream_options", o.set("include_usage", true))
}

// function is a tool as a function; one that takes a text has it as its argument "input".
func (t Tool) function(schema string) *value {
	v := obj("name", t.Name)
	d := t.Description
	if t.Custom {
		if def := t.Schema.get("definition").str() + t.Schema.get("grammar", "definition").str(); def != "" {
			d += "\n\nThe input follows this grammar:\n" + def
		}
		return v.set("description", d).set(schema, obj("type", "object", "properties", obj("input", obj("type", "string")),
			"required", arr(str("input"))))
	}
	if d != "" {
		v.set("description", d)
	}
	s := t.Schema
	if s == nil {
		s = obj("type", "object", "properties", obj())
	}
	return v.set(schema, s)
}

// arguments are those of a call as JSON text.
func (p Part) arguments() string {
	if p.Custom {
		return obj("input", p.Arguments).json()
	}
	if strings.TrimSpace(p.Arguments) == "" {
		return "{}"
	}
	return p.Arguments
}

// argumentsObject are those of a call for the dialects that have them as an object.
func (p Part) argumentsObject() (*value, error) {
	v, err := parse([]byte(p.arguments()))
	if err != nil || v.kind != object {
		return nil, errors.New("the request has a tool call whose arguments are not a JSON object")
	}
	return v, nil
}

func writeOpenAIMessage(ms *value, m Message) error {
	var calls, content []*value
	var after []*value // what a result has beside text, said by the user: a message of a tool has text only
	for _, p := range m.Parts {
		switch p.Kind {
		case Thinking: // of no use to anybody but its maker
		case ToolCall:
			calls = append(calls, obj("id", p.ID, "type", "function", "function", obj("name", p.Name, "arguments", p.arguments())))
		case ToolResult:
			s, others := p.result()
			for _, q := range others {
				v, err := openAIPart(q)
				if err != nil {
					return err
				}
				after = append(after, v)
			}
			ms.add(obj("role", "tool", "tool_call_id", p.ID, "content", failed(p, s)))
		default:
			v, err := openAIPart(p)
			if err != nil {
				return err
			}
			content = append(content, v)
		}
	}
	content = append(after, content...)
	if len(content) == 0 && len(calls) == 0 {
		return nil
	}
	v := obj("role", string(m.Role), "content", nothing)
	if len(content) > 0 {
		v.set("content", joinTexts(content))
	}
	if len(calls) > 0 {
		v.set("tool_calls", arr(calls...))
	}
	ms.add(v)
	return nil
}

// result is what a tool gave as one text, and what isn't text.
func (p Part) result() (words string, others []Part) {
	var b []string
	for _, q := range p.Parts {
		if q.Kind == Text {
			b = append(b, q.Text)
		} else {
			others = append(others, q)
		}
	}
	return strings.Join(b, "\n"), others
}

// failed is the text of a result for the dialects that can't mark one as failed.
func failed(p Part, s string) string {
	if p.Failed {
		return "The tool failed: " + s
	}
	return s
}

// joinTexts is content as one string if it's only text, which every server understands.
func joinTexts(parts []*value) *value {
	var words []string
	for _, p := range parts {
		if p.get("type").str() != "text" {
			return arr(parts...)
		}
		words = append(words, p.get("text").str())
	}
	return str(strings.Join(words, "\n"))
}

func openAIPart(p Part) (*value, error) {
	switch p.Kind {
	case Text, Refusal:
		return obj("type", "text", "text", p.Text), nil
	case Image:
		return obj("type", "image_url", "image_url", obj("url", p.link())), nil
	case Audio:
		return obj("type", "input_audio", "input_audio", obj("data", p.Data, "format", strings.TrimPrefix(p.MediaType, "audio/"))), nil
	case File:
		if p.Data == "" && p.URL == "" {
			return obj("type", "text", "text", p.fileText()), nil
		}
		if p.Data != "" {
			name := p.Name
			if name == "" {
				name = "document"
			}
			return obj("type", "file", "file", obj("filename", name, "file_data", p.link())), nil
		}
		return nil, has("a file by its URL")
	}
	return nil, p.cant()
}

// fileText is a file of text, for the dialects that don't have those.
func (p Part) fileText() string {
	if p.Name == "" {
		return p.Text
	}
	return p.Name + ":\n" + p.Text
}

var partNames = map[PartKind]string{Image: "an image", Audio: "audio", File: "a file", ToolCall: "a tool call",
	ToolResult: "a tool result", Thinking: "thinking", Refusal: "a refusal", Unknown: "an unknown part", Text: "text"}

func (p Part) cant() error { return has("%s", partNames[p.Kind]) }

// plain is parts that are only text as one.
func plain(parts []Part) (string, error) {
	var b []string
	for _, p := range parts {
		switch p.Kind {
		case Text, Refusal:
			b = append(b, p.Text)
		case File:
			if p.Data != "" || p.URL != "" {
				return "", fmt.Errorf("%w where only text goes", p.cant())
			}
			b = append(b, p.fileText())
		default:
			return "", fmt.Errorf("%w where only text goes", p.cant())
		}
	}
	return strings.Join(b, "\n"), nil
}
