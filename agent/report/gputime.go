package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// gpuTimes adds up what a sandbox had of its GPUs between two times.
type gpuTimes struct {
	from, until time.Time
	of          *table[string, gpuUse]   // by UUID
	hours       *table[int64, [3]uint64] // by Unix hour: milliseconds busy, not busy, not measured
}

// gpuUse is what it had of one GPU, or of an instance of one. Times are in milliseconds.
type gpuUse struct {
	given               gpu.GivenGPU
	had, measured, busy uint64
	memory              *int64
	last                time.Time // the end of the last record
}

// The parts of an hour.
const (
	gpuBusy = iota
	gpuIdle
	gpuUnmeasured
)

// maxGPUs are more than a host has.
const maxGPUs = 1_000

// maxSpan is more than a record is of.
const maxSpan = 25 * time.Hour

func newGPUTimes() gpuTimes {
	return gpuTimes{of: newTable[string, gpuUse](maxGPUs, 0), hours: newTable[int64, [3]uint64](maxHours, 0)}
}

// add takes a record, and reports whether it is one of what a sandbox had of a GPU.
func (g *gpuTimes) add(d *policy.Decision) bool {
	if d.Plane != policy.PlaneSystem || d.Action != gpu.Action {
		return false
	}
	given, t, err := gpu.ReadUsed(d.Reason)
	if err != nil {
		return false
	}
	given.UUID = clip(d.Object, maxWord)
	g.sum(given, t)
	if u := g.of.rows[given.UUID]; u != nil {
		u.last = t.To
	}
	return true
}

// now adds what is in no record yet.
func (g *gpuTimes) now(box *api.Sandbox) {
	for _, s := range box.GPUs {
		if u := g.of.rows[s.UUID]; s.Time != nil && (u == nil || !u.last.After(s.Time.From)) { // else it was recorded after it was asked for
			g.sum(gpu.GivenGPU{Index: s.Index, UUID: s.UUID, Name: s.Name}, *s.Time)
		}
	}
}

// sum adds what is between the two times of what there was in one; what is in it is held to be spread evenly.
func (g *gpuTimes) sum(given gpu.GivenGPU, t api.GPUTime) {
	const ms = int64(time.Millisecond)
	from, to := t.From, t.To
	whole := to.Sub(from)
	if whole <= 0 || whole > maxSpan { // the clock was set; what was measured is measured
		from = to.Add(-min(time.Duration(max(t.Given, ms)), maxSpan))
		whole = to.Sub(from)
	}
	if from.Before(g.from) {
		from = g.from
	}
	if !g.until.IsZero() && to.After(g.until) {
		to = g.until
	}
	if !to.After(from) {
		return
	}
	u := g.of.at(given.UUID, "", 1)
	if u == nil {
		return
	}
	u.given = given
	if t.Memory != nil && (u.memory == nil || *t.Memory > *u.memory) {
		u.memory = t.Memory
	}
	had, measured := uint64(max(t.Given, 0)/ms), uint64(max(t.Measured, 0)/ms)
	measured = min(measured, had)
	busy := min(uint64(max(t.Busy, 0)/ms), measured)
	for from.Before(to) {
		next := from.Truncate(time.Hour).Add(time.Hour)
		if next.After(to) {
			next = to
		}
		share := func(of uint64) uint64 { return uint64(float64(of)*float64(next.Sub(from))/float64(whole) + 0.5) }
		h, m, b := share(had), share(measured), share(busy)
		u.had, u.measured, u.busy = u.had+h, u.measured+m, u.busy+b
		if h == 0 {
			from = next
			continue
		}
		if v := g.hours.at(from.Unix()/3600, "", 1); v != nil {
			v[gpuBusy] += b
			v[gpuIdle] += m - min(b, m)
			v[gpuUnmeasured] += h - min(m, h)
		}
		from = next
	}
}

// gpuHours writes milliseconds as hours.
func gpuHours(ms uint64) string {
	h := float64(ms) / float64(time.Hour/time.Millisecond)
	if ms > 0 && h < 0.01 {
		return strconv.FormatFloat(h, 'f', 4, 64)
	}
	return strconv.FormatFloat(h, 'f', 2, 64)
}

