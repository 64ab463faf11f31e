package inference

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

// rawBackend makes the cloud's model one that answers each request with bytes of its own, whatever HTTP says. It is given the request.
func rawBackend(t *testing.T, section string, say func(asked *http.Request) string) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = fmt.Fprint(c, say(r)) // the router may not wait for it
			}
			_ = c.Close()
		}
	}()
	w := newWorld(t, section+"  models:\n    - {name: raw, model: corp/raw, api: openai, url: \"http://"+l.Addr().String()+"\"}\n", nil)
	w.model = "raw"
	return w
}

// TestServerSaysKey has a server say the key, and what a terminal obeys, where no message of an API is looked for: neither the caller,
// nor a record, nor the list of models has any of it.
func TestServerSaysKey(t *testing.T) {
	for name, say := range map[string]func(key string) string{
		"in the words of its status":  func(key string) string { return "HTTP/1.1 503 \x1b[2J" + key + "\r\nContent-Length: 0\r\n\r\n" },
		"in those of another":         func(key string) string { return "HTTP/1.1 404 \x1b[2J" + key + "\r\nContent-Length: 0\r\n\r\n" },
		"instead of an answer":        func(key string) string { return "\x1b[2J" + key + "\r\n\r\n" },
		"in a header that is none":    func(key string) string { return "HTTP/1.1 200 OK\r\n" + key + "\r\n\r\n" },
		"as the length of its answer": func(key string) string { return "HTTP/1.1 200 OK\r\nContent-Length: " + key + "\r\n\r\n" },
		"as the coding of its answer": func(key string) string { return "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + key + "\r\n\r\n" },
		"where the message of an error is cut": func(key string) string {
			body := `{"error":{"message":"` + strings.Repeat("x", maxSaid-len(key)+1) + key + `"}}`
			return fmt.Sprintf("HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		},
		"in an error within a stream": func(key string) string {
			body := "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so\"},\"finish_reason\":null}]}\n\n" +
				`data: {"error":{"message":"you sent ` + key + `"}}` + "\n\n"
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := rawBackend(t, "  fallbacks: [raw]\n", func(r *http.Request) string {
				return say(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			})
			for _, path := range []string{"/v1/chat/completions", "/v1/messages"} {
				for _, stream := range []string{"", `"stream":true,`} {
					_, body := w.post(path, strings.Replace(chat("hello"), "{", `{"max_tokens":9,`+stream, 1))
					for what, s := range map[string]string{"the caller": body, "a record": fmt.Sprintf("%+v %+v", w.last(), w.last().Inference), "the list of models": fmt.Sprintf("%+v", w.Models())} {
						if strings.Contains(s, w.key[:len(w.key)-1]) || strings.Contains(s, "\x1b") || strings.Contains(s, `\x1b`) {
							t.Errorf("%s, %s has it: %s", path, what, s)
						}
					}
				}
			}
		})
	}
}

// TestPutBack has a cloud's model say placeholders where what they stand for is not recognised once it is put back: next to digits,
// without the words that tell a name. The conversation that goes on has it nowhere in clear.
func TestPutBack(t *testing.T) {
	for name, c := range map[string]struct{ says, secret string }{
		"a card among digits":        {"pay with " + card, "4111 1111 1111 1111"},
		"a name that nothing tells":  {"my name is Jonathan Appleseed, remember it", "Jonathan Appleseed"},
		"an address in another word": {mail, "jane.doe@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "  classes: {financial: redact, pii: redact, credentials: redact}\n", nil)
			var place string
			w.cloud.say = func(rw http.ResponseWriter, body string) {
				i := strings.IndexByte(body, '[')
				for strings.IndexByte("CPEF", body[i+1]) < 0 {
					i += 1 + strings.IndexByte(body[i+1:], '[')
				}
				place = body[i : i+1+strings.IndexByte(body[i:], ']')]
				fmt.Fprintf(rw, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"99%s99"},"finish_reason":"stop"}]}`, place)
			}
			_, body := w.post("/v1/chat/completions", chat(c.says))
			if !strings.Contains(body, "99"+c.secret+"99") {
				t.Fatalf("it is not put back: %s, asked %q", body, w.cloud.asked())
			}
			w.cloud.asked()
			w.cloud.say = nil
			_, body = w.post("/v1/chat/completions", chat(c.says, "99"+c.secret+"99", "and now?"))
			if got := strings.Join(w.cloud.asked(), ""); strings.Contains(got, c.secret) || !strings.Contains(got, "99"+place+"99") {
				t.Errorf("the cloud got %s, and the caller %s", got, body)
			}
		})
	}
}

// TestManyValues has a request, an answer and a message of a stream be a great many small values: what is made of them in memory is a
// hundred times what they are as text, so that none is read.
func TestManyValues(t *testing.T) {
	many := strings.Repeat("0,", maxBody/2-200) + "0"
	w := newWorld(t, "", nil)
	for _, hidden := range []string{`"a":[%s]`, `"a":[{"arguments":"[%s]"}]`, `"a":[{"arguments":"\n[%s]"}]`, `"a":[{"arguments":"\u005b%s]"}]`} {
		if status, body := w.post("/v1/chat/completions", `{"model":"x","messages":[],`+fmt.Sprintf(hidden, many)+`}`); status != 400 || !strings.Contains(body, "values that can be judged") {
			t.Errorf("%s: %d %.200s", hidden, status, body)
		}
	}
	if got := w.cloud.asked(); len(got) != 0 {
		t.Errorf("the cloud got %d", len(got))
	}
	w.cloud.say = func(rw http.ResponseWriter, asked string) {
		if strings.Contains(asked, `"stream":true`) {
			fmt.Fprint(rw, "data: ")
		}
		fmt.Fprint(rw, `{"choices":[`+many+`]}`+"\n\n")
	}
	if status, body := w.post("/v1/chat/completions", chat("hello")); status != http.StatusBadGateway || !strings.Contains(body, "more values") {
		t.Errorf("an answer: %d %.200s", status, body)
	}
	if status, body := w.post("/v1/chat/completions", strings.Replace(chat("hello"), "{", `{"stream":true,`, 1)); status != http.StatusBadGateway || !strings.Contains(body, "values") {
		t.Errorf("a stream: %d %.200s", status, body)
	}
	if !w.values.TryAcquire(maxValues) || !w.found.TryAcquire(maxFound) {
		t.Error("there is less room than before")
	}
}

// TestChangedMeanwhile has the policy be changed while a request comes, and while it waits for its turn, for a person or for another
// model: what is then in force counts.
func TestChangedMeanwhile(t *testing.T) {
	stricter := func(w *world, section string) {
		apply, err := w.Prepare(compile(t, "inference:\n  local: {model: ollama/here, url: \""+w.local.URL+"\"}\n  cloud: {model: corp/big, api: openai, url: \""+w.cloud.URL+"\"}\n"+section))
		if err != nil {
			t.Fatal(err)
		}
		apply()
	}
	body := chat(mail)
	t.Run("while it comes", func(t *testing.T) {
		w := newWorld(t, "  classes: {pii: cloud}\n", nil)
		here, there := io.Pipe()
		req := httptest.NewRequest(http.MethodPost, "http://inference.local/v1/chat/completions", here)
		req.Header.Set("Content-Type", "application/json")
		done := make(chan struct{})
		go func() {
			w.ServeHTTP(httptest.NewRecorder(), req)
			close(done)
		}()
		if _, err := io.WriteString(there, body[:9]); err != nil { // the router has begun to read it
			t.Fatal(err)
		}
		stricter(w, "  classes: {pii: local}\n")
		_, _ = io.WriteString(there, body[9:])
		_ = there.Close()
		<-done
		if got := w.cloud.asked(); len(got) != 0 {
			t.Errorf("the cloud got %s", got)
		}
	})
	t.Run("while a person is asked", func(t *testing.T) {
		var w *world
		w = newWorld(t, "  classes: {pii: ask}\n", func(context.Context, policy.Decision) policy.Verdict {
			stricter(w, "  classes: {pii: deny}\n")
			return policy.Allow
		})
		if status, said := w.post("/v1/chat/completions", body); status != 400 || len(w.cloud.asked()) != 0 {
			t.Errorf("%d %s", status, said)
		}
	})
	t.Run("while another model does not answer", func(t *testing.T) {
		var w *world
		eu := newBackend(t, "openai")
		w = newWorld(t, "  classes: {pii: cloud}\n  models: [{name: eu, model: eu/large, api: openai, url: \""+eu.URL+"\"}]\n  fallbacks: [eu]\n", nil)
		w.cloud.say = func(rw http.ResponseWriter, _ string) {
			stricter(w, "  classes: {pii: local}\n")
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		if status, said := w.post("/v1/chat/completions", body); status == 200 || len(eu.asked()) != 0 {
			t.Errorf("%d %s", status, said)
		}
	})
}

// TestUnseenElsewhere has what can't be looked into come under other names than those of the APIs' own clients, all of which some
// server takes: in another case, as Go's do, or as vLLM's and others' additions.
func TestUnseenElsewhere(t *testing.T) {
	const picture = `data:image/png;base64,iVBORw0KGgo=`
	w := newWorld(t, "  models:\n    - {name: remote, model: ollama/far, url: \"http://127.0.0.1:1\", route: cloud}\n", nil)
	for name, c := range map[string]struct{ path, body string }{
		"images in another case":    {"/api/chat", `{"model":"remote","stream":false,"messages":[{"role":"user","content":"what?","Images":["iVBORw0KGgo="]}]}`},
		"a type in another case":    {"/v1/chat/completions", `{"model":"x","messages":[{"role":"user","content":[{"Type":"image_url","Image_URL":{"URL":"` + picture + `"}}]}]}`},
		"a link in another case":    {"/v1/chat/completions", `{"model":"x","messages":[{"role":"user","content":[{"type":"picture","URL":"HTTPS://example.org/a.png"}]}]}`},
		"a film":                    {"/v1/chat/completions", `{"model":"x","messages":[{"role":"user","content":[{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAAIGZ0eXA="}}]}]}`},
		"a recording":               {"/v1/chat/completions", `{"model":"x","messages":[{"role":"user","content":[{"type":"audio_url","audio_url":{"url":"data:audio/wav;base64,UklGRg=="}}]}]}`},
		"data of any kind":          {"/v1/chat/completions", `{"model":"x","messages":[{"role":"user","content":[{"type":"thing","thing":" DATA:application/octet-stream;base64,UklGRg=="}]}]}`},
		"a prompt's inner values":   {"/v1/completions", `{"model":"x","prompt":"","prompt_embeds":"UEsDBAoAAAAAAA=="}`},
		"an image's inner values":   {"/v1/chat/completions", `{"model":"x","messages":[{"role":"user","content":[{"type":"image_embeds","image_embeds":"UEsDBAoAAAAAAA=="}]}]}`},
		"a source of an unknown":    {"/v1/messages", `{"model":"x","max_tokens":9,"messages":[{"role":"user","content":[{"type":"video","source":{"type":"base64","media_type":"video/mp4","data":"AAAAIGZ0eXA="}}]}]}`},
		"a search by the server":    {"/v1/chat/completions", `{"model":"x","web_search_options":{},"messages":[{"role":"user","content":"what?"}]}`},
		"tokens behind a text":      {"/v1/completions", `{"model":"x","prompt":["",[9906,11,856,3786,374]]}`},
		"an image in a text's HTML": {"/v1/chat/completions", `{"model":"x","messages":[{"role":"user","content":"what is <img src=\"` + picture + `\" />?"}]}`},
	} {
		w.post(c.path, c.body)
		if d := w.last(); d.Inference.Route != "local" || len(w.cloud.asked()) != 0 {
			t.Errorf("%s: %s, %s", name, d.Object, d.Reason)
		}
		w.local.asked()
	}
}

// TestEndlessCalls has a server ask for tools without end, of each of which something is kept.
func TestEndlessCalls(t *testing.T) {
	w := newWorld(t, "", nil)
	w.cloud.say = func(rw http.ResponseWriter, _ string) {
		for i := range 1 << 20 {
			if _, err := fmt.Fprintf(rw, "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":%d,\"id\":\"c%d\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n", i, i); err != nil {
				return // the router has had enough
			}
		}
	}
	const messages = `"max_tokens":9,"messages":[{"role":"user","content":"hello"}]`
	for path, asks := range map[string]string{"/v1/chat/completions": messages, "/v1/responses": `"input":"hello"`, "/v1/messages": messages} {
		_, body := w.post(path, `{"model":"x","stream":true,`+asks+`}`)
		if calls := strings.Count(body, `"name":"f"`); calls > 1<<14 || !strings.Contains(body, "broke off") {
			t.Errorf("%s: %d calls, %.200s", path, calls, body[max(len(body)-200, 0):])
		}
	}
}

// TestOtherModels has a caller name models that are to stand in for the policy's, which some servers do.
func TestOtherModels(t *testing.T) {
	w := newWorld(t, "", nil)
	for _, other := range []string{`"models":["dear/model"]`, `"Models":["dear/model"]`, `"fallbacks":[{"model":"dear/model"}]`} {
		status, body := w.post("/v1/chat/completions", `{"model":"x",`+other+`,"messages":[{"role":"user","content":"hello"}]}`)
		if got := w.cloud.asked(); status != 400 || len(got) != 0 || !strings.Contains(body, "not the caller's to say") {
			t.Errorf("%s: %d %s, the cloud got %s", other, status, body, got)
		}
	}
}

// TestLongAnswers has a long answer come where there is no room for it: it waits, and is read no further.
func TestLongAnswers(t *testing.T) {
	w := newWorld(t, "", nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.cloud.say = func(rw http.ResponseWriter, _ string) {
		fmt.Fprintf(rw, `{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"%s`, strings.Repeat("x", 2*maxSmall))
		rw.(http.Flusher).Flush()
		cancel()
		fmt.Fprint(rw, `"},"finish_reason":"stop"}]}`)
	}
	if !w.wholes.TryAcquire(maxWhole) {
		t.Fatal("there is no room")
	}
	req := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://inference.local/v1/chat/completions", strings.NewReader(chat("hello")))
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, req)
	if rec.Code == 200 {
		t.Errorf("it was answered with %d bytes", rec.Body.Len())
	}
	w.wholes.Release(maxWhole)
	if status, body := w.post("/v1/chat/completions", chat("hello")); status != 200 || len(body) < 2*maxSmall || !w.wholes.TryAcquire(maxWhole) {
		t.Errorf("with room: %d, %d bytes", status, len(body))
	}
}

// TestUsageLies has a server say that it took what nobody takes: what is written down is a number of tokens, and parts are no more than
// the whole.
func TestUsageLies(t *testing.T) {
	w := newWorld(t, "", nil)
	for _, usage := range []string{
		`{"prompt_tokens":-5,"completion_tokens":-5,"prompt_tokens_details":{"cached_tokens":-9007199254740992},"completion_tokens_details":{"reasoning_tokens":-1}}`,
		`{"prompt_tokens":5,"completion_tokens":9007199254740992,"prompt_tokens_details":{"cached_tokens":9007199254740992},"completion_tokens_details":{"reasoning_tokens":9007199254740992}}`,
		`{"prompt_tokens":1e300,"completion_tokens":"5","prompt_tokens_details":[],"completion_tokens_details":{"reasoning_tokens":7}}`,
	} {
		w.cloud.say = func(rw http.ResponseWriter, _ string) {
			fmt.Fprint(rw, `{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":`+usage+`}`)
		}
		w.post("/v1/chat/completions", chat("hello"))
		for _, d := range w.records {
			c := d.Inference
			if c.TokensIn <= 0 || c.TokensIn > maxTokens || c.TokensOut <= 0 || c.TokensOut > maxTokens || c.TokensCached < 0 || c.TokensCached > c.TokensIn || c.TokensReasoning < 0 || c.TokensReasoning > c.TokensOut {
				t.Errorf("%s: %+v", usage, c)
			}
		}
		w.records = nil
	}
}
