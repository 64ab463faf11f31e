package policy

import (
	"encoding/json"
	"reflect"
	"strconv"
)

// Schema returns the language as a JSON Schema (draft 2020-12), made from the same types that the parser reads into.
// It knows less than the parser: what it accepts may still be refused, what it refuses is never accepted.
func Schema() []byte {
	defs := map[string]any{}
	root := object(reflect.TypeFor[Policy](), defs)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "NemoClaw policy"
	root["description"] = "What an AI agent in a sandbox may do. What is not allowed is refused."
	root["minProperties"] = 1
	root["$defs"] = defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic("policy: the schema is not JSON: " + err.Error()) // can't be: it is made of maps and words
	}
	return append(out, '\n')
}

// schemaOf describes a type of ast.go. Structs go to defs, once each.
func schemaOf(t reflect.Type, f *field, defs map[string]any) any {
	if dec, ok := reflect.New(t).Interface().(described); ok {
		s := dec.schema(f)
		describe(s, f)
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), f, defs)
	case reflect.Slice:
		item := *f
		item.doc = ""
		s := map[string]any{"type": "array", "items": schemaOf(t.Elem(), &item, defs)}
		if f.some {
			s["minItems"] = 1
		}
		if t.Elem().Kind() == reflect.Struct && reflect.New(t.Elem()).Elem().FieldByName("V").IsValid() {
			s["uniqueItems"] = true
		}
		describe(s, f)
		return s
	}
	if _, done := defs[t.Name()]; !done {
		defs[t.Name()] = nil // before its fields: no type holds itself, but a mistake there must not loop
		defs[t.Name()] = object(t, defs)
	}
	s := map[string]any{"$ref": "#/$defs/" + t.Name()}
	describe(s, f)
	return s
}

func object(t reflect.Type, defs map[string]any) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range fields(t) {
		properties[f.key] = schemaOf(t.FieldByIndex(f.index).Type, &f, defs)
		if f.req {
			required = append(required, f.key)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	if _, ok := t.FieldByName("NetTarget"); ok {
		s["oneOf"] = []any{
			map[string]any{"required": []string{"domain"}},
			map[string]any{"required": []string{"cidr"}},
		}
	}
	return s
}

func describe(s map[string]any, f *field) {
	if f.doc != "" {
		s["description"] = f.doc
	}
}

func (v *Value[T]) schema(f *field) map[string]any { return any(&v.V).(described).schema(f) }

// schema of a key that is refused: nothing is valid, and the description says why.
func (*Later) schema(f *field) map[string]any {
	s := map[string]any{"not": map[string]any{}}
	f.doc += " Not supported by this version: " + f.why + "."
	return s
}

func (*Word) schema(f *field) map[string]any {
	return map[string]any{"type": "string", "enum": f.one}
}

func (*Flag) schema(f *field) map[string]any {
	s := map[string]any{"type": "boolean"}
	if len(f.later) > 0 {
		s["const"] = false // all that is left when true is for later
	}
	return s
}

func (*Number) schema(f *field) map[string]any {
	return map[string]any{"type": "integer", "minimum": parseBound(f.min, 0), "maximum": parseBound(f.max, 1<<53)}
}

func (*Decimal) schema(f *field) map[string]any {
	s := map[string]any{"type": "number"}
	s["minimum"], _ = strconv.ParseFloat(f.min, 64)
	s["maximum"], _ = strconv.ParseFloat(f.max, 64)
	return s
}

func (*Size) schema(*field) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "integer", "minimum": minSize},
		pattern(sizeForm.String()),
	}}
}

func pattern(p string) map[string]any { return map[string]any{"type": "string", "pattern": p} }

func (*Span) schema(*field) map[string]any        { return pattern(durationForm.String()) }
func (*Domain) schema(*field) map[string]any      { return pattern(`^(\*\*?\.)?[^*/:\s]+$`) }
func (*CIDR) schema(*field) map[string]any        { return pattern(`^[0-9a-f:.]+/[0-9]{1,3}$`) }
func (*Path) schema(*field) map[string]any        { return pattern(`^/[^*?]*$`) }
func (*SocketPath) schema(*field) map[string]any  { return pattern(`^/[^*?]+$`) }
func (*CommandName) schema(*field) map[string]any { return pattern(`^(/[^*?]+|[^*?/ ]+)$`) }
func (*Helper) schema(*field) map[string]any      { return pattern(`^(/.+|[^/]+)$`) }
func (*SandboxName) schema(*field) map[string]any { return pattern(`^[a-z0-9][a-z0-9-]{0,62}$`) }
func (*ModelName) schema(*field) map[string]any   { return pattern(modelForm.String()) }
func (*BaseURL) schema(*field) map[string]any     { return pattern(`^https?://[^/?#@\s]+(/[^?#\s]*)?$`) }
func (*Label) schema(*field) map[string]any       { return pattern(labelForm.String()) }
func (*Pattern) schema(*field) map[string]any     { return pattern(`.`) }
func (*Phrase) schema(*field) map[string]any      { return pattern(`.`) }
func (*GPUName) schema(*field) map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "integer", "minimum": 0, "maximum": maxGPU},
		pattern(gpuForm.String()),
	}}
}
func (*PresetName) schema(*field) map[string]any {
	return map[string]any{"type": "string", "enum": Presets()}
}
