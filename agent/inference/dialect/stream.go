package dialect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A DeltaKind is what happens in a stream.
type DeltaKind uint8

// What happens in a stream, in the order in which it may: Started, then blocks one after another, then the reason to stop and
// the usage, then the end.
const (
	Started  DeltaKind = iota + 1 // ID, Model
	Opened                        // Block, Part; of a tool call ID and Name
	More                          // Block, Part, Text
	Closed                        // Block, Part
	Finished                      // Stop
	Counted                       // Usage, what is known so far
	Ended                         // nothing follows
	Failed                        // Message: the server gave up
)

// A Delta is one thing that happens in a stream.
type Delta struct {
	Kind     DeltaKind
	Block    int
	Part     PartKind
	ID       string
	Name     string
	Model    string
	Text     *string // may be replaced
	Stop     Stop
	StopText string
	Usage    Usage
	Message  string

	whole *value // arguments that come as an object, all at once
}

// Said is what More adds: text, or arguments as JSON.
func (d Delta) Said() string {
	if d.whole != nil {
		return d.whole.json()
	}
	if d.Text == nil {
		return ""
	}
	return *d.Text
}

// An Event is one message of a stream: what it means, and the message itself for who speaks the same dialect. Some mean
// nothing to others, and have no deltas.
type Event struct {
	Deltas []Delta

	dialect Dialect
	name    string // of the server-sent event
	tree    *value
	done    bool // OpenAI's data: [DONE]
}

// Texts are all that the event says beside the texts of its deltas: names and arguments that come whole, and the complete
// texts that some dialects repeat at the end.
func (e *Event) Texts() []*string {
	if e.tree == nil {
		return nil
	}
	var all, out []*string
	e.tree.texts("", &all)
	for _, t := range all {
		streamed := false
		for _, d := range e.Deltas {
			streamed = streamed || d.Text == t
		}
		if !streamed {
			out = append(out, t)
		}
	}
	return out
}

// maxEvent is how long one message of a stream may be: an answer's whole text is in the last one of OpenAI's responses.
const maxEvent = 16 << 20

// maxEventValues is how many values one may have: that one repeats the request's tools, too.
const maxEventValues = 1 << 17

var errMany = fmt.Errorf("a message of the stream has more than %d values", maxEventValues)

// maxBlocks is how many texts and tool calls an answer may have: of each something is kept until it ends, and it may never end.
const maxBlocks = 4096

var errBlocks = fmt.Errorf("the stream has more than %d texts and tool calls", maxBlocks)

// A Decoder reads a stream.
type Decoder struct {
	dialect Dialect
	r       *bufio.Reader
	decode  interface {
		event(name string, t *value) ([]Delta, error)
		// end is what it means that nothing follows.
		end() ([]Delta, error)
	}
	ended  bool
	opened int // blocks
}

// NewDecoder reads the stream r of a server that speaks d.
func NewDecoder(d Dialect, r io.Reader) *Decoder {
	dec := &Decoder{dialect: d, r: bufio.NewReader(r)}
	switch d {
	case OpenAIChat, OpenAICompletions:
		dec.decode = &openAIDecoder{}
	case OpenAIResponses:
		dec.decode = &responsesDecoder{}
	case Gemini:
		dec.decode = &geminiDecoder{}
	case Anthropic:
		dec.decode = &anthropicDecoder{}
	case OllamaChat, OllamaGenerate:
		dec.decode = &ollamaDecoder{}
	}
	return dec
}

var errEarly = fmt.Errorf("the stream ends before the answer does: %w", io.ErrUnexpectedEOF)

// Next gives the next event, io.EOF after the last. A stream that breaks off is an error, never an end.
func (d *Decoder) Next() (Event, error) {
	if d.decode == nil {
		return Event{}, fmt.Errorf("streams of %s are not read", d.dialect)
	}
	if d.ended {
		return Event{}, io.EOF
	}
	name, data, err := d.message()
	if errors.Is(err, io.EOF) {
		d.ended = true
		deltas, err := d.decode.end()
		return Event{Deltas: deltas, dialect: d.dialect}, err
	}
	if err != nil {
		return Event{}, err
	}
	e := Event{dialect: d.dialect, name: name}
	if d.dialect.openAI() && strings.TrimSpace(data) == "[DONE]" {
		d.ended, e.done = true, true
		e.Deltas, err = d.decode.end()
		return e, err
	}
	if len(data) > 2*maxEventValues && Values([]byte(data)) > maxEventValues {
		return Event{}, errMany
	}
	if e.tree, err = parseText(data); err != nil {
		return Event{}, err
	}
	if e.tree.kind != object {
		return Event{}, errors.New("a message of the stream is not a JSON object")
	}
	e.tree.unwrapWhole("")
	if e.Deltas, err = d.decode.event(name, e.tree); err != nil {
		return Event{}, err
	}
	for _, x := range e.Deltas {
		d.ended = d.ended || x.Kind == Ended || x.Kind == Failed
		if x.Kind == Opened {
			d.opened++
		}
	}
	if d.opened > maxBlocks {
		return Event{}, errBlocks
	}
	return e, nil
}

