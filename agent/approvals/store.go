package approvals

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// saveAfter is how long a change may wait for the disk. What a program inside attempts is not to keep the disk busy: after a save there
// is none for a while, which is longer by a factor than it took. An answer waits for neither.
const (
	saveAfter   = time.Second
	pause       = 100 * time.Millisecond
	pauseFactor = 20
)

// store is what outlives the daemon of a desk. Once-answers do not: whether they were used meanwhile nobody knows.
type store struct {
	requests string
	saving   sync.Mutex  // held while the requests are written; taken before the desk's mu
	timer    *time.Timer // of the next save; nil: nothing is to be saved
	next     time.Time   // not before
	journal  journal     // of what came since

	grants string // no longer than the sandbox runs, so nobody waits for a disk; written under the desk's gating
}

type kept struct {
	Requests []keptRequest `json:"requests"`
	Unlisted uint64        `json:"unlisted,omitempty"`
}

// keptDecision is a decision with what records leave out.
type keptDecision struct {
	policy.Decision
	Program policy.Identity `json:"program"`
	Target  policy.Target   `json:"target"`
	Object  []byte          `json:"object_bytes"` // JSON has no other bytes than text
	Exe     []byte          `json:"exe_bytes"`
	Args    []byte          `json:"args_bytes"`
}

type keptRequest struct {
	ID       string       `json:"id"`
	Decision keptDecision `json:"decision"`
	First    time.Time    `json:"first"`
	Last     time.Time    `json:"last"`
	Count    uint64       `json:"count"`
}

// journalLine is a line of the journal: a request that came, or the id of one that can't be answered any more.
type journalLine struct {
	Request *keptRequest `json:"request,omitempty"`
	Gone    string       `json:"gone,omitempty"`
}

type keptGrant struct {
	ID       string         `json:"id"`
	Decision keptDecision   `json:"decision"`
	Decided  policy.Verdict `json:"decided"`
	Scope    api.Scope      `json:"scope"`
	Until    time.Time      `json:"until,omitzero"`
	Who      string         `json:"who"`
	When     time.Time      `json:"when"`
}

func keep(d policy.Decision) keptDecision {
	return keptDecision{d, d.Subject.File, d.Target, []byte(d.Object), []byte(d.Subject.Exe), []byte(d.Subject.Args)}
}

func (k keptDecision) decision() policy.Decision {
	d := k.Decision
	d.Subject.File, d.Target, d.Object, d.Subject.Exe, d.Subject.Args = k.Program, k.Target, string(k.Object), string(k.Exe), string(k.Args)
	return d
}

// read reads a file, if there is one.
func read(file string, into any) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("reading the requests and the answers in force: %w; move %s away to do without them", err, file)
	}
	return nil
}

// load reads what the last daemon has left: what was held is denied since.
func (k *Desk) load() error {
	var was kept
	var grants []keptGrant
	if err := errors.Join(read(k.store.requests, &was), read(k.store.grants, &grants)); err != nil {
		return err
	}
	since, gone, err := k.store.journal.read()
	if err != nil {
		return fmt.Errorf("reading the requests: %w", err)
	}
	k.unlisted = was.Unlisted
	for _, x := range append(was.Requests, since...) {
		if _, is := gone[x.ID]; is {
			continue
		}
		d := x.Decision.decision()
		described := k.c.Look(d)
		if len(described.Offers) == 0 {
			continue // since the policy was changed no answer could allow it
		}
		r := &request{
			desk: k, id: x.ID, key: keyOf(d), d: d, described: described, rule: d.Rule, first: x.First, last: x.Last, count: x.Count,
			state: api.Refused, done: make(chan struct{}),
		}
		if k.requests[r.key] == nil {
			k.requests[r.key] = r
			k.q.add(r)
		}
	}
	if len(since)+len(gone) == 0 || k.save() == nil {
		k.store.journal.clear()
	}
	now := time.Now()
	for _, x := range grants {
		g := &grant{Grant: Grant{x.ID, x.Decision.decision(), x.Decided, x.Scope, x.Until, x.Who, x.When}}
		if !g.Until.IsZero() && !now.Before(g.Until) {
			continue
		}
		k.grants[keyOf(g.Decision)] = g
		if !g.Until.IsZero() {
			g.end = time.AfterFunc(g.Until.Sub(now), func() { k.expire(g) })
		}
	}
	return nil
}

// snapshot is what is to be kept of the requests. The caller holds mu.
func (k *Desk) snapshot() kept {
	x := kept{Requests: []keptRequest{}, Unlisted: k.unlisted}
	for _, r := range k.requests {
		d := r.d
		d.Rule = r.rule
		x.Requests = append(x.Requests, keptRequest{r.id, keep(d), r.first, r.last, r.count})
	}
	return x
}

// saveGrants writes the grants down: they survive a kill of the daemon. A reboot ends them with the sandbox. The caller holds
// gating.
func (k *Desk) saveGrants() error {
	if k.store.grants == "" {
		return nil
	}
	list := []keptGrant{}
	k.mu.Lock()
	for _, g := range k.grants {
		if !g.Once() {
			list = append(list, keptGrant{g.ID, keep(g.Decision), g.Decided, g.Scope, g.Until, g.Who, g.When})
		}
	}
	k.mu.Unlock()
	text, err := json.Marshal(list)
	if err == nil {
		err = atomicfile.Swap(k.store.grants, text)
	}
	if err != nil {
		return fmt.Errorf("keeping the answers in force: %w", err)
	}
	return nil
}

// later has the requests saved after a while. The caller holds mu.
func (k *Desk) later(wait time.Duration) {
	soonest := max(wait, time.Until(k.store.next))
	switch {
	case k.store.requests == "" || k.closed:
	case k.store.timer == nil:
		k.store.timer = time.AfterFunc(soonest, k.flush)
	case wait == 0:
		k.store.timer.Reset(soonest)
	}
}

// flush saves what is not saved. That it can't be is tried again with the next change.
func (k *Desk) flush() {
	k.mu.Lock()
	waits := k.store.timer != nil
	k.mu.Unlock()
	if waits {
		_ = k.save()
	}
}

// save writes the requests down.
func (k *Desk) save() error {
	if k.store.requests == "" {
		return nil
	}
	k.store.saving.Lock()
	defer k.store.saving.Unlock()
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	if k.store.timer != nil {
		k.store.timer.Stop()
		k.store.timer = nil
	}
	was, began, saved := k.snapshot(), time.Now(), k.store.journal.next()
	k.store.next = began.Add(pause)
	k.mu.Unlock()
	text, err := json.Marshal(was)
	if err == nil {
		err = atomicfile.Write(k.store.requests, text)
	}
	k.mu.Lock()
	k.store.next = time.Now().Add(max(pause, pauseFactor*time.Since(began)))
	k.mu.Unlock()
	if err != nil {
		return fmt.Errorf("keeping the requests: %w", err)
	}
	saved()
	return nil
}
