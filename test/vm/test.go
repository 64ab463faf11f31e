package vm

import (
	"bytes"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/vm/wire"
)

// Test copies a test program, one that `go test -c` made, into the machine and runs it there as root, in /srv. Each of its tests becomes
// a subtest of this one while it runs, with what it prints and whether it passes. One that is skipped has failed.
func (m *Machine) Test(program string, args ...string) {
	m.t.Helper()
	m.Copy(program, "/srv/test")
	line := "cd /srv && exec env " + strings.Join(m.Env, " ") + " ./test -test.v=test2json -test.timeout=" + (commandLimit - time.Minute).String() // so that it says where it hangs
	for _, a := range args {
		line += " '" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	t, ok := m.t.(*testing.T)
	if !ok {
		m.t.Fatal("tests run in tests, not in benchmarks")
	}
	r := &relay{root: t, open: make(map[string]*relayed)}
	// Whatever ends this, no subtest may be left waiting for its end.
	defer r.close()
	result := m.askFor(wire.Command{Run: line, Stream: true}, line, r.write)
	if result.Status != 0 {
		m.t.Errorf("the test program ended with status %d", result.Status)
	}
	if r.started == 0 {
		m.t.Error("the test program has run no test")
	}
}

// relay turns the output of a test program into subtests.
type relay struct {
	root    *testing.T
	open    map[string]*relayed // tests that run, by their names inside
	order   []string            // the same, as they started
	current string              // whose output the lines are
	started int
	rest    []byte // a line that has not ended
}

// relayed is a test that runs inside.
type relayed struct {
	t     *testing.T
	end   chan string // "PASS", "FAIL" or "SKIP"
	ended chan struct{}
}

// mark begins the lines that `-test.v=test2json` adds to the tests' own.
const mark = "\x16"

func (r *relay) write(p []byte) {
	r.rest = append(r.rest, p...)
	for {
		line, rest, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			return
		}
		r.line(string(line) + "\n")
		r.rest = rest
	}
}

func (r *relay) line(line string) {
	// What is printed without a newline at its end stands before the mark.
	text, said, ok := strings.Cut(line, mark)
	if !ok {
		r.print(line)
		return
	}
	if text != "" {
		r.print(text + "\n")
	}
	f := strings.Fields(said)
	switch {
	case len(f) >= 3 && f[0] == "===":
		if f[1] == "RUN" {
			r.start(f[2])
		}
		if f[1] == "RUN" || f[1] == "CONT" || f[1] == "NAME" {
			r.current = f[2]
		}
	case len(f) >= 3 && f[0] == "---":
		r.stop(f[2], strings.TrimSuffix(f[1], ":"))
	}
}

// print shows a line as the current test's.
func (r *relay) print(line string) {
	out := r.root.Output()
	if c := r.open[r.current]; c != nil {
		out = c.t.Output()
	}
	_, _ = out.Write([]byte(line))
}

// start makes the subtest of a test that has started, below that of the one that contains it.
func (r *relay) start(name string) {
	r.started++
	parent, base := r.root, name
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		if p := r.open[above]; p != nil {
			parent, base = p.t, name[len(above)+1:]
			break
		}
	}
	c := &relayed{end: make(chan string, 1), ended: make(chan struct{})}
	runs := make(chan struct{})
	go func() {
		defer close(c.ended)
		parent.Run(base, func(t *testing.T) {
			c.t = t
			close(runs)
			switch <-c.end {
			case "FAIL":
				t.Fail()
			case "SKIP":
				t.Error("it was skipped")
			}
		})
	}()
	select {
	case <-runs:
		r.open[name] = c
		r.order = append(r.order, name)
	case <-c.ended: // `go test -run` does not want it
	}
}

func (r *relay) stop(name, how string) {
	if c := r.open[name]; c != nil {
		c.end <- how
		<-c.ended
		delete(r.open, name)
	}
}

// close ends the tests that still ran when the program ended, the last one first.
func (r *relay) close() {
	if len(r.rest) > 0 {
		r.print(string(r.rest) + "\n")
	}
	for i := len(r.order) - 1; i >= 0; i-- {
		if c := r.open[r.order[i]]; c != nil {
			c.t.Error("it had not ended when the machine or the test program did")
			r.stop(r.order[i], "FAIL")
		}
	}
}