// unwrapWhole is unwrap for what doesn't come in pieces.
func (v *value) unwrapWhole(key string) {
	if strings.HasSuffix(v.get("type").str(), ".delta") || v.get("choices") != nil {
		return
	}
	v.unwrap(key)
}

// message reads one message: a line, or a server-sent event.
// https://html.spec.whatwg.org/multipage/server-sent-events.html
func (d *Decoder) message() (name, data string, err error) {
	lines := d.dialect == OllamaChat || d.dialect == OllamaGenerate
	var b strings.Builder // of data on several lines
	for any := false; ; {
		line, err := d.line()
		if err != nil {
			if errors.Is(err, io.EOF) && (any || line != "") {
				return "", "", errEarly
			}
			return "", "", err
		}
		if lines {
			if line == "" {
				continue
			}
			return "", line, nil
		}
		field, v, _ := strings.Cut(line, ":")
		v = strings.TrimPrefix(v, " ")
		switch {
		case line == "":
			if b.Len() > 0 {
				data = b.String()
			}
			if any {
				return name, data, nil
			}
			name = ""
		case field == "event":
			name = v
		case field == "data":
			if !any {
				any, data = true, v
				continue
			}
			if b.Len() == 0 {
				b.WriteString(data)
			}
			b.WriteByte('\n')
			b.WriteString(v)
			if b.Len() > maxEvent {
				return "", "", errLong
			}
		}
	}
}

var errLong = fmt.Errorf("a message of the stream is longer than %d MiB", maxEvent>>20)

// line reads to the end of a line. At the end of the stream, what is left may be a line of its own only where lines are
// messages.
func (d *Decoder) line() (string, error) {
	var b []byte
	for {
		part, err := d.r.ReadSlice('\n')
		if err == nil && b == nil { // nearly always
			return strings.TrimSuffix(string(part[:len(part)-1]), "\r"), nil
		}
		b = append(b, part...)
		if len(b) > maxEvent {
			return "", errLong
		}
		if err == nil {
			return strings.TrimSuffix(string(b[:len(b)-1]), "\r"), nil
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(b) > 0 && (d.dialect == OllamaChat || d.dialect == OllamaGenerate) {
			return string(b), nil
		}
		return string(b), err
	}
}

// blocks numbers the blocks of dialects that don't do so themselves, and closes what is open.
type blocks struct {
	n       int
	open    []openBlock // those of choices beside each other
	started bool
}

type openBlock struct {
	key   string
	block int
	part  PartKind
}

// more is text for a block, which is opened if it isn't open; what was open before in its choice is closed.
func (b *blocks) more(choice, key string, opened Delta, more Delta) []Delta {
	for _, o := range b.open {
		if o.key == choice+key {
			more.Kind, more.Block, more.Part = More, o.block, o.part
			return []Delta{more}
		}
	}
	out := b.closeAll(choice)
	opened.Kind, opened.Block = Opened, b.n
	b.open = append(b.open, openBlock{choice + key, b.n, opened.Part})
	b.n++
	out = append(out, opened)
	if more.Text != nil || more.whole != nil {
		more.Kind, more.Block, more.Part = More, opened.Block, opened.Part
		out = append(out, more)
	}
	return out
}

// closeAll closes the open blocks of a choice.
func (b *blocks) closeAll(choice string) []Delta {
	var out []Delta
	var left []openBlock
	for _, o := range b.open {
		if !strings.HasPrefix(o.key, choice) {
			left = append(left, o)
			continue
		}
		out = append(out, Delta{Kind: Closed, Block: o.block, Part: o.part})
	}
	b.open = left
	return out
}
