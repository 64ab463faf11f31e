package report

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/audit/export"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// flood is a record of a flood: names that are different, more of them than are kept apart, and all else that a report counts.
func flood(i int) policy.Decision {
	d := policy.Decision{
		Seq: uint64(i + 1), Time: noon.Add(time.Duration(i) * 80 * time.Millisecond), Sandbox: "box", Plane: policy.PlaneNetwork, Action: "connect", Object: fmt.Sprintf("host-%d.example.org:443", i%100_000),
		Verdict: policy.Verdict(i % 3), Rule: "policy.yaml:17", Revision: "4235370766525688", Subject: policy.Subject{PID: 1000 + i%30000, Exe: fmt.Sprintf("/usr/bin/tool-%d", i%2000), Args: "curl -sS https://host.example.org/"},
	}
	switch i % 50 {
	case 0:
		d.Plane, d.Action, d.Inference = policy.PlaneInference, "request", &policy.ModelCall{Model: fmt.Sprintf("m-%d", i), Route: "cloud", TokensIn: 100, TokensOut: 10, Classes: map[string]int{"email": 1}}
	case 1:
		d.Plane, d.Action, d.Reason = policy.PlaneSystem, "command", "started by root"
	case 2:
		d.Plane, d.Action, d.Object, d.Reason = policy.PlaneSystem, gpu.Action, fmt.Sprintf("GPU-%d", i), gpu.Used(gpu.GivenGPU{Name: "NVIDIA H200"}, api.GPUTime{From: d.Time.Add(-time.Minute), To: d.Time, Given: 6e10, Measured: 6e10, Busy: 3e10})
	}
	return d
}

// TestMemory: what a report keeps has a limit, whatever was recorded, and however different.
func TestMemory(t *testing.T) {
	t.Parallel()
	a := NewActivity("box", noon, time.Time{})
	for i := range 300_000 {
		d := flood(i)
		a.Add(&d)
	}
	c := a.c
	for name, n := range map[string][2]int{
		"accesses": {len(c.access.rows), maxKinds}, "hours": {len(c.hours.rows), maxHours}, "models": {len(c.models.rows), maxPeople}, "found": {len(c.found.rows), maxPeople}, "revisions": {len(c.inForce.rows), maxPeople},
		"GPUs": {len(c.gpus.of.rows), maxGPUs}, "hours of GPUs": {len(c.gpus.hours.rows), maxHours}, "commands": {len(c.commands.list), maxNotes}, "lives": {len(c.lives.list), maxNotes},
	} {
		if n[0] > n[1] {
			t.Errorf("%d %s are kept, %d at most should be", n[0], name, n[1])
		}
	}
	if c.access.over == 0 || c.models.over == 0 || c.gpus.of.over == 0 {
		t.Error("the flood is none")
	}
	activityForms(t, a, &api.Sandbox{Name: "box", State: api.Stopped})
}

// BenchmarkActivity makes a report of a million records of a log, as the daemon reads it and a command takes it.
func BenchmarkActivity(b *testing.B) {
	const records = 1_000_000
	dir := b.TempDir()
	w, err := audit.OpenChain(dir, "agent", "", audit.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range records {
		d := flood(i)
		if err := w.Append(&d); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	most := uint64(0)
	for b.Loop() {
		a := NewActivity("box", noon, time.Time{})
		err := audit.Query(context.Background(), dir, "agent", audit.Filter{Sandbox: "box", From: noon}, func(seq uint64, line []byte) error {
			d, err := export.Parse(line)
			a.Add(&d)
			if seq%100_000 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := HTML(io.Discard, a.Document(&api.Sandbox{Name: "box", State: api.Stopped}, noon, "test")); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(most)/(1<<20), "MiB")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
}
