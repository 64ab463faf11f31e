package metrics

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/histogram"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// collector shows snapshots of a source to client_golang. A series is there as long as what it is about.
type collector struct {
	source Source
	errors *Errors
	log    *slog.Logger

	mu   sync.Mutex
	told bool // that something can't be read
}

// Describe lists the metrics.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range list {
		to <- m.desc
	}
}

// Collect takes one snapshot and sends its numbers.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	s := c.source.Metrics()
	o := output{to}
	o.daemon(&s, c.errors)
	for i := range s.Sandboxes {
		o.sandbox(&s.Sandboxes[i])
	}
	c.tell(s.Unread)
}

// tell says once that something can't be read, not with each scrape.
func (c *collector) tell(unread []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(unread) > 0 && !c.told {
		c.log.Warn("metrics: not everything can be read", "error", errors.Join(unread...))
	}
	c.told = len(unread) > 0
}

// output is where numbers go.
type output struct{ to chan<- prometheus.Metric }

// send sends a number of a metric that has one series for each set of label values.
func (o output) send(m *Metric, n float64, labels ...string) {
	kind := prometheus.GaugeValue
	if m.Kind == Counter {
		kind = prometheus.CounterValue
	}
	for i := range labels {
		labels[i] = text.Valid(labels[i]) // else the whole scrape would fail
	}
	one, err := prometheus.NewConstMetric(m.desc, kind, n, labels...)
	if err != nil {
		one = prometheus.NewInvalidMetric(m.desc, err)
	}
	o.to <- one
}

func (o output) durations(m *Metric, s histogram.Snapshot, labels ...string) {
	buckets, n := make(map[float64]uint64, len(s.Bounds)), uint64(0)
	for i, b := range s.Bounds {
		n += s.Counts[i]
		buckets[b.Seconds()] = n
	}
	for i := range labels {
		labels[i] = text.Valid(labels[i])
	}
	one, err := prometheus.NewConstHistogram(m.desc, s.Count(), s.Sum.Seconds(), buckets, labels...)
	if err != nil {
		one = prometheus.NewInvalidMetric(m.desc, err)
	}
	o.to <- one
}

func (o output) daemon(s *Snapshot, e *Errors) {
	o.send(build, 1, s.Version, s.Level)
	o.send(auditOK, truth(s.Audit == nil))
	o.send(auditRecords, float64(s.Records))
	o.send(auditLost, float64(s.Lost))
	o.send(missed, float64(s.Missed))
	for _, r := range s.Receivers {
		o.send(forwardLag, float64(r.Lag), r.Name)
		o.send(forwardBehind, r.Behind, r.Name)
		o.send(forwardUp, truth(r.Error == ""), r.Name)
		o.send(forwardLost, float64(r.Refused), r.Name, "refused")
		o.send(forwardLost, float64(r.Removed), r.Name, "removed")
	}
	if s.Tracing {
		o.send(tracesSent, float64(s.Traces.Sent))
		o.send(tracesLost, float64(s.Traces.Full), "full")
		o.send(tracesLost, float64(s.Traces.Refused), "refused")
		o.send(tracesUp, truth(s.Traces.Error == nil))
	}
	o.send(errorsSaid, float64(e.warnings.Load()), "warning")
	o.send(errorsSaid, float64(e.errors.Load()), "error")
	o.send(lastError, float64(e.last.Load()))
	o.send(unread, float64(len(s.Unread)))
	for i := range s.GPUs.GPUs {
		o.gpu(&s.GPUs.GPUs[i], s.GPUs.Driver)
	}
	for hook, n := range s.Strays {
		o.send(strays, float64(n), hook.String())
	}
	for _, m := range s.Maps {
		o.send(mapEntries, float64(m.Entries), m.Name)
		o.send(mapCapacity, float64(m.Capacity), m.Name)
	}
	o.send(measured, truth(s.Measured))
	for _, p := range s.Programs {
		o.send(programTime, p.Time.Seconds(), p.Name)
		o.send(programRuns, float64(p.Runs), p.Name)
	}
}

