package dialect

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ReadAnswer reads an answer to a Generate request that isn't a stream.
func ReadAnswer(d Dialect, body []byte) (*Answer, error) {
	t, err := parse(body)
	if err != nil {
		return nil, err
	}
	if t.kind != object {
		return nil, errors.New("the answer is not a JSON object")
	}
	t.unwrap("")
	a := &Answer{dialect: d, tree: t}
	return a, a.read()
}

func (a *Answer) read() error {
	a.Parts, a.unsaid = nil, nil
	read := map[Dialect]func(*Answer) error{OpenAIChat: answerOfOpenAI, Anthropic: answerOfAnthropic, OllamaChat: answerOfOllama,
		OllamaGenerate: answerOfOllama, OpenAIResponses: answerOfResponses, Gemini: answerOfGemini, OpenAICompletions: answerOfCompletions}[a.dialect]
	if read == nil {
		return fmt.Errorf("answers of %s are not read", a.dialect)
	}
	if m := a.tree.get("error"); m != nil && a.dialect != OpenAIResponses {
		return fmt.Errorf("%s answered with an error instead of an answer", a.dialect)
	}
	return read(a)
}

// Write writes the answer to r in the dialect of its caller.
func (a *Answer) Write(d Dialect, r *Request) ([]byte, error) {
	if d == a.dialect {
		return a.tree.marshal()
	}
	if a.tree != nil {
		if err := a.tree.check(); err != nil {
			return nil, err
		}
		n := *a
		if err := n.read(); err != nil {
			return nil, err
		}
		a = &n
	}
	if len(a.unsaid) > 0 {
		return nil, fmt.Errorf("the answer has %s, and that can't be said in %s", strings.Join(a.unsaid, ", "), d)
	}
	if a.Model == "" {
		a.Model = r.Model
	}
	r.restoreCustom(a.Parts)
	write := map[Dialect]func(*Answer, *Request) (*value, error){OpenAIChat: answerToOpenAI, Anthropic: answerToAnthropic,
		OllamaChat: answerToOllama, OllamaGenerate: answerToOllama, OpenAIResponses: answerToResponses, OpenAICompletions: answerToCompletions}[d]
	if write == nil {
		return nil, fmt.Errorf("answers are not written in %s", d)
	}
	t, err := write(a, r)
	if err != nil {
		return nil, err
	}
	return t.marshal()
}

// restoreCustom makes calls of tools that take a text such calls again: other dialects know only functions.
func (r *Request) restoreCustom(parts []Part) {
	for i := range parts {
		if p := &parts[i]; p.Kind == ToolCall && !p.Custom && r.isCustom(p.Name) {
			p.Custom = true
			if v, err := parse([]byte(p.Arguments)); err == nil {
				p.Arguments = v.get("input").str()
			}
		}
	}
}

func (r *Request) isCustom(name string) bool {
	for _, t := range r.Tools {
		if t.Custom && t.Name == name {
			return true
		}
	}
	return false
}

func answerOfOpenAI(a *Answer) error {
	a.ID, a.Model = a.tree.get("id").str(), a.tree.get("model").str()
	cs := a.tree.get("choices").list()
	if len(cs) == 0 {
		return errors.New("the answer has no choices")
	}
	if len(cs) > 1 {
		a.unsaid = append(a.unsaid, "several choices")
	}
	m := cs[0].get("message")
	for _, k := range []string{"reasoning_content", "reasoning"} {
		if t := m.get(k).str(); t != "" && len(a.Parts) == 0 {
			a.Parts = append(a.Parts, Part{Kind: Thinking, Text: t})
		}
	}
	if t := m.get("content").str(); t != "" {
		a.Parts = append(a.Parts, Part{Kind: Text, Text: t})
	}
	if t := m.get("refusal").str(); t != "" {
		a.Parts = append(a.Parts, Part{Kind: Refusal, Text: t})
	}
	if m.get("audio") != nil {
		a.unsaid = append(a.unsaid, "audio")
	}
	r := &Request{}
	for _, c := range m.get("tool_calls").list() {
		a.Parts = append(a.Parts, r.readOpenAICall(c))
	}
	a.unsaid = append(a.unsaid, r.unsaid...)
	a.Stop = openAIStops[cs[0].get("finish_reason").str()]
	a.Usage = openAIUsage(a.tree.get("usage"))
	return nil
}