func (g *gpuTimes) all() (sum gpuUse) {
	for _, u := range g.of.rows {
		sum.had, sum.measured, sum.busy = sum.had+u.had, sum.measured+u.measured, sum.busy+u.busy
	}
	return sum
}

// figures are what stands on top of one that had a GPU.
func (g *gpuTimes) figures() []Figure {
	sum := g.all()
	if sum.had == 0 {
		return nil
	}
	f := Figure{Name: "GPU hours busy", Value: gpuHours(sum.busy), Note: "of " + gpuHours(sum.had) + " given"}
	if sum.measured == 0 {
		f.Value = "not known"
	}
	return []Figure{f}
}

// section tells of the GPUs in the time of the report, and of those that it has now.
func (g *gpuTimes) section(box *api.Sandbox) Section {
	sec := Section{ID: "gpus", Title: "GPUs"}
	list := g.of.sorted(nil, func(a, b row[string, gpuUse]) int {
		return cmp.Or(cmp.Compare(a.val.given.Index, b.val.given.Index), cmp.Compare(a.key, b.key))
	})
	if len(list) == 0 {
		sec.Words = []Text{say("It had no GPU in this time.")}
		return sec
	}
	sec.Words = []Text{say("A GPU is given as long as the sandbox runs. It is busy while processes of the sandbox have its processors work, by what the driver said every {} seconds: two hours of half of them are one. "+
		"The time in which no daemon ran is not here, nor, when the daemon was killed, the last quarter of an hour before that.", int(gpu.MeterEvery/time.Second))}
	sum := g.all()
	if sum.measured < sum.had {
		sec.Words = append(sec.Words, say("For {} of {} hours the driver did not say how busy it was: it does not know it of an instance (MIG), or did not answer.", ours(gpuHours(sum.had-sum.measured)), ours(gpuHours(sum.had))))
	}
	t := &Table{Title: "GPU hours", Heads: heads("#GPU", "name", "UUID", "#given (h)", "#measured (h)", "#busy (h)", "#most memory", "#memory now", "#busy now")}
	for _, r := range list[:min(len(list), top)] {
		v := r.val
		busy := "not known"
		if v.measured > 0 {
			busy = gpuHours(v.busy)
		}
		memory, load := "-", "-"
		if i := slices.IndexFunc(box.GPUs, func(s api.SandboxGPU) bool { return s.UUID == v.given.UUID }); i >= 0 {
			memory, load = mebibytes(box.GPUs[i].Memory), "not known"
			if n := box.GPUs[i].Busy; n != nil {
				load = fmt.Sprintf("%d %%", *n)
			}
		}
		t.row(v.given.Index, v.given.Name, r.key, ours(gpuHours(v.had)), ours(gpuHours(v.measured)), ours(busy), ours(mebibytes(v.memory)), ours(memory), ours(load))
	}
	p := Part{Table: t}
	if n := len(list) - len(t.Rows); n > 0 {
		p.Notes = []Text{say("And {} more.", n)}
	}
	if g.of.over > 0 {
		p.Notes = append(p.Notes, say("{} more records were of more GPUs than this report keeps apart ({}), and are in no sum.", g.of.over, maxGPUs))
	}
	ch, step, from, to, _ := overTime(g.hours.rows, timed{id: "gpus-chart", title: "GPU hours over time", unit: uint64(time.Hour / time.Millisecond / 25), write: gpuHours,
		keys: []Key{{"one", "hours busy"}, {"idle", "hours not busy"}, {"unmeasured", "hours not measured"}}, order: []int{gpuBusy, gpuIdle, gpuUnmeasured}})
	if ch != nil {
		ch.Desc = fmt.Sprintf("GPU hours for each %s from %s to %s UTC: %s given, of which %s were measured and %s busy.", stepWords(step), from, to, gpuHours(sum.had), gpuHours(sum.measured), gpuHours(sum.busy))
		p.Chart = ch
	}
	sec.Parts = []Part{p}
	return sec
}

func mebibytes(n *int64) string {
	if n == nil {
		return "not known"
	}
	return fmt.Sprintf("%.1f MiB", float64(*n)/(1<<20))
}
