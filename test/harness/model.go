package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

// A ModelServer speaks the APIs of OpenAI, Anthropic, Ollama and Gemini, each at its own paths, in the words that those servers
// were recorded to use. What it says is a script: the first time that a conversation offers a tool that it knows, it calls it;
// told what the tool gave, it repeats that; anything else it answers with a greeting.
type ModelServer struct {
	*httptest.Server
	calls map[string]string

	mu    sync.Mutex
	asked []ModelRequest
}

// A ModelRequest is what a model server was asked.
type ModelRequest struct {
	Path, Key, Body string
	Beta            string // the features of Anthropic's that are not everybody's yet
}

// NewModelServer serves on loopback. calls are the arguments, as JSON, with which it calls a tool, by the tool's name; those of
// OpenAI's tools that take a text, as a JSON string.
func NewModelServer(t T, calls map[string]string) *ModelServer {
	m := &ModelServer{calls: calls}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

// Asked are the requests so far.
func (m *ModelServer) Asked() []ModelRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]ModelRequest(nil), m.asked...)
}

// turn is what the model says: a text, or a call of a tool. Tools of OpenAI's may be in a namespace.
type turn struct {
	text, tool, args, space string
}

// What it says when it calls a tool, and when it knows what that gave.
const (
	beforeCall = "Let me look."
	afterCall  = "The tool said: "
)

// reply is a turn on its way.
type reply struct {
	turn
	w      http.ResponseWriter
	stream bool
	n      int // events so far
}

// ServeHTTP answers one request.
func (m *ModelServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 16<<20)) // what came is what is kept
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") + r.Header.Get("X-Api-Key") + r.Header.Get("X-Goog-Api-Key")
	m.mu.Lock()
	m.asked = append(m.asked, ModelRequest{r.URL.RequestURI(), key, string(body), r.Header.Get("Anthropic-Beta")})
	m.mu.Unlock()
	var q any
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, `{"error":{"message":"that is no JSON"}}`, http.StatusBadRequest)
		return
	}
	if why := missing(q); why != "" {
		http.Error(w, `{"error":{"message":`+quoted(why)+`}}`, http.StatusBadRequest)
		return
	}
	a := &reply{turn: m.say(q), w: w, stream: at(q, "stream") == true}
	switch p := r.URL.Path; {
	case p == "/v1/chat/completions":
		a.openAI()
	case p == "/v1/completions":
		a.completions()
	case p == "/v1/responses":
		a.responses()
	case p == "/v1/messages":
		a.anthropic()
	case p == "/v1/messages/count_tokens":
		a.json(`{"input_tokens":41}`)
	case p == "/api/chat":
		a.ollama()
	case strings.HasSuffix(p, ":generateContent"):
		a.gemini()
	case strings.HasSuffix(p, ":streamGenerateContent"):
		a.stream = true
		a.gemini()
	default:
		http.Error(w, `{"error":{"message":"nothing is here"}}`, http.StatusNotFound)
	}
}

// missing is what servers refuse requests for that go on with a conversation: Anthropic's when what the model thought before it
// called a tool is not there as it was, and Gemini's when a call has no signature.
func missing(q any) (why string) {
	thinks, _ := at(q, "thinking", "type").(string)
	calls, signed := false, false
	walk(q, func(o map[string]any) {
		calls = calls || o["type"] == "tool_use"
		signed = signed || o["type"] == "thinking" && o["signature"] == signature
		if o["functionCall"] != nil && o["thoughtSignature"] == nil {
			why = "Function call is missing a thought_signature in functionCall parts."
		}
	})
	if (thinks == "enabled" || thinks == "adaptive") && calls && !signed {
		why = "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
	}
	return why
}

// signature is Anthropic's, under what its model thought.
const signature = "EqQBCgIYAhIM"

// say reads what a request offers and tells, in whichever dialect it is, and goes on with the script.
func (m *ModelServer) say(q any) turn {
	var told []string
	tools, spaces := map[string]string{}, map[string]string{}
	walk(q, func(o map[string]any) {
		name, _ := o["name"].(string)
		if in, ok := o["tools"].([]any); ok && o["type"] == "namespace" {
			for _, t := range in {
				n, _ := at(t, "name").(string)
				spaces[n] = name
			}
		}
		switch {
		case o["input_schema"] != nil || o["parameters"] != nil || o["parametersJsonSchema"] != nil:
			tools[name] = "{"
		case o["type"] == "custom" && o["format"] != nil: // takes a text
			tools[name] = `"`
		}
		switch {
		case o["type"] == "tool_result" || o["role"] == "tool":
			told = append(told, words(o["content"]))
		case o["type"] == "function_call_output" || o["type"] == "custom_tool_call_output":
			told = append(told, words(o["output"]))
		case o["functionResponse"] != nil:
			told = append(told, words(at(o, "functionResponse", "response", "output")))
		}
	})
	if len(told) > 0 {
		return turn{text: afterCall + told[len(told)-1]}
	}
	for name, args := range m.calls {
		if begin, offered := tools[name]; offered && strings.HasPrefix(args, begin) {
			return turn{text: beforeCall, tool: name, args: args, space: spaces[name]}
		}
	}
	return turn{text: "Hello from the model."}
}

// walk calls f with each object of a JSON value, in order.
func walk(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		f(v)
		for _, item := range v {
			walk(item, f)
		}
	case []any:
		for _, item := range v {
			walk(item, f)
		}
	}
}

// words are the text of a message: a string, or its parts'.
func words(v any) string {
	var b strings.Builder
	if s, ok := v.(string); ok {
		return s
	}
	walk(v, func(o map[string]any) {
		s, _ := o["text"].(string)
		b.WriteString(s)
	})
	return b.String()
}

// at is a member of a member of a JSON value.
func at(v any, keys ...string) any {
	for _, k := range keys {
		o, _ := v.(map[string]any)
		v = o[k]
	}
	return v
}

// quoted is a text as JSON.
func quoted(s string) string {
	b, _ := json.Marshal(s) // a string always can
	return string(b)
}

// pieces cuts a text as servers do in streams.
func pieces(s string) []string {
	list := strings.SplitAfter(s, " ")
	if len(list) == 1 && len(s) > 4 {
		list = []string{s[:4], s[4:]}
	}
	return list
}

func (a *reply) json(format string, args ...any) {
	a.w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(a.w, format, args...)
}

// event sends one server-sent event; without a name, only its data.
func (a *reply) event(name, format string, args ...any) {
	a.w.Header().Set("Content-Type", "text/event-stream")
	if name != "" {
		fmt.Fprintf(a.w, "event: %s\n", name)
	}
	fmt.Fprintf(a.w, "data: "+format+"\n\n", args...)
	_ = http.NewResponseController(a.w).Flush() // a client that went away misses nothing
	a.n++
}