var openAIStops = map[string]Stop{"stop": StopEnd, "length": StopLength, "tool_calls": StopTools, "function_call": StopTools,
	"content_filter": StopRefused}

// What the dialects call the reasons to stop.
var (
	toOpenAIStop    = map[Stop]string{StopEnd: "stop", StopLength: "length", StopTools: "tool_calls", StopRefused: "content_filter", "": "stop"}
	toAnthropicStop = map[Stop]string{StopEnd: "end_turn", StopLength: "max_tokens", StopTools: "tool_use", StopRefused: "refusal", "": "end_turn"}
	toOllamaStop    = map[Stop]string{StopEnd: "stop", StopLength: "length", StopTools: "stop", StopRefused: "stop", "": "stop"}
)

func openAIUsage(u *value) Usage {
	return Usage{Input: u.get("prompt_tokens").int(), Cached: u.get("prompt_tokens_details", "cached_tokens").int(),
		Output: u.get("completion_tokens").int(), Reasoning: u.get("completion_tokens_details", "reasoning_tokens").int()}
}

func toOpenAIUsage(u Usage) *value {
	return obj("prompt_tokens", u.Input, "completion_tokens", u.Output, "total_tokens", u.Input+u.Output,
		"prompt_tokens_details", obj("cached_tokens", u.Cached), "completion_tokens_details", obj("reasoning_tokens", u.Reasoning))
}

func answerToOpenAI(a *Answer, _ *Request) (*value, error) {
	m := obj("role", "assistant", "content", nothing, "refusal", nothing)
	calls := arr()
	for _, p := range a.Parts {
		switch p.Kind {
		case Text:
			m.set("content", m.get("content").str()+p.Text)
		case Refusal:
			m.set("refusal", m.get("refusal").str()+p.Text)
		case Thinking:
			if p.Text != "" {
				m.set("reasoning_content", m.get("reasoning_content").str()+p.Text)
			}
		case ToolCall:
			calls.add(openAICall(p))
		default:
			return nil, p.cant()
		}
	}
	if len(calls.items) > 0 {
		m.set("tool_calls", calls)
	}
	return obj("id", "chatcmpl-"+random(), "object", "chat.completion", "created", now(), "model", a.Model,
		"choices", arr(obj("index", 0, "message", m, "logprobs", nothing, "finish_reason", toOpenAIStop[a.stop()])),
		"usage", toOpenAIUsage(a.Usage)), nil
}

func now() int { return int(time.Now().Unix()) }

func openAICall(p Part) *value {
	if p.Custom {
		return obj("id", p.ID, "type", "custom", "custom", obj("name", p.Name, "input", p.Arguments))
	}
	return obj("id", p.ID, "type", "function", "function", obj("name", p.Name, "arguments", p.arguments()))
}

// stop is why the model stopped: a server that has no word for waiting for tools only ends.
func (a *Answer) stop() Stop {
	for _, p := range a.Parts {
		if p.Kind == ToolCall && (a.Stop == StopEnd || a.Stop == "") {
			return StopTools
		}
	}
	return a.Stop
}

var anthropicStops = map[string]Stop{"end_turn": StopEnd, "stop_sequence": StopEnd, "max_tokens": StopLength, "tool_use": StopTools,
	"refusal": StopRefused, "model_context_window_exceeded": StopLength, "pause_turn": StopEnd}

func answerOfAnthropic(a *Answer) error {
	a.ID, a.Model = a.tree.get("id").str(), a.tree.get("model").str()
	if !a.tree.get("content").is(array) {
		return errors.New("the answer has no content")
	}
	r := &Request{}
	a.Parts = r.readBlocks(a.tree.get("content"))
	a.unsaid = r.unsaid
	a.Stop, a.StopText = anthropicStops[a.tree.get("stop_reason").str()], a.tree.get("stop_sequence").str()
	a.Usage = anthropicUsage(a.tree.get("usage"))
	return nil
}

func anthropicUsage(u *value) Usage {
	cached := u.get("cache_read_input_tokens").int()
	return Usage{Input: u.get("input_tokens").int() + cached + u.get("cache_creation_input_tokens").int(), Cached: cached,
		Output: u.get("output_tokens").int(), Reasoning: u.get("output_tokens_details", "thinking_tokens").int()}
}

