package dialect

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Gemini's API as a server's, as in js-genai's src/types.ts and https://ai.google.dev/api/generate-content.

const geminiModels = "/v1beta/models"

// geminiPath is where a request goes: Gemini has the model and whether to stream in the path.
func geminiPath(r *Request) (string, error) {
	method := map[Operation]string{Generate: "generateContent", Embed: "batchEmbedContents", CountTokens: "countTokens"}[r.Operation]
	if method == "" {
		return "", fmt.Errorf("%s has no way to %s", Gemini, r.Operation)
	}
	if r.Operation == Generate && r.Stream {
		method = "streamGenerateContent?alt=sse"
	}
	return geminiModels + "/" + url.PathEscape(r.Model) + ":" + method, nil
}

func writeGemini(r *Request) (*value, error) {
	r.nameResults()
	contents := arr()
	system := r.System
	for _, m := range r.Messages {
		if m.Role == System { // Gemini takes what the system says at the front only
			system = append(system[:len(system):len(system)], m.Parts...)
			continue
		}
		parts, err := geminiParts(m.Parts, needsSignature(r.Model))
		if err != nil {
			return nil, err
		}
		if len(parts) == 0 {
			continue
		}
		role := "user"
		if m.Role == Assistant {
			role = "model"
		}
		if n := len(contents.items); n > 0 && contents.items[n-1].get("role").str() == role {
			contents.items[n-1].get("parts").add(parts...)
			continue
		}
		contents.add(obj("role", role, "parts", arr(parts...)))
	}
	s, err := plain(system)
	if err != nil {
		return nil, err
	}
	t := obj("contents", contents)
	if s != "" {
		t.set("systemInstruction", obj("parts", arr(obj("text", s))))
	}
	r.geminiTools(t)
	r.geminiConfig(t)
	if r.Operation == CountTokens {
		return obj("generateContentRequest", t.set("model", "models/"+r.Model)), nil
	}
	return t, nil
}

// needsSignature says whether a model refuses calls in the history without a signature. Other makers' calls and those that
// came through another dialect have none; this word tells Gemini so. https://ai.google.dev/gemini-api/docs/thought-signatures
func needsSignature(model string) bool {
	return !strings.HasPrefix(model, "gemini-1") && !strings.HasPrefix(model, "gemini-2")
}

const noSignature = "skip_thought_signature_validator"

func geminiParts(parts []Part, sign bool) ([]*value, error) {
	var out, after []*value
	for _, p := range parts {
		switch p.Kind {
		case Text, Refusal:
			if p.Text != "" {
				out = append(out, obj("text", p.Text))
			}
		case Thinking: // its signature is its maker's
		case ToolCall:
			a, err := p.argumentsObject()
			if err != nil {
				return nil, err
			}
			v := obj("functionCall", obj("name", p.Name, "args", a))
			if sign { // of calls beside each other the first has it
				v.set("thoughtSignature", noSignature)
				sign = false
			}
			out = append(out, v)
		case ToolResult:
			s, others := p.result()
			for _, q := range others {
				vs, err := geminiParts([]Part{q}, sign)
				if err != nil {
					return nil, err
				}
				after = append(after, vs...)
			}
			key := "output"
			if p.Failed {
				key = "error"
			}
			out = append(out, obj("functionResponse", obj("name", p.Name, "response", obj(key, s))))
		case Image, Audio, File:
			if p.Data == "" && p.URL == "" && p.Kind == File {
				out = append(out, obj("text", p.fileText()))
				continue
			}
			if p.Data == "" {
				return nil, has("%s by its URL", partNames[p.Kind])
			}
			out = append(out, obj("inlineData", obj("mimeType", p.MediaType, "data", p.Data)))
		default:
			return nil, p.cant()
		}
	}
	return append(out, after...), nil
}

func (r *Request) geminiTools(t *value) {
	if len(r.Tools) == 0 {
		return
	}
	l := arr()
	for _, x := range r.Tools {
		l.add(x.function("parametersJsonSchema"))
	}
	t.set("tools", arr(obj("functionDeclarations", l)))
	c := obj()
	switch r.choice {
	case "":
		return
	case "auto", "none":
		c.set("mode", strings.ToUpper(r.choice))
	case "required":
		c.set("mode", "ANY")
	case "tool":
		c.set("mode", "ANY").set("allowedFunctionNames", arr(str(r.choiceTool)))
	}
	t.set("toolConfig", obj("functionCallingConfig", c))
}

func (r *Request) geminiConfig(t *value) {
	g := obj().set("maxOutputTokens", r.maxTokens).set("temperature", r.temperature).set("topP", r.topP).set("topK", r.topK)
	g.set("seed", r.seed).set("presencePenalty", r.presence).set("frequencyPenalty", r.frequency)
	g.set("stopSequences", texts(r.stop))
	if r.format != "" {
		g.set("responseMimeType", "application/json").set("responseJsonSchema", r.schema)
	}
	if len(g.keys) > 0 {
		t.set("generationConfig", g)
	}
}

