package inference

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// many is a world with two more models of the cloud, and one more on this host.
type many struct {
	*world
	eu, us, fast *backend
}

func newMany(t *testing.T, section string) *many {
	m := &many{eu: newBackend(t, "openai"), us: newBackend(t, "openai"), fast: newBackend(t, "ollama")}
	m.world = newWorld(t, `  models:
    - {name: fast, model: "ollama/small", url: "`+m.fast.URL+`", route: local}
    - {name: eu, model: eu/large, api: openai, url: "`+m.eu.URL+`", classes: {pii: cloud, financial: cloud}}
    - {name: us, model: us/large, api: openai, url: "`+m.us.URL+`", classes: {pii: local}}
`+section, nil)
	return m
}

// got says who was asked since the last time, as "cloud eu", and with what.
func (m *many) got() (who, what string) {
	for _, x := range []struct {
		name string
		*backend
	}{{"local", m.local}, {"cloud", m.cloud}, {"fast", m.fast}, {"eu", m.eu}, {"us", m.us}} {
		for _, body := range x.asked() {
			who, what = strings.TrimSpace(who+" "+x.name), what+body
		}
	}
	return who, what
}

func (m *many) ask(model string, contents ...string) (int, string) {
	return m.post("/v1/chat/completions", strings.Replace(chat(contents...), "gpt-whatever", model, 1))
}

const mail = "write to jane.doe@example.com"

// TestNames has callers choose models by their names, which gets them no further than the rules of each.
func TestNames(t *testing.T) {
	m := newMany(t, "  classes: {pii: redact, credentials: deny}\n")
	for _, c := range []struct{ model, content, who, record string }{
		{"gpt-4o", "hello", "cloud", "cloud: nothing"},
		{"eu", "hello", "eu", "cloud: nothing"},
		{"us", "hello", "us", "cloud: nothing"},
		{"fast", "hello", "fast", "cloud: nothing"},
		{"local", "hello", "local", "cloud: nothing"},
		{"cloud", "hello", "cloud", "cloud: nothing"},
		{"us/large", "hello", "cloud", "cloud: nothing"}, // no name
		{"gpt-4o", mail, "cloud", "redact: pii 1"},
		{"eu", mail, "eu", "cloud: pii 1"},
		{"us", mail, "local", "local: pii 1"},
		{"eu", card, "eu", "cloud: financial 1"},
		{"us", card, "local", "local: financial 1"},
		{"fast", card, "fast", "local: financial 1"},
		{"eu", "why is AKIAZ7Q4XN2PLM5TWE3R refused?", "", "deny: credentials 1"},
		{"fast", "why is AKIAZ7Q4XN2PLM5TWE3R refused?", "", "deny: credentials 1"},
	} {
		_, body := m.ask(c.model, c.content)
		who, what := m.got()
		if d := m.last(); who != c.who || !strings.Contains(d.Reason, c.record) {
			t.Errorf("%s asked %q: %q got it: %s\n%s", c.model, c.content, who, body, d.Reason)
		}
		if plain := strings.Contains(what, "jane.doe@"); c.content == mail && plain == (c.who == "cloud") {
			t.Errorf("%s asked %q got %s", c.who, c.content, what)
		}
	}
	m.model = "eu"
	m.ask("gpt-4o", mail)
	if who, _ := m.got(); who != "eu" {
		t.Errorf("config set model eu: %q", who)
	}
	m.model = "gone"
	if status, body := m.ask("gpt-4o", mail); status != 400 || !strings.Contains(body, "no model of that name") {
		t.Errorf("a name that the policy has no more: %d %s", status, body)
	}
}