func (o output) sandbox(b *Sandbox) {
	for _, s := range []api.State{api.Stopped, api.Starting, api.Running, api.Stopping, api.Failed} {
		o.send(state, truth(s == b.State), b.Name, string(s))
	}
	b.Records.Decisions(func(p policy.Plane, v policy.Verdict, n uint64) {
		o.send(decisions, float64(n), b.Name, string(p), v.String())
	})
	o.send(recordsFolded, float64(b.Records.Folded()), b.Name)
	o.send(held, float64(b.Approvals.Held), b.Name)
	o.send(open, float64(b.Approvals.Open), b.Name)
	o.send(unlisted, float64(b.Approvals.Unlisted), b.Name)
	for outcome, s := range b.Approvals.Waited {
		o.durations(waited, s, b.Name, outcome.String())
	}
	if b.Running != nil {
		o.running(b.Name, b.Running)
	}
}

func (o output) running(name string, r *Running) {
	o.send(started, float64(r.Started.UnixNano())/float64(time.Second), name)
	for _, hook := range loader.Hooks() {
		for _, v := range []policy.Verdict{policy.Deny, policy.Ask, policy.Allow} {
			o.send(kernelDecisions, float64(r.Kernel.Of(hook, v)), name, hook.String(), v.String())
		}
	}
	o.send(eventsLost, float64(r.Kernel.Lost), name)
	o.send(eventsSuppressed, float64(r.Kernel.Suppressed), name)
	for outcome, n := range r.Proxy.Conns {
		o.send(conns, float64(n), name, outcome.String())
	}
	o.send(connsOpen, float64(r.Proxy.Open), name)
	o.send(bytes, float64(r.Proxy.Sent), name, "sent")
	o.send(bytes, float64(r.Proxy.Received), name, "received")
	o.durations(setup, r.Proxy.Setup, name)
	for outcome, n := range r.Proxy.Queries {
		o.send(queries, float64(n), name, outcome.String())
	}
	o.usage(name, r)
	o.gpuUses(name, r.GPUs)
	for i := range r.Models {
		o.model(name, &r.Models[i])
	}
}

func (o output) model(name string, m *inference.Measured) {
	for route := policy.Route(0); route <= policy.RouteDeny; route++ {
		for _, outcome := range []inference.Outcome{inference.Answered, inference.Refused, inference.Failed, inference.Aborted} {
			o.send(modelRequests, float64(m.Requests[route][outcome]), name, m.Model, route.String(), outcome.String())
		}
	}
	if m.Model == inference.RefusedModel {
		return // it takes nothing
	}
	o.send(modelTokens, float64(m.Input), name, m.Model, "input")
	o.send(modelTokens, float64(m.Output), name, m.Model, "output")
	o.durations(modelTime, coarse(m.Latency), name, m.Model)
	o.durations(modelFirst, coarse(m.First), name, m.Model)
	o.send(modelUp, truth(!m.Down), name, m.Model)
}

// coarse has half as many buckets: each is twice the one before.
func coarse(h histogram.Snapshot) histogram.Snapshot {
	s := histogram.Snapshot{Sum: h.Sum}
	var n uint64
	for i, c := range h.Counts {
		n += c
		switch last := i == len(h.Counts)-1; {
		case last:
			s.Counts = append(s.Counts, n)
		case i%2 == 0:
			s.Bounds, s.Counts = append(s.Bounds, h.Bounds[i]), append(s.Counts, n)
			n = 0
		}
	}
	return s
}

func (o output) usage(name string, r *Running) {
	u := &r.Usage
	o.send(cpu, u.CPU.Seconds(), name)
	o.send(processes, float64(u.Processes), name)
	o.send(oomKills, float64(u.OOMKills), name)
	// What no controller counts, and a limit that there is not, has no series.
	for m, n := range map[*Metric]int64{memory: u.Memory, memoryLimit: u.MemoryLimit, tasks: u.Tasks, taskLimit: u.TaskLimit} {
		if n > 0 {
			o.send(m, float64(n), name)
		}
	}
	if u.Disk != nil {
		o.send(disk, float64(u.Disk.Read), name, "read")
		o.send(disk, float64(u.Disk.Written), name, "write")
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
