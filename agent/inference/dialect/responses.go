package dialect

import (
	"errors"
	"slices"
	"strings"
)

// OpenAI responses, as in openai-node's resources/responses/responses.ts.

func readOpenAIResponses(r *Request, f *fields) error {
	if s := f.take("instructions").str(); s != "" {
		r.System = []Part{{Kind: Text, Text: s}}
	}
	switch in := f.take("input"); {
	case in.is(text):
		r.Messages = []Message{{Role: User, Parts: []Part{{Kind: Text, Text: in.text}}}}
	case in.is(array):
		for _, i := range in.items {
			r.readItem(i)
		}
	case in != nil:
		return errors.New("input is neither a string nor an array")
	}
	r.nameResults()
	r.readResponsesTools(f.take("tools").list())
	r.readChoice(f.take("tool_choice"))
	r.parallel, r.maxTokens = f.take("parallel_tool_calls"), f.take("max_output_tokens")
	r.temperature, r.topP = f.take("temperature"), f.take("top_p")
	r.effort = f.take("reasoning").get("effort").str()
	if t := f.take("text"); t != nil {
		tf := r.open(t, "text: ")
		if s := tf.take("format"); s != nil {
			r.readFormat(r.open(s, "text: "), s)
		}
		tf.rest()
	}
	f.take("top_logprobs")
	return nil
}

func (r *Request) readResponsesTools(tools []*value) {
	for _, t := range tools {
		switch k := t.get("type").str(); {
		case k == "function":
			r.readFunction(t, "parameters")
		case k == "custom":
			r.readCustom(t)
		case k == "namespace":
			f := r.open(t, "tools: ")
			f.take("type")
			name, description, first := f.take("name").str(), f.take("description").str(), len(r.Tools)
			r.readResponsesTools(f.take("tools").list())
			f.rest()
			for i := range r.Tools[first:] {
				x := &r.Tools[first+i]
				x.Name, x.Namespace, x.Description = inNamespace(name, x.Name), name, description+"\n\n"+x.Description
			}
		case isOffer(k), k == "tool_search": // finds tools of the caller's: a model that isn't offered it has those that are here
		default:
			r.unsay("a tool of the type " + nameOf(k))
		}
	}
}

// inNamespace is the name of a tool for the dialects that have no namespaces.
func inNamespace(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "__" + name
}

// splitName gives a call the name and namespace that its tool was declared with.
func (r *Request) splitName(item *value) *value {
	for _, t := range r.Tools {
		if t.Namespace != "" && t.Name == item.get("name").str() {
			item.set("name", strings.TrimPrefix(t.Name, t.Namespace+"__")).set("namespace", t.Namespace)
		}
	}
	return item
}

// LeaveOutOffers takes the tools out that a server may run by itself, where the model has others and is not told to use these:
// what they would fetch nobody can look at, and where they would send it neither. It says whether there were any.
func (r *Request) LeaveOutOffers() bool {
	tools := r.tree.get("tools")
	if !tools.is(array) || r.tree.get("tool_choice").is(object) {
		return false
	}
	left := slices.DeleteFunc(slices.Clone(tools.items), func(t *value) bool { return isOffer(t.get("type").str()) })
	if len(left) == 0 || len(left) == len(tools.items) {
		return false
	}
	tools.items = left
	return true
}

// isOffer says whether a tool is one that a server may run by itself, of which a model that isn't offered it just makes no
// use. Leaving it out tells nobody anything. Tools that search what the server stores are not among them.
func isOffer(kind string) bool {
	return strings.HasPrefix(kind, "web_search") || kind == "image_generation"
}

func (r *Request) readItem(v *value) {
	f := r.open(v, "input: ")
	m := Message{Role: Assistant}
	switch t := f.take("type").str(); t {
	case "additional_tools": // Codex declares its tools so for newer models
		r.readResponsesTools(f.take("tools").list())
		f.take("role", "id")
		f.rest()
		return
	case "", "message":
		switch role := f.take("role").str(); role {
		case "user", "assistant":
			m.Role = Role(role)
		case "system", "developer":
			m.Role = System
		default:
			r.unsay("a message with the role " + nameOf(role))
		}
		m.Parts = r.readInput(f.take("content"))
	case "function_call":
		m.Parts = []Part{{Kind: ToolCall, ID: f.take("call_id").str(),
			Name: inNamespace(f.take("namespace").str(), f.take("name").str()), Arguments: f.take("arguments").str()}}
	case "custom_tool_call":
		m.Parts = []Part{{Kind: ToolCall, ID: f.take("call_id").str(),
			Name: inNamespace(f.take("namespace").str(), f.take("name").str()), Arguments: f.take("input").str(), Custom: true}}
	case "function_call_output", "custom_tool_call_output":
		m = Message{Role: User, Parts: []Part{{Kind: ToolResult, ID: f.take("call_id").str(),
			Name: inNamespace(f.take("namespace").str(), f.take("name").str()), Parts: r.readInput(f.take("output"))}}}
	case "reasoning":
		m.Parts = []Part{reasoningPart(v)}
		f.take("summary", "content", "encrypted_content")
	default:
		r.unsay("an item of the type " + nameOf(t))
		return
	}
	f.take("id")
	f.rest()
	n := len(r.Messages)
	switch {
	case m.Role == System && n == 0:
		r.System = append(r.System, m.Parts...)
	case m.Role == Assistant && n > 0 && r.Messages[n-1].Role == Assistant: // one turn
		r.Messages[n-1].Parts = append(r.Messages[n-1].Parts, m.Parts...)
	default:
		r.Messages = append(r.Messages, m)
	}
}

