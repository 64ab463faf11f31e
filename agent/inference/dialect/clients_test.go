//go:build e2e

package dialect

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// The official clients of OpenAI, Anthropic and Ollama understand what is written for them, from each server's recorded
// answers and streams: texts, calls, counts, errors. Where no npm registry answers, the recorded exchanges are all there is.
func TestOfficialClients(t *testing.T) {
	packages, why := harness.Packages(t, "openai@7.57.0", "@anthropic-ai/sdk@1.12.0", "ollama@0.6.4")
	if packages == "" {
		t.Logf("the official clients were not tried: %s", why)
		return
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/clients.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "clients.mjs"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(recorded{t})
	defer srv.Close()
	args := []string{"clients.mjs", srv.URL}
	for _, d := range []Dialect{OpenAIChat, OpenAIResponses, Anthropic, OllamaChat, Gemini} {
		args = append(args, fileNames[d])
	}
	node := exec.Command("node", args...)
	node.Dir = dir
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.Bytes())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 5*12+1 {
		t.Errorf("%d lines\n%s", len(lines), out)
	}
	for _, l := range lines {
		understood(t, l)
	}
}

func understood(t *testing.T, line string) {
	t.Helper()
	var got struct {
		Client, Server, Text, Stop, Error string
		Input, Output, Status             int
		Tools                             []any
		Names                             []string
		OpenAI, Ollama                    [][]float64
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if got.Client == "lists" {
		vectors := [][]float64{{0.5, -1}, {0.25, 2}}
		if len(got.Names) != 3 || !reflect.DeepEqual(got.OpenAI, vectors) || !reflect.DeepEqual(got.Ollama, vectors) {
			t.Error(line)
		}
		return
	}
	if got.Error != "" {
		if !strings.Contains(got.Error, "refused because") || got.Status != 400 {
			t.Error(line)
		}
		return
	}
	stops := map[string]string{"openai chat": "tool_calls", "openai responses": "completed", "anthropic": "tool_use", "ollama": "stop"}
	tools := []any{[]any{"get_weather", map[string]any{"city": "Paris"}}, []any{"get_weather", map[string]any{"city": "Rome"}}}
	if got.Text != "Let me look." || got.Stop != stops[strings.TrimSuffix(got.Client, " stream")] || got.Input != 19 ||
		got.Output != 10 || !reflect.DeepEqual(got.Tools, tools) {
		t.Error(line)
	}
}

// recorded answers every request with what the server named by the key was recorded to say.
type recorded struct{ t *testing.T }

func (s recorded) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	d, op, ok := Of(req.Method, req.URL.RequestURI())
	if req.Header.Get("Anthropic-Version") != "" {
		d = Anthropic
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil || !ok {
		s.t.Errorf("%s %s: %v", req.Method, req.URL, err)
		return
	}
	answer, err := s.answer(w, req, d, op, body)
	if err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		answer = ErrorBody(d, http.StatusBadRequest, err.Error())
	}
	if _, err := w.Write(answer); err != nil {
		s.t.Error(err)
	}
}

type refused struct{}

func (refused) Error() string { return "refused because it was asked for" }

func (s recorded) answer(w http.ResponseWriter, req *http.Request, d Dialect, op Operation, body []byte) ([]byte, error) {
	w.Header().Set("Content-Type", "application/json")
	r, err := ReadRequest(d, op, req.URL.RequestURI(), body)
	if err != nil {
		return nil, err
	}
	switch op {
	case ListModels:
		return WriteModels(d, []Model{{Name: "m", Owner: "us", Created: time.Unix(1700000000, 0)}})
	case Embed:
		e, err := ReadEmbeddings(Gemini, []byte(`{"embeddings":[{"values":[0.5,-1]},{"values":[0.25,2]}]}`))
		if err != nil {
			return nil, err
		}
		return e.Write(d, r)
	}
	if bytes.Contains(body, []byte("refuse")) {
		return nil, refused{}
	}
	key := req.Header.Get("X-Api-Key") + strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
	server := Dialect(0)
	for k, n := range fileNames {
		if n == key {
			server = k
		}
	}
	if _, _, err := r.Write(server); err != nil {
		return nil, err
	}
	if !r.Stream {
		a, err := ReadAnswer(server, fixture(s.t, "answers", server))
		if err != nil {
			return nil, err
		}
		return a.Write(d, r)
	}
	if d != OllamaChat {
		w.Header().Set("Content-Type", "text/event-stream")
	}
	return nil, pipe(NewDecoder(server, bytes.NewReader(fixture(s.t, "streams", server))), NewEncoder(d, w, r))
}
