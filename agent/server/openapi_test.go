package server

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

const openAPIFile = "../../api/openapi.json"

// TestOpenAPI compares the committed document with what the routes and the types say. UPDATE=1 writes it.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	want, err := json.MarshalIndent(newDocument(t).whole(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(openAPIFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(api.OpenAPI, want) {
		t.Error("api/openapi.json is not what the routes and types say: UPDATE=1 go test ./agent/server -run OpenAPI writes it")
	}
}

// TestOpenAPIRoutes sees that what the document has is served, and that what is served is in it.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	var doc struct {
		OpenAPI    string                               `json:"openapi"`
		Paths      map[string]map[string]map[string]any `json:"paths"`
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(api.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Errorf("openapi: %q", doc.OpenAPI)
	}
	s, err := New(Config{Backend: newBackend()})
	if err != nil {
		t.Fatal(err)
	}
	operations := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			if id := operation["operationId"].(string); operations[id] {
				t.Errorf("the operation id %s is there twice", id)
			} else {
				operations[id] = true
			}
			r, err := http.NewRequest(strings.ToUpper(method), strings.NewReplacer("{name}", "box", "{id}", "1").Replace(path), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, pattern := s.mux.Handler(r); pattern != strings.ToUpper(method)+" "+path {
				t.Errorf("%s %s is documented, and served by %q", method, path, pattern)
			}
		}
	}
	for _, r := range routes {
		if doc.Paths[r.path][strings.ToLower(r.method)] == nil {
			t.Errorf("%s %s is served, and not documented", r.method, r.path)
		}
	}
	for _, ref := range references(doc) {
		if doc.Components.Schemas[ref] == nil {
			t.Errorf("the document refers to %s, which it does not have", ref)
		}
	}
}

// references returns what the document refers to.
func references(doc any) (refs []string) {
	b, _ := json.Marshal(doc)
	for _, part := range strings.Split(string(b), `"#/components/schemas/`)[1:] {
		refs = append(refs, part[:strings.IndexByte(part, '"')])
	}
	return refs
}

type object = map[string]any

// document makes the OpenAPI document. Descriptions are the types' own comments.
type document struct {
	comments map[string]string   // of "Type" and "Type.Field"
	values   map[string][]string // of string types: what they can be
	bodies   map[string]bool     // types that requests have, in which nothing else may be
	schemas  object
}

func newDocument(t *testing.T) *document {
	t.Helper()
	d := &document{comments: map[string]string{}, values: map[string][]string{}, bodies: map[string]bool{}, schemas: object{}}
	files, err := filepath.Glob("../../api/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, d.read)
	}
	return d
}

// read collects the comments of types and fields, and the values of string types.
func (d *document) read(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		for _, spec := range n.Specs {
			if ts, ok := spec.(*ast.TypeSpec); ok {
				d.comments[ts.Name.Name] = oneLine(n.Doc)
				if st, ok := ts.Type.(*ast.StructType); ok {
					d.readFields(ts.Name.Name, st)
				}
			}
		}
	case *ast.ValueSpec:
		if id, ok := n.Type.(*ast.Ident); ok && len(n.Values) == 1 {
			if lit, ok := n.Values[0].(*ast.BasicLit); ok {
				if v, err := strconv.Unquote(lit.Value); err == nil {
					d.values[id.Name] = append(d.values[id.Name], v)
				}
			}
		}
	}
	return true
}

