package dialect

// A Source gives the events of a stream, io.EOF after the last: a Decoder, or a Rewriter.
type Source interface {
	Next() (Event, error)
}

// A Rewrite gets the text of one block piece by piece and gives what may go on. What it holds back, because more of a
// placeholder may follow, it gives when final is true. The pieces of a ToolCall are JSON text: what is put into a string of
// it has to be escaped as JSON.
type Rewrite func(text string, final bool) string

// A Rewriter replaces texts of a stream on its way.
type Rewriter struct {
	s      Source
	start  func(PartKind) Rewrite
	blocks map[int]*rewritten
	queue  []Event
	err    error
}

type rewritten struct {
	f    Rewrite
	last Event // that had text of the block, to make another from
	at   int   // which of its deltas it is
}

// NewRewriter passes what s says through functions that start makes, one for each block. What a dialect says once more as a
// whole goes, complete, through one of its own.
func NewRewriter(s Source, start func(PartKind) Rewrite) *Rewriter {
	return &Rewriter{s: s, start: start, blocks: map[int]*rewritten{}}
}

// Next gives the next event.
func (w *Rewriter) Next() (Event, error) {
	if len(w.queue) > 0 {
		e := w.queue[0]
		w.queue = w.queue[1:]
		return e, nil
	}
	if w.err != nil {
		return Event{}, w.err
	}
	e, err := w.s.Next()
	if err != nil {
		w.err = err
		return Event{}, err
	}
	for _, t := range e.Texts() {
		*t = w.start(Text)(*t, true)
	}
	var before []Event
	for i, d := range e.Deltas {
		for _, t := range []*string{&e.Deltas[i].Name, &e.Deltas[i].Message} {
			if *t != "" {
				*t = w.start(Text)(*t, true)
			}
		}
		switch d.Kind {
		case More:
			if d.Text == nil {
				continue
			}
			b := w.blocks[d.Block]
			if b == nil {
				b = &rewritten{f: w.start(d.Part)}
				w.blocks[d.Block] = b
			}
			*d.Text = b.f(*d.Text, false)
			b.last, b.at = e, i
		case Closed:
			b := w.blocks[d.Block]
			if b == nil {
				continue
			}
			delete(w.blocks, d.Block)
			rest := b.f("", true)
			if rest == "" {
				continue
			}
			if b.last.tree == e.tree { // its last text is in this very event
				*b.last.Deltas[b.at].Text += rest
				continue
			}
			before = append(before, b.last.another(b.last.Deltas[b.at], rest))
		}
	}
	if len(before) > 0 {
		w.queue = append(before[1:], e)
		return before[0], nil
	}
	return e, nil
}

// another is an event that adds more text to the block of a delta of e.
func (e Event) another(d Delta, more string) Event {
	x := str(more)
	next := Event{dialect: e.dialect, name: e.name}
	switch e.dialect {
	case OpenAIChat, OpenAICompletions:
		next.tree = obj()
		for i, k := range e.tree.keys {
			switch item := e.tree.items[i]; item.kind {
			case text, number:
				next.tree.set(k, item.clone())
			}
		}
		for _, c := range e.tree.get("choices").list() {
			if v := only(c.get("delta"), d.Text, x); v != nil {
				next.tree.set("choices", arr(obj("index", c.get("index").int(), "delta", v, "finish_reason", nothing)))
			} else if v := only(c, d.Text, x); v != nil {
				next.tree.set("choices", arr(v.set("index", c.get("index").int()).set("finish_reason", nothing)))
			}
		}
	case OllamaChat, OllamaGenerate:
		next.tree = obj()
		for _, k := range []string{"model", "created_at"} {
			next.tree.set(k, e.tree.get(k))
		}
		if v := only(e.tree.get("message"), d.Text, x); v != nil {
			if v.get("content") == nil {
				v.set("content", "")
			}
			next.tree.set("message", v.set("role", "assistant"))
		} else if v := only(e.tree, d.Text, x); v != nil {
			next.tree.set(v.keys[0], v.items[0])
		}
		next.tree.set("done", false)
	default: // an event has one text
		next.tree = e.tree.with(d.Text, x)
	}
	d.Text = &x.text
	next.Deltas = []Delta{d}
	return next
}

// only is v with the one string that old is, as x, and the index of the tool call that it's in.
func only(v *value, old *string, x *value) *value {
	if v == nil {
		return nil
	}
	for i, k := range v.keys {
		item := v.items[i]
		if &item.text == old {
			return obj(k, x)
		}
		if k == "function" || k == "custom" {
			if in := only(item, old, x); in != nil {
				return obj("index", v.get("index").int(), k, in)
			}
		}
		if k == "tool_calls" {
			for _, c := range item.list() {
				if in := only(c, old, x); in != nil {
					return obj(k, arr(in))
				}
			}
		}
	}
	return nil
}

// with is a copy of v in which the string old is x.
func (v *value) with(old *string, x *value) *value {
	if &v.text == old {
		return x
	}
	c := *v
	c.items = make([]*value, len(v.items))
	for i, item := range v.items {
		c.items[i] = item.with(old, x)
	}
	return &c
}
