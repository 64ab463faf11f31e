package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
)

// field is one key of a section or rule, as the struct's tags describe it.
type field struct {
	key, doc    string
	req, some   bool
	secret      bool // what is found in the wrong form may be a secret itself, and is not shown
	one, later  []string
	why         string
	never, hint string
	min, max    string
	refusal     string // what `later` is answered with
	index       []int
}

// scalar is a type of value that reads itself. Its methods have pointer receivers.
type scalar interface {
	// read takes the value from n, which is a scalar node, or says what is wrong with it.
	read(n *yaml.Node, f *field) *problem
}

// problem is what is wrong with a value, and what to do.
type problem struct{ msg, hint string }

// Error writes "message (hint)".
func (p *problem) Error() string {
	if p.hint == "" {
		return p.msg
	}
	return p.msg + " (" + p.hint + ")"
}

// decodable is a field that knows how to take itself from any node.
type decodable interface {
	decode(d *decoder, n *yaml.Node, f *field, key string)
}

// described is a type of value that has its own JSON Schema.
type described interface {
	schema(f *field) map[string]any
}

// checked is a struct with rules between its keys, checked once all of them were read.
type checked interface {
	check(d *decoder, key string)
}

// secret is a struct that says where a secret is found. Who takes it for the place of the secret itself must not read that
// again in a message, which may be logged.
type secret interface {
	instead() string // what to write
}

// placed is a struct that wants to know its node.
type placed interface{ place(n *yaml.Node) }

func (a *At) place(n *yaml.Node) { *a = at(n) }

func (r *Rule) place(n *yaml.Node) { r.At, r.Text = at(n), oneLine(n) }

// fields lists the keys of a struct type, those of embedded structs included. The list is shared: nobody may change it.
func fields(t reflect.Type) []field {
	list, ok := tags.Load(t)
	if !ok {
		list, _ = tags.LoadOrStore(t, tagged(t))
	}
	return list.([]field) // nothing else is stored
}

// tags remembers them, since reading tags takes longer than reading a rule.
var tags sync.Map // reflect.Type to []field

func tagged(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag := sf.Tag
		if tag.Get("key") == "" {
			if sf.Anonymous {
				for _, f := range fields(sf.Type) {
					f.index = append([]int{i}, f.index...)
					list = append(list, f)
				}
			}
			continue
		}
		list = append(list, field{
			key: tag.Get("key"), doc: tag.Get("doc"),
			req: tag.Get("req") == "yes", some: tag.Get("some") == "yes", secret: tag.Get("secret") == "yes",
			one: strings.Fields(tag.Get("one")), later: strings.Fields(tag.Get("later")), why: tag.Get("why"),
			never: tag.Get("never"), hint: tag.Get("hint"),
			min: tag.Get("min"), max: tag.Get("max"),
			index: []int{i},
		})
	}
	return list
}

// decoder fills the types of ast.go from nodes and gathers what is wrong.
type decoder struct {
	*collector
	refusal string // what `later` is answered with
	cache   map[reflect.Type][]field
	meant   map[string]bool // for check: the keys of its struct that a misspelt one stands for
}

func newDecoder(c *collector, refusal string) *decoder {
	return &decoder{collector: c, refusal: refusal, cache: map[reflect.Type][]field{}}
}

func (d *decoder) fields(t reflect.Type) []field {
	if _, ok := d.cache[t]; !ok {
		list := slices.Clone(fields(t))
		for i := range list {
			list[i].refusal = d.refusal
		}
		d.cache[t] = list
	}
	return d.cache[t]
}