func (d *document) readFields(of string, st *ast.StructType) {
	for _, f := range st.Fields.List {
		text := oneLine(f.Comment)
		if above := oneLine(f.Doc); above != "" {
			text = above
		}
		for _, name := range f.Names {
			d.comments[of+"."+name.Name] = text
		}
	}
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

func (d *document) whole() object {
	for _, r := range routes {
		if r.body != nil {
			d.markBody(reflect.TypeOf(r.body))
		}
	}
	failed := object{"description": "an error, with the status of its code", "content": object{"application/json": object{"schema": d.schema(reflect.TypeFor[api.Error]())}}}
	paths := object{}
	for _, r := range routes {
		who := map[role]string{watch: "For the groups that steer or watch.", steer: "For root and the group that steers."}[r.role]
		if r.root {
			who = "For root."
		}
		op := object{
			"operationId": operationID(r),
			"summary":     r.words,
			"description": who,
			"responses":   object{"default": failed},
		}
		d.parameters(op, r)
		d.contents(op, r)
		if paths[r.path] == nil {
			paths[r.path] = object{}
		}
		paths[r.path].(object)[strings.ToLower(r.method)] = op
	}
	return object{
		"openapi": "3.1.0",
		"info": object{
			"title": "NemoClaw agent", "version": "v1", "license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			"description": "The daemon's interface: HTTP with JSON on a Unix socket (/run/nemoclaw/agent.sock). Who calls is what the kernel says (SO_PEERCRED). " +
				"A request with a field or parameter that is not here is refused.",
		},
		"servers":    []any{object{"url": "http://nemoclaw", "description": "the Unix socket; the host's name means nothing"}},
		"paths":      paths,
		"components": object{"schemas": d.schemas},
	}
}

// operationID is the name of the method that does it.
func operationID(r route) string {
	id := strings.ToLower(r.method)
	for part := range strings.SplitSeq(strings.TrimPrefix(r.path, "/v1/"), "/") {
		part = strings.Trim(part, "{}")
		part = strings.TrimSuffix(part, ".json")
		id += strings.ToUpper(part[:1]) + part[1:]
	}
	return id
}

func (d *document) parameters(op object, r route) {
	var params []any
	for part := range strings.SplitSeq(r.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			params = append(params, object{"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	for _, p := range r.query {
		kind := p.kind
		if kind == "" {
			kind = "string"
		}
		schema := object{"type": kind}
		if p.many {
			schema = object{"type": "array", "items": schema}
		}
		params = append(params, object{"name": p.name, "in": "query", "required": p.needed, "description": p.words, "schema": schema})
	}
	if params != nil {
		op["parameters"] = params
	}
}

func (d *document) contents(op object, r route) {
	responses := op["responses"].(object)
	stream := object{"schema": object{"type": "string", "contentMediaType": "application/octet-stream"}}
	switch {
	case r.takes != "":
		op["requestBody"] = object{"required": true, "content": object{r.takes: stream}}
	case r.body != nil:
		op["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(r.body))}}}
	}
	switch {
	case strings.HasSuffix(r.path, "/exec"):
		op["description"] = op["description"].(string) + " The request has the headers `Connection: Upgrade` and `Upgrade: nemoclaw-exec/1`, and brings the descriptors that `files` announces along " +
			"with its bytes (SCM_RIGHTS). After 101, which brings the command's terminal if it has one, the caller may send lines {\"signal\":N}, and gets one line {\"exit\":N} or {\"gone\":\"why\"}. " +
			"When the caller goes away first, the command gets SIGHUP."
		responses["101"] = object{"description": "the command runs"}
		responses["204"] = object{"description": "the command runs, detached"}
	case r.gives == linesType:
		responses["200"] = object{"description": "records of the audit log, one a line. The trailer " + api.ErrorTrailer + " says why a stream ended early.",
			"content": object{r.gives: stream}}
	case r.gives == tarType:
		responses["200"] = object{"description": "a tar stream. The trailer " + api.ErrorTrailer + " says why it ended early.", "content": object{r.gives: stream}}
	case r.gives != "":
		responses["200"] = object{"description": "this document", "content": object{r.gives: object{"schema": object{"type": "object"}}}}
	case r.answer == nil:
		responses["204"] = object{"description": "done"}
	default:
		responses["200"] = object{"description": "the answer", "content": object{"application/json": object{"schema": d.schema(reflect.TypeOf(r.answer))}}}
	}
}

func (d *document) markBody(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		d.markBody(t.Elem())
	case reflect.Struct:
		d.bodies[t.Name()] = true
		for f := range t.Fields() {
			d.markBody(f.Type)
		}
	default:
	}
}

// schema is the JSON Schema of a type; named ones are put aside, and referred to.
func (d *document) schema(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[time.Duration]():
		return object{"type": "integer", "format": "int64", "description": "nanoseconds"}
	case t == reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	case t.PkgPath() == reflect.TypeFor[api.Info]().PkgPath():
		if _, there := d.schemas[t.Name()]; !there {
			d.schemas[t.Name()] = nil // against a type that has itself
			d.schemas[t.Name()] = d.named(t)
		}
		return object{"$ref": "#/components/schemas/" + t.Name()}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return d.schema(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Uint16:
		return object{"type": "integer", "minimum": 0, "maximum": 1<<16 - 1}
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	default:
		panic("the API has a " + t.String())
	}
}

func (d *document) named(t reflect.Type) object {
	s := object{"description": d.comments[t.Name()]}
	if t.Kind() == reflect.String {
		s["type"], s["enum"] = "string", d.values[t.Name()]
		return s
	}
	properties, required := object{}, map[string]bool{}
	d.fields(t, properties, required)
	s["type"], s["properties"] = "object", properties
	if d.bodies[t.Name()] {
		s["additionalProperties"] = false
	} else if len(required) > 0 {
		s["required"] = slices.Sorted(maps.Keys(required))
	}
	return s
}

func (d *document) fields(t reflect.Type, properties object, required map[string]bool) {
	for f := range t.Fields() {
		if f.Anonymous {
			d.fields(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		s := d.schema(f.Type)
		if c := d.comments[t.Name()+"."+f.Name]; c != "" {
			s["description"] = c
		}
		properties[name] = s
		if !strings.Contains(options, "omitempty") {
			required[name] = true
		}
	}
}