func toAnthropicUsage(u Usage) *value {
	return obj("input_tokens", u.Input-u.Cached, "cache_creation_input_tokens", 0, "cache_read_input_tokens", u.Cached,
		"output_tokens", u.Output)
}

func answerToAnthropic(a *Answer, _ *Request) (*value, error) {
	blocks := arr()
	for _, p := range a.Parts {
		if p.Kind == Thinking {
			blocks.add(obj("type", "thinking", "thinking", p.Text, "signature", ""))
			continue
		}
		b, err := anthropicBlock(p)
		if err != nil {
			return nil, err
		}
		blocks.add(b)
	}
	return anthropicMessage(a, blocks), nil
}

func anthropicMessage(a *Answer, blocks *value) *value {
	t := obj("id", "msg_"+random(), "type", "message", "role", "assistant", "model", a.Model, "content", blocks,
		"stop_reason", toAnthropicStop[a.stop()], "stop_sequence", nothing, "usage", toAnthropicUsage(a.Usage))
	if a.StopText != "" {
		t.set("stop_reason", "stop_sequence").set("stop_sequence", a.StopText)
	}
	return t
}

func answerOfOllama(a *Answer) error {
	a.Model = a.tree.get("model").str()
	m := a.tree.get("message")
	if a.dialect == OllamaGenerate {
		m = a.tree
	} else if m == nil {
		return errors.New("the answer has no message")
	}
	if t := m.get("thinking").str(); t != "" {
		a.Parts = append(a.Parts, Part{Kind: Thinking, Text: t})
	}
	for _, k := range []string{"content", "response"} {
		if t := m.get(k).str(); t != "" {
			a.Parts = append(a.Parts, Part{Kind: Text, Text: t})
		}
	}
	r := &Request{}
	for _, c := range m.get("tool_calls").list() {
		p := r.readOllamaCall(c)
		if p.ID == "" {
			p.ID = newCallID()
		}
		a.Parts = append(a.Parts, p)
	}
	a.unsaid = r.unsaid
	a.Stop = ollamaStop(a.tree)
	if len(m.get("tool_calls").list()) > 0 && a.Stop == StopEnd {
		a.Stop = StopTools
	}
	a.Usage = ollamaUsage(a.tree)
	return nil
}

func ollamaStop(t *value) Stop {
	if t.get("done_reason").str() == "length" {
		return StopLength
	}
	return StopEnd
}

func ollamaUsage(t *value) Usage {
	return Usage{Input: t.get("prompt_eval_count").int(), Output: t.get("eval_count").int()}
}

func answerToOllama(a *Answer, r *Request) (*value, error) {
	var words, thinking string
	calls := arr()
	for _, p := range a.Parts {
		switch p.Kind {
		case Text, Refusal:
			words += p.Text
		case Thinking:
			thinking += p.Text
		case ToolCall:
			c, err := ollamaCall(p)
			if err != nil {
				return nil, err
			}
			calls.add(c)
		default:
			return nil, p.cant()
		}
	}
	t := obj("model", a.Model, "created_at", time.Now().UTC().Format(time.RFC3339Nano))
	if r.Dialect == OllamaGenerate {
		t.set("response", words)
		if thinking != "" {
			t.set("thinking", thinking)
		}
		if len(calls.items) > 0 {
			return nil, errors.New("the answer has a tool call, and that can't be said in Ollama generate")
		}
	} else {
		m := obj("role", "assistant", "content", words)
		if thinking != "" {
			m.set("thinking", thinking)
		}
		if len(calls.items) > 0 {
			m.set("tool_calls", calls)
		}
		t.set("message", m)
	}
	t.set("done", true).set("done_reason", toOllamaStop[a.Stop])
	return ollamaCounts(t, a.Usage, 0), nil
}

func ollamaCall(p Part) (*value, error) {
	args, err := p.argumentsObject()
	return obj("id", p.ID, "function", obj("name", p.Name, "arguments", args)), err
}

// ollamaCounts are the counts at the end of an answer. How long the server took for which phase nobody else tells.
func ollamaCounts(t *value, u Usage, took time.Duration) *value {
	return t.set("total_duration", int(took)).set("load_duration", 0).set("prompt_eval_count", u.Input).
		set("prompt_eval_duration", 0).set("eval_count", u.Output).set("eval_duration", int(took))
}
