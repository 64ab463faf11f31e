package inference

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newSecret(s *[32]byte) { _, _ = rand.Read(s[:]) } // never fails

// placeholders stand for what was taken out of a request.
type placeholders map[string]string // what each stands for

// placeholder is the same for the same text in the same sandbox, so that a conversation stays one, and says nothing of it.
func (r *Router) placeholder(kind, text string) string {
	h := hmac.New(sha256.New, r.secret[:])
	h.Write([]byte(kind + "\x00" + text))
	var b strings.Builder
	b.WriteByte('[')
	for _, c := range strings.ToUpper(kind) {
		if c < 'A' || c > 'Z' {
			c = '_'
		}
		b.WriteRune(c)
	}
	b.WriteByte('_')
	for _, c := range h.Sum(nil)[:10] {
		b.WriteByte('A' + c%26)
	}
	b.WriteByte(']')
	return b.String()
}

// redact puts placeholders for what a backend may have redacted only. false: something of it is still there, and the texts are as
// they were.
func (r *Router) redact(rs *rules, b *policy.Backend, texts []*string, found []classify.Match) (placeholders, bool) {
	redacted := func(m classify.Match) bool { return rs.routeOf(b, string(m.Class)) == policy.RouteRedact }
	was := values(texts)
	p := placeholders{}
	byPart := map[int][]classify.Match{}
	for _, m := range found {
		if redacted(m) {
			if m.Part >= len(texts) {
				return nil, false // it is in a header
			}
			byPart[m.Part] = append(byPart[m.Part], m)
		}
	}
	if len(byPart) == 0 {
		return nil, true
	}
	for part, list := range byPart {
		byPart[part] = r.name(was[part], list, p)
	}
	others := p.others()
	for part, text := range was {
		*texts[part] = r.replace(text, byPart[part], others)
	}
	left, err := rs.parts(values(texts))
	if err == nil && !slices.ContainsFunc(left, redacted) {
		return p, true
	}
	for i := range texts {
		*texts[i] = was[i]
	}
	return nil, false
}

// name makes placeholders for what was found in one text. Matches that overlap are one.
func (r *Router) name(text string, found []classify.Match, p placeholders) (list []classify.Match) {
	slices.SortFunc(found, func(a, b classify.Match) int { return cmp.Or(a.Start-b.Start, b.End-a.End) })
	for i := 0; i < len(found); {
		m := found[i]
		for i++; i < len(found) && found[i].Start < m.End; i++ {
			m.End = max(m.End, found[i].End)
		}
		was := strings.Clone(text[m.Start:m.End]) // the text is not kept
		p[r.placeholder(m.Kind, was)] = was
		list = append(list, m)
	}
	return list
}

// leastHidden is how long what was found is at least that is hidden wherever it stands: less is in many words.
const leastHidden = 4

// others put placeholders where what was found stands once more, and is not known by itself: put back into an answer, it comes again
// in the next request, next to what a model has said around it.
func (p placeholders) others() *strings.Replacer {
	names := map[string]string{}
	for name, was := range p {
		if other, known := names[was]; len(was) >= leastHidden && (!known || name < other) {
			names[was] = name
		}
	}
	var pairs []string
	for _, was := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) }) {
		pairs = append(pairs, was, names[was])
	}
	return strings.NewReplacer(pairs...)
}

// replace puts placeholders into one text.
func (r *Router) replace(text string, list []classify.Match, others *strings.Replacer) string {
	var b strings.Builder
	at := 0
	for _, m := range list {
		b.WriteString(others.Replace(text[at:m.Start]))
		b.WriteString(r.placeholder(m.Kind, text[m.Start:m.End]))
		at = m.End
	}
	b.WriteString(others.Replace(text[at:]))
	return b.String()
}

// restore puts what they stand for back into a text. inJSON: the text is a piece of JSON, within a string.
func (p placeholders) restore(text string, inJSON bool) string {
	var b strings.Builder
	done := 0
	for from := 0; len(p) > 0; {
		i := strings.IndexByte(text[from:], '[')
		if i < 0 {
			break
		}
		from += i + 1
		was, known := p[text[from-1:from-1+nameLength(text[from-1:])]]
		if !known {
			continue
		}
		b.WriteString(text[done : from-1])
		from += nameLength(text[from-1:]) - 1
		done = from
		if inJSON {
			quoted, err := json.Marshal(was)
			if err != nil {
				continue // strings only: can't be
			}
			was = string(quoted[1 : len(quoted)-1])
		}
		b.WriteString(was)
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

// maxPlaceholder is how long a placeholder is at most: kinds are labels.
const maxPlaceholder = 80

// nameLength is how long the placeholder is, or its beginning, that a text begins with.
func nameLength(text string) int {
	for i := 1; i < min(len(text), maxPlaceholder); i++ {
		switch c := text[i]; {
		case c == ']':
			return i + 1
		case c != '_' && (c < 'A' || c > 'Z'):
			return i
		}
	}
	return min(len(text), maxPlaceholder)
}

// begun is how many bytes at the end of a text may be the beginning of a placeholder.
func (p placeholders) begun(text string) int {
	i := strings.LastIndexByte(text, '[')
	if n := len(text) - i; len(p) > 0 && i >= 0 && n < maxPlaceholder && text[len(text)-1] != ']' && nameLength(text[i:]) == n {
		return n
	}
	return 0
}
