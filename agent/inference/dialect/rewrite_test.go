package dialect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// restore puts what a placeholder stands for back, however the stream cuts it.
func restore(placeholder, with string) func(PartKind) Rewrite {
	return func(PartKind) Rewrite {
		held := ""
		return func(s string, final bool) string {
			s = strings.ReplaceAll(held+s, placeholder, with)
			held = ""
			if final {
				return s
			}
			for n := min(len(placeholder)-1, len(s)); n > 0; n-- {
				if strings.HasPrefix(placeholder, s[len(s)-n:]) {
					s, held = s[:len(s)-n], s[len(s)-n:]
					break
				}
			}
			return s
		}
	}
}

// streamOf is a stream of d that says a text, and calls a tool with it, in pieces of n bytes.
func streamOf(t *testing.T, d Dialect, s string, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	e := NewEncoder(d, &b, &Request{Dialect: d, Model: "m"})
	deltas := []Delta{{Kind: Started, Model: "m"}}
	pieces := func(block int, part PartKind, s string) {
		deltas = append(deltas, Delta{Kind: Opened, Block: block, Part: part, ID: "call_1", Name: "f[[N1]]"})
		for len(s) > 0 {
			p := s[:min(n, len(s))]
			s = s[len(p):]
			deltas = append(deltas, Delta{Kind: More, Block: block, Part: part, Text: &p})
		}
		deltas = append(deltas, Delta{Kind: Closed, Block: block, Part: part})
	}
	pieces(0, Thinking, s)
	pieces(1, Text, s)
	if !promptOnly(d) {
		pieces(2, ToolCall, obj("q", s).json())
		pieces(3, ToolCall, obj("r", s).json())
	}
	deltas = append(deltas, Delta{Kind: Finished, Stop: StopEnd}, Delta{Kind: Ended})
	if err := e.Write(Event{Deltas: deltas}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// said is all that a stream says, block by block.
func said(t *testing.T, d Dialect, stream []byte) string {
	t.Helper()
	dec := NewDecoder(d, bytes.NewReader(stream))
	var blocks []string
	for {
		ev, err := dec.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(blocks, "|")
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, stream)
		}
		for _, x := range ev.Deltas {
			switch x.Kind {
			case Opened:
				blocks = append(blocks, x.Name)
			case More:
				blocks[x.Block] += x.Said()
			}
		}
	}
}

// A placeholder is put back wherever the stream cuts it, in the same dialect and in another, at the end of a block too.
func TestRewrite(t *testing.T) {
	t.Parallel()
	const text = "Call [[N1]] or [[N1]], not [[N2]] [[N1]]"
	want := strings.ReplaceAll(text, "[[N1]]", "Ann")
	for _, from := range callers {
		for _, to := range callers {
			if from != to && (promptOnly(from) || promptOnly(to)) {
				continue
			}
			for n := 1; n < 12; n++ {
				stream := streamOf(t, from, text, n)
				var b bytes.Buffer
				src := NewRewriter(NewDecoder(from, bytes.NewReader(stream)), restore("[[N1]]", "Ann"))
				if err := pipe(src, NewEncoder(to, &b, &Request{Dialect: to, Model: "m"})); err != nil {
					t.Fatalf("%s to %s: %v", from, to, err)
				}
				all := []string{want, want, "fAnn" + obj("q", want).json(), "fAnn" + obj("r", want).json()}
				switch to {
				case OllamaGenerate:
					all = all[:2]
				case OpenAICompletions: // it has no word for what is thought
					all = all[1:2]
				}
				if got := said(t, to, b.Bytes()); got != strings.Join(all, "|") {
					t.Fatalf("%s to %s in pieces of %d: got %s\n%s", from, to, n, got, b.Bytes())
				}
				if bytes.Contains(b.Bytes(), []byte("[[N1]]")) {
					t.Fatalf("%s to %s in pieces of %d: a placeholder is left\n%s", from, to, n, b.Bytes())
				}
			}
		}
	}
}

// An event is out before the next one is written in.
func TestNothingIsHeldBack(t *testing.T) {
	t.Parallel()
	for _, from := range servers {
		for _, to := range callers {
			stream := fixture(t, "streams", from)
			if promptOnly(to) && from != to {
				continue
			}
			notHeldBack(t, from, to, stream)
		}
	}
}

func notHeldBack(t *testing.T, from, to Dialect, stream []byte) {
	t.Helper()
	in, feed := io.Pipe()
	w := make(written, 1024)
	over := make(chan error, 1)
	go func() {
		over <- pipe(NewDecoder(from, in), NewEncoder(to, w, request(t, to)))
		close(w)
	}()
	got := ""
	for _, m := range messages(from, stream) {
		if _, err := feed.Write(m); err != nil {
			t.Fatal(err)
		}
		for !strings.Contains(got, adds(m)) {
			more, ok := <-w
			if !ok {
				t.Fatalf("%s to %s: %v", from, to, <-over)
			}
			got += more
		}
		if adds(m) == "Let me" || adds(m) == "A" {
			break
		}
	}
	enough := errors.New("enough")
	feed.CloseWithError(enough)
	if err := <-over; !errors.Is(err, enough) {
		t.Errorf("%s to %s: %v", from, to, err)
	}
}

