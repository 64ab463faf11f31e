package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/metrics"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/loader"
)

var _ metrics.Source = (*Daemon)(nil)

// scrapeTime is how long a scrape waits for the driver of the GPUs: one that wakes its devices first takes some seconds, and Prometheus
// waits ten for everything.
const scrapeTime = 3 * time.Second

// Metrics is the daemon as it is now.
func (d *Daemon) Metrics() metrics.Snapshot {
	s := metrics.Snapshot{
		Version: d.version, Level: d.loader.Level().String(), Audit: d.audit.Err(), Records: d.audit.Head().Seq, Lost: d.audit.Lost(), Missed: d.hub.Lost(),
		Receivers: d.receivers(), Measured: loader.Measured(),
	}
	s.Traces, s.Tracing = d.tracer.State()
	var err error
	keep := func() {
		if err != nil {
			s.Unread = append(s.Unread, err)
		}
	}
	s.Strays, err = d.loader.Strays()
	keep()
	s.Maps, err = d.loader.MapUses()
	keep()
	s.Programs, err = d.loader.ProgramUses()
	keep()
	s.GPUs, err = d.gpuMetrics()
	keep()
	for _, b := range d.all() {
		var one metrics.Sandbox
		one, err = b.metrics(s.GPUs)
		keep()
		s.Sandboxes = append(s.Sandboxes, one)
	}
	return s
}

// gpuMetrics are the GPUs that there are; that there is no driver is no error.
func (d *Daemon) gpuMetrics() (api.GPUs, error) {
	ctx, cancel := context.WithTimeout(d.life, scrapeTime)
	defer cancel()
	g := d.GPUs(ctx)
	if g.State == api.GPUsBroken {
		return g, fmt.Errorf("GPUs: %s", g.Reason)
	}
	return g, nil
}

// metrics are a sandbox's.
func (b *box) metrics(host api.GPUs) (s metrics.Sandbox, err error) {
	b.mu.Lock()
	s = metrics.Sandbox{Name: b.name, State: b.state, Records: b.records}
	i := b.instance
	b.mu.Unlock()
	s.Approvals = b.desk.Counts()
	if i == nil {
		return s, nil
	}
	s.Running, err = running(i)
	if s.Running != nil && host.State == api.GPUsReady {
		s.Running.GPUs = givenGPUs(i)
		useGPUs(host, b.name, s.Running.GPUs)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.instance != i { // it was stopped meanwhile
		s.State, s.Running, err = b.state, nil, nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", b.name, err)
	}
	return s, err
}

// running is what a sandbox has that runs; nil when not all of it can be read.
func running(i *agent.Instance) (*metrics.Running, error) {
	r := metrics.Running{Started: i.Started(), Proxy: i.Proxy(), Models: i.Measured()}
	var err error
	if r.Kernel, err = i.Counters(); err != nil {
		return nil, err
	}
	if r.Usage, err = i.Box().Usage(); err != nil {
		return nil, err
	}
	return &r, nil
}
