package dialect

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// An Encoder writes a stream for the caller of a request. Each message goes out in one Write, as soon as it is complete.
type Encoder struct {
	dialect Dialect
	w       io.Writer
	r       *Request
	enc     interface {
		delta(d Delta) error
	}
	started bool
	ended   bool
	passed  int // events with a sequence number
}

// sequence is the next number of an event of OpenAI's responses.
func (e *Encoder) sequence() int {
	if r, ok := e.enc.(*responsesEncoder); ok && e.passed == 0 {
		return r.sequence
	}
	return e.passed
}

// NewEncoder writes the answer to r, in the dialect d, to w.
func NewEncoder(d Dialect, w io.Writer, r *Request) *Encoder {
	e := &Encoder{dialect: d, w: w, r: r}
	c := &common{e: e, since: time.Now()}
	switch d {
	case OpenAIChat:
		e.enc = &openAIEncoder{common: c}
	case OpenAICompletions:
		e.enc = &completionsEncoder{common: c}
	case Anthropic:
		e.enc = &anthropicEncoder{common: c}
	case OllamaChat, OllamaGenerate:
		e.enc = &ollamaEncoder{common: c}
	case OpenAIResponses:
		e.enc = &responsesEncoder{common: c}
	}
	return e
}

// Write writes what an event says. An event of the same dialect goes out as it came, with the replaced texts.
func (e *Encoder) Write(ev Event) error {
	if e.ended {
		return errors.New("the stream has ended already")
	}
	for _, d := range ev.Deltas {
		e.ended = e.ended || d.Kind == Ended || d.Kind == Failed
	}
	if ev.dialect == e.dialect {
		return e.same(ev)
	}
	if e.enc == nil {
		return fmt.Errorf("streams of %s are not written", e.dialect)
	}
	for _, d := range ev.Deltas {
		if d.Kind == Failed {
			return e.fail(502, d.Message)
		}
		if e.started == (d.Kind == Started) {
			return errors.New("the stream doesn't begin with its beginning, or begins twice")
		}
		e.started = true
		if err := e.enc.delta(d); err != nil {
			return err
		}
	}
	return nil
}

func (e *Encoder) same(ev Event) error {
	if ev.done {
		return e.put("", "[DONE]")
	}
	if ev.tree == nil || e.dialect.openAI() && !e.r.wantUsage && justUsage(ev.tree) {
		return nil
	}
	if e.dialect.openAI() && !e.r.wantUsage {
		// With include_usage every chunk has it, as null; without, none.
		ev.tree.remove("usage", null)
	}
	if ev.tree.get("sequence_number") != nil { // a Rewriter may have put events in between
		ev.tree.set("sequence_number", e.passed)
		e.passed++
	}
	body, err := ev.tree.marshal()
	if err != nil {
		return err
	}
	return e.put(ev.name, string(body))
}

// justUsage is the last chunk that OpenAI sends when it's asked for the usage.
func justUsage(t *value) bool {
	return t.get("usage") != nil && t.get("choices") != nil && len(t.get("choices").items) == 0
}

// put writes one message.
func (e *Encoder) put(name, data string) error {
	b := make([]byte, 0, len(name)+len(data)+20)
	if e.dialect == OllamaChat || e.dialect == OllamaGenerate {
		b = append(append(b, data...), '\n')
	} else {
		if name != "" {
			b = append(append(append(b, "event: "...), name...), '\n')
		}
		b = append(append(append(b, "data: "...), data...), "\n\n"...)
	}
	_, err := e.w.Write(b)
	return err
}

// Fail ends the stream with an error that the caller's client shows.
func (e *Encoder) Fail(message string) error {
	if e.ended {
		return nil
	}
	e.ended = true
	return e.fail(502, message)
}

func (e *Encoder) fail(status int, message string) error {
	t := errorTree(e.dialect, status, message)
	switch e.dialect {
	case Anthropic:
		return e.put("error", t.json())
	case OpenAIResponses:
		// https://platform.openai.com/docs/api-reference/responses-streaming/error
		return e.put("error", obj("type", "error", "code", errorType(status), "message", message, "param", nothing,
			"sequence_number", e.sequence()).json())
	}
	return e.put("", t.json())
}

// Close says that the stream is over: to the caller as an error, if the answer hasn't ended.
func (e *Encoder) Close() error {
	return e.Fail("the model server's answer broke off")
}

// remove takes a member out, if it's of a kind.
func (v *value) remove(key string, k kind) {
	for i := range v.keys {
		if v.keys[i] == key && v.items[i].kind == k {
			v.keys, v.items = append(v.keys[:i], v.keys[i+1:]...), append(v.items[:i], v.items[i+1:]...)
			return
		}
	}
}

// common is what the encoders know of the stream so far.
type common struct {
	e        *Encoder
	since    time.Time
	model    string
	usage    Usage
	stop     Stop
	stopText string
	calls    int
}

// note keeps what is said at the end, and says whether that was all that d says.
func (c *common) note(d Delta) bool {
	switch d.Kind {
	case Started:
		if c.model = d.Model; c.model == "" {
			c.model = c.e.r.Model
		}
	case Opened:
		if d.Part == ToolCall {
			c.calls++
		}
	case Finished:
		c.stop, c.stopText = d.Stop, d.StopText
	case Counted:
		c.usage = d.Usage
	}
	return d.Kind == Finished || d.Kind == Counted
}

// reason is why the model stopped: a server that has no word for waiting for tools only ends.
func (c *common) reason() Stop {
	if c.calls > 0 && (c.stop == StopEnd || c.stop == "") {
		return StopTools
	}
	return c.stop
}
