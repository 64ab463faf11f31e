package dialect

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	array
	object
)

var kindNames = [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}

// maxDepth is how deep values may nest: the APIs use about twelve levels, JSON schemas of tools a few more.
const maxDepth = 128

// A value is one JSON value. Its members keep their order, its numbers the way they were written.
type value struct {
	kind  kind
	text  string // of a string; the literal of a number or boolean
	keys  []string
	items []*value // the elements, or the values of keys
	held  *held    // of a string that holds JSON, see unwrap
}

// held is the JSON in a string, and that as it was, to know whether it was changed.
type held struct {
	*value
	was string
}

// parse reads one JSON text, strictly: where two readers might understand different things (duplicate keys, bytes that
// aren't UTF-8, half a surrogate pair, numbers that overflow, something after the end) it is refused.
func parse(body []byte) (*value, error) { return parseText(string(body)) }

func parseText(s string) (*value, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("the JSON is not valid UTF-8")
	}
	p := &parser{s: s}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.i < len(p.s) {
		return nil, p.fail("something follows the JSON value")
	}
	return v, nil
}

// Values is how many values a JSON text has at most, those in strings that hold JSON included. In memory each is a hundred times what
// it is as text, so who reads one that comes from elsewhere wants to know before.
func Values(body []byte) int {
	n := 1
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case ',', '[', '{':
			n++
		case '"':
			from := i + 1
			i = from + stringEnd(body[from:])
			if s := body[from:min(i, len(body))]; len(s) > 0 && strings.IndexByte("[{\\ ", s[0]) >= 0 {
				n += bytes.Count(s, []byte(",")) + bytes.Count(s, []byte("[")) + bytes.Count(s, []byte("{")) + bytes.Count(s, []byte(`\u`))
			}
		}
	}
	return n
}

// stringEnd is where the quote is that ends a string.
func stringEnd(s []byte) int {
	for i := 0; ; i++ {
		n := bytes.IndexByte(s[i:], '"')
		if n < 0 {
			return len(s)
		}
		i += n
		slashes := 0
		for slashes < i && s[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
}

type parser struct {
	s string
	i int
	// Members and elements of what is open, and room for values and members: a request has thousands of each.
	keys      []string
	items     []*value
	values    []value
	keyRoom   []string
	itemsRoom []*value
}

// make makes a value in the room that there is for many.
func (p *parser) make(k kind, text string) *value {
	n := len(p.values)
	if n == cap(p.values) {
		p.values, n = make([]value, 0, p.room(n, 1)), 0
	}
	p.values = p.values[:n+1]
	v := &p.values[n]
	v.kind, v.text = k, text
	return v
}

// room is how many to make room for, after so many, for n at least: at first for as many as there may be in a short text.
func (p *parser) room(before, n int) int {
	if before == 0 {
		before = len(p.s) / 32
	}
	return max(min(2*before, 512), n)
}

// take closes an object or array whose members begin at those places. They get no room to grow in: that is the next one's.
func (p *parser) take(v *value, keys, items int) *value {
	if n := len(p.keys) - keys; n > 0 {
		if len(p.keyRoom)+n > cap(p.keyRoom) {
			p.keyRoom = make([]string, 0, p.room(cap(p.keyRoom), n))
		}
		at := len(p.keyRoom)
		p.keyRoom = append(p.keyRoom, p.keys[keys:]...)
		v.keys, p.keys = p.keyRoom[at:at+n:at+n], p.keys[:keys]
	}
	if n := len(p.items) - items; n > 0 {
		if len(p.itemsRoom)+n > cap(p.itemsRoom) {
			p.itemsRoom = make([]*value, 0, p.room(cap(p.itemsRoom), n))
		}
		at := len(p.itemsRoom)
		p.itemsRoom = append(p.itemsRoom, p.items[items:]...)
		v.items, p.items = p.itemsRoom[at:at+n:at+n], p.items[:items]
	}
	return v
}

func (p *parser) fail(what string) error { return fmt.Errorf("JSON, byte %d: %s", p.i, what) }

func (p *parser) space() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\n' || p.s[p.i] == '\t' || p.s[p.i] == '\r') {
		p.i++
	}
}

