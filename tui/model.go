package tui

import (
	"fmt"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

// A model is what the console knows. The feeds change it, the panes read it, and neither waits for the other longer than it
// takes to copy a few rows. Everything in it is bounded, whatever a sandbox does.
type model struct {
	changed chan struct{} // holds one: something is to be drawn

	mu       sync.Mutex
	info     api.Info
	down     time.Time      // since when the daemon does not answer; zero: it does
	why      error          // it does not
	boxes    []*api.Sandbox // by name; never changed, only replaced
	find     query          // what is listed of them
	usage    map[string]usage
	rates    map[string]*rate
	requests requests
	mine     map[string]bool // requests that are answered from here: how they end is no news
	tail     tail
	notes    []note
	visible  []string          // the sandboxes on the screen that run; never changed, only replaced
	unlisted map[string]uint64 // denied attempts that are in no request, by sandbox
}

// usage is what a sandbox took at a time, and how much a second since the time before.
type usage struct {
	api.Usage
	at             time.Time
	known          bool    // the rest is: there was a time before
	cpu            float64 // of one processor
	sent, received float64 // bytes
}

// A note is something that the console says. It is kept, because it may be longer than its line.
type note struct {
	when time.Time
	text string // safe
	bad  bool
}

// maxNotes is how many notes are kept.
const maxNotes = 200

func newModel() *model {
	return &model{
		changed: make(chan struct{}, 1), usage: map[string]usage{}, rates: map[string]*rate{}, unlisted: map[string]uint64{}, mine: map[string]bool{},
		requests: newRequests(), tail: newTail(),
	}
}

// change changes the model, and has it drawn.
func (m *model) change(f func()) {
	m.mu.Lock()
	f()
	m.mu.Unlock()
	m.touch()
}

// touch has the model drawn. It never waits.
func (m *model) touch() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// read calls f while nothing changes.
func (m *model) read(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// say adds a note. What is from inside a sandbox has to be escaped by the caller.
func (m *model) say(format string, args ...any) { m.add(note{text: fmt.Sprintf(format, args...)}) }

// complain adds a note of something that went wrong.
func (m *model) complain(format string, args ...any) {
	m.add(note{text: fmt.Sprintf(format, args...), bad: true})
}

func (m *model) add(n note) {
	n.when = time.Now()
	m.change(func() {
		m.notes = append(m.notes, n)
		if len(m.notes) > maxNotes {
			m.notes = append([]note(nil), m.notes[len(m.notes)-maxNotes:]...)
		}
	})
}

// setBoxes takes the sandboxes that there are now.
func (m *model) setBoxes(list []api.Sandbox) {
	m.change(func() {
		m.boxes = make([]*api.Sandbox, len(list))
		there := make(map[string]bool, len(list))
		for i, s := range list {
			m.boxes[i] = &s
			there[s.Name] = true
		}
		for name := range m.rates {
			if !there[name] {
				delete(m.rates, name)
			}
		}
		for name := range m.usage {
			if !there[name] {
				delete(m.usage, name)
			}
		}
	})
}

// box returns a sandbox; nil when there is none of that name.
func (m *model) box(name string) (found *api.Sandbox) {
	m.read(func() {
		for _, b := range m.boxes {
			if b.Name == name {
				found = b
			}
		}
	})
	return found
}

// listed are the sandboxes that fit the filter.
func (m *model) listed() (list []*api.Sandbox) {
	for _, b := range m.boxes {
		if m.find.box(b) {
			list = append(list, b)
		}
	}
	return list
}

// setUsage takes what a sandbox uses now.
func (m *model) setUsage(name string, u api.Usage, now time.Time) {
	m.change(func() {
		next := usage{Usage: u, at: now}
		if was, ok := m.usage[name]; ok && now.After(was.at) && u.CPU >= was.CPU {
			seconds := now.Sub(was.at).Seconds()
			next.known, next.cpu = true, (u.CPU-was.CPU).Seconds()/seconds
			next.sent, next.received = max(float64(u.Sent-was.Sent)/seconds, 0), max(float64(u.Received-was.Received)/seconds, 0)
		}
		m.usage[name] = next
	})
}

// watching reports whether the caller may look and not answer.
func (m *model) watching() (only bool) {
	m.read(func() { only = m.info.Role == "watch" })
	return only
}

// seconds is how far back a rate goes.
const seconds = 60

// A rate is how many denials there were in each of the last seconds.
type rate struct {
	last int64 // the second that is counted now
	n    [seconds]uint64
}

// add counts n denials at a time.
func (r *rate) add(at time.Time, n uint64) {
	s := at.Unix()
	r.roll(s)
	if s > r.last-seconds {
		r.n[s%seconds] += n
	}
}

// roll empties the seconds between the last one counted and s.
func (r *rate) roll(s int64) {
	if s-r.last >= seconds {
		*r = rate{last: s}
	}
	for r.last < s {
		r.last++
		r.n[r.last%seconds] = 0
	}
}

// spark draws the last n seconds before now as bars, the latest to the right, and returns the mean of the last ten.
func (r *rate) spark(now time.Time, n int) (bars string, perSecond float64) {
	const heights = "▁▂▃▄▅▆▇█"
	s := now.Unix() - 1 // this second is not over
	r.roll(now.Unix())
	n = min(n, seconds-1)
	var most, sum uint64
	at := func(back int) uint64 { return r.n[(s-int64(back))%seconds] }
	for back := range n {
		most = max(most, at(back))
	}
	for back := range 10 {
		sum += at(back)
	}
	line := make([]rune, 0, n)
	for back := n - 1; back >= 0; back-- {
		if at(back) == 0 {
			line = append(line, ' ')
			continue
		}
		line = append(line, []rune(heights)[at(back)*7/most])
	}
	return string(line), float64(sum) / 10
}
