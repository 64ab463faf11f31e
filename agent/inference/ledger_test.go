package inference

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestLedger has a process be killed while a request is answered, and days begin.
func TestLedger(t *testing.T) {
	file := filepath.Join(t.TempDir(), "spent.json")
	open := func() *ledger {
		l, err := openLedger(file)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	b := &policy.Backend{Provider: "corp", Model: "big", Price: &policy.Price{Input: 1, Output: 2}}
	l := open()
	one, err := l.reserve(b, 1000, 2000, policy.Budget{})
	if err != nil {
		t.Fatal(err)
	}
	if one.settle(100, 50); one.settle(100, 50) != 0 {
		t.Error("it is settled twice")
	}
	if _, err := l.reserve(b, 1000, 2000, policy.Budget{Tokens: 3150, Cost: 1}); err != nil {
		t.Error(err)
	}
	if _, err := l.reserve(b, 1, 0, policy.Budget{Tokens: 3150}); err == nil || !strings.Contains(err.Error(), "of 3150, 150 are taken, and requests that are answered now may take 3000") {
		t.Errorf("there is no room: %v", err)
	}
	for {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), `"input_tokens":1100,"output_tokens":2050`) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	// l is left as by kill -9.
	again := open()
	if got := again.taken(b); got.Input != 1100 || got.Output != 2050 || got.Cost != 0.0052 {
		t.Errorf("the next process has %+v", got)
	}
	over, err := again.reserve(b, 10, 10, policy.Budget{})
	if err != nil {
		t.Fatal(err)
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	again.mu.Lock() // its writer reads the clock too
	again.now = func() time.Time { return tomorrow }
	again.mu.Unlock()
	if _, err := again.reserve(b, 3000, 0, policy.Budget{Tokens: 3020}); err != nil {
		t.Errorf("another day: %v", err)
	}
	over.settle(7, 7)
	if got := again.taken(b); got.Input != 7 || got.Requests != 1 {
		t.Errorf("what ends in another day is taken there: %+v", got)
	}
	again.close()
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), tomorrow.UTC().Format(time.DateOnly)) || !strings.Contains(string(text), `"input_tokens":3007`) {
		t.Errorf("the file is %s, %v", text, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file that is none: %v", err)
	}
	lost, err := openLedger(filepath.Join(filepath.Dir(file), "nowhere", "spent.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer lost.close()
	lost.changed()
	for most := (policy.Budget{Tokens: 1 << 40}); err == nil; time.Sleep(time.Millisecond) {
		_, err = lost.reserve(b, 1, 1, most)
	}
	if !strings.Contains(err.Error(), "can't be written down") {
		t.Error(err)
	}
}

const limited = `{"model":"x","max_tokens":100,"messages":[{"role":"user","content":"hello"}]}`

// TestBudget uses budgets up, of tokens and of money, with models that say what they took and with one that does not.
func TestBudget(t *testing.T) {
	for name, c := range map[string]struct {
		budget, model, want string
		answers             int // before there is no room
	}{
		"tokens": {"{tokens: 140}", "x", "today's budget of tokens has no room for this request, which may take 120", 3}, // 7 each
		"used":   {"{tokens: 120}", "x", "of 120, 7 are taken", 1},
		"cost":   {"{cost: 0.0012}", "x", "today's budget of cost", 3}, // 0.000049 USD each, and 0.00106 held back
		"free":   {"{cost: 0.000001}", "local", "", 20},
		"local":  {"{tokens: 140}", "local", "today's budget of tokens", 3},
		"silent": {"{tokens: 300}", "silent", "today's budget of tokens", 3}, // 20 and 50 each, by estimate
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			silent := newBackend(t, "openai")
			silent.say = func(w http.ResponseWriter, _ string) {
				fmt.Fprint(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"`+strings.Repeat("word ", 40)+`"},"finish_reason":"stop"}]}`)
			}
			w := newPriced(t, "  models: [{name: silent, model: corp/silent, api: openai, url: \""+silent.URL+"\", price: {input: 0, output: 0}}]\n  budgets: "+c.budget+"\n")
			n := 0
			body := ""
			for ; n < 20; n++ {
				var status int
				if status, body = w.post("/v1/messages", strings.Replace(limited, `"x"`, `"`+c.model+`"`, 1)); status == 400 {
					break
				} else if status != 200 {
					t.Fatalf("%d %s", status, body)
				}
			}
			if n != c.answers || n < 20 && (!strings.Contains(body, c.want) || !strings.Contains(body, `"type":"error"`) || !strings.Contains(body, "it begins anew at")) {
				t.Errorf("%d answers, then %s", n, body)
			}
			if d := w.last(); n < 20 && (d.Verdict != policy.Deny || !strings.Contains(d.Reason, "budget")) {
				t.Errorf("the record is %+v", d)
			}
		})
	}
	w := newPriced(t, "  budgets: {cost: 1}\n")
	w.model = "corp/other"
	if status, body := w.post("/v1/messages", limited); status != 400 || !strings.Contains(body, "nobody knows what corp/other costs") || len(w.cloud.asked()) != 0 {
		t.Errorf("a model without a price: %d %s", status, body)
	}
}

// newPriced is a world whose cloud costs something.
func newPriced(t *testing.T, section string) *world {
	w := newWorld(t, "", nil)
	text := "inference:\n  local: {model: ollama/here, url: \"" + w.local.URL + "\"}\n  cloud: {model: corp/big, api: openai, url: \"" + w.cloud.URL + "\", price: {input: 3, output: 10}}\n" + section
	apply, err := w.Prepare(compile(t, text))
	if err != nil {
		t.Fatal(err)
	}
	apply()
	return w
}

// TestBudgetRace has fifty streams want what ten can have.
func TestBudgetRace(t *testing.T) {
	w := newPriced(t, "  budgets: {tokens: 1250}\n") // 125 each
	var asked atomic.Int64
	all := make(chan struct{})
	w.cloud.say = func(rw http.ResponseWriter, _ string) {
		asked.Add(1)
		<-all
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(rw, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"so\"},\"finish_reason\":\"stop\"}]}\n\n"+
			"data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":30,\"completion_tokens\":70,\"total_tokens\":100}}\n\ndata: [DONE]\n\n")
	}
	var refused atomic.Int64
	var g sync.WaitGroup
	for range 50 {
		g.Go(func() {
			if status, _ := w.post("/v1/chat/completions", strings.Replace(limited, "{", `{"stream":true,`, 1)); status == 400 {
				if refused.Add(1) == 40 {
					close(all)
				}
			}
		})
	}
	g.Wait()
	settled, held := w.ledger.total()
	if asked.Load() != 10 || refused.Load() != 40 || settled.Input+settled.Output != 1000 || held.Requests != 0 {
		t.Errorf("%d were sent, %d refused; taken %+v, held %+v", asked.Load(), refused.Load(), settled, held)
	}
}

// TestAborted has a caller go away from its answers, to have them for nothing.
func TestAborted(t *testing.T) {
	for name, c := range map[string]struct {
		pieces int
		stream bool
		output int64
	}{
		"before a stream": {0, true, 100},
		"in a stream":     {20, true, 20}, // a token each at least
		"of an answer":    {0, false, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newPriced(t, "")
			ctx, gone := context.WithCancel(context.Background())
			end := make(chan struct{})
			defer close(end)
			w.cloud.say = func(rw http.ResponseWriter, _ string) {
				for range c.pieces {
					fmt.Fprint(rw, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\n")
				}
				if c.pieces == 0 {
					gone()
				} else {
					rw.(http.Flusher).Flush()
				}
				<-end
			}
			body := limited
			if c.stream {
				body = strings.Replace(limited, "{", `{"stream":true,`, 1)
			}
			req := httptest.NewRequest(http.MethodPost, "http://inference.local/v1/chat/completions", strings.NewReader(body)).WithContext(ctx)
			rec := &leaving{ResponseRecorder: httptest.NewRecorder(), after: c.pieces, gone: gone}
			w.ServeHTTP(rec, req)
			settled, held := w.ledger.total()
			if settled.Output != c.output || settled.Input != int64(len(body)/4+1) || held.Requests != 0 {
				t.Errorf("it took %+v, and %+v is held", settled, held)
			}
			s := w.upstream(w.now.Load().section.Cloud).Snapshot()
			if s.Count(Aborted) != 1 || s.Output != uint64(c.output) {
				t.Errorf("the metrics are %+v", s)
			}
		})
	}
}

// leaving is a caller that goes away after so many writes.
type leaving struct {
	*httptest.ResponseRecorder
	after int
	gone  func()
}

func (l *leaving) Write(b []byte) (int, error) {
	if l.after--; l.after == 0 {
		l.gone()
	}
	return l.ResponseRecorder.Write(b)
}

func TestHistogram(t *testing.T) {
	h := newMetrics().latency
	for i := range 100 {
		h.Observe(time.Duration(i+1) * time.Millisecond)
	}
	h.Observe(time.Hour)
	s := h.Snapshot()
	for share, want := range map[float64]time.Duration{0.5: 51 * time.Millisecond, 0.9: 91 * time.Millisecond, 0.01: 2 * time.Millisecond} {
		if got := s.Quantile(share); got < want || float64(got) > 1.42*float64(want) {
			t.Errorf("the quantile %g is %s, want %s and at most 42 %% more", share, got, want)
		}
	}
	if s.Count() != 101 || newMetrics().latency.Snapshot().Quantile(0.5) != 0 || s.Counts[len(bounds)] != 1 {
		t.Errorf("the snapshot is %+v", s)
	}
	for i, bound := range bounds {
		one := newMetrics().latency
		one.Observe(bound)
		one.Observe(bound + time.Microsecond)
		if got := one.Snapshot(); got.Counts[i] != 1 || got.Counts[i+1] != 1 {
			t.Errorf("the bound %s of bucket %d is %v", bound, i, got.Counts)
		}
	}
}
