package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// row is one measurement of several contestants, the first of which is what the others are compared with.
type row struct {
	what string
	unit string // "ns", "µs", "/s"
	cols []column
}

type column struct {
	who     string
	samples []float64
}

// delays are how long several contestants take, of whom the slowest counts too. The first one's is what can't be avoided.
type delays struct {
	what    string
	who     []string
	peers   []int         // the column that each is compared with; 0: none
	samples [][][]float64 // by contestant and round, in microseconds
}

// delay measures each contestant in turn, rounds times, after one round that doesn't count.
func (b *bench) delay(what string, who []string, peers []int, measure func(i int) []float64) {
	d := delays{what, who, peers, make([][][]float64, len(who))}
	for round := range b.rounds + 1 {
		for i := range who {
			if list := measure(i); round > 0 {
				d.samples[i] = append(d.samples[i], list)
			}
		}
	}
	b.delays = append(b.delays, d)
}

// p50 compares the medians of each round, since neighbours in time saw the same machine.
func (d delays) p50(i, with int, f func(a, b float64) float64) float64 {
	var list []float64
	for round := range d.samples[i] {
		list = append(list, f(median(d.samples[i][round]), median(d.samples[with][round])))
	}
	return median(list)
}

// p99 compares those of all rounds together.
func (d delays) p99(i, with int, f func(a, b float64) float64) float64 {
	return f(percentile(slices.Concat(d.samples[i]...), 99), percentile(slices.Concat(d.samples[with]...), 99))
}

// cells are the two lines of one of them.
func (d delays) cells() (out [2][]string) {
	out[0] = []string{d.what, "p50"}
	out[1] = []string{fmt.Sprintf("%d samples", len(slices.Concat(d.samples[0]...))), "p99"}
	for n, compare := range []func(i, with int, f func(a, b float64) float64) float64{d.p50, d.p99} {
		for i := range d.who {
			cell := value(compare(i, 0, func(a, _ float64) float64 { return a }), "µs")
			if i > 0 {
				cell += fmt.Sprintf(" (%+.0f)", compare(i, 0, func(a, b float64) float64 { return a - b }))
			}
			if p := d.peers[i]; p > 0 {
				cell += fmt.Sprintf(", **%.2fx**", compare(i, p, func(a, b float64) float64 { return a / b }))
			}
			out[n] = append(out[n], cell)
		}
	}
	return out
}

// spread is what is wanted of the slowest, too.
type spread struct {
	what, target string
	base         []float64 // what the median is compared with; nil: nothing
	samples      []float64 // microseconds
}

// distribution adds a row of percentiles.
func (b *bench) distribution(what, target string, base, samples []float64) {
	b.spread = append(b.spread, spread{what, target, base, samples})
}

// percentile is the smallest of the samples that no fewer than p of a hundred are not above.
func percentile(s []float64, p float64) float64 {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	return s[max(0, int(math.Ceil(p/100*float64(len(s))))-1)]
}

// fact is what was measured once, and is compared with nothing.
type fact struct{ what, is string }

func (b *bench) fact(what, is string) { b.facts = append(b.facts, fact{what, is}) }

func median(s []float64) float64 {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// ratio says how many times the first column's cost c has: the median of the rounds' own ratios, since neighbours in time saw the same
// machine.
func (r row) ratio(c column) float64 {
	var ratios []float64
	for i, base := range r.cols[0].samples {
		if r.unit == "/s" {
			ratios = append(ratios, base/c.samples[i])
		} else {
			ratios = append(ratios, c.samples[i]/base)
		}
	}
	return median(ratios)
}

// contest measures each contestant in turn, rounds times, after one round that doesn't count.
func (b *bench) contest(what, unit string, who []string, measure func(i int) float64) {
	r := row{what: what, unit: unit}
	for _, w := range who {
		r.cols = append(r.cols, column{who: w})
	}
	for round := range b.rounds + 1 {
		for i := range r.cols {
			sample := measure(i)
			if round > 0 {
				r.cols[i].samples = append(r.cols[i].samples, sample)
			}
		}
	}
	b.rows = append(b.rows, r)
}

func (b *bench) print(w io.Writer) {
	fmt.Fprintf(w, "%s, Linux %s, %d rounds, medians. A ratio is the median of the rounds' ratios and says how many times the first column's cost.\n", time.Now().Format(time.DateOnly), kernel(), b.rounds)
	if len(b.rows) > 0 {
		fmt.Fprintln(w, "\n| what | compared with | | | |\n|---|---|---|---|---|")
	}
	for _, r := range b.rows {
		base := median(r.cols[0].samples)
		cells := []string{r.what, fmt.Sprintf("%s %s", r.cols[0].who, value(base, r.unit))}
		for _, c := range r.cols[1:] {
			cells = append(cells, fmt.Sprintf("%s %s, **%.2fx**", c.who, value(median(c.samples), r.unit), r.ratio(c)))
		}
		for len(cells) < 5 {
			cells = append(cells, "")
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	for i, d := range b.delays {
		if i == 0 {
			fmt.Fprintf(w, "\n| in brackets: µs more than the first | | %s |\n|---|---|%s\n", strings.Join(d.who, " | "), strings.Repeat("---|", len(d.who)))
		}
		for _, cells := range d.cells() {
			fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
		}
	}
	if len(b.spread) > 0 {
		fmt.Fprintln(w, "\n| what | samples | p50 | p99 | slowest | p99 wanted |\n|---|---|---|---|---|---|")
	}
	for _, d := range b.spread {
		mid := value(percentile(d.samples, 50), "µs")
		if d.base != nil {
			mid += fmt.Sprintf(", **%.2fx**", median(d.samples)/median(d.base))
		}
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s |\n", d.what, len(d.samples), mid, value(percentile(d.samples, 99), "µs"), value(slices.Max(d.samples), "µs"), d.target)
	}
	for _, f := range b.facts {
		fmt.Fprintf(w, "\n%s: %s.\n", f.what, f.is)
	}
}

func value(v float64, unit string) string {
	switch {
	case unit == "µs" && v >= 1000:
		return fmt.Sprintf("%.2f ms", v/1000)
	case unit == "ns":
		return fmt.Sprintf("%.0f ns", v)
	case unit == "µs":
		return fmt.Sprintf("%.2f µs", v)
	}
	return fmt.Sprintf("%.0f%s", v, unit)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		fmt.Fprintln(os.Stderr, "bench: uname:", err)
		return "unknown"
	}
	return fmt.Sprintf("%s %s", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]))
}