func reasoningPart(v *value) Part {
	p := Part{Kind: Thinking, Signature: v.get("encrypted_content").str()}
	var words []string
	for _, k := range []string{"summary", "content"} {
		for _, s := range v.get(k).list() {
			words = append(words, s.get("text").str())
		}
	}
	p.Text = strings.Join(words, "\n\n")
	return p
}

func (r *Request) readInput(v *value) []Part {
	return r.readParts(v, "a part", func(f *fields) Part {
		switch t := f.take("type").str(); t {
		case "input_text", "output_text", "text":
			return Part{Kind: Text, Text: f.take("text").str()}
		case "refusal":
			return Part{Kind: Refusal, Text: f.take("refusal").str()}
		case "input_image":
			return link(Part{Kind: Image}, f.take("image_url").str())
		case "input_file":
			return link(Part{Kind: File, Name: f.take("filename").str()}, f.take("file_data", "file_url").str())
		default:
			return Part{Kind: Unknown, Type: t}
		}
	})
}

func writeOpenAIResponses(r *Request) (*value, error) {
	s, err := plain(r.System)
	if err != nil {
		return nil, err
	}
	t := obj("model", r.Model)
	if s != "" {
		t.set("instructions", s)
	}
	items := arr()
	for _, m := range r.Messages {
		if err := writeItems(items, m); err != nil {
			return nil, err
		}
	}
	// Each request has the whole conversation, so the server has to keep nothing.
	t.set("input", items).set("store", false)
	if r.Stream {
		t.set("stream", true)
	}
	t.set("max_output_tokens", r.maxTokens).set("temperature", r.temperature).set("top_p", r.topP)
	if r.topK != nil {
		return nil, has("top_k")
	}
	if len(r.stop) > 0 {
		return nil, has("stop sequences")
	}
	if err := r.noPenalties(); err != nil {
		return nil, err
	}
	if e := r.openAIEffort(); e != "" {
		t.set("reasoning", obj("effort", e))
	}
	switch r.format {
	case "json":
		t.set("text", obj("format", obj("type", "json_object")))
	case "schema":
		t.set("text", obj("format", obj("type", "json_schema", "name", r.nameSchema(), "schema", r.schema)))
	}
	if len(r.Tools) > 0 {
		l := arr()
		for _, x := range r.Tools {
			l.add(x.function("parameters").set("type", "function").set("strict", false))
		}
		t.set("tools", l).set("parallel_tool_calls", r.parallel)
		switch r.choice {
		case "":
		case "tool":
			t.set("tool_choice", obj("type", "function", "name", r.choiceTool))
		default:
			t.set("tool_choice", r.choice)
		}
	}
	return t, nil
}

func writeItems(items *value, m Message) error {
	content := arr()
	var calls []*value
	for _, p := range m.Parts {
		switch p.Kind {
		case Thinking: // of no use to anybody but its maker
		case ToolCall:
			calls = append(calls, obj("type", "function_call", "call_id", p.ID, "name", p.Name, "arguments", p.arguments()))
		case ToolResult:
			out, err := inputParts(p.Parts, User)
			if err != nil {
				return err
			}
			v := obj("type", "function_call_output", "call_id", p.ID)
			if s, err := plain(p.Parts); err == nil {
				v.set("output", failed(p, s))
			} else {
				if p.Failed {
					out.items = append([]*value{obj("type", "input_text", "text", failed(p, ""))}, out.items...)
				}
				v.set("output", out)
			}
			items.add(v)
		default:
			in, err := inputParts([]Part{p}, m.Role)
			if err != nil {
				return err
			}
			content.add(in.items...)
		}
	}
	if len(content.items) > 0 {
		items.add(obj("type", "message", "role", string(m.Role), "content", content))
	}
	items.add(calls...)
	return nil
}

func inputParts(parts []Part, role Role) (*value, error) {
	out := arr()
	for _, p := range parts {
		switch {
		case p.Kind == Text && role == Assistant:
			out.add(obj("type", "output_text", "text", p.Text, "annotations", arr()))
		case p.Kind == Refusal && role == Assistant:
			out.add(obj("type", "refusal", "refusal", p.Text))
		case p.Kind == Text, p.Kind == Refusal:
			out.add(obj("type", "input_text", "text", p.Text))
		case p.Kind == Image:
			out.add(obj("type", "input_image", "image_url", p.link(), "detail", "auto"))
		case p.Kind == File && p.Data != "":
			name := p.Name
			if name == "" {
				name = "document"
			}
			out.add(obj("type", "input_file", "filename", name, "file_data", p.link()))
		case p.Kind == File && p.URL != "":
			out.add(obj("type", "input_file", "file_url", p.URL))
		case p.Kind == File:
			out.add(obj("type", "input_text", "text", p.fileText()))
		default:
			return nil, p.cant()
		}
	}
	return out, nil
}

