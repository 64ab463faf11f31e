package gpu

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

func TestMeter(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	use := func(busy int, memory int64) api.GPUUse { return api.GPUUse{Busy: &busy, Memory: &memory} }
	const s = int64(time.Second)
	most := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		look func(*Meter)
		want api.GPUTime
	}{
		"nothing":         {func(*Meter) {}, api.GPUTime{Given: 10 * s}},
		"half":            {func(m *Meter) { m.Add(at(5), use(50, 7)) }, api.GPUTime{Given: 10 * s, Measured: 10 * s, Busy: 5 * s, Memory: most(7)}},
		"the most memory": {func(m *Meter) { m.Add(at(5), use(0, 9)); m.Add(at(10), use(0, 3)) }, api.GPUTime{Given: 10 * s, Measured: 10 * s, Memory: most(9)}},
		"unknown":         {func(m *Meter) { m.Add(at(5), use(100, 1)); m.Add(at(10), api.GPUUse{}) }, api.GPUTime{Given: 10 * s, Measured: 5 * s, Busy: 5 * s, Memory: most(1)}},
		"too much":        {func(m *Meter) { m.Add(at(10), use(340, 1)) }, api.GPUTime{Given: 10 * s, Measured: 10 * s, Busy: 10 * s, Memory: most(1)}},
		"negative":        {func(m *Meter) { m.Add(at(10), use(-5, 0)) }, api.GPUTime{Given: 10 * s, Measured: 10 * s, Memory: most(0)}},
		"a clock set back": {func(m *Meter) { m.Add(at(5), use(100, 0)); m.Add(at(3), use(100, 0)) },
			api.GPUTime{Given: 12 * s, Measured: 12 * s, Busy: 12 * s, Memory: most(0)}},
	} {
		m := NewMeter(begin)
		c.look(m)
		c.want.From, c.want.To = begin.Round(0), at(10).Round(0)
		if got := m.Since(at(10)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		if got := m.Take(at(10)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: taken %+v, want %+v", name, got, c.want)
		}
		if got := m.Since(at(10)); got.Given != 0 || got.Busy != 0 || !got.From.Equal(at(10)) {
			t.Errorf("%s: after that %+v", name, got)
		}
	}
	late := NewMeter(begin)
	late.Add(at(3600), use(100, 1))
	if got := late.Since(at(3600)); got.Given != 3600*s || got.Measured != int64(2*MeterEvery) || got.Busy != got.Measured {
		t.Errorf("after a look that came late: %+v", got)
	}
}

func TestUsed(t *testing.T) {
	t.Parallel()
	from := time.Date(2026, 11, 23, 12, 0, 0, 5e6, time.UTC)
	n := int64(1 << 37)
	for _, d := range []GivenGPU{{Name: "NVIDIA H200"}, {Index: 15, Name: "a \"b\"\n\\ \u202e: GPU 3"}, {}} {
		for _, v := range []api.GPUTime{{From: from, To: from.Add(time.Hour), Given: 36e11, Measured: 1e9, Busy: 5e6, Memory: &n}, {From: from, To: from}} {
			gotD, gotT, err := ReadUsed(Used(d, v))
			if err != nil || gotD != d || !reflect.DeepEqual(gotT, v) {
				t.Errorf("%q: %+v %+v, %v", Used(d, v), gotD, gotT, err)
			}
		}
	}
	good := Used(GivenGPU{}, api.GPUTime{From: from, To: from})
	for _, bad := range []string{"", Granted(GivenGPU{Name: good}), good + "x", "x" + good, strings.Replace(good, "0.000", "1e9.000", 1), strings.Replace(good, "2026", "20x6", 1), strings.Replace(good, "not known", "9999999999999999999 bytes", 1)} {
		if d, v, err := ReadUsed(bad); err == nil {
			t.Errorf("%q is read as %+v %+v", bad, d, v)
		}
	}
}

func FuzzReadUsed(f *testing.F) {
	f.Add(Used(GivenGPU{Name: "NVIDIA H200"}, api.GPUTime{Given: 5e9}))
	f.Add("had it 1.000 s from ")
	f.Fuzz(func(t *testing.T, s string) {
		d, v, err := ReadUsed(s)
		if err != nil {
			return
		}
		again, w, err := ReadUsed(Used(d, v))
		if err != nil || again != d || !reflect.DeepEqual(v, w) {
			t.Errorf("%q: %+v %+v, again %+v %+v, %v", s, d, v, again, w, err)
		}
	})
}
