package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// sample is what was there at one time.
type sample struct {
	agents  []process      // of the sandboxes that stay
	entries map[string]int // of the kernel's maps, by name
	cgroups int
	mounts  int // of the host
}

// process is what one agent uses.
type process struct {
	memory  int // KiB, of its own
	fds     int
	threads int
}

func (s *soak) measure(long []*box) sample {
	m := sample{entries: harness.W.MapEntries(s, "*"), cgroups: len(harness.W.Cgroups()), mounts: s.lines("/proc/self/mounts")}
	for _, b := range long {
		m.agents = append(m.agents, s.process(b.Cmd.Process.Pid))
	}
	return m
}

func (s *soak) process(pid int) (p process) {
	dir := "/proc/" + strconv.Itoa(pid)
	text, err := os.ReadFile(dir + "/status")
	s.Must(err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch f[0] {
		case "RssAnon:":
			p.memory, err = strconv.Atoi(f[1])
		case "Threads:":
			p.threads, err = strconv.Atoi(f[1])
		}
		s.Must(err)
	}
	fds, err := os.ReadDir(dir + "/fd")
	s.Must(err)
	p.fds = len(fds)
	return p
}

func (s *soak) lines(file string) int {
	text, err := os.ReadFile(file)
	s.Must(err)
	return strings.Count(string(text), "\n")
}

func (m sample) total(of func(process) int) (sum int) {
	for _, p := range m.agents {
		sum += of(p)
	}
	return sum
}

func memory(p process) int  { return p.memory }
func fds(p process) int     { return p.fds }
func threads(p process) int { return p.threads }

func (m sample) print(w io.Writer, at time.Duration) {
	fmt.Fprintf(w, "%5s: %d agents: %d MiB, %d descriptors, %d threads; %d cgroups, %d mounts; entries", at.Round(time.Second), len(m.agents),
		m.total(memory)>>10, m.total(fds), m.total(threads), m.cgroups, m.mounts)
	for _, name := range slices.Sorted(maps.Keys(m.entries)) {
		fmt.Fprintf(w, " %s %d", name, m.entries[name])
	}
	fmt.Fprintln(w)
}

// judge compares the last third with the third before, by medians: what grows all the time is more by then.
func (s *soak) judge(samples []sample) {
	third := len(samples) / 3
	if third == 0 {
		s.Fatalf("%d samples are too few to see growth: -for longer, or -every more often", len(samples))
	}
	before, after := samples[third:2*third], samples[len(samples)-third:]
	check := func(what string, slack int, of func(sample) int) {
		a, b := medianOf(before, of), medianOf(after, of)
		if b > a+a/20+slack {
			s.Fatalf("%s grew from %d to %d", what, a, b)
		}
	}
	n := len(samples[0].agents)
	check("memory (KiB)", 256*n, func(m sample) int { return m.total(memory) })
	check("descriptors", n, func(m sample) int { return m.total(fds) })
	check("threads", n, func(m sample) int { return m.total(threads) })
	check("cgroups", shortPart, func(m sample) int { return m.cgroups })
	check("mounts", 0, func(m sample) int { return m.mounts })
	for name := range samples[0].entries {
		check("map "+name, n, func(m sample) int { return m.entries[name] })
	}
	for name, left := range harness.W.MapEntries(s, "*") {
		if left > 0 {
			s.Fatalf("map %s has %d entries after the last sandbox", name, left)
		}
	}
}

func medianOf(samples []sample, of func(sample) int) int {
	var v []int
	for _, m := range samples {
		v = append(v, of(m))
	}
	slices.Sort(v)
	return v[len(v)/2]
}