var geminiStops = map[string]Stop{"STOP": StopEnd, "MAX_TOKENS": StopLength, "SAFETY": StopRefused, "RECITATION": StopRefused,
	"BLOCKLIST": StopRefused, "PROHIBITED_CONTENT": StopRefused, "SPII": StopRefused, "LANGUAGE": StopRefused}

// geminiStop is why Gemini stopped. Reasons that aren't listed, a call that it couldn't write among them, are no end that a
// program may build on.
func geminiStop(reason string) (Stop, error) {
	if s, ok := geminiStops[reason]; ok {
		return s, nil
	}
	return "", errors.New("the model stopped for the reason " + nameOf(reason))
}

func geminiUsage(u *value) Usage {
	thoughts := u.get("thoughtsTokenCount").int()
	return Usage{Input: u.get("promptTokenCount").int() + u.get("toolUsePromptTokenCount").int(),
		Cached: u.get("cachedContentTokenCount").int(), Output: u.get("candidatesTokenCount").int() + thoughts, Reasoning: thoughts}
}

func answerOfGemini(a *Answer) error {
	a.ID, a.Model = a.tree.get("responseId").str(), a.tree.get("modelVersion").str()
	a.Usage = geminiUsage(a.tree.get("usageMetadata"))
	cs := a.tree.get("candidates").list()
	if len(cs) == 0 {
		if a.tree.get("promptFeedback", "blockReason") == nil {
			return errors.New("the answer has no candidates")
		}
		a.Stop = StopRefused
		return nil
	}
	for _, v := range cs[0].get("content", "parts").list() {
		p, err := geminiPart(v)
		if err != nil {
			return err
		}
		if n := len(a.Parts); n > 0 && p.Kind != ToolCall && a.Parts[n-1].Kind == p.Kind {
			a.Parts[n-1].Text += p.Text
			continue
		}
		a.Parts = append(a.Parts, p)
	}
	var err error
	a.Stop, err = geminiStop(cs[0].get("finishReason").str())
	a.Stop = a.stop()
	return err
}

func geminiPart(v *value) (Part, error) {
	if c := v.get("functionCall"); c != nil {
		p := Part{Kind: ToolCall, ID: newCallID(), Name: c.get("name").str(), Arguments: "{}"}
		if a := c.get("args"); a != nil {
			p.Arguments = a.json()
		}
		return p, nil
	}
	p := Part{Kind: Text, Text: v.get("text").str()}
	if v.get("thought").isTrue() {
		p.Kind = Thinking
	}
	if v.get("text") == nil && v.get("thoughtSignature") == nil {
		return p, errors.New("the answer has a part that is neither text nor a tool call")
	}
	return p, nil
}

// geminiDecoder reads the GenerateContentResponse objects of streamGenerateContent. Nothing marks the last.
type geminiDecoder struct {
	blocks
	n        int
	finished bool
}

func (d *geminiDecoder) event(_ string, t *value) ([]Delta, error) {
	if e := t.get("error"); e != nil {
		return []Delta{{Kind: Failed, Message: e.get("message").str()}}, nil
	}
	var out []Delta
	if !d.started {
		d.started = true
		out = append(out, Delta{Kind: Started, ID: t.get("responseId").str(), Model: t.get("modelVersion").str()})
	}
	cs := t.get("candidates").list()
	if len(cs) == 0 && t.get("promptFeedback", "blockReason") != nil {
		d.finished = true
		out = append(out, Delta{Kind: Finished, Stop: StopRefused})
	}
	if len(cs) > 0 {
		deltas, err := d.candidate(cs[0])
		if err != nil {
			return nil, err
		}
		out = append(out, deltas...)
	}
	if u := t.get("usageMetadata"); u != nil {
		out = append(out, Delta{Kind: Counted, Usage: geminiUsage(u)})
	}
	return out, nil
}

func (d *geminiDecoder) candidate(c *value) ([]Delta, error) {
	var out []Delta
	for _, v := range c.get("content", "parts").list() {
		p, err := geminiPart(v)
		if err != nil {
			return nil, err
		}
		x := v.get("text")
		switch {
		case p.Kind == ToolCall:
			d.n++
			args := v.get("functionCall", "args")
			if args == nil {
				args = obj()
			}
			out = append(out, d.more("", fmt.Sprintf("tool %d", d.n), Delta{Part: ToolCall, ID: p.ID, Name: p.Name}, Delta{whole: args})...)
		case p.Text != "":
			key := "text"
			if p.Kind == Thinking {
				key = "thinking"
			}
			out = append(out, d.more("", key, Delta{Part: p.Kind}, Delta{Text: &x.text})...)
		}
	}
	if f := c.get("finishReason").str(); f != "" {
		stop, err := geminiStop(f)
		if err != nil {
			return nil, err
		}
		if d.n > 0 && stop == StopEnd {
			stop = StopTools
		}
		d.finished = true
		out = append(append(out, d.closeAll("")...), Delta{Kind: Finished, Stop: stop})
	}
	return out, nil
}

func (d *geminiDecoder) end() ([]Delta, error) {
	if !d.finished {
		return nil, errEarly
	}
	return append(d.closeAll(""), Delta{Kind: Ended}), nil
}
