// Command soak keeps many sandboxes busy for a long time and says what grew: memory, descriptors and threads of their agents, entries of
// the kernel's maps, cgroups and mounts of the host. It runs in the world of package harness and fails when something grew, when the
// work inside went wrong, when an audit log does not verify or when something is left at the end.
//
// Started again as `soak work` it is what runs inside.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

const policy = harness.Files + `process:
  allow:
    - {command: /workspace/soak}
    - {command: "true"}
    - {command: git}
network:
  allow:
    - {domain: tcp.soak.test, ports: [8080], protocol: tcp}
    - {domain: http.soak.test, ports: [8080], protocol: http}
    - {domain: "**.deep.soak.test", ports: [8080], protocol: http}
`

func main() {
	if len(os.Args) > 1 && os.Args[1] == "work" {
		work()
		return
	}
	sandboxes := flag.Int("sandboxes", 50, "how many at once")
	length := flag.Duration("for", 30*time.Minute, "how long")
	every := flag.Duration("every", time.Minute, "how often something is measured")
	flag.Parse()
	os.Exit(harness.Inside(func() int {
		s := &soak{Program: harness.Program{Name: "soak"}}
		return s.Do(func() { s.run(*sandboxes, *length, *every) })
	}))
}

type soak struct {
	harness.Program
	audits []string // directories of logs to verify
	short  int      // sandboxes that were started and ended meanwhile
	done   int      // iterations of the work
}

// shortPart: one sandbox of so many is ended and started again all the time; the others stay.
const shortPart = 5

// shortPause keeps the number of logs that are to be verified in the thousands.
const shortPause = 250 * time.Millisecond

func (s *soak) run(sandboxes int, length, every time.Duration) {
	addr, _ := harness.W.Addr()
	s.server(addr)
	long := make([]*box, 0, sandboxes)
	var short []*box
	for i := range sandboxes {
		b := s.start()
		if i%shortPart == shortPart-1 {
			short = append(short, b)
		} else {
			long = append(long, b)
		}
	}
	fmt.Fprintf(os.Stderr, "soak: %d sandboxes run\n", sandboxes)
	start := time.Now()
	var samples []sample
	for next := start.Add(every); time.Since(start) < length; {
		for i, b := range short {
			s.end(b)
			s.short++
			short[i] = s.start()
			if time.Now().After(next) {
				break
			}
			time.Sleep(shortPause)
		}
		if !time.Now().Before(next) {
			samples = append(samples, s.measure(long))
			samples[len(samples)-1].print(os.Stdout, time.Since(start))
			next = next.Add(every)
		}
	}
	for _, b := range append(long, short...) {
		s.end(b)
	}
	s.judge(samples)
	s.verify()
}

// server answers requests on port 8080 of an address.
func (s *soak) server(addr netip.Addr) {
	body := []byte(strings.Repeat("0123456789abcdef", 4096))
	harness.W.HTTP(s, addr, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(body) // a client that went away is its own matter
			return
		}
		fmt.Fprint(w, "hello\n")
	}))
	for _, name := range []string{"tcp.soak.test", "http.soak.test"} {
		harness.W.DNS.Set(name, addr)
	}
	for i := range deepNames {
		harness.W.DNS.Set(deepName(i), addr)
	}
}

// box is a sandbox that works until its input is closed.
type box struct {
	*harness.Session
	stop func() error
}

func (s *soak) start() *box {
	session := harness.W.Prepare(s, harness.Box{Policy: policy, Flags: []string{"--quiet"}}, "/workspace/soak", "work")
	s.InstallSelf(filepath.Join(session.Workspace, "soak"))
	for _, args := range [][]string{{"init", "-q"}, {"-c", "user.name=s", "-c", "user.email=s@soak.test", "commit", "-q", "--allow-empty", "-m", "start"}} {
		if out, err := exec.Command("git", append([]string{"-C", session.Workspace}, args...)...).CombinedOutput(); err != nil {
			s.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	in, err := session.Cmd.StdinPipe()
	s.Must(err)
	s.Must(session.Cmd.Start())
	s.audits = append(s.audits, session.AuditDir())
	return &box{session, in.Close}
}

// end ends a sandbox's work, which says how much it did, or what went wrong.
func (s *soak) end(b *box) {
	_ = b.stop()
	err := b.Cmd.Wait()
	out := strings.TrimSpace(b.Stdout.String())
	n, numErr := strconv.Atoi(out)
	if err != nil || numErr != nil {
		s.Fatalf("%s: %v\n%s%s", b.Name, err, out, b.Stderr.String())
	}
	s.done += n
	if left := harness.W.Leftovers(b.Session); len(left) > 0 {
		s.Fatalf("%s left %q", b.Name, left)
	}
	// The log is kept to be verified; a workspace for every sandbox that was is too much.
	s.Must(os.RemoveAll(b.Workspace))
}

// verify checks every log.
func (s *soak) verify() {
	lines := 0
	for _, dir := range s.audits {
		files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
		s.Must(err)
		if len(files) == 0 {
			s.Fatalf("no log in %s", dir)
		}
		for _, f := range files {
			if out, err := exec.Command(harness.W.Bin, "audit", "verify", f).CombinedOutput(); err != nil {
				s.Fatalf("audit verify %s: %v: %s", f, err, out)
			}
			b, err := os.ReadFile(f)
			s.Must(err)
			lines += strings.Count(string(b), "\n")
		}
	}
	fmt.Printf("%d rounds of work in %d sandboxes, %d of them short; %d logs with %d lines verify\n", s.done, len(s.audits), s.short, len(s.audits), lines)
}
