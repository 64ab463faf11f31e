package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The settings that are more than a line: lists, and traces. They have no flags.
const (
	hooksKey   = "hooks"
	forwardKey = "forward"
)

var listKeys = []string{hooksKey, forwardKey, tracesKey}

// parseList reads a list of mappings. An error has the place of what is wrong.
func parseList[T any](file, key, example string, limit int, list *yaml.Node, parse func(*yaml.Node) (T, error)) (all []T, err error) {
	if list.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s:%d: %s: want a list: %s", file, list.Line, key, example)
	}
	if len(list.Content) > limit {
		return nil, fmt.Errorf("%s:%d: %s: %d are more than the %d that there can be", file, list.Line, key, len(list.Content), limit)
	}
	for _, n := range list.Content {
		one, err := parse(n)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", file, n.Line, key, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// decode reads a mapping that has no other keys than these, and a value for each.
func decode(n *yaml.Node, keys []string, into any) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("want `key: value` lines; the keys are %s", strings.Join(keys, ", "))
	}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, n.Content[i+1]
		if !slices.Contains(keys, key) {
			return unknownKey(key, keys)
		}
		if value.ShortTag() == "!!null" {
			return fmt.Errorf("%s has no value; give one, or remove the line", key)
		}
		if err := fits(value, reflect.TypeOf(into).Elem(), key); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if err := n.Decode(into); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return nil
}

// fits says what the value of a key has to be, by the field of t that it is for. The library's own errors name types of Go.
func fits(value *yaml.Node, t reflect.Type, key string) error {
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != key {
			continue
		}
		nested := func(n *yaml.Node) bool { return n.Kind != yaml.ScalarNode }
		switch kind := f.Type.Kind(); {
		case kind == reflect.Slice && (value.Kind != yaml.SequenceNode || slices.ContainsFunc(value.Content, nested)):
			return errors.New("want a list of words: [a, b]")
		case kind == reflect.Struct && value.Kind != yaml.MappingNode:
			return errors.New("want `key: value` lines, such as {file: /etc/nemoclaw/secret}")
		case kind == reflect.Int && value.ShortTag() != "!!int":
			return errors.New("want a whole number")
		case kind == reflect.String && nested(value):
			return errors.New("want one value")
		}
	}
	return nil
}

// listText is a list as it stands in the file.
func listText[T any](key string, all []T) string {
	if all == nil {
		all = []T{}
	}
	return mappingText(key, all)
}

func mappingText(key string, value any) string {
	b, err := yaml.Marshal(map[string]any{key: value})
	if err != nil { // it is strings and numbers
		panic(err)
	}
	return string(b)
}
