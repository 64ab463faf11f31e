package inference

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestWordByWord: a caller of each API has every word of a stream before the model says the next, with placeholders to put back, too.
func TestWordByWord(t *testing.T) {
	words := strings.SplitAfter("each of these words comes alone", " ")
	for path, body := range map[string]string{
		"/v1/chat/completions": `{"model":"x","stream":true,"messages":[{"role":"user","content":%q}]}`,
		"/v1/completions":      `{"model":"x","stream":true,"prompt":%q}`,
		"/v1/responses":        `{"model":"x","stream":true,"store":false,"input":%q}`,
		"/v1/messages":         `{"model":"x","stream":true,"max_tokens":9,"messages":[{"role":"user","content":%q}]}`,
		"/api/chat":            `{"model":"x","messages":[{"role":"user","content":%q}]}`,
		"/api/generate":        `{"model":"x","prompt":%q}`,
	} {
		for _, prompt := range []string{"hello", card} {
			t.Run(path[1:]+" "+prompt[:5], func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, "  classes: {financial: redact}\n", nil)
				heard := make(chan struct{})
				w.cloud.say = func(rw http.ResponseWriter, _ string) {
					rw.Header().Set("Content-Type", "text/event-stream")
					for _, word := range words {
						fmt.Fprintf(rw, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%q},\"finish_reason\":null}]}\n\n", word)
						_ = http.NewResponseController(rw).Flush() // a test server always can
						<-heard
					}
					fmt.Fprint(rw, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
				}
				server := httptest.NewServer(w.Router)
				defer server.Close()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(fmt.Sprintf(body, prompt)))
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "inference.local"
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				lines := bufio.NewScanner(resp.Body)
				for _, word := range words {
					came := false
					for !came && lines.Scan() {
						came = strings.Contains(lines.Text(), `"`+word+`"`)
					}
					if !came {
						t.Fatalf("the stream ends before %q: %v", word, lines.Err())
					}
					heard <- struct{}{}
				}
			})
		}
	}
}
