package inference

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"
	"sync"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
)

const leastText = 48 // bytes of a message that stands for its conversation alone

// Beside the classes a conversation can have carried what is of none. No class can be called so.
const (
	unseenThings = "(unseen)" // what could not be looked into
	everything   = "(all)"    // what may not leave, whichever model is asked for
)

// memory knows which classes conversations have carried that some model may not have, by hashes: of each beginning of one, and of each
// message that is long enough to be no other's. So a conversation is known again when it goes on, and when parts of it were left out.
// What was said before the sensitive part counts for nothing: an agent begins every conversation with the same words.
type memory struct {
	ring    // its bits are a class each; the highest is everything's
	naming  sync.Mutex
	classes []string
}

const bitOfAll = 63

// marked is what a request is known by from one of its messages on.
type marked struct {
	mark
	at int // the message
}

// marks are what a request is known by, in order.
func marks(r *dialect.Request) []marked {
	h := &hasher{Hash: sha256.New()}
	list := make([]marked, 0, 2*len(r.Messages))
	var beginning mark
	for i := range r.Messages {
		m := &r.Messages[i]
		text := said(m.Parts)
		own, long := h.text(text)
		beginning = h.mark("beginning", string(m.Role), string(beginning[:]), string(own[:]))
		if i > 0 || len(text) >= leastText { // "hi" begins many
			list = append(list, marked{beginning, i})
		}
		if long {
			list = append(list, marked{own, i})
		}
	}
	return list
}

// markOf is what a text is known by, wherever it stands.
func markOf(text string) (m mark, long bool) { return (&hasher{Hash: sha256.New()}).text(text) }

// hasher makes marks one after another. It copies no text whole.
type hasher struct {
	hash.Hash
	buf [1024]byte
}

func (h *hasher) text(text string) (m mark, long bool) {
	text = strings.TrimSpace(text)
	return h.mark("text", text), len(text) >= leastText
}

func (h *hasher) mark(words ...string) mark {
	h.Reset()
	for _, w := range words {
		binary.BigEndian.PutUint64(h.buf[:8], uint64(len(w)))
		h.Write(h.buf[:8])
		for len(w) > 0 {
			n := copy(h.buf[:], w)
			h.Write(h.buf[:n])
			w = w[n:]
		}
	}
	return mark(h.Sum(h.buf[:0])[:16])
}

// said is all the text of a message.
func said(parts []dialect.Part) string {
	if len(parts) == 1 && parts[0].Arguments == "" && len(parts[0].Parts) == 0 {
		return parts[0].Text
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
		b.WriteString(p.Arguments)
		b.WriteString(said(p.Parts))
	}
	return b.String()
}

// carried are the classes that a request's conversation has carried, each with the first message from which it is known.
func (m *memory) carried(list []marked) map[string]int {
	m.naming.Lock()
	defer m.naming.Unlock()
	carried := map[string]int{}
	for _, k := range list {
		bits := m.of(k.mark)
		if bits == 0 {
			continue
		}
		for i, class := range m.classes {
			if bits&(1<<i) != 0 {
				since(carried, class, k.at)
			}
		}
		if bits&(1<<bitOfAll) != 0 {
			since(carried, everything, k.at)
		}
	}
	return carried
}

// since notes that a class was carried from a message on.
func since(carried map[string]int, class string, at int) {
	if first, known := carried[class]; !known || at < first {
		carried[class] = at
	}
}

// keep has a request known by what its conversation has carried, each from its message on.
func (m *memory) keep(list []marked, carried map[string]int) {
	for class, from := range carried {
		var late []mark
		for _, k := range list {
			if k.at >= from {
				late = append(late, k.mark)
			}
		}
		m.add([]string{class}, late...)
	}
}

// maxLookups bounds how many texts are looked for in the arguments of tools.
const maxLookups = 64

// carrier is the first message that carries one of the texts, or, for unseen, something that could not be looked at. Where one
// can't be found, it is the first of all; where there are none, the one that is yet to come.
func carrier(r *dialect.Request, texts map[string]bool, unseen bool) int {
	first := len(r.Messages)
	for i := range r.Messages {
		if holds(r.Messages[i].Parts, texts, &unseen) {
			first = min(first, i)
		}
	}
	lookups := 0
	for text, found := range texts {
		if found {
			continue
		}
		at := -1
		if lookups++; lookups <= maxLookups {
			at = slices.IndexFunc(r.Messages, func(m dialect.Message) bool { return strings.Contains(said(m.Parts), text) })
		}
		first = min(first, max(at, 0))
	}
	if unseen {
		return 0
	}
	return first
}

// holds notes which of the texts are parts, and whether something among them is no text.
func holds(parts []dialect.Part, texts map[string]bool, unseen *bool) (any bool) {
	for _, p := range parts {
		if _, ok := texts[p.Text]; ok {
			texts[p.Text], any = true, true
		}
		if *unseen && (p.Kind == dialect.Image || p.Kind == dialect.Audio || p.Kind == dialect.File) {
			*unseen, any = false, true
		}
		any = holds(p.Parts, texts, unseen) || any
	}
	return any
}

// add keeps marks of a conversation that has carried something of these classes.
func (m *memory) add(classes []string, list ...mark) {
	if len(classes) == 0 {
		return
	}
	m.naming.Lock()
	defer m.naming.Unlock()
	var bits uint64
	for _, class := range classes {
		bits |= 1 << m.bit(class)
	}
	m.ring.add(bits, list...)
}

// bit is a class's own; those that there is none left for may go nowhere.
func (m *memory) bit(class string) int {
	if i := slices.Index(m.classes, class); i >= 0 {
		return i
	}
	if class == everything || len(m.classes) == bitOfAll {
		return bitOfAll
	}
	m.classes = append(m.classes, class)
	return len(m.classes) - 1
}
