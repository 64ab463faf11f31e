package gpu

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

// MeterEvery is how far apart two looks are at what a sandbox takes of its GPUs. What it takes in between is held to be what it took at
// the next look.
const MeterEvery = 5 * time.Second

// A Meter adds up what a sandbox has of one GPU. It looks at nothing itself. Its methods are not to be called at the same time.
type Meter struct {
	sum  api.GPUTime
	seen time.Time // of the last look; with the monotonic clock
	use  api.GPUUse
}

// NewMeter begins at a moment at which the sandbox has the GPU.
func NewMeter(now time.Time) *Meter {
	return &Meter{sum: api.GPUTime{From: now.Round(0), To: now.Round(0)}, seen: now}
}

// Add notes what the sandbox takes now; nil figures are not known. After a look that came late the time that is beyond two looks counts
// as not measured: nobody knows what it took then.
func (m *Meter) Add(now time.Time, use api.GPUUse) {
	m.use = use
	since := max(now.Sub(m.seen), 0)
	m.seen = now
	m.sum.To = now.Round(0)
	m.sum.Given += int64(since)
	if use.Busy != nil {
		known := min(since, 2*MeterEvery)
		m.sum.Measured += int64(known)
		m.sum.Busy += int64(known) * int64(min(max(*use.Busy, 0), 100)) / 100
	}
	if use.Memory != nil && (m.sum.Memory == nil || *use.Memory > *m.sum.Memory) {
		most := *use.Memory
		m.sum.Memory = &most
	}
}

// Since is what there was up to now, with what the sandbox took at the last look.
func (m *Meter) Since(now time.Time) api.GPUTime {
	copied := *m
	copied.Add(now, m.use)
	return copied.sum
}

// Take is what there was up to now, and begins anew.
func (m *Meter) Take(now time.Time) api.GPUTime {
	m.Add(now, m.use)
	sum := m.sum
	m.sum = api.GPUTime{From: sum.To, To: sum.To}
	return sum
}

// Action is that of the audit log's records about a sandbox's GPU: the object is its UUID, and the reason is Granted's or Used's.
const Action = "gpu"

// label is what a record says of a GPU beside its UUID.
func label(d GivenGPU) string { return fmt.Sprintf("GPU %d %q", d.Index, d.Name) }

// Granted is the reason of the record of a GPU that a sandbox is given at its start.
func Granted(d GivenGPU) string { return "given for this run: " + label(d) }

const stamp = "2006-01-02T15:04:05.000Z"

// Used is the reason of the record of what a sandbox had of a GPU.
func Used(d GivenGPU, t api.GPUTime) string {
	memory := "not known"
	if t.Memory != nil {
		memory = strconv.FormatInt(*t.Memory, 10) + " bytes"
	}
	s := func(ns int64) string { return strconv.FormatFloat(float64(ns)/1e9, 'f', 3, 64) + " s" }
	return fmt.Sprintf("had it %s from %s to %s, measured %s, busy %s, most memory %s: %s", s(t.Given), t.From.UTC().Format(stamp), t.To.UTC().Format(stamp),
		s(t.Measured), s(t.Busy), memory, label(d))
}

var used = regexp.MustCompile(`^had it (\d{1,9}\.\d{3}) s from (\S{24}) to (\S{24}), measured (\d{1,9}\.\d{3}) s, busy (\d{1,9}\.\d{3}) s, most memory (not known|\d{1,18} bytes): GPU (\d{1,6}) ("(?:[^"\\]|\\.)*")$`)

// ReadUsed reads what Used wrote. An error says that it is another text.
func ReadUsed(reason string) (d GivenGPU, t api.GPUTime, err error) {
	m := used.FindStringSubmatch(reason)
	if m == nil {
		return d, t, errors.New("this does not say what was had of a GPU")
	}
	ns := func(s string) int64 {
		f, e := strconv.ParseFloat(s, 64)
		err = errors.Join(err, e)
		return int64(f*1e3+0.5) * 1e6
	}
	at := func(s string) time.Time {
		v, e := time.Parse(stamp, s)
		err = errors.Join(err, e)
		return v
	}
	t = api.GPUTime{Given: ns(m[1]), From: at(m[2]), To: at(m[3]), Measured: ns(m[4]), Busy: ns(m[5])}
	if n, e := strconv.ParseInt(m[6][:max(len(m[6])-len(" bytes"), 0)], 10, 64); m[6] != "not known" {
		t.Memory, err = &n, errors.Join(err, e)
	}
	d.Index, _ = strconv.Atoi(m[7]) // digits
	name, e := strconv.Unquote(m[8])
	d.Name = name
	return d, t, errors.Join(err, e)
}
