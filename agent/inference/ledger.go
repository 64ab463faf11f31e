package inference

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/policy"
)

// writeEvery is how often at most the ledger's file is written. A kill of this process loses what began since.
const writeEvery = time.Second

// taken is what requests took, or may take.
type taken struct {
	Requests int64   `json:"requests"`
	Input    int64   `json:"input_tokens"`
	Output   int64   `json:"output_tokens"`
	Cost     float64 `json:"cost_usd"`
}

func (t *taken) add(o taken, sign int64) {
	t.Requests += sign * o.Requests
	t.Input += sign * o.Input
	t.Output += sign * o.Output
	t.Cost += float64(sign) * o.Cost
}

// day is what the ledger's file has: the UTC day, and what was taken of it by policy.Backend.ID().
type day struct {
	Date   string           `json:"date"`
	Models map[string]taken `json:"models"`
}

// ledger counts what a sandbox's models took of a day, and holds back what those that answer now may take. Its file counts these as
// if they had taken it: a process that is killed leaves too much in it, never too little.
type ledger struct {
	file string // "": it is kept in memory
	now  func() time.Time

	mu     sync.Mutex
	today  day
	held   map[string]*taken // of requests that are answered now
	failed error             // of the last write

	dirty chan struct{} // something is to be written
	once  sync.Once     // it ends
	end   chan struct{}
	ended chan struct{}
}

// openLedger goes on with the ledger of a file.
func openLedger(file string) (*ledger, error) {
	l := &ledger{file: file, now: time.Now, held: map[string]*taken{}, dirty: make(chan struct{}, 1), end: make(chan struct{}), ended: make(chan struct{})}
	if file == "" {
		close(l.ended)
		return l, nil
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &l.today)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("what its models took today: %w; without %s the day begins anew", err, file)
	}
	go l.keep()
	return l, nil
}

// close writes what there is. Requests that have not ended are counted as what they may take.
func (l *ledger) close() {
	l.once.Do(func() { close(l.end) })
	<-l.ended
}

// keep writes the file, as long as there is something to write.
func (l *ledger) keep() {
	defer close(l.ended)
	for {
		select {
		case <-l.dirty:
		case <-l.end:
			l.write()
			return
		}
		l.write()
		select {
		case <-time.After(writeEvery):
		case <-l.end:
			l.write()
			return
		}
	}
}

func (l *ledger) write() {
	l.mu.Lock()
	l.roll()
	d := day{l.today.Date, map[string]taken{}}
	for id, t := range l.today.Models {
		d.Models[id] = t
	}
	for id, h := range l.held {
		t := d.Models[id]
		t.add(*h, 1)
		d.Models[id] = t
	}
	l.mu.Unlock()
	text, err := json.Marshal(d)
	if err == nil {
		err = atomicfile.Write(l.file, text)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
}

func (l *ledger) changed() {
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// roll begins another day where it is one. What is held goes over into it.
func (l *ledger) roll() {
	if date := l.now().UTC().Format(time.DateOnly); l.today.Date != date || l.today.Models == nil {
		l.today = day{date, map[string]taken{}}
	}
}

// sum is what all models took today, and what is held beside it.
func (l *ledger) sum() (settled, held taken) {
	for _, t := range l.today.Models {
		settled.add(t, 1)
	}
	for _, h := range l.held {
		held.add(*h, 1)
	}
	return settled, held
}

// lease is what one request may take until it is settled.
type lease struct {
	l    *ledger
	b    *policy.Backend
	id   string // b's
	may  taken
	over bool
}

// reserve holds back what a request to a backend may take of a budget.
func (l *ledger) reserve(b *policy.Backend, input, output int64, most policy.Budget) (*lease, error) {
	cost, known := b.Cost(input, output)
	if most.Cost > 0 && !known {
		return nil, refuse("the policy has a budget of %s a day, and nobody knows what %s costs, so nothing was sent to it; the person who runs the sandbox can say its price in the policy, under inference.models", usd(most.Cost), b)
	}
	s := &lease{l: l, b: b, id: b.ID(), may: taken{1, input, output, cost}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll()
	settled, held := l.sum()
	left := most.Tokens - settled.Input - settled.Output
	switch {
	case most == policy.Budget{}:
	case l.failed != nil:
		l.changed() // it may be better now
		return nil, refuse("what this sandbox takes of its budget can't be written down (%v), so nothing was sent to %s; the person who runs the sandbox can make room for it", l.failed, b)
	case most.Tokens > 0 && input+output > left-held.Input-held.Output:
		return nil, l.exhausted("tokens", fmt.Sprint(most.Tokens), fmt.Sprint(settled.Input+settled.Output), fmt.Sprint(held.Input+held.Output), fmt.Sprint(input+output), left > 0)
	case most.Cost > 0 && cost > 0 && settled.Cost+held.Cost+cost > most.Cost:
		return nil, l.exhausted("cost", usd(most.Cost), usd(settled.Cost), usd(held.Cost), usd(cost), settled.Cost < most.Cost)
	}
	h := l.held[s.id]
	if h == nil {
		h = &taken{}
		l.held[s.id] = h
	}
	h.add(s.may, 1)
	l.changed()
	return s, nil
}

// exhausted says that a budget has no room for a request. some: it has room for a smaller one.
func (l *ledger) exhausted(budget, most, settled, held, wants string, some bool) error {
	now := l.now().UTC()
	anew := now.Truncate(24 * time.Hour).Add(24 * time.Hour)
	wait := anew.Sub(now).Minutes()
	what := "is used up"
	if some {
		what = "has no room for this request, which may take " + wants + " (fewer with a smaller limit of output tokens)"
	}
	return refuse("today's budget of %s %s: of %s, %s are taken, and requests that are answered now may take %s; it begins anew at %s (in %d h %d min). Nothing was sent. The person who runs the sandbox can raise inference.budgets.%s in the policy",
		budget, what, most, settled, held, anew.Format("2006-01-02 15:04 UTC"), int(wait)/60, int(wait)%60, budget)
}

func usd(x float64) string { return fmt.Sprintf("%.6g USD", x) }

// settle says what the request took. Only the first time counts.
func (s *lease) settle(input, output int64) (cost float64) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.over {
		return 0
	}
	s.over = true
	l.roll()
	if h := l.held[s.id]; h.Requests > 1 {
		h.add(s.may, -1)
	} else {
		delete(l.held, s.id) // and with it what adding and taking away has left of a cost
	}
	cost, _ = s.b.Cost(input, output)
	if input+output > 0 {
		t := l.today.Models[s.id]
		t.add(taken{1, input, output, cost}, 1)
		l.today.Models[s.id] = t
	}
	l.changed()
	return cost
}

// taken is what a backend took today.
func (l *ledger) taken(b *policy.Backend) taken {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll()
	return l.today.Models[b.ID()]
}

// total is what all took today, and what is held.
func (l *ledger) total() (settled, held taken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll()
	return l.sum()
}
