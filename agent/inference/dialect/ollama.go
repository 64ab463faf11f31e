package dialect

import "errors"

// Ollama's own API, as in ollama-js's src/interfaces.ts and ollama's api/types.go.

// Options of Ollama's that say how its runner works, not what it answers, are in harmless.

func readOllamaChat(r *Request, f *fields) error {
	ms := f.take("messages")
	if ms != nil && ms.kind != array {
		return errors.New("messages is not an array")
	}
	for _, m := range ms.list() {
		readOllamaMessage(r, m)
	}
	r.pairCalls()
	r.readOpenAITools(f)
	r.readOllamaSettings(f)
	return nil
}

func (r *Request) readOllamaSettings(f *fields) {
	o := r.open(f.take("options"), "options: ")
	r.maxTokens, r.temperature, r.topP, r.topK = o.take("num_predict"), o.take("temperature"), o.take("top_p"), o.take("top_k")
	if r.maxTokens.int() < 0 { // -1 and -2 are no limit
		r.maxTokens = nil
	}
	r.seed, r.presence, r.frequency = o.take("seed"), o.take("presence_penalty"), o.take("frequency_penalty")
	r.stop = stops(o.take("stop"))
	o.rest()
	switch t := f.take("think"); {
	case t.is(text):
		r.effort = t.text
	case t.is(boolean) && !t.isTrue():
		r.effort = "none"
	}
	switch v := f.take("format"); {
	case v.is(text) && v.text == "json":
		r.format = "json"
	case v.is(object):
		r.format, r.schema = "schema", v
	case v.is(text) && v.text == "":
	case v != nil:
		r.unsay("an unknown format")
	}
	f.take("top_logprobs")
}

func readOllamaMessage(r *Request, v *value) {
	f := r.open(v, "messages: ")
	role := f.take("role").str()
	m := Message{Role: Role(role)}
	if t := f.take("thinking").str(); t != "" {
		m.Parts = append(m.Parts, Part{Kind: Thinking, Text: t})
	}
	var said []Part
	if t := f.take("content").str(); t != "" || role == "tool" {
		said = append(said, Part{Kind: Text, Text: t})
	}
	for _, i := range f.take("images").list() {
		said = append(said, ollamaImage(i))
	}
	switch role {
	case "system", "user", "assistant":
	case "tool":
		m.Role = User
		said = []Part{{Kind: ToolResult, ID: f.take("tool_call_id").str(), Name: f.take("tool_name", "name").str(), Parts: said}}
	default:
		r.unsay("a message with the role " + nameOf(role))
	}
	m.Parts = append(m.Parts, said...)
	for _, c := range f.take("tool_calls").list() {
		m.Parts = append(m.Parts, r.readOllamaCall(c))
	}
	r.said(f, m)
}

func (r *Request) readOllamaCall(c *value) Part {
	f := r.open(c, "tool_calls: ")
	fn := r.open(f.take("function"), "tool_calls: ")
	p := Part{Kind: ToolCall, ID: f.take("id").str(), Name: fn.take("name").str(), Arguments: "{}"}
	if a := fn.take("arguments"); a.is(text) {
		p.Arguments = a.string()
	} else if a != nil {
		p.Arguments = a.json()
	}
	fn.take("index")
	f.take("type", "index")
	fn.rest()
	f.rest()
	return p
}

// ollamaImage is an image of Ollama's: base64 without a type, which its first bytes tell.
func ollamaImage(v *value) Part {
	p := Part{Kind: Image, Data: v.str(), MediaType: "image/png"}
	for start, t := range map[string]string{"/9j/": "image/jpeg", "R0lG": "image/gif", "UklG": "image/webp"} {
		if len(p.Data) > 4 && p.Data[:4] == start {
			p.MediaType = t
		}
	}
	return p
}

func writeOllamaChat(r *Request) (*value, error) {
	r.nameResults()
	ms := arr()
	if err := r.writeSystem(ms); err != nil {
		return nil, err
	}
	for _, m := range r.Messages {
		if err := writeOllamaMessage(ms, m); err != nil {
			return nil, err
		}
	}
	t := obj("model", r.Model, "messages", ms, "stream", r.Stream)
	if len(r.Tools) > 0 && r.choice != "none" { // a model without tools calls none
		l := arr()
		for _, x := range r.Tools {
			l.add(obj("type", "function", "function", x.function("parameters")))
		}
		t.set("tools", l)
	}
	if r.choice == "required" || r.choice == "tool" {
		return nil, has("a tool that must be called")
	}
	r.writeOllamaSettings(t)
	return t, nil
}

func (r *Request) writeOllamaSettings(t *value) {
	o := obj().set("num_predict", r.maxTokens).set("temperature", r.temperature).set("top_p", r.topP).set("top_k", r.topK)
	o.set("seed", r.seed).set("presence_penalty", r.presence).set("frequency_penalty", r.frequency)
	o.set("stop", texts(r.stop))
	if len(o.keys) > 0 {
		t.set("options", o)
	}
	switch r.format {
	case "json":
		t.set("format", "json")
	case "schema":
		t.set("format", r.schema)
	}
	// An effort is a hint, and Ollama refuses it for a model that can't think; not to think it may say to any.
	if r.effort == "none" {
		t.set("think", false)
	}
}

func writeOllamaMessage(ms *value, m Message) error {
	var words []Part
	calls, images := arr(), arr()
	thinking := ""
	for _, p := range m.Parts {
		switch p.Kind {
		case Thinking:
			thinking += p.Text
		case ToolCall:
			a, err := p.argumentsObject()
			if err != nil {
				return err
			}
			calls.add(obj("id", p.ID, "function", obj("name", p.Name, "arguments", a)))
		case ToolResult:
			s, images, err := ollamaContent(p.Parts)
			if err != nil {
				return err
			}
			ms.add(obj("role", "tool", "content", failed(p, s), "tool_name", p.Name, "tool_call_id", p.ID).set("images", images))
		case Image:
			if p.Data == "" {
				return has("an image by its URL")
			}
			images.add(str(p.Data))
		default:
			words = append(words, p)
		}
	}
	s, err := plain(words)
	if err != nil {
		return err
	}
	if s == "" && len(calls.items) == 0 && len(images.items) == 0 && thinking == "" {
		return nil
	}
	v := obj("role", string(m.Role), "content", s)
	if thinking != "" {
		v.set("thinking", thinking)
	}
	if len(images.items) > 0 {
		v.set("images", images)
	}
	if len(calls.items) > 0 {
		v.set("tool_calls", calls)
	}
	ms.add(v)
	return nil
}

// ollamaContent is the text of parts, and their images.
func ollamaContent(parts []Part) (string, *value, error) {
	var words []Part
	var images *value
	for _, p := range parts {
		if p.Kind != Image {
			words = append(words, p)
			continue
		}
		if p.Data == "" {
			return "", nil, has("an image by its URL")
		}
		if images == nil {
			images = arr()
		}
		images.add(str(p.Data))
	}
	s, err := plain(words)
	return s, images, err
}
