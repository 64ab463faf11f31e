package policy

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// AddPreset adds a preset to `extends`.
func AddPreset(file string, src []byte, name string) (Edited, error) {
	e, err := begin(file, src)
	if err != nil {
		return Edited{}, err
	}
	if _, err := PresetSource(name); err != nil {
		return Edited{}, err
	}
	for _, there := range e.policy.Extends {
		if string(there.V) == name {
			e.note("nothing to do: %s:%d has the preset %s already", file, there.Line, name)
			return Edited{src, e.was, e.did}, nil
		}
	}
	item := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
	if list := value(e.root, "extends"); list != nil {
		err = e.insertItem(list, item)
	} else {
		err = e.insertExtends(item)
	}
	if err != nil {
		return Edited{}, e.byHand(err, "put "+name+" into extends")
	}
	e.note("added the preset %s", name)
	return e.done()
}

// insertExtends writes `extends` after version and name, else above the first key and its comment.
func (e *edit) insertExtends(item *yaml.Node) error {
	list := &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{item}}
	k := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "extends"}
	line := "extends: [" + flowText(item) + "]"
	if isFlow(e.root) {
		return e.insertKey(e.root, "extends", list, nil)
	}
	at := 0
	for _, key := range []string{"version", "name"} {
		if i := keyAt(e.root, key); i == at {
			at = i + 2
		}
	}
	want := with(e.root, e.root, slices.Concat(e.root.Content[:at], []*yaml.Node{k, list}, e.root.Content[at:]))
	if at > 0 {
		return e.try(want, e.insertLines(e.root.Content[at-1].Line, []string{line})...)
	}
	above := e.root.Content[0].Line - 1 // lines that stay above
	for above > 0 && strings.HasPrefix(string(e.src[e.lineStart(above):]), "#") {
		above--
	}
	return e.try(want, e.insertLines(above, []string{line, ""})...)
}

// RemovePreset takes a preset out of `extends`.
func RemovePreset(file string, src []byte, name string) (Edited, error) {
	e, err := begin(file, src)
	if err != nil {
		return Edited{}, err
	}
	i := slices.IndexFunc(e.policy.Extends, func(v Value[PresetName]) bool { return string(v.V) == name })
	if i < 0 {
		var there []string
		for _, v := range e.policy.Extends {
			there = append(there, string(v.V))
		}
		if there == nil {
			return Edited{}, fmt.Errorf("%s extends no preset", file)
		}
		return Edited{}, fmt.Errorf("%s does not extend the preset %s; it extends %s", file, cut(name), strings.Join(there, ", "))
	}
	if err := e.removeFrom([]string{"extends"}, i); err != nil {
		return Edited{}, e.byHand(err, "take "+name+" out of extends")
	}
	e.note("removed the preset %s", name)
	return e.done()
}

// removeFrom takes an item out of the list at a path of keys, and every key with it that would be left without a value.
func (e *edit) removeFrom(path []string, i int) error {
	nodes := []*yaml.Node{e.root}
	for _, key := range path {
		nodes = append(nodes, value(nodes[len(nodes)-1], key))
	}
	depth := len(path)
	if len(nodes[depth].Content) > 1 {
		return e.removeItem(nodes[depth], i)
	}
	for depth--; depth > 0 && len(nodes[depth].Content) == 2; depth-- {
	}
	if depth == 0 && len(e.root.Content) == 2 {
		return fmt.Errorf("%s: it is the policy's only rule, and a policy can't be empty: keep a section, such as `network: {default: deny}`", e.file)
	}
	return e.removeKey(nodes[depth], path[depth])
}
