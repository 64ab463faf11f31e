package dialect

import (
	"errors"
	"strings"
)

// OpenAI chat completions, as in openai-node's resources/chat/completions/completions.ts. Servers that are compatible add
// reasoning_content (vLLM, llama.cpp, DeepSeek) or reasoning (OpenRouter, newer vLLM) to messages.

func readOpenAIChat(r *Request, f *fields) error {
	ms := f.take("messages")
	if !ms.is(array) {
		return errors.New("messages is not an array")
	}
	for _, m := range ms.items {
		readOpenAIMessage(r, m)
	}
	r.readOpenAITools(f)
	r.readOpenAISettings(f)
	r.maxTokens = f.take("max_completion_tokens", "max_tokens")
	r.parallel = f.take("parallel_tool_calls")
	r.effort = f.take("reasoning_effort").str()
	if n := f.v.get("n"); n == nil || n.text == "1" {
		f.take("n")
	}
	f.take("top_logprobs")
	if m := f.take("modalities").list(); len(m) > 1 || len(m) == 1 && m[0].str() != "text" {
		r.unsay(`"modalities"`)
	}
	if rf := f.take("response_format"); rf != nil {
		r.readFormat(r.open(rf, "response_format: "), rf.get("json_schema"))
	}
	return nil
}

func (r *Request) readOpenAISettings(f *fields) {
	r.temperature, r.topP = f.take("temperature"), f.take("top_p")
	r.seed, r.presence, r.frequency = f.take("seed"), f.take("presence_penalty"), f.take("frequency_penalty")
	r.stop = stops(f.take("stop"))
	r.wantUsage = f.take("stream_options").get("include_usage").isTrue()
}

// readFormat reads how an answer is to be laid out; s has the schema.
func (r *Request) readFormat(f *fields, s *value) {
	switch t := f.take("type").str(); t {
	case "", "text":
	case "json_object":
		r.format = "json"
	case "json_schema":
		r.format, r.schemaName, r.schema = "schema", s.get("name").str(), s.get("schema")
		f.take("json_schema", "name", "schema", "strict", "description")
	default:
		r.unsay("response format " + nameOf(t))
	}
	f.rest()
}

func stops(v *value) []string {
	if v.is(text) {
		return []string{v.text}
	}
	var out []string
	for _, s := range v.list() {
		out = append(out, s.str())
	}
	return out
}

func readOpenAIMessage(r *Request, v *value) {
	f := r.open(v, "messages: ")
	role := f.take("role").str()
	var m Message
	switch role {
	case "system", "developer":
		m.Role = System
	case "user", "tool":
		m.Role = User
	case "assistant":
		m.Role = Assistant
		if t := f.take("reasoning_content", "reasoning").str(); t != "" {
			m.Parts = append(m.Parts, Part{Kind: Thinking, Text: t})
		}
	default:
		r.unsay("a message with the role " + nameOf(role))
	}
	parts := r.readParts(f.take("content"), "a part", r.readOpenAIPart)
	if role == "tool" {
		parts = []Part{{Kind: ToolResult, ID: f.take("tool_call_id").str(), Name: f.take("name").str(), Parts: parts}}
	}
	m.Parts = append(m.Parts, parts...)
	if t := f.take("refusal").str(); t != "" {
		m.Parts = append(m.Parts, Part{Kind: Refusal, Text: t})
	}
	for _, c := range f.take("tool_calls").list() {
		m.Parts = append(m.Parts, r.readOpenAICall(c))
	}
	r.said(f, m)
}

func (r *Request) readOpenAICall(c *value) Part {
	f := r.open(c, "tool_calls: ")
	p := Part{Kind: ToolCall, ID: f.take("id").str()}
	switch t := f.take("type").str(); t {
	case "", "function":
		fn := f.take("function")
		p.Name, p.Arguments = fn.get("name").str(), fn.get("arguments").str()
	case "custom":
		fn := f.take("custom")
		p.Name, p.Arguments, p.Custom = fn.get("name").str(), fn.get("input").str(), true
	default:
		r.unsay("a tool call of the type " + nameOf(t))
	}
	f.take("index")
	f.rest()
	return p
}

func (r *Request) readOpenAIPart(f *fields) Part {
	switch t := f.take("type").str(); t {
	case "text":
		return Part{Kind: Text, Text: f.take("text").str()}
	case "refusal":
		return Part{Kind: Refusal, Text: f.take("refusal").str()}
	case "image_url":
		return link(Part{Kind: Image}, f.take("image_url").get("url").str())
	case "input_audio":
		a := f.take("input_audio")
		return Part{Kind: Audio, Data: a.get("data").str(), MediaType: "audio/" + a.get("format").str()}
	case "file":
		file := r.open(f.take("file"), "file: ")
		defer file.rest()
		return link(Part{Kind: File, Name: file.take("filename").str()}, file.take("file_data").str())
	default:
		return Part{Kind: Unknown, Type: t}
	}
}

// link puts a URL into a part, one that has the data itself as data.
func link(p Part, u string) Part {
	if rest, ok := strings.CutPrefix(u, "data:"); ok {
		if t, data, ok := strings.Cut(rest, ";base64,"); ok && !strings.Contains(t, ";") {
			p.MediaType, p.Data = t, data
			return p
		}
	}
	p.URL = u
	return p
}

func (p Part) link() string {
	if p.Data != "" {
		return "data:" + p.MediaType + ";base64," + p.Data
	}
	return p.URL
}

func (r *Request) readOpenAITools(f *fields) {
	for _, t := range f.take("tools").list() {
		switch t.get("type").str() {
		case "function":
			r.readFunction(t.get("function"), "parameters")
		case "custom":
			r.readCustom(t.get("custom"))
		default:
			r.unsay("a tool of the type " + nameOf(t.get("type").str()))
		}
	}
	r.readChoice(f.take("tool_choice"))
}

func (r *Request) readFunction(v *value, schema string) {
	f := r.open(v, "tools: ")
	r.Tools = append(r.Tools, Tool{Name: f.take("name").str(), Description: f.take("description").str(), Schema: f.take(schema),
		strict: f.take("strict")})
	f.take("type")
	f.rest()
}

// readCustom reads a tool that takes a text. A grammar of the text is told to those that can't enforce it.
func (r *Request) readCustom(v *value) {
	f := r.open(v, "tools: ")
	t := Tool{Name: f.take("name").str(), Description: f.take("description").str(), Custom: true, Schema: f.take("format")}
	f.take("type")
	f.rest()
	r.Tools = append(r.Tools, t)
}

func (r *Request) readChoice(v *value) {
	if v.is(text) {
		r.choice = v.text
	} else if v != nil {
		r.choice = v.get("type").str()
		r.choiceTool = v.get("name").str()
		for _, k := range []string{"function", "custom"} {
			if n := v.get(k, "name").str(); n != "" {
				r.choiceTool = n
			}
		}
	}
	switch r.choice {
	case "", "auto", "none", "required":
	case "any":
		r.choice = "required"
	case "tool", "function", "custom":
		r.choice = "tool"
	default:
		r.unsay("the tool choice " + nameOf(r.choice))
	}
}
