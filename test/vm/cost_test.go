//go:build vm

package vm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// BenchmarkCost counts the instructions of an open and a close, at each level: natively, outside of a sandbox that runs, and inside.
// They are the same on any host.
func BenchmarkCost(b *testing.B) {
	for _, level := range []string{"static", "full"} {
		b.Run(level, func(b *testing.B) {
			m := Start(b, Options{Light: true, CountInstructions: true, NoBPFLSM: level == "static"})
			m.Copy(nemoclaw(b), "/usr/local/bin/nemoclaw")
			m.Copy(build(b, "./test/bench"), "/srv/bench")
			m.Must(`mkdir -p /srv/work/a/b/c && cd /srv/work && echo text >a/b/c/file
				cat >/srv/policy.yaml <<'EOF'
enforcement: ` + level + `
filesystem:
  allow: [{path: /workspace, permissions: [read, write]}, {path: /srv/bench, permissions: [read, execute]}]
process:
  allow: [{command: sleep}]
EOF
				# Each batch by itself: the least of them is the one in which the kernel did nothing else.
				for n in {1..12}; do echo "open 1000 $PWD/a/b/c/file"; done >/srv/outside
				sed 's,/srv/work,/workspace,' /srv/outside >/srv/inside`)
			native := least(m, "/srv/bench work </srv/outside")
			inside := least(m, "cd /srv/work && nemoclaw run --quiet --policy ../policy.yaml -- /srv/bench work </srv/inside")
			m.Must("cd /srv/work && { nemoclaw run --quiet --policy ../policy.yaml -- sleep 1000 </dev/null >/dev/null 2>&1 & } && sleep 20")
			outside := least(m, "/srv/bench work </srv/outside")
			b.ReportMetric(native, "native-instructions")
			b.ReportMetric(outside/native, "outside/native")
			b.ReportMetric(inside/native, "inside/native")
			b.ReportMetric(inside, "inside-instructions")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// least is the least of what batches of a job take, in nanoseconds each: instructions.
func least(m *Machine, line string) float64 {
	m.t.Helper()
	var all []float64
	for _, word := range strings.Fields(m.Must(line)) {
		var us float64
		if _, err := fmt.Sscan(word, &us); err != nil {
			m.t.Fatalf("%s: %q: %v", line, word, err)
		}
		all = append(all, 1000*us)
	}
	if len(all) == 0 {
		m.t.Fatalf("%s: it printed nothing", line)
	}
	return slices.Min(all)
}
