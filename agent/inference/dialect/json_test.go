package dialect

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// What two readers could read in two ways is refused.
func TestStrictJSON(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		``, ` `, `{`, `[1,]`, `{"a":1,}`, `{"a":1 "b":2}`, `{a:1}`, `nul`, `truefalse`, `"a`, `"\x"`, `"\u12"`, "\"\n\"", "\"\x00\"",
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"x":{"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"h":7,"i":8,"b":9}}`,
		"\"\xff\"", "\"\xed\xa0\x80\"", `"\ud800"`, `"\ud800\u0041"`, `"\udc00\ud800"`, "\xef\xbb\xbf{}",
		`01`, `+1`, `.5`, `1.`, `1e`, `1e999`, `-`, `--1`, `0x10`, `NaN`, `Infinity`, `1_000`, strings.Repeat("1", 500),
		`{} {}`, `{}x`, `[1]2`, `/**/{}`, strings.Repeat("[", maxDepth+2) + strings.Repeat("]", maxDepth+2),
	} {
		if v, err := parse([]byte(s)); err == nil {
			t.Errorf("%.60q was read as %s", s, v.json())
		}
	}
	for _, s := range []string{
		`null`, `true`, `0`, `-0`, `-1.5e+10`, `12345678901234567890123`, `"\ud83d\ude00"`, `"😀\n\u0000\/\\"`, ` [ ] `, "{\t}\r\n",
		`{"a":{"b":[1,2,{"c":null}]},"A":1}`, strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
	} {
		v, err := parse([]byte(s))
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		sameJSON(t, []byte(s), v)
	}
}

// sameJSON checks that encoding/json reads the same in what was read and in what is written.
func sameJSON(t *testing.T, s []byte, v *value) {
	t.Helper()
	out, err := v.marshal()
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	var a, b any
	if err := json.Unmarshal(s, &a); err != nil {
		t.Fatalf("%q: encoding/json refuses it: %v", s, err)
	}
	if err := json.Unmarshal(out, &b); err != nil {
		t.Fatalf("%q: encoding/json refuses what is written, %q: %v", s, out, err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("%q became %q", s, out)
	}
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`[]`:                            "not a JSON object",
		`{"messages":[]}`:               "names no model",
		`{"model":"","messages":[]}`:    "names no model",
		`{"model":["m"],"messages":[]}`: "names no model",
		`{"model":"m","stream":"yes","messages":[]}`: "stream is a string",
		`{"model":"m","Model":"n","messages":[]}`:    "differs from \"model\" only in case",
		`{"model":"m","messages":[],"meſſages":[]}`:  "differs from \"messages\" only in case",
		`{"model":"m","messages":{}}`:                "messages is not an array",
		`{"model":"m","messages":[],"messages":[]}`:  "key twice",
	} {
		_, err := ReadRequest(OpenAIChat, Generate, "/v1/chat/completions", []byte(body))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", body, err)
		}
	}
	r, err := ReadRequest(Anthropic, Generate, "/v1/messages", []byte(`{"model":"m","messages":[],"4111 1111":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = r.Write(OllamaChat); err == nil || strings.Contains(err.Error(), "4111") {
		t.Errorf("%v", err)
	}
}

// What a server's answer repeats of a request is put back too.
func TestAnswerTexts(t *testing.T) {
	t.Parallel()
	for _, from := range servers {
		for _, to := range callers {
			a, err := ReadAnswer(from, fixture(t, "answers", from))
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range a.Texts() {
				*s = strings.ReplaceAll(strings.ReplaceAll(*s, "Paris", `Łó"dź`), "look", "see")
			}
			body, err := a.Write(to, request(t, to))
			if err != nil {
				continue // the goldens say why
			}
			if strings.Contains(string(body), `"Paris`) || strings.Contains(string(body), "look") || !json.Valid(body) {
				t.Errorf("%s to %s: %s", from, to, body)
			}
			back, err := ReadAnswer(to, body)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range back.Parts {
				if p.Kind == ToolCall && !json.Valid([]byte(p.Arguments)) {
					t.Errorf("%s to %s: arguments %s", from, to, p.Arguments)
				}
			}
		}
	}
}

// TestBare: eight bytes at a time say what one at a time says.
func TestBare(t *testing.T) {
	t.Parallel()
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := []byte(strings.Repeat("a", n))
				b[at] = byte(c)
				want := n
				if c < ' ' || c == '"' || c == '\\' {
					want = at
				}
				if got := bare(string(b)); got != want {
					t.Fatalf("bare(%q) = %d, want %d", b, got, want)
				}
				if n > at+1 { // after another that looks like it
					b[at+1] = byte(c) ^ 1
					first := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' })
					if got := bare(string(b)); got != first && !(first < 0 && got == n) {
						t.Fatalf("bare(%q) = %d, want %d", b, got, first)
					}
				}
			}
		}
	}
}

func TestValues(t *testing.T) {
	for body, want := range map[string]int{
		`1`: 1, `[]`: 2, `[1,[2,3]]`: 5, `{"a":"1,2,3","b":"x\",[,"}`: 3, `{"arguments":"[1,2]"}`: 4,
		`{"arguments":"\n[1,2]"}`: 4, `{"arguments":"\u005b1,2]"}`: 4, `{"arguments":"[1\u002c2]"}`: 4, `{"a":"\\","b":[1,2]}`: 5, `"[`: 2, `"\`: 1,
	} {
		if n := Values([]byte(body)); n != want {
			t.Errorf("%s has %d values, want %d", body, n, want)
		}
	}
}
