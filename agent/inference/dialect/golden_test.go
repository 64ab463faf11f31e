package dialect

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the code gives into testdata/golden")

var fileNames = map[Dialect]string{OpenAIChat: "openai-chat", OpenAIResponses: "openai-responses", Anthropic: "anthropic",
	OllamaChat: "ollama-chat", OllamaGenerate: "ollama-generate", Gemini: "gemini",
	OpenAICompletions: "openai-completions"}

// callers are the dialects that programs speak, servers those that servers do.
var (
	callers = []Dialect{OpenAIChat, OpenAIResponses, Anthropic, OllamaChat, OllamaGenerate, OpenAICompletions}
	servers = append(callers[:len(callers):len(callers)], Gemini)
)

// promptOnly are the dialects that have a prompt and no conversation. Nobody else's requests go to their servers.
func promptOnly(d Dialect) bool { return d == OllamaGenerate || d == OpenAICompletions }

func fixture(t testing.TB, kind string, d Dialect) []byte {
	t.Helper()
	ext := ".json"
	if kind == "streams" {
		ext = ".txt"
	}
	b, err := os.ReadFile(filepath.Join("testdata", kind, fileNames[d]+ext))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func request(t testing.TB, d Dialect) *Request {
	t.Helper()
	r, err := ReadRequest(d, Generate, Path(d, Generate), fixture(t, "requests", d))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fresh are the parts of what is written that are made up or measured.
var fresh = regexp.MustCompile(`_[0-9a-f]{24}|-[0-9a-f]{24}|"created(_at)?":("2026[^"]*"|[0-9]+)|"(total|eval)_duration":[0-9]+`)

// golden compares with testdata/golden.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	got = fresh.ReplaceAllFunc(got, func(b []byte) []byte {
		if i := bytes.IndexByte(b, ':'); i > 0 {
			return append(b[:i+1:i+1], '0')
		}
		return []byte{b[0], 'X'}
	})
	name = filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
	}
}

func TestGoldenRequests(t *testing.T) {
	t.Parallel()
	for _, from := range callers {
		for _, to := range servers {
			path, body, err := request(t, from).Write(to)
			got := path + "\n" + string(body) + "\n"
			if err != nil {
				got = "error: " + err.Error() + "\n"
			}
			golden(t, filepath.Join("requests", fileNames[from]+"--"+fileNames[to]), []byte(got))
		}
	}
}

func TestGoldenAnswers(t *testing.T) {
	t.Parallel()
	for _, from := range servers {
		for _, to := range callers {
			a, err := ReadAnswer(from, fixture(t, "answers", from))
			if err != nil {
				t.Fatal(err)
			}
			body, err := a.Write(to, request(t, to))
			got := string(body) + "\n"
			if err != nil {
				got = "error: " + err.Error() + "\n"
			}
			golden(t, filepath.Join("answers", fileNames[from]+"--"+fileNames[to]), []byte(got))
		}
	}
}

func TestGoldenStreams(t *testing.T) {
	t.Parallel()
	for _, from := range servers {
		for _, to := range callers {
			var b bytes.Buffer
			err := pipe(NewDecoder(from, bytes.NewReader(fixture(t, "streams", from))), NewEncoder(to, &b, request(t, to).Receipt()))
			if err != nil {
				b.WriteString("error: " + err.Error() + "\n")
			}
			golden(t, filepath.Join("streams", fileNames[from]+"--"+fileNames[to]), b.Bytes())
		}
	}
}

// pipe passes a stream on.
func pipe(s Source, e *Encoder) error {
	for {
		ev, err := s.Next()
		if errors.Is(err, io.EOF) {
			return e.Close()
		}
		if err == nil {
			err = e.Write(ev)
		}
		if err != nil {
			return err
		}
	}
}

// Tools that only OpenAI's responses has, those that take a text and those in a namespace, are functions to other servers, and
// themselves again in the answer and in the stream.
func TestToolsOfResponses(t *testing.T) {
	t.Parallel()
	server := `{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"agents__close","arguments":{"a":1}}},` +
		`{"function":{"name":"apply_patch","arguments":{"input":"*** Begin\n"}}}]},"done":true,"done_reason":"stop"}`
	r := request(t, OpenAIResponses)
	a, err := ReadAnswer(OllamaChat, []byte(server))
	if err != nil {
		t.Fatal(err)
	}
	whole, err := a.Write(OpenAIResponses, r.Receipt())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pipe(NewDecoder(OllamaChat, strings.NewReader(server+"\n")), NewEncoder(OpenAIResponses, &b, r.Receipt())); err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("answers", "tools-of-responses"), append(append(whole, '\n'), b.Bytes()...))
	for _, want := range []string{`"name":"close","arguments":"{\"a\":1}","namespace":"agents"`, `"name":"apply_patch","input":"*** Begin\n"`} {
		if !strings.Contains(string(whole), want) || !strings.Contains(b.String()[strings.LastIndex(b.String(), "data:"):], want) {
			t.Errorf("no %s in\n%s\n%s", want, whole, b.String())
		}
	}
}
