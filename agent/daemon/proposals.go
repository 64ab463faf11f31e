package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxProposals bounds what an agent can leave behind by asking; the rest is counted in the log alone.
const maxProposals = 500

// saveAfter is how long a count may wait for the disk. A new proposal does not wait.
const saveAfter = time.Second

// proposals are what was asked about while nobody was there, and what the default refused. They outlive the sandbox's stop and the daemon.
type proposals struct {
	file string

	saving sync.Mutex // held while the file is written; taken before mu
	mu     sync.Mutex
	list   map[string]*api.Proposal
	timer  *time.Timer // of the next save; nil: nothing is to be saved
	over   bool
}

func openProposals(file string) (*proposals, error) {
	p := &proposals{file: file, list: map[string]*api.Proposal{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p.list)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the proposals: %w; move %s away to do without them", err, file)
	}
	return p, nil
}

func (p *proposals) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.list)
}

// add notes one question, has a new one saved soon, and says whether it is one.
func (p *proposals) add(d policy.Decision) (fresh bool) {
	sum := sha256.Sum256([]byte(string(d.Plane) + "\x00" + d.Object + "\x00" + d.Subject.Exe))
	id := hex.EncodeToString(sum[:6])
	now := time.Now().UTC()
	p.mu.Lock()
	defer p.mu.Unlock()
	x, wait := p.list[id], saveAfter
	if x == nil {
		if len(p.list) >= maxProposals {
			return false
		}
		fresh, wait = true, 0
		x = &api.Proposal{ID: id, Plane: string(d.Plane), Object: d.Object, Subject: d.Subject.Exe, First: now}
		p.list[id] = x
	}
	x.Last, x.Rule, x.Suggest = now, d.Rule, d.Suggest
	x.Count++
	p.later(wait)
	return fresh
}

// drop forgets those that f says are answered.
func (p *proposals) drop(f func(*api.Proposal) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, x := range p.list {
		if f(x) {
			delete(p.list, id)
			p.later(saveAfter)
		}
	}
}

// later has the list saved after a while. The caller holds mu.
func (p *proposals) later(wait time.Duration) {
	switch {
	case p.over:
	case p.timer == nil:
		p.timer = time.AfterFunc(wait, p.flush)
	case wait == 0:
		p.timer.Reset(0)
	}
}

// flush saves what is not saved. That it can't be is tried again with the next change: a proposal decides nothing. Who adds
// one does not wait for the disk.
func (p *proposals) flush() {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	if p.timer == nil {
		p.mu.Unlock()
		return
	}
	p.timer.Stop()
	p.timer = nil
	text, err := json.MarshalIndent(p.list, "", "  ")
	p.mu.Unlock()
	if err == nil {
		_ = atomicfile.Write(p.file, text)
	}
}

// close forgets what is not saved: the sandbox is destroyed.
func (p *proposals) close() {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// all lists them, the latest first.
func (p *proposals) all() []api.Proposal {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]api.Proposal, 0, len(p.list))
	for _, x := range p.list {
		list = append(list, *x)
	}
	slices.SortFunc(list, func(a, b api.Proposal) int { return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID)) })
	return list
}

// record records a decision. What the default refused is listed, so that a person may allow it; what a rule denies is not: that
// takes a change of the policy.
func (b *box) record(d policy.Decision) {
	b.records.Record(d)
	if d.Verdict != policy.Deny || d.Rule != "default" {
		return
	}
	if d.Suggest = policy.Suggest(d); d.Suggest != "" {
		b.proposals.add(d)
	}
}

// ask answers what the policy asks about: nobody is there, so it is denied and kept as a proposal. That is on disk before the agent has
// its answer: what was asked outlives a daemon that is killed at that moment.
func (b *box) ask(_ context.Context, d policy.Decision) policy.Verdict {
	if b.proposals.add(d) {
		b.proposals.flush()
	}
	return policy.Deny
}

// Proposals lists what a sandbox asked about and nobody answered.
func (d *Daemon) Proposals(name string) ([]api.Proposal, error) {
	b, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return b.proposals.all(), nil
}
