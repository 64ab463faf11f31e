package main

import (
	"fmt"
	"io"
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
	fmt.Fprintf(w, "%s, Linux %s, %d rounds, medians. A ratio is the median of the rounds' ratios and says how many times the first column's cost.\n\n", time.Now().Format(time.DateOnly), kernel(), b.rounds)
	fmt.Fprintln(w, "| what | compared with | | | |")
	fmt.Fprintln(w, "|---|---|---|---|---|")
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