// next skips space and takes c, if it is next.
func (p *parser) next(c byte) bool {
	p.space()
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *parser) value(depth int) (*value, error) {
	if depth > maxDepth {
		return nil, p.fail(fmt.Sprintf("nested deeper than %d levels", maxDepth))
	}
	p.space()
	if p.i >= len(p.s) {
		return nil, p.fail("ends too early")
	}
	switch c := p.s[p.i]; {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.array(depth)
	case c == '"':
		s, err := p.string()
		return p.make(text, s), err
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	for _, w := range literals {
		if strings.HasPrefix(p.s[p.i:], w.text) {
			p.i += len(w.text)
			return p.make(w.kind, w.text), nil
		}
	}
	return nil, p.fail("not a value")
}

var literals = []value{{kind: boolean, text: "true"}, {kind: boolean, text: "false"}, {kind: null, text: "null"}}

func (p *parser) object(depth int) (*value, error) {
	p.i++
	v := p.make(object, "")
	if p.next('}') {
		return v, nil
	}
	keys, items := len(p.keys), len(p.items)
	for {
		p.space()
		if p.i >= len(p.s) || p.s[p.i] != '"' {
			return nil, p.fail("a key was expected")
		}
		k, err := p.string()
		if err != nil {
			return nil, err
		}
		if !p.next(':') {
			return nil, p.fail("a colon was expected")
		}
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		p.keys, p.items = append(p.keys, k), append(p.items, item)
		if p.next('}') {
			break
		}
		if !p.next(',') {
			return nil, p.fail("a comma or the end of the object was expected")
		}
	}
	if p.take(v, keys, items).duplicate() {
		return nil, p.fail("an object has a key twice")
	}
	return v, nil
}

func (p *parser) array(depth int) (*value, error) {
	p.i++
	v := p.make(array, "")
	if p.next(']') {
		return v, nil
	}
	keys, items := len(p.keys), len(p.items)
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		p.items = append(p.items, item)
		if p.next(']') {
			return p.take(v, keys, items), nil
		}
		if !p.next(',') {
			return nil, p.fail("a comma or the end of the array was expected")
		}
	}
}

func (p *parser) number() (*value, error) {
	start := p.i
	for p.i < len(p.s) && strings.IndexByte("+-.eE0123456789", p.s[p.i]) >= 0 {
		p.i++
	}
	lit := p.s[start:p.i]
	if !isNumber(lit) {
		return nil, p.fail("not a number")
	}
	return p.make(number, lit), nil
}

// isNumber says whether s is a JSON number that a float64 can hold.
func isNumber(s string) bool {
	digits := func(s string) string { return strings.TrimLeft(s, "0123456789") }
	r := strings.TrimPrefix(s, "-")
	if len(r) > 1 && r[0] == '0' && r[1] >= '0' && r[1] <= '9' {
		return false
	}
	rest := digits(r)
	if len(rest) == len(r) {
		return false
	}
	if strings.HasPrefix(rest, ".") {
		f := digits(rest[1:])
		if len(f) == len(rest)-1 {
			return false
		}
		rest = f
	}
	if rest != "" && (rest[0] == 'e' || rest[0] == 'E') {
		e := rest[1:]
		if e != "" && (e[0] == '+' || e[0] == '-') {
			e = e[1:]
		}
		if e == "" || digits(e) != "" {
			return false
		}
		rest = ""
	}
	if rest != "" || len(s) > 400 {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}

// duplicate says whether an object has a key twice.
func (v *value) duplicate() bool {
	if len(v.keys) < 8 {
		for i, k := range v.keys {
			for _, other := range v.keys[:i] {
				if k == other {
					return true
				}
			}
		}
		return false
	}
	seen := make(map[string]bool, len(v.keys))
	for _, k := range v.keys {
		seen[k] = true
	}
	return len(seen) < len(v.keys)
}

// append writes v at the end of b. A number whose text was replaced by something else becomes a string.
func (v *value) append(b []byte) []byte {
	switch {
	case v == nil || v.kind == null:
		return append(b, "null"...)
	case v.kind == boolean, v.kind == number && isNumber(v.text):
		return append(b, v.text...)
	case v.kind == array:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.append(b)
		}
		return append(b, ']')
	case v.kind == object:
		b = append(b, '{')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, v.keys[i]), ':')
			b = item.append(b)
		}
		return append(b, '}')
	}
	return appendString(b, v.string())
}

// string is the text of a string, with what was changed in the JSON that it holds.
func (v *value) string() string {
	if v.held != nil {
		if s := v.held.json(); s != v.held.was {
			return s
		}
	}
	return v.text
}

// marshal writes a tree whose texts and keys may have been replaced.
func (v *value) marshal() ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	n := v.size()
	return v.append(make([]byte, 0, n+n/8)), nil
}

// size is about how long v is as JSON.
func (v *value) size() int {
	if v == nil {
		return 4
	}
	n := len(v.text) + 4
	for _, k := range v.keys {
		n += len(k) + 4
	}
	for _, item := range v.items {
		n += item.size()
	}
	return n
}

// check finds what replacing texts has broken.
func (v *value) check() error {
	if v == nil {
		return nil
	}
	if !utf8.ValidString(v.text) {
		return errors.New("a replaced text is not valid UTF-8")
	}
	if v.kind == object {
		if v.duplicate() {
			return errors.New("replacing texts has made two keys of an object the same")
		}
		for _, k := range v.keys {
			if !utf8.ValidString(k) {
				return errors.New("a replaced key is not valid UTF-8")
			}
		}
	}
	if v.held != nil {
		if err := v.held.check(); err != nil {
			return err
		}
	}
	for _, item := range v.items {
		if err := item.check(); err != nil {
			return err
		}
	}
	return nil
}