// written is what was written, message by message.
type written chan string

func (w written) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

// adds is the text that a message of a fixture adds.
func adds(m []byte) string {
	for _, s := range []string{"Two cities.", "Let me", "A"} {
		if bytes.Contains(m, []byte(`"`+s+`"`)) {
			return s
		}
	}
	return ""
}

// messages cuts a stream.
func messages(d Dialect, stream []byte) [][]byte {
	end := "\n\n"
	if d == OllamaChat || d == OllamaGenerate {
		end = "\n"
	}
	if d == Gemini {
		end = "\r\n\r\n"
	}
	return bytes.SplitAfter(stream, []byte(end))
}

// A stream that breaks off anywhere is an error, and the caller is told.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	for _, from := range servers {
		stream := fixture(t, "streams", from)
		cuts := messages(from, stream)
		for i := range cuts {
			part := bytes.Join(cuts[:i], nil)
			dec := NewDecoder(from, bytes.NewReader(part))
			var err error
			ended := false
			for err == nil {
				var ev Event
				ev, err = dec.Next()
				for _, d := range ev.Deltas {
					ended = ended || d.Kind == Ended
				}
			}
			if !ended && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %d messages: %v", from, i, err)
			}
			if ended && !errors.Is(err, io.EOF) {
				t.Errorf("%s, %d messages: ended, %v", from, i, err)
			}
		}
	}
	for _, to := range callers {
		var b bytes.Buffer
		e := NewEncoder(to, &b, &Request{Dialect: to, Model: "m"})
		if err := e.Write(Event{Deltas: []Delta{{Kind: Started}}}); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		last := b.String()[strings.LastIndex(b.String(), "{\""):]
		if i := strings.LastIndex(b.String(), `"error"`); i < 0 || !strings.Contains(last, "broke off") {
			t.Errorf("%s: %s", to, b.String())
		}
	}
}

func TestErrorBodies(t *testing.T) {
	t.Parallel()
	for d, want := range map[Dialect]string{
		OpenAIChat:      `{"error":{"message":"no \"x\"","type":"invalid_request_error","param":null,"code":null}}`,
		OpenAIResponses: `{"error":{"message":"no \"x\"","type":"invalid_request_error","param":null,"code":null}}`,
		Anthropic:       `{"type":"error","error":{"type":"invalid_request_error","message":"no \"x\""}}`,
		OllamaChat:      `{"error":"no \"x\""}`,
		OllamaGenerate:  `{"error":"no \"x\""}`,
		Gemini:          `{"error":{"code":400,"message":"no \"x\"","status":"INVALID_ARGUMENT"}}`,
	} {
		got := ErrorBody(d, 400, `no "x"`)
		if string(got) != want || !json.Valid(got) || ErrorMessage(got) != `no "x"` {
			t.Errorf("%s: %s", d, got)
		}
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"POST /v1/chat/completions":            "OpenAI chat completions generate true",
		"POST /v1/messages?beta=true":          "Anthropic messages generate true",
		"POST /v1/messages/count_tokens":       "Anthropic messages count tokens true",
		"POST /v1/completions":                 "OpenAI completions generate true",
		"POST /v1/responses":                   "OpenAI responses generate true",
		"GET /v1/models":                       "OpenAI chat completions list models true",
		"POST /v1/embeddings":                  "OpenAI chat completions embed true",
		"POST /api/generate":                   "Ollama generate generate true",
		"GET /api/tags":                        "Ollama chat list models true",
		"POST /api/embed":                      "Ollama chat embed true",
		"GET /v1/models/gpt-4o":                "OpenAI chat completions show a model true",
		"GET /v1/models/":                      "unknown API unknown operation false",
		"POST /v1/models/gpt-4o":               "unknown API unknown operation false",
		"POST /api/show":                       "Ollama chat show a model true",
		"POST /api/embeddings":                 "Ollama chat embed true",
		"GET /api/version":                     "Ollama chat tell the version true",
		"HEAD /":                               "Ollama chat greet true",
		"HEAD /api/hello":                      "Anthropic messages greet true",
		"DELETE /v1/models":                    "unknown API unknown operation false",
		"POST /v1/chat/completions/":           "unknown API unknown operation false",
		"POST /v1beta/models/x:countTokens":    "unknown API unknown operation false",
		"GET /v1beta/models":                   "unknown API unknown operation false",
		"POST /v1/../v1/chat/completions":      "unknown API unknown operation false",
		"POST /v1/files":                       "unknown API unknown operation false",
		"POST http://evil/v1/chat/completions": "unknown API unknown operation false",
	} {
		method, path, _ := strings.Cut(line, " ")
		d, op, ok := Of(method, path)
		if got := fmt.Sprintf("%s %s %v", d, op, ok); got != want {
			t.Errorf("%s: %s", line, got)
		}
	}
}
