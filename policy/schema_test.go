package policy

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite the golden files of testdata")

func TestSchemaGolden(t *testing.T) {
	const golden = "testdata/schema.json"
	if *update {
		if err := os.WriteFile(golden, Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(Schema()) != string(want) {
		t.Error("the schema has changed: look at it, then run `go test ./policy -update`")
	}
}

// validator knows the part of JSON Schema that Schema uses, and fails on any other keyword.
type validator struct{ defs map[string]any }

func (v validator) valid(s map[string]any, x any) error {
	for keyword, arg := range s {
		if err := v.keyword(s, keyword, arg, x); err != nil {
			return fmt.Errorf("%s: %w", keyword, err)
		}
	}
	return nil
}

func (v validator) keyword(s map[string]any, keyword string, arg, x any) error {
	number, isNumber := toNumber(x)
	object, _ := x.(map[string]any)
	list, _ := x.([]any)
	text, isText := x.(string)
	fail := func(bad bool) error {
		if bad {
			return fmt.Errorf("%v: %v", arg, x)
		}
		return nil
	}
	switch keyword {
	case "$schema", "$defs", "title", "description":
		return nil
	case "$ref":
		return v.valid(v.defs[strings.TrimPrefix(arg.(string), "#/$defs/")].(map[string]any), x)
	case "type":
		is := map[string]bool{
			"object": object != nil, "array": list != nil, "string": isText, "number": isNumber,
			"integer": isNumber && number == math.Trunc(number), "boolean": reflect.TypeOf(x) == reflect.TypeFor[bool](),
		}
		return fail(!is[arg.(string)])
	case "properties":
		for key, sub := range arg.(map[string]any) {
			if value, there := object[key]; there {
				if err := v.valid(sub.(map[string]any), value); err != nil {
					return fmt.Errorf("%s: %w", key, err)
				}
			}
		}
	case "additionalProperties":
		for key := range object {
			if _, known := s["properties"].(map[string]any)[key]; !known {
				return fmt.Errorf("unknown key %s", key)
			}
		}
	case "required":
		for _, key := range arg.([]any) {
			if _, there := object[key.(string)]; !there {
				return fmt.Errorf("%s is missing", key)
			}
		}
	case "items":
		for _, item := range list {
			if err := v.valid(arg.(map[string]any), item); err != nil {
				return err
			}
		}
	case "uniqueItems":
		for i, item := range list {
			if slices.Contains(list[:i], item) {
				return fmt.Errorf("%v twice", item)
			}
		}
	case "oneOf", "anyOf":
		matching := 0
		for _, sub := range arg.([]any) {
			if v.valid(sub.(map[string]any), x) == nil {
				matching++
			}
		}
		return fail(matching == 0 || keyword == "oneOf" && matching > 1)
	case "not":
		return fail(v.valid(arg.(map[string]any), x) == nil)
	case "enum":
		return fail(!slices.Contains(arg.([]any), x))
	case "const":
		return fail(arg != x)
	case "pattern":
		return fail(isText && !regexp.MustCompile(arg.(string)).MatchString(text))
	case "minimum":
		return fail(isNumber && number < arg.(float64))
	case "maximum":
		return fail(isNumber && number > arg.(float64))
	case "minItems":
		return fail(len(list) < int(arg.(float64)))
	case "minProperties":
		return fail(len(object) < int(arg.(float64)))
	default:
		return fmt.Errorf("a keyword that the test doesn't know")
	}
	return nil
}

func toNumber(x any) (float64, bool) {
	switch n := x.(type) {
	case int:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}

func validateYAML(t *testing.T, src string) error {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Unmarshal([]byte(src), &doc); err != nil {
		return err
	}
	return validator{schema["$defs"].(map[string]any)}.valid(schema, doc)
}

// The schema must never refuse what the parser accepts.
func TestSchemaAcceptsPolicies(t *testing.T) {
	seed, err := os.ReadFile("../examples/seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sources := []string{string(seed), string(Initial()), explained, names, "version: 1\n", "process: {limits: {memory: 4GiB, cpus: 0.5, disk: 1048576}}\n",
		"devices: {gpus: [0, 7, GPU-0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f]}\n", "devices: {gpus: [all]}\n"}
	for _, name := range Presets() {
		src, err := PresetSource(name)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, string(src))
	}
	for _, src := range sources {
		compile(t, src)
		if err := validateYAML(t, src); err != nil {
			t.Errorf("the schema refuses what the parser accepts: %v\n%s", err, src)
		}
	}
}

// onlyTheParser are the mistakes of refusals that a schema can't see.
var onlyTheParser = []string{
	"text direction override in a comment", "lone carriage return", "line separator", "two documents", "tag",
	"private tag", "YAML 1.1 boolean as a command", "octal number", "YAML 1.2 octal number", "hexadecimal number",
	"number with underscores", "exponent", "wildcard over a top-level domain", "wildcard over a public suffix",
	"wildcard over a hoster's suffix", "address for a name", "number for an address", "hexadecimal address",
	"empty label", "only a dot", "hyphen at the end of a label", "label too long", "name too long",
	"bad punycode", "bad international name", "host bits in a prefix", "mapped prefix", "every address",
	"prefix with a name's protocol", "ech on tcp", "hold too long", "sandbox name that is a command",
	"path with dots", "path with a slash at the end", "path element too long", "NUL in a path",
	"command that is a directory", "pattern in a helper's directory", "pattern without a directory",
	"broken pattern", "size out of range", "socket path too long", "overlap in one file", "overlap with a preset",
	"overlap of ech", "all and others", "a GPU's number in octal", "a class that is none",
}

// What a schema can see at all, it must see.
func TestSchemaRefusesMistakes(t *testing.T) {
	for _, tt := range refusals {
		seen := validateYAML(t, tt.src) != nil
		if want := !slices.Contains(onlyTheParser, tt.name); seen != want {
			t.Errorf("%s: refused by the schema: %v, want %v\n%s", tt.name, seen, want, tt.src)
		}
	}
}
