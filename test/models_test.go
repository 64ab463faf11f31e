//go:build e2e

package test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestInferenceAttacks has a program inside try to get more of models than it may: names of other models for what must stay here, and
// a budget's worth many times over, by asking at once and by going away from answers.
func TestInferenceAttacks(t *testing.T) {
	t.Parallel()
	local := newModel(t, "ollama", "from here")
	var asked atomic.Int64
	var got sync.Map
	refused := make(chan struct{})
	const piece = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so\"},\"finish_reason\":null}]}\n\n"
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got.Store(asked.Add(1), string(body))
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, strings.Repeat(piece, 30))
		w.(http.Flusher).Flush()
		if strings.Contains(string(body), "and go away") {
			for { // so that curl finds out that nobody reads
				select {
				case <-r.Context().Done():
					return
				case <-time.After(200 * time.Millisecond):
					fmt.Fprint(w, piece)
					w.(http.Flusher).Flush()
				}
			}
		}
		<-refused
		fmt.Fprint(w, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"+
			"data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":70,\"total_tokens\":100}}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(cloud.Close)
	release := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(refused)
		fmt.Fprint(w, `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"go on"},"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":1}`)
	}))
	t.Cleanup(release.Close)
	b := harness.Box{Policy: harness.Files + "process:\n  allow: [{command: sh}, {command: curl}, {command: grep}, {command: head}, {command: seq}, {command: sleep}]\n" +
		"inference:\n  local: {model: ollama/here, url: \"" + local.URL + "\"}\n  cloud: {model: corp/big, api: openai, url: \"" + cloud.URL + "\", price: {input: 0, output: 10000}}\n" +
		"  models:\n    - {name: eu, model: euro/large, api: openai, url: \"" + cloud.URL + "\", price: {input: 0, output: 10000}}\n" +
		"    - {name: release, model: ollama/release, url: \"" + release.URL + "\", route: local}\n" +
		"  fallbacks: [eu]\n  budgets: {cost: 11.99}\n"}
	const script = `
ask() { curl -sS -N "$@" https://inference.local/v1/chat/completions; }
body() { echo '{"stream":true,"model":"'$1'","max_tokens":100,"messages":[{"role":"user","content":"'$2'"}]}'; }
for model in eu cloud euro/large local; do
  ask -d "$(body $model 'my card is 4111 1111 1111 1111, expires 04/29')" | grep -c 'from here'
done
for i in 1 2; do
  ask -d "$(body eu 'write much, and go away')" | head -c 100 >/dev/null &
done
wait
curl -sS -N -Z --parallel-max 50 --parallel-immediate -o /dev/null -w '%{http_code}\n' -d "$(body cloud hello)" "https://inference.local/v1/chat/completions?n=[1-50]" >> $HOME/codes &
for i in $(seq 100); do [ "$(grep -c 400 $HOME/codes)" -ge 39 ] && break; sleep 0.1; done
ask -o /dev/null -d '{"model":"release","messages":[{"role":"user","content":"now"}]}'
wait
echo refused $(grep -c 400 $HOME/codes) answered $(grep -c 200 $HOME/codes)
`
	r := harness.W.Run(t, b, "sh", "-c", script)
	sent := 0
	got.Range(func(_, body any) bool {
		if strings.Contains(body.(string), "4111") {
			t.Errorf("the cloud got %s", body)
		}
		sent++
		return true
	})
	aborted := 0
	for _, e := range r.Find("inference", "", "") {
		if cost, _ := e.Inference["cost_microusd"].(float64); e.Object == "euro/large" && e.Inference["tokens_estimated"] == true && cost >= 10_000 {
			aborted++
		}
	}
	// Of 11.99 USD the two that were left took 0.01 for each piece, or hold back 1 where their end is not seen yet. There is room for 11 of
	// 1 USD at once at most.
	answered := sent - 2
	if answered < 5 || answered > 11 || aborted != 2 || !strings.Contains(r.Out, "1\n1\n1\n1\n") || !strings.Contains(r.Out, fmt.Sprintf("refused %d answered %d", 50-answered, answered)) {
		t.Errorf("%d were sent, and %d left\nstdout: %s\nstderr: %s\n%s", sent, aborted, r.Out, r.Err, r.Dump())
	}
	if !strings.Contains(r.Err, "inference.budgets counts what this run takes") {
		t.Errorf("stderr: %s", r.Err)
	}
}
