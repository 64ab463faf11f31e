package tui

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	often    = time.Second // how often the daemon is asked for what it does not tell by itself
	patience = 5 * time.Second
	history  = 1000 // decisions from before the console was opened
)

// A feed brings what the daemon says into the model, and comes back after every break by itself.
type feed struct {
	client *api.Client
	model  *model
}

// run goes on until ctx ends.
func (f *feed) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { f.keep(ctx, func() error { return f.requests(ctx) }) })
	wg.Go(func() { f.keep(ctx, func() error { return f.decisions(ctx) }) })
	wg.Go(func() { f.every(ctx, f.sandboxes) })
	wg.Go(func() { f.every(ctx, f.usage) })
	wg.Wait()
}

// keep calls a stream again when it ends.
func (f *feed) keep(ctx context.Context, stream func() error) {
	said := ""
	for ctx.Err() == nil {
		err := stream()
		if err != nil && ctx.Err() == nil && !errors.Is(err, api.ErrNotRunning) && err.Error() != said {
			said = err.Error()
			f.model.complain("%s", text.Lines(said))
		}
		pause(ctx, often)
	}
}

// every calls ask once a second.
func (f *feed) every(ctx context.Context, ask func(ctx context.Context)) {
	for ctx.Err() == nil {
		ask(ctx)
		pause(ctx, often)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// requests takes the requests.
func (f *feed) requests(ctx context.Context) error {
	return f.client.FollowRequests(ctx, "", func(c api.RequestChange) error {
		var ended *api.Request
		f.model.change(func() {
			ended = f.model.requests.take(c)
			if ended != nil && f.model.mine[ended.ID] {
				delete(f.model.mine, ended.ID)
				ended = nil
			}
			if c.Reset {
				clear(f.model.unlisted)
			}
			maps.Copy(f.model.unlisted, c.Unlisted) // of those where it has changed
		})
		if ended != nil {
			f.model.say("%s", outcome(ended))
		}
		return nil
	})
}

// outcome is how a request ended.
func outcome(r *api.Request) string {
	what := text.Escape(r.Sandbox) + ": " + text.Escape(r.Action) + " " + middle(show(r.Object), 60)
	if r.Answer != nil {
		return what + " " + string(r.State) + " (" + string(r.Answer.Scope) + ") by " + text.Escape(r.Answer.Who)
	}
	return what + " " + string(r.State)
}

// decisions takes the decisions: the last ones first, then what comes.
func (f *feed) decisions(ctx context.Context) error {
	want := api.Events{Follow: true, Last: history}
	f.model.read(func() {
		if f.model.tail.seq > 0 { // after a break
			want.Last, want.Since = 0, f.model.tail.seq
		}
	})
	return f.client.Events(ctx, want, func(_ []byte, d policy.Decision) error {
		f.model.change(func() {
			m := f.model
			m.tail.add(d)
			if d.Verdict != policy.Deny || d.Plane == policy.PlaneSystem {
				return
			}
			r := m.rates[d.Sandbox]
			if r == nil {
				r = &rate{}
				m.rates[d.Sandbox] = r
			}
			r.add(d.Time, max(d.Count, 1))
		})
		return nil
	})
}

// sandboxes takes the sandboxes, and finds out whether the daemon is there.
func (f *feed) sandboxes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := f.client.List(ctx)
	if err == nil {
		f.back(ctx)
		f.model.setBoxes(list)
		return
	}
	f.model.change(func() {
		if f.model.down.IsZero() {
			f.model.down = time.Now()
		}
		f.model.why = err
	})
}

// back notes that the daemon answers, and asks anew who it is when it did not before.
func (f *feed) back(ctx context.Context) {
	var was time.Time
	f.model.read(func() { was = f.model.down })
	if was.IsZero() {
		return
	}
	info, err := f.client.Info(ctx)
	if err != nil {
		return // it is asked again soon
	}
	f.model.change(func() { f.model.down, f.model.why, f.model.info = time.Time{}, nil, info })
	f.model.say("the daemon answers again, after %s", time.Since(was).Round(time.Second))
}

// usage asks what those sandboxes take that are on the screen, one after the other.
func (f *feed) usage(ctx context.Context) {
	var visible []string
	f.model.read(func() { visible = f.model.visible })
	for _, name := range visible {
		one, cancel := context.WithTimeout(ctx, patience)
		u, err := f.client.Usage(one, name)
		cancel()
		if err != nil { // it was stopped meanwhile, or the daemon is away, which is said elsewhere
			continue
		}
		f.model.setUsage(name, u, time.Now())
	}
}
