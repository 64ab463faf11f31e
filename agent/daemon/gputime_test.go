package daemon

import (
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestGPURecords: a record ends with each quarter of an hour by the clock, and the last with the run; together they are all of it.
func TestGPURecords(t *testing.T) {
	t.Parallel()
	records := hub.New(nil).Sandbox("box")
	var list []api.GPUTime
	records.Watch(func(d *policy.Decision) {
		given, used, err := gpu.ReadUsed(d.Reason)
		if err != nil || d.Object != "GPU-1" || d.Action != gpu.Action || d.Plane != policy.PlaneSystem || given.Name != "NVIDIA H200" {
			t.Errorf("%+v: %v", d, err)
		}
		list = append(list, used)
	})
	begin := time.Date(2026, 11, 23, 10, 59, 52, 0, time.UTC)
	m := newGPUMeters(&box{name: "box", records: records}, []gpu.GivenGPU{{UUID: "GPU-1", GPU: "GPU-1", Name: "NVIDIA H200"}}, begin)
	memory, busy := int64(5), 50
	host := api.GPUs{State: api.GPUsReady, GPUs: []api.GPU{{UUID: "GPU-1", Processes: []api.GPUProcess{{Sandbox: "box", Memory: &memory, Busy: &busy}, {Sandbox: "other", Memory: &memory, Busy: &busy}}}}}
	now := begin
	for range 400 { // 33 minutes and 20 seconds
		now = now.Add(gpu.MeterEvery)
		m.looked(now, host)
	}
	m.looked(now.Add(gpu.MeterEvery), api.GPUs{State: api.GPUsBroken})
	m.write(now.Add(2 * gpu.MeterEvery))
	var all api.GPUTime
	for i, r := range list {
		all.Given, all.Measured, all.Busy = all.Given+r.Given, all.Measured+r.Measured, all.Busy+r.Busy
		if i > 0 && !r.From.Equal(list[i-1].To) || *r.Memory != memory {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	const s = int64(time.Second)
	if len(list) != 4 || all.Given != 2010*s || all.Measured != 2000*s || all.Busy != 1000*s || !list[0].From.Equal(begin) || !list[0].To.Equal(begin.Add(10*time.Second)) || !list[2].To.Equal(begin.Add(30*time.Minute+10*time.Second)) {
		t.Errorf("%d records of %+v: %+v", len(list), all, list)
	}
}