func answerOfResponses(a *Answer) error {
	a.ID, a.Model = a.tree.get("id").str(), a.tree.get("model").str()
	if !a.tree.get("output").is(array) {
		return errors.New("the answer has no output")
	}
	if s := a.tree.get("status").str(); s != "completed" && s != "incomplete" && s != "" {
		return errors.New("the answer is not complete: its status is " + nameOf(s))
	}
	r := &Request{}
	for _, i := range a.tree.get("output").list() {
		r.readItem(i)
	}
	for _, m := range r.Messages {
		a.Parts = append(a.Parts, m.Parts...)
	}
	a.unsaid = r.unsaid
	a.Stop = responsesStop(a.tree)
	a.Stop = a.stop()
	a.Usage = responsesUsage(a.tree.get("usage"))
	return nil
}

func responsesStop(t *value) Stop {
	switch t.get("incomplete_details", "reason").str() {
	case "max_output_tokens":
		return StopLength
	case "content_filter":
		return StopRefused
	}
	return StopEnd
}

func responsesUsage(u *value) Usage {
	return Usage{Input: u.get("input_tokens").int(), Cached: u.get("input_tokens_details", "cached_tokens").int(),
		Output: u.get("output_tokens").int(), Reasoning: u.get("output_tokens_details", "reasoning_tokens").int()}
}

func answerToResponses(a *Answer, r *Request) (*value, error) {
	items := arr()
	for _, p := range a.Parts {
		i, err := outputItem(p, "completed")
		if err != nil {
			return nil, err
		}
		items.add(r.splitName(i))
	}
	t := responseOf(r, "resp_"+random(), a.Model, now())
	finishResponse(t, items, a.Stop, a.Usage)
	return t, nil
}

// repeated are what a response repeats of the request.
var repeated = []string{"instructions", "max_output_tokens", "parallel_tool_calls", "reasoning", "temperature", "text", "tool_choice",
	"tools", "top_p", "metadata"}

// responseOf is the response object before the model has said anything: it repeats what it was asked.
func responseOf(r *Request, id, model string, created int) *value {
	t := obj("id", id, "object", "response", "created_at", created, "status", "in_progress", "background", false, "error", nothing,
		"incomplete_details", nothing, "instructions", nothing, "max_output_tokens", nothing, "model", model, "output", arr(),
		"parallel_tool_calls", true, "previous_response_id", nothing, "reasoning", obj("effort", nothing, "summary", nothing),
		"store", false, "temperature", nothing, "text", obj("format", obj("type", "text")), "tool_choice", "auto", "tools", arr(),
		"top_p", nothing, "truncation", "disabled", "usage", nothing, "user", nothing, "metadata", obj())
	if r.Dialect == OpenAIResponses && r.tree != nil {
		for _, k := range repeated {
			t.set(k, r.tree.get(k))
		}
	}
	return t
}

func finishResponse(t, items *value, stop Stop, u Usage) {
	t.set("output", items).set("status", "completed")
	switch stop {
	case StopLength:
		t.set("status", "incomplete").set("incomplete_details", obj("reason", "max_output_tokens"))
	case StopRefused:
		t.set("status", "incomplete").set("incomplete_details", obj("reason", "content_filter"))
	}
	t.set("usage", obj("input_tokens", u.Input, "input_tokens_details", obj("cached_tokens", u.Cached), "output_tokens", u.Output,
		"output_tokens_details", obj("reasoning_tokens", u.Reasoning), "total_tokens", u.Input+u.Output))
}

// outputItem is a part as an item of a response's output.
func outputItem(p Part, status string) (*value, error) {
	switch p.Kind {
	case Text:
		return obj("id", "msg_"+random(), "type", "message", "status", status, "role", "assistant", "content",
			arr(outputText(p.Text))), nil
	case Refusal:
		return obj("id", "msg_"+random(), "type", "message", "status", status, "role", "assistant", "content",
			arr(obj("type", "refusal", "refusal", p.Text))), nil
	case Thinking:
		return obj("id", "rs_"+random(), "type", "reasoning", "summary", arr(obj("type", "summary_text", "text", p.Text))), nil
	case ToolCall:
		if p.Custom {
			return obj("id", "ctc_"+random(), "type", "custom_tool_call", "status", status, "call_id", p.ID, "name", p.Name,
				"input", p.Arguments), nil
		}
		return obj("id", "fc_"+random(), "type", "function_call", "status", status, "call_id", p.ID, "name", p.Name,
			"arguments", p.Arguments), nil
	}
	return nil, p.cant()
}

func outputText(s string) *value {
	return obj("type", "output_text", "text", s, "annotations", arr(), "logprobs", arr())
}
