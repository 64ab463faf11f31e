package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxProposals bounds what an agent can leave behind by asking; the rest is counted in the log alone.
const maxProposals = 500

// saveAfter is how long a change of the proposals may wait for the disk.
const saveAfter = time.Second

// proposals are what was asked about while nobody was there, and what the default refused. They outlive the sandbox's stop and the daemon.
type proposals struct {
	file string

	mu    sync.Mutex
	list  map[string]*api.Proposal
	timer *time.Timer // of the next save; nil: nothing is to be saved
	over  bool
}

func openProposals(file string) (*proposals, error) {
	p := &proposals{file: file, list: map[string]*api.Proposal{}}
	text, err := os.ReadFile(file)
	if isMissing(err) {
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

// add notes one question.
func (p *proposals) add(d policy.Decision) {
	sum := sha256.Sum256([]byte(string(d.Plane) + "\x00" + d.Object + "\x00" + d.Subject.Exe))
	id := hex.EncodeToString(sum[:6])
	now := time.Now().UTC()
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.list[id]
	if x == nil {
		if len(p.list) >= maxProposals {
			return
		}
		x = &api.Proposal{ID: id, Plane: string(d.Plane), Object: d.Object, Subject: d.Subject.Exe, First: now}
		p.list[id] = x
	}
	x.Last, x.Rule, x.Suggest = now, d.Rule, d.Suggest
	x.Count++
	p.later()
}

// drop forgets those that f says are answered.
func (p *proposals) drop(f func(*api.Proposal) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, x := range p.list {
		if f(x) {
			delete(p.list, id)
			p.later()
		}
	}
}

func (p *proposals) later() {
	if p.timer == nil && !p.over {
		p.timer = time.AfterFunc(saveAfter, p.flush)
	}
}

// flush saves what is not saved. That it can't be is tried again with the next change: a proposal decides nothing.
func (p *proposals) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return
	}
	p.timer.Stop()
	p.timer = nil
	if text, err := json.MarshalIndent(p.list, "", "  "); err == nil {
		_ = replaceFile(p.file, text)
	}
}

// close forgets what is not saved: the sandbox is destroyed.
func (p *proposals) close() {
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

// ask answers what the policy asks about: nobody is there, so it is denied at once and kept as a proposal.
func (b *box) ask(_ context.Context, d policy.Decision) policy.Verdict {
	b.proposals.add(d)
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
