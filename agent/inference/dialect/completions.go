package dialect

import (
	"errors"
	"time"
)

// OpenAI's older /v1/completions: one prompt instead of messages, and no tools. Editors complete code with it, from vLLM and
// llama.cpp; other servers are asked the same as a chat.

func readOpenAICompletions(r *Request, f *fields) error {
	p := f.take("prompt")
	if l := p.list(); len(l) == 1 {
		p = l[0]
	}
	if !p.is(text) {
		r.unsay("several prompts, or one in tokens")
	}
	r.Messages = []Message{{Role: User, Parts: []Part{{Kind: Text, Text: p.str()}}}}
	if f.v.get("suffix").str() == "" {
		f.take("suffix")
	}
	for _, k := range []string{"n", "best_of"} {
		if f.v.get(k).int() == 1 {
			f.take(k)
		}
	}
	r.readOpenAISettings(f)
	r.maxTokens = f.take("max_tokens")
	return nil
}

func answerOfCompletions(a *Answer) error {
	a.ID, a.Model = a.tree.get("id").str(), a.tree.get("model").str()
	cs := a.tree.get("choices").list()
	if len(cs) == 0 {
		return errors.New("the answer has no choices")
	}
	for _, c := range cs {
		a.Parts = append(a.Parts, Part{Kind: Text, Text: c.get("text").str()})
	}
	a.Stop = openAIStops[cs[0].get("finish_reason").str()]
	a.Usage = openAIUsage(a.tree.get("usage"))
	return nil
}

func answerToCompletions(a *Answer, _ *Request) (*value, error) {
	words := ""
	for _, p := range a.Parts {
		switch p.Kind {
		case Text, Refusal:
			words += p.Text
		case Thinking: // there is no word for it
		default:
			return nil, p.cant()
		}
	}
	return completion("cmpl-"+random(), a.Model, now(), words, str(toCompletionsStop(a.Stop))).set("usage", toOpenAIUsage(a.Usage)), nil
}

func toCompletionsStop(s Stop) string {
	if s == StopTools {
		s = StopEnd
	}
	return toOpenAIStop[s]
}

func completion(id, model string, created int, words string, stop *value) *value {
	return obj("id", id, "object", "text_completion", "created", created, "model", model,
		"choices", arr(obj("index", 0, "text", words, "logprobs", nothing, "finish_reason", stop)))
}

// completionsEncoder writes the same objects, a delta each.
type completionsEncoder struct {
	*common
	id string
}

func (e *completionsEncoder) chunk(words string, stop *value) *value {
	return completion(e.id, e.model, int(e.since.Truncate(time.Second).Unix()), words, stop)
}

func (e *completionsEncoder) delta(d Delta) error {
	if e.note(d) {
		return nil
	}
	switch d.Kind {
	case Started:
		e.id = "cmpl-" + random()
	case Opened:
		if d.Part == Unknown || d.Part == ToolCall {
			return Part{Kind: d.Part}.cant()
		}
	case More:
		if d.Part != Thinking {
			return e.e.put("", e.chunk(d.Said(), nothing).json())
		}
	case Ended:
		if err := e.e.put("", e.chunk("", str(toCompletionsStop(e.stop))).json()); err != nil {
			return err
		}
		if e.e.r.wantUsage {
			t := e.chunk("", nothing).set("choices", arr()).set("usage", toOpenAIUsage(e.usage))
			if err := e.e.put("", t.json()); err != nil {
				return err
			}
		}
		return e.e.put("", "[DONE]")
	}
	return nil
}
