package policy

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// yamlText is a policy's text that is changed in place: lines and pieces are put in and taken out where the nodes stand,
// so everything else stays as its author wrote it. The YAML reader says where a node begins and not where it ends, so
// each change has several candidates, and the first one that reads as exactly the tree that is wanted is taken. None
// is an error, never a guess.
type yamlText struct {
	src  []byte // without a byte order mark
	mark []byte // that mark
	eol  string
	root *yaml.Node
}

// maxCandidates bounds how many ends of a node are tried: lines that only close brackets, and lines of a quoted text.
const maxCandidates = 40

var errLayout = errors.New("its layout is one that can't be changed line by line")

func newYAMLText(file string, src []byte) (*yamlText, error) {
	t := &yamlText{eol: "\n"}
	t.src = bytes.TrimPrefix(src, []byte("\ufeff"))
	t.mark = src[:len(src)-len(t.src)]
	if line, _, ok := bytes.Cut(t.src, []byte{'\n'}); ok && bytes.HasSuffix(line, []byte{'\r'}) {
		t.eol = "\r\n"
	}
	c := &collector{file: file}
	if t.root = document(c, t.src); t.root == nil {
		return nil, c.err()
	}
	return t, nil
}

func (t *yamlText) bytes() []byte { return slices.Concat(t.mark, t.src) }

// try takes the first candidate that reads as the tree want.
func (t *yamlText) try(want *yaml.Node, candidates ...[]byte) error {
	for _, src := range candidates {
		if root := readTree(src); root != nil && sameTree(root, want) {
			t.src, t.root = src, root
			return nil
		}
	}
	return errLayout
}

// readTree reads one document, or returns nil. What it says is judged when the edit is done.
func readTree(src []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, second yaml.Node
	if dec.Decode(&doc) != nil || !errors.Is(dec.Decode(&second), io.EOF) {
		return nil
	}
	return doc.Content[0]
}

// sameTree compares what two nodes say, not how it is written.
func sameTree(a, b *yaml.Node) bool {
	return a.Kind == b.Kind && a.Value == b.Value && (a.Kind != yaml.ScalarNode || a.ShortTag() == b.ShortTag()) &&
		slices.EqualFunc(a.Content, b.Content, sameTree)
}

// with returns the tree with one node's children replaced.
func with(n, parent *yaml.Node, content []*yaml.Node) *yaml.Node {
	c := *n
	if n == parent {
		c.Content = content
		return &c
	}
	c.Content = make([]*yaml.Node, len(n.Content))
	for i, child := range n.Content {
		c.Content[i] = with(child, parent, content)
	}
	return &c
}

// value returns a mapping's value of a key, nil when it has none.
func value(n *yaml.Node, key string) *yaml.Node {
	if i := keyAt(n, key); i >= 0 {
		return n.Content[i+1]
	}
	return nil
}

func keyAt(n *yaml.Node, key string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return i
		}
	}
	return -1
}

func isFlow(n *yaml.Node) bool { return n.Style&yaml.FlowStyle != 0 }

// lastLine is the last line that a node or one in it begins on.
func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, child := range n.Content {
		last = max(last, lastLine(child))
	}
	return last
}

// lineStart is where a line begins, from 1; past the last one it is the end of the text.
func (t *yamlText) lineStart(line int) int {
	off := 0
	for ; line > 1 && off < len(t.src); line-- {
		i := bytes.IndexByte(t.src[off:], '\n')
		if i < 0 {
			return len(t.src)
		}
		off += i + 1
	}
	return off
}

// offset is where a node begins.
func (t *yamlText) offset(n *yaml.Node) int {
	off := t.lineStart(n.Line)
	for col := 1; col < n.Column && off < len(t.src); col++ {
		_, size := utf8.DecodeRune(t.src[off:])
		off += size
	}
	return off
}

// splice returns the text with src[from:to] replaced.
func (t *yamlText) splice(from, to int, s string) []byte {
	return slices.Concat(t.src[:from], []byte(s), t.src[to:])
}

// insertLines returns candidates with lines put in after a line or one of those that follow it.
func (t *yamlText) insertLines(after int, lines []string) (out [][]byte) {
	text := strings.Join(lines, t.eol) + t.eol
	for i := range maxCandidates {
		off := t.lineStart(after + 1 + i)
		if off == len(t.src) && off > 0 && t.src[off-1] != '\n' {
			return append(out, t.splice(off, off, t.eol+strings.TrimSuffix(text, t.eol)))
		}
		out = append(out, t.splice(off, off, text))
		if off == len(t.src) {
			break
		}
	}
	return out
}

// removeLines returns candidates without the lines from first to last or one of those that follow it.
func (t *yamlText) removeLines(first, last int) (out [][]byte) {
	for i := range maxCandidates {
		from, to := t.lineStart(first), t.lineStart(last+1+i)
		if to == len(t.src) && from > 0 && t.src[to-1] != '\n' { // the text ended without a newline, and will again
			from = len(bytes.TrimSuffix(bytes.TrimSuffix(t.src[:from], []byte{'\n'}), []byte{'\r'}))
		}
		out = append(out, t.splice(from, to, ""))
		if to == len(t.src) {
			break
		}
	}
	return out
}

// insertFlow returns candidates with an item put in at the end of a flow list or mapping.
func (t *yamlText) insertFlow(n *yaml.Node, item string) [][]byte {
	if len(n.Content) == 0 {
		off := t.offset(n) + 1
		return [][]byte{t.splice(off, off, item)}
	}
	off := t.flowEnd(t.offset(n.Content[len(n.Content)-1]))
	return [][]byte{t.splice(off, off, ", "+item)}
}