// value decodes n into v, which is a decodable, a struct, a pointer to a struct, or a slice of one of these.
func (d *decoder) value(n *yaml.Node, v reflect.Value, f *field, key string) {
	if dec, ok := v.Addr().Interface().(decodable); ok {
		dec.decode(d, n, f, key)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), f, key)
	case reflect.Slice:
		d.list(n, v, f, key)
	default:
		d.mapping(n, v, key)
	}
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, f *field, key string) {
	if n.Kind != yaml.SequenceNode {
		hint := "write it as a list, even with one item"
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = "write [" + cut(n.Value) + "]"
			if strings.HasSuffix(key, ".permissions") {
				hint = "write one or more of read, write, execute as a list, such as [read, write]"
			}
		}
		d.add(at(n), key, "expected a list, found "+kindOf(n), hint)
		return
	}
	if f.some && len(n.Content) == 0 {
		d.add(at(n), key, "the list is empty", "name at least one, or leave the key out where it is optional")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	seen := map[any]At{}
	for i, item := range n.Content {
		itemKey := fmt.Sprintf("%s[%d]", key, i)
		before := d.count
		d.value(item, v.Index(i), f, itemKey)
		plain := v.Index(i).FieldByName("V")
		if !plain.IsValid() || d.count != before {
			continue
		}
		if first, dup := seen[plain.Interface()]; dup {
			d.add(at(item), itemKey, fmt.Sprintf("%s is in the list already, at line %d", cut(item.Value), first.Line), "remove one")
		}
		seen[plain.Interface()] = at(item)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, key string) {
	known := d.fields(v.Type())
	if n.Kind != yaml.MappingNode {
		if s, ok := v.Addr().Interface().(secret); ok && n.Kind == yaml.ScalarNode {
			d.add(at(n), key, "expected a mapping, found one value, which is not shown as it may be a secret", s.instead())
			return
		}
		d.add(at(n), key, "expected a mapping, found "+kindOf(n), wantKeys(n, known, key))
		return
	}
	if p, ok := v.Addr().Interface().(placed); ok {
		p.place(n)
	}
	seen := map[string]At{}
	meant := map[string]bool{} // keys that a misspelt one stands for: they are not missing as well
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.add(at(k), key, "a key must be a word, found "+kindOf(k), "keys here: "+strings.Join(keysOf(known), ", "))
			continue
		}
		full := k.Value
		if !plainKey(full) {
			full = show(full)
		}
		if key != "" {
			full = key + "." + full
		}
		if first, dup := seen[k.Value]; dup {
			d.add(at(k), full, fmt.Sprintf("the key is there twice, first at line %d", first.Line), "put both into one")
			continue
		}
		seen[k.Value] = at(k)
		f := find(known, k.Value)
		if f == nil {
			d.add(at(k), full, "unknown key", nearest(k.Value, keysOf(known)))
			meant[Nearest(k.Value, keysOf(known))] = true
			continue
		}
		if val.Kind == yaml.ScalarNode && val.ShortTag() == "!!null" && len(f.later) == 0 {
			d.add(at(k), full, "the key has no value", "give it one, or remove the key")
			continue
		}
		d.value(val, v.FieldByIndex(f.index), f, full)
	}
	for _, f := range known {
		if _, there := seen[f.key]; !f.req || there || meant[f.key] {
			continue
		}
		hint := f.doc
		if len(f.one) > 0 {
			hint = "valid: " + strings.Join(f.one, ", ")
		}
		d.add(at(n), join(key, f.key), "the key is missing", hint)
	}
	if c, ok := v.Addr().Interface().(checked); ok {
		d.meant = meant
		c.check(d, key)
	}
}

func (v *Value[T]) decode(d *decoder, n *yaml.Node, f *field, key string) {
	v.At, v.Set = at(n), true
	s := any(&v.V).(scalar)
	if n.Kind != yaml.ScalarNode {
		d.add(v.At, key, "expected one value, found "+kindOf(n), "")
		return
	}
	if p := s.read(n, f); p != nil {
		if f.secret {
			p = &problem{"found one value, which is not shown as it may be a secret", (*KeySource)(nil).instead()}
		}
		d.add(v.At, key, p.msg, p.hint)
	}
}

func (*Later) decode(d *decoder, n *yaml.Node, f *field, key string) {
	d.add(at(n), key, f.refusal, f.why)
}

// notSupported is what a part of the language that nothing enforces yet is answered with.
const notSupported = "not supported by this version"

func join(key, sub string) string {
	if key == "" {
		return sub
	}
	return key + "." + sub
}

func find(fs []field, key string) *field {
	for i := range fs {
		if fs[i].key == key {
			return &fs[i]
		}
	}
	return nil
}

// wantKeys tells how to write what stands for a mapping. A text in a list is taken for the first key: the name, the path.
func wantKeys(n *yaml.Node, known []field, key string) string {
	keys := "keys here: " + strings.Join(keysOf(known), ", ")
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || !strings.HasSuffix(key, "]") {
		return keys
	}
	more := ""
	if slices.ContainsFunc(known[1:], func(f field) bool { return f.req }) {
		more = ", ..."
	}
	return "write {" + known[0].key + ": " + cut(n.Value) + more + "}; " + keys
}

func keysOf(fs []field) []string {
	keys := make([]string, len(fs))
	for i, f := range fs {
		keys[i] = f.key
	}
	return keys
}

// plainKey reports whether a key can be shown without quotes.
func plainKey(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 40
}

// cut shortens a text for a message without quoting it where it is plain.
func cut(s string) string {
	if plainWord.MatchString(s) && len(s) <= 60 {
		return s
	}
	return show(s)
}
