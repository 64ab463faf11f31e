package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

const (
	diffContext = 3
	// maxDiffEdits bounds the work on two texts with little in common: past it the rest is shown as replaced.
	maxDiffEdits = 1000
)

// TextDiff is the unified diff from old to new, "" when they are equal.
func TextDiff(oldName, newName string, old, new []byte) string {
	if bytes.Equal(old, new) {
		return ""
	}
	a, b := diffLines(old), diffLines(new)
	lines := diff(a, b)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", oldName, newName)
	for from := 0; from < len(lines); {
		if lines[from].op == ' ' {
			from++
			continue
		}
		// A hunk goes on while the next change is near.
		to := from
		for i := from; i < len(lines) && i <= to+2*diffContext+1; i++ {
			if lines[i].op != ' ' {
				to = i
			}
		}
		first, last := max(0, from-diffContext), min(len(lines), to+1+diffContext)
		writeHunk(&out, lines[:first], lines[first:last])
		from = last
	}
	return out.String()
}

type diffLine struct {
	op   byte // ' ', '-' or '+'
	text string
}

func writeHunk(out *strings.Builder, before, hunk []diffLine) {
	count := func(lines []diffLine, op byte) (n int) {
		for _, l := range lines {
			if l.op == ' ' || l.op == op {
				n++
			}
		}
		return n
	}
	part := func(op byte) string {
		start, n := count(before, op), count(hunk, op)
		if n > 0 {
			start++ // an empty part is after a line, any other begins with one
		}
		if n == 1 {
			return fmt.Sprint(start)
		}
		return fmt.Sprintf("%d,%d", start, n)
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", part('-'), part('+'))
	for _, l := range hunk {
		out.WriteByte(l.op)
		out.WriteString(l.text)
		if !strings.HasSuffix(l.text, "\n") {
			out.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

func diffLines(text []byte) []string { return slices.Collect(strings.Lines(string(text))) }

// diff finds the fewest lines to take out and put in (Myers, An O(ND) Difference Algorithm).
func diff(a, b []string) []diffLine {
	var out []diffLine
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		out = append(out, diffLine{' ', a[start]})
		start++
	}
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	out = append(out, shortest(a[start:len(a)-end], b[start:len(b)-end])...)
	for _, s := range a[len(a)-end:] {
		out = append(out, diffLine{' ', s})
	}
	return out
}

func shortest(a, b []string) []diffLine {
	limit := min(len(a)+len(b), maxDiffEdits)
	// far[k] is how far in a the diagonal k, where the place in b is k less, was reached with d edits; each d is kept.
	var steps [][]int
	far := make([]int, 2*limit+3)
	at := func(v []int, k int) int { return v[k+(len(v)-1)/2] }
	for d := 0; d <= limit; d++ {
		steps = append(steps, slices.Clone(far[limit+1-d-1:limit+1+d+2]))
		for k := -d; k <= d; k += 2 {
			x := at(far, k-1) + 1
			if k == -d || k != d && at(far, k-1) < at(far, k+1) {
				x = at(far, k+1)
			}
			for x < len(a) && x-k < len(b) && x >= 0 && x-k >= 0 && a[x] == b[x-k] {
				x++
			}
			far[k+limit+1] = x
			if x >= len(a) && x-k >= len(b) {
				return backtrack(a, b, steps)
			}
		}
	}
	var out []diffLine
	for _, s := range a {
		out = append(out, diffLine{'-', s})
	}
	for _, s := range b {
		out = append(out, diffLine{'+', s})
	}
	return out
}

func backtrack(a, b []string, steps [][]int) []diffLine {
	var out []diffLine // from the end
	x, y := len(a), len(b)
	for d := len(steps) - 1; d > 0; d-- {
		v := steps[d]
		at := func(k int) int { return v[k+(len(v)-1)/2] }
		k := x - y
		back := k - 1 // a line of a was taken out
		if k == -d || k != d && at(k-1) < at(k+1) {
			back = k + 1 // a line of b was put in
		}
		wasX := at(back)
		wasY := wasX - back
		for x > wasX && y > wasY && x > 0 && y > 0 {
			x, y = x-1, y-1
			out = append(out, diffLine{' ', a[x]})
		}
		if back == k+1 {
			y--
			out = append(out, diffLine{'+', b[y]})
		} else {
			x--
			out = append(out, diffLine{'-', a[x]})
		}
	}
	for x > 0 && y > 0 {
		x, y = x-1, y-1
		out = append(out, diffLine{' ', a[x]})
	}
	slices.Reverse(out)
	return out
}
