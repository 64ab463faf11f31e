package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// recordGPUs is how much of a sandbox's time on its GPUs is in one record, and so how much a daemon that is killed loses. A record ends where
// the host's clock begins another such time, so that records add up to hours and days.
const recordGPUs = 15 * time.Minute

// gpuMeters add up what one sandbox has of its GPUs while it runs. The methods of nil do nothing.
type gpuMeters struct {
	b      *box
	given  []gpu.GivenGPU
	part   time.Time // the beginning of the quarter of an hour that the next record is of
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	list []*gpu.Meter // one for each of given
}

// noteGPUs writes down which GPUs a sandbox starts with.
func (b *box) noteGPUs(i *agent.Instance) {
	if given := i.GPUs(); given != nil {
		for _, d := range given.GPUs {
			b.noteGPU(d, gpu.Granted(d))
		}
	}
}

func (b *box) noteGPU(d gpu.GivenGPU, reason string) {
	b.records.Record(policy.Decision{Plane: policy.PlaneSystem, Action: gpu.Action, Object: d.UUID, Reason: reason, Verdict: policy.Allow, Rule: "builtin"})
}

// meterGPUs begins to add up; nil for a sandbox without a GPU, which costs nothing.
func (b *box) meterGPUs(i *agent.Instance) *gpuMeters {
	given := i.GPUs()
	if given == nil || len(given.GPUs) == 0 {
		return nil
	}
	m := newGPUMeters(b, given.GPUs, time.Now())
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	go m.run(ctx)
	return m
}

func newGPUMeters(b *box, given []gpu.GivenGPU, now time.Time) *gpuMeters {
	m := &gpuMeters{b: b, given: given, part: now.Round(0).Truncate(recordGPUs), done: make(chan struct{})}
	for range given {
		m.list = append(m.list, gpu.NewMeter(now))
	}
	return m
}

// run looks until ctx ends. The driver tells nobody when something changes, so it has to be asked.
func (m *gpuMeters) run(ctx context.Context) {
	defer close(m.done)
	tick := time.NewTicker(gpu.MeterEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		host := m.b.d.GPUs(ctx)
		if ctx.Err() != nil {
			return // nothing was said
		}
		m.looked(time.Now(), host)
	}
}

// looked takes what the driver said now, and writes down what there was when another quarter of an hour has begun.
func (m *gpuMeters) looked(now time.Time, host api.GPUs) {
	m.add(now, host)
	if part := now.Round(0).Truncate(recordGPUs); !part.Equal(m.part) {
		m.part = part
		m.write(now)
	}
}

func (m *gpuMeters) add(now time.Time, host api.GPUs) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range m.given {
		m.list[i].Add(now, useOf(host, m.b.name, d.UUID))
	}
}

// write puts what there was since the last record into the log.
func (m *gpuMeters) write(now time.Time) {
	for i, d := range m.given {
		m.mu.Lock()
		t := m.list[i].Take(now)
		m.mu.Unlock()
		m.b.noteGPU(d, gpu.Used(d, t))
	}
}

// end writes the last record. It does not wait for the driver.
func (m *gpuMeters) end() {
	if m == nil {
		return
	}
	m.cancel()
	<-m.done
	m.write(time.Now())
}

// show adds what is in no record yet to what givenGPUs lists.
func (m *gpuMeters) show(list []api.SandboxGPU) {
	if m == nil {
		return
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range list {
		t := m.list[i].Since(now)
		list[i].Time = &t
	}
}