// TestNamesSticky has a conversation carry something that one model may have, and go on with another without it.
func TestNamesSticky(t *testing.T) {
	m := newMany(t, "")
	answer := "You said that your card begins with forty-one eleven, and that it is valid until April of the year."
	m.eu.say = func(w http.ResponseWriter, _ string) {
		fmt.Fprintf(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}]}`, answer)
	}
	m.ask("eu", card)
	m.got()
	for model, want := range map[string]string{"gpt-4o": "local", "us": "local", "fast": "fast", "eu": "eu"} {
		if _, body := m.ask(model, "go on", answer, "and now?"); !t.Failed() {
			if who, _ := m.got(); who != want {
				t.Errorf("%s goes on: %q got it: %s\n%s", model, who, body, m.last().Reason)
			}
		}
	}
}

// TestFallbacks has the cloud's model fail in every way in which another is asked, and in some in which none is.
func TestFallbacks(t *testing.T) {
	status := func(code int) func(http.ResponseWriter) { return func(w http.ResponseWriter) { w.WriteHeader(code) } }
	for name, c := range map[string]struct {
		fails        func(http.ResponseWriter)
		content, who string
		want         string // of the answer
	}{
		"503":             {status(503), "hello", "cloud us", "you said hello"},
		"429":             {status(429), "hello", "cloud us", "you said hello"},
		"401":             {status(401), "hello", "cloud", "does not take the sandbox's key"},
		"400":             {status(400), "hello", "cloud", "answered 400"},
		"closed":          {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "hello", "cloud us", "you said hello"},
		"broken off":      {func(w http.ResponseWriter) { w.Header().Set("Content-Length", "99") }, "hello", "cloud us", "you said hello"},
		"silent":          {nil, "hello", "cloud us", "you said hello"},
		"redacted":        {status(503), mail, "cloud eu", "jane.doe@example.com"}, // us may not have it
		"what stays here": {status(503), card, "local", "you said my card"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMany(t, "  fallbacks: [us, eu, fast]\n  classes: {pii: redact}\n")
			end := make(chan struct{})
			defer close(end)
			m.cloud.say = func(w http.ResponseWriter, _ string) { c.fails(w) }
			if c.fails == nil {
				m.cloud.say = func(http.ResponseWriter, string) { <-end }
				m.client.Transport.(*http.Transport).ResponseHeaderTimeout = time.Second
			}
			_, body := m.ask("gpt-4o", c.content)
			who, what := m.got()
			if who != c.who || !strings.Contains(body, c.want) {
				t.Errorf("%q got it: %s\n%s", who, body, m.last().Reason)
			}
			if d := m.last(); strings.Contains(c.who, " ") && (len(d.Inference.Instead) != 1 || !strings.HasPrefix(d.Inference.Instead[0], "corp/big: the ")) {
				t.Errorf("the record is %+v", d)
			}
			if c.content == mail && (!strings.Contains(what, "[E_MAIL_") || !strings.Contains(what, mail)) {
				t.Errorf("they got %s", what) // the cloud's the placeholder, and eu's the text
			}
		})
	}
}

// TestFallbackLast has nothing answer, and says of each model why.
func TestFallbackLast(t *testing.T) {
	m := newMany(t, "  fallbacks: [us, eu, fast, local]\n")
	m.local.Close()
	m.fast.say = func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusInternalServerError) }
	status, body := m.ask("gpt-4o", card)
	who, _ := m.got()
	if status != 400 || who != "fast" || !strings.Contains(body, "ollama/here does not answer") || !strings.Contains(body, "ollama/small: the server answered 500") {
		t.Errorf("what stays here: %d by %q: %s", status, who, body)
	}
	m.cloud.Close()
	m.eu.Close()
	status, body = m.ask("us", mail)
	if who, _ := m.got(); status != 400 || who != "fast" {
		t.Errorf("what one may not have goes to none: %d by %q: %s", status, who, body)
	}
	status, body = m.ask("eu", mail)
	for _, want := range []string{"eu/large does not answer", "us/large: by its rules this request stays on this host", "ollama/small: the server answered 500"} {
		if status != http.StatusBadGateway || !strings.Contains(body, want) || !strings.Contains(m.last().Reason, "stays on this host") {
			t.Errorf("nobody answers: %d %s\n%s", status, body, m.last().Reason)
		}
	}
}

// TestEmbeddingsStay has no other model make embeddings: nothing says that they are another's.
func TestEmbeddingsStay(t *testing.T) {
	m := newMany(t, "  fallbacks: [eu, fast]\n")
	m.cloud.say = func(w http.ResponseWriter, _ string) { w.WriteHeader(http.StatusServiceUnavailable) }
	status, body := m.post("/v1/embeddings", `{"model":"x","input":"hello"}`)
	if who, _ := m.got(); who != "cloud" || status != http.StatusServiceUnavailable || !strings.Contains(body, "embeddings compare with nothing") {
		t.Errorf("%q got it: %d %s", who, status, body)
	}
}

// TestStreamBreaks has a stream break off after its first byte: nobody else may go on with it.
func TestStreamBreaks(t *testing.T) {
	m := newMany(t, "  fallbacks: [eu]\n")
	m.cloud.say = func(w http.ResponseWriter, _ string) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so\"},\"finish_reason\":null}]}\n\n")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	_, body := m.post("/v1/chat/completions", strings.Replace(chat("hello"), "{", `{"stream":true,`, 1))
	if who, _ := m.got(); who != "cloud" || !strings.Contains(body, `"so"`) || !strings.Contains(body, "broke off") {
		t.Errorf("%q got it: %s", who, body)
	}
}

// TestHealth has a model be passed over while it is down, and asked again once a probe has found it.
func TestHealth(t *testing.T) {
	m := newMany(t, "  fallbacks: [eu]\n")
	down, probed := true, make(chan string, 9)
	m.cloud.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet:
			probed <- r.URL.Path + " " + r.Header.Get("Authorization")
			if down {
				w.WriteHeader(http.StatusBadGateway)
			}
		case down:
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			fmt.Fprint(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"back"},"finish_reason":"stop"}]}`)
		}
	})
	s := m.upstream(m.now.Load().section.Cloud)
	probe := func() { // as if its time had come
		h := *s.down.Load()
		h.next = time.Time{}
		s.down.Store(&h)
		m.ask("gpt-4o", "hello")
		if got := <-probed; got != "/v1/models Bearer "+m.key {
			t.Errorf("it was probed with %q", got)
		}
		for s.probing.Load() {
			time.Sleep(time.Millisecond)
		}
	}
	m.ask("gpt-4o", "hello")
	h := s.down.Load()
	if h == nil || h.reason != "it answers 503 Service Unavailable" || time.Until(h.next) < 50*time.Second {
		t.Fatalf("it is %+v", h)
	}
	m.ask("gpt-4o", "hello")
	if _, body := m.ask("gpt-4o", "hello"); !strings.Contains(body, "you said hello") || len(probed) != 0 {
		t.Errorf("while it is down: %s", body)
	}
	probe()
	if again := s.down.Load(); again == nil || again.since != h.since || again.wait != 2*firstProbe {
		t.Errorf("probed in vain it is %+v", again)
	}
	down = false
	probe()
	if s.down.Load() != nil {
		t.Errorf("it is up, and down by %+v", s.down.Load())
	}
	if _, body := m.ask("gpt-4o", "hello"); !strings.Contains(body, "back") {
		t.Errorf("it is up: %s", body)
	}
}
