package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxSource is the most bytes of one policy file: some 40,000 rules. The YAML reader needs up to 150 times as much
// memory, so this is also what bounds a hostile file.
const maxSource = 4 << 20

// document reads src as exactly one YAML document whose root is a mapping, and refuses whatever YAML could mean twice:
// see checkBytes and checkNode. It returns nil when it has added an error.
func document(c *collector, src []byte) *yaml.Node {
	if len(src) > maxSource {
		c.add(At{}, "", fmt.Sprintf("the file has %d bytes; a policy has at most %d", len(src), maxSource), "")
		return nil
	}
	src = bytes.TrimPrefix(src, []byte("\ufeff"))
	if !checkBytes(c, src) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		addEmpty(c)
		return nil
	case err != nil:
		addSyntax(c, src, err)
		return nil
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		addSyntax(c, src, err)
		return nil
	default:
		c.add(at(&second), "", "a second document starts here", "a policy is one document: remove the `---` line")
		return nil
	}
	root := doc.Content[0]
	if !checkNode(c, root) {
		return nil
	}
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" || root.Kind == yaml.MappingNode && len(root.Content) == 0 {
		addEmpty(c)
		return nil
	}
	if root.Kind != yaml.MappingNode {
		c.add(at(root), "", "expected `key: value` lines, found "+kindOf(root), "a policy is a mapping of sections: network, filesystem, process")
		return nil
	}
	return root
}

func addEmpty(c *collector) {
	c.add(At{}, "", "the file is empty", "a policy needs at least one section; `nemoclaw init` writes one that works")
}

func at(n *yaml.Node) At { return At{Line: n.Line, Col: n.Column} }

// checkBytes refuses what an editor and the YAML reader could show differently: broken UTF-8, control characters,
// other line breaks, characters that reorder text on the screen, and tabs as indentation.
func checkBytes(c *collector, src []byte) bool {
	pos := At{Line: 1, Col: 1}
	indent := true // only blanks so far in this line
	for i := 0; i < len(src); pos.Col++ {
		r, size := utf8.DecodeRune(src[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			c.add(pos, "", fmt.Sprintf("byte 0x%02x is not UTF-8", src[i]), "save the file as UTF-8")
			return false
		case r == '\t':
			if indent && !blankOrComment(src[i:]) {
				c.add(pos, "", "a tab in the indentation", "indent with spaces")
				return false
			}
		case r == '\n':
			pos, indent = At{Line: pos.Line + 1}, true
		case r == '\r' && i+1 < len(src) && src[i+1] == '\n':
		case !printable(r):
			c.add(pos, "", fmt.Sprintf("character %U is not allowed", r), "it doesn't show, or it reorders what shows; remove it")
			return false
		case r != ' ':
			indent = false
		}
		i += size
	}
	return true
}

// blankOrComment reports whether the rest of the line holds nothing for YAML.
func blankOrComment(rest []byte) bool {
	if i := bytes.IndexByte(rest, '\n'); i >= 0 {
		rest = rest[:i]
	}
	rest = bytes.TrimLeft(rest, " \t\r")
	return len(rest) == 0 || rest[0] == '#'
}

// printable refuses C0 and C1 controls, the other line breaks of YAML 1.1, byte order marks, and the marks that
// reorder text (so that what a reviewer sees is what is enforced: CVE-2021-42574). Tab and line feed are the caller's.
func printable(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0:
		return false
	case r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
		return false
	case r == 0x61c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return false
	}
	return true
}

// checkNode refuses aliases (bombs, and rules at a distance), anchors, merge keys and explicit tags in the whole tree.
func checkNode(c *collector, n *yaml.Node) bool {
	ok := true
	refuse := func(msg, hint string) {
		c.add(at(n), "", msg, hint)
		ok = false
	}
	switch {
	case n.Kind == yaml.AliasNode:
		refuse("an alias (*"+n.Value+") is not allowed", `write the value out; a name that starts with "*" needs quotes`)
	case n.Anchor != "":
		refuse("an anchor (&"+n.Anchor+") is not allowed", "write each rule out")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!merge":
		refuse("a merge key (<<) is not allowed", "write each rule out")
	case n.Style&yaml.TaggedStyle != 0:
		refuse("a tag ("+show(n.Tag)+") is not allowed", "write the value alone")
	}
	for _, child := range n.Content {
		if !checkNode(c, child) {
			ok = false
		}
	}
	return ok
}

// kindOf says what a node is, for messages.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch {
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return "the text " + show(n.Value)
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!int", n.ShortTag() == "!!float":
		return "the number " + cut(n.Value)
	case n.ShortTag() == "!!bool":
		return n.Value
	case n.ShortTag() == "!!timestamp":
		return "the date " + cut(n.Value)
	}
	return "the text " + show(n.Value)
}