// removeFlow returns candidates without what stands from first to last in a flow list or mapping, and one comma.
func (t *yamlText) removeFlow(first, last *yaml.Node) [][]byte {
	from, to := t.offset(first), t.flowEnd(t.offset(last))
	var out [][]byte
	if rest := bytes.TrimLeft(t.src[to:], " "); len(rest) > 0 && rest[0] == ',' {
		out = append(out, t.splice(from, len(t.src)-len(bytes.TrimLeft(rest[1:], " ")), ""))
	}
	if before := bytes.TrimRight(t.src[:from], " \r\n"); len(before) > 0 && before[len(before)-1] == ',' {
		out = append(out, t.splice(len(before)-1, to, ""))
	}
	return append(out, t.splice(from, to, ""))
}

// flowEnd is where the flow node that begins at off ends.
func (t *yamlText) flowEnd(off int) int {
	depth := 0
	token := true // a quote here begins a quoted text
	for i := off; i < len(t.src); i++ {
		switch c := t.src[i]; {
		case token && (c == '"' || c == '\''):
			i = t.quoteEnd(i)
			token = false
			if depth == 0 {
				return i + 1
			}
		case c == '#' && i > off && strings.IndexByte(" \t\n", t.src[i-1]) >= 0:
			if depth == 0 {
				return off + len(bytes.TrimRight(t.src[off:i], " \t\r\n"))
			}
			for i+1 < len(t.src) && t.src[i+1] != '\n' {
				i++
			}
		case c == '[' || c == '{':
			depth++
			token = true
		case c == ']' || c == '}' || c == ',':
			if depth == 0 {
				return off + len(bytes.TrimRight(t.src[off:i], " \t\r\n"))
			}
			token = true
			if c != ',' {
				token = false
				if depth--; depth == 0 {
					return i + 1
				}
			}
		case c == ':':
			token = true
		case c != ' ' && c != '\t' && c != '\r' && c != '\n':
			token = false
		}
	}
	return len(t.src)
}

// quoteEnd is where the quoted text that begins at off has its closing quote.
func (t *yamlText) quoteEnd(off int) int {
	quote := t.src[off]
	for i := off + 1; i < len(t.src); i++ {
		switch {
		case quote == '"' && t.src[i] == '\\':
			i++
		case t.src[i] != quote:
		case quote == '\'' && i+1 < len(t.src) && t.src[i+1] == '\'':
			i++
		default:
			return i
		}
	}
	return len(t.src) - 1
}

// insertItem puts an item at the end of a list, in the style of the item before.
func (t *yamlText) insertItem(list, item *yaml.Node) error {
	want := with(t.root, list, append(slices.Clip(list.Content), item))
	if isFlow(list) {
		return t.try(want, t.insertFlow(list, flowText(item))...)
	}
	last := list.Content[len(list.Content)-1]
	dash := strings.Repeat(" ", list.Column-1) + "-" + strings.Repeat(" ", max(1, last.Column-list.Column-1))
	lines := []string{dash + flowText(item)}
	if item.Kind == yaml.MappingNode && !isFlow(last) {
		lines = itemLines(dash, item)
	}
	return t.try(want, t.insertLines(t.commented(lastLine(list), last.Column), lines)...)
}

// commented is the last of the comments that follow a line and stand at a column or right of it: they belong to the rule
// above them.
func (t *yamlText) commented(line, column int) int {
	for {
		next := t.src[t.lineStart(line+1):]
		text := bytes.TrimLeft(next, " ")
		if len(text) == 0 || text[0] != '#' || len(next)-len(text) < column-1 {
			return line
		}
		line++
	}
}

// itemLines writes a mapping as an item of a block list.
func itemLines(dash string, item *yaml.Node) []string {
	var lines []string
	for i := 0; i+1 < len(item.Content); i += 2 {
		lines = append(lines, dash+item.Content[i].Value+": "+flowText(item.Content[i+1]))
		dash = strings.Repeat(" ", len(dash))
	}
	return lines
}

// insertKey puts a key and its value at the end of a mapping; lines are how a block mapping has them, without its margin.
func (t *yamlText) insertKey(mapping *yaml.Node, key string, val *yaml.Node, lines []string) error {
	k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}
	want := with(t.root, mapping, append(slices.Clip(mapping.Content), k, val))
	if isFlow(mapping) {
		return t.try(want, t.insertFlow(mapping, key+": "+flowText(val))...)
	}
	margin := strings.Repeat(" ", mapping.Column-1)
	for i := range lines {
		if lines[i] != "" {
			lines[i] = margin + lines[i]
		}
	}
	candidates := t.insertLines(lastLine(mapping), lines)
	if mapping == t.root { // below the comments at the end, which belong to the section above them
		candidates = slices.Concat(t.insertLines(bytes.Count(t.src, []byte{'\n'})+1, lines), candidates)
	}
	return t.try(want, candidates...)
}

// removeItem takes an item out of a list that has others.
func (t *yamlText) removeItem(list *yaml.Node, i int) error {
	item := list.Content[i]
	want := with(t.root, list, slices.Concat(list.Content[:i], list.Content[i+1:]))
	if isFlow(list) {
		return t.try(want, t.removeFlow(item, item)...)
	}
	return t.try(want, append(t.removeLines(item.Line, lastLine(item)), t.removeLines(item.Line-1, lastLine(item))...)...)
}

// removeKey takes a key and its value out of a mapping that has others.
func (t *yamlText) removeKey(mapping *yaml.Node, key string) error {
	i := keyAt(mapping, key)
	k, val := mapping.Content[i], mapping.Content[i+1]
	want := with(t.root, mapping, slices.Concat(mapping.Content[:i], mapping.Content[i+2:]))
	if isFlow(mapping) {
		return t.try(want, t.removeFlow(k, val)...)
	}
	return t.try(want, t.removeLines(k.Line, lastLine(val))...)
}
