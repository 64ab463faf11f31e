//go:build e2e

package loader

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// BenchmarkFileDecision measures one decision by how many levels below the nearest rule the file is, the rules of its
// sandbox, and the sandboxes that have as many rules, one of them of the same directory.
func BenchmarkFileDecision(b *testing.B) {
	for _, c := range []struct{ levels, rules, others int }{
		{1, 1, 0}, {6, 1, 0}, {17, 1, 0}, {1, 10000, 0}, {6, 10000, 0}, {17, 10000, 0}, {1, 1, 499}, {6, 1, 499}, {17, 1, 499}, {6, 400, 499},
	} {
		b.Run(fmt.Sprintf("%d levels, %d rules, %d sandboxes", c.levels, c.rules, 1+c.others), func(b *testing.B) {
			f := &fileTest{b, loadFileJudge(b, openLoader(b, privateConfig(b))), b.TempDir()}
			path := strings.Repeat("/d", c.levels-1) + "/file"
			f.mk("rules/" + path)
			for box := range 1 + c.others {
				v := view{mine.cgid + uint64(box), mine.revision}
				f.put(b, v, f.at("rules"), says(r, 10))
				f.fill(v, c.rules-1)
			}
			fd := f.open("rules/" + path)
			f.judgeFD(path, fd, r, policy.Allow, 10)
			var each []float64
			for b.Loop() {
				_, ns := f.decide(b, mine, fd, 10000, r, 0)
				each = append(each, float64(ns)/10000)
			}
			slices.Sort(each)
			b.ReportMetric(each[len(each)/2], "ns/decision")
		})
	}
}

// fill gives a sandbox rules of other files.
func (f *fileTest) fill(v view, n int) {
	f.Helper()
	value := says(r, 20).value()
	for i := range n {
		must(f, f.nodes.Put(bpf.JudgeFilePlace{Cgid: v.cgid, Ino: 1<<40 + uint64(i), Dev: 1, Revision: v.revision}, value))
	}
}
