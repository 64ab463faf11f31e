package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// many is how many rules, and how many open connections, a sandbox is measured with.
const many = 1000

// manyRules is the bench's policy with so many rules of each kind more; programs are those that there are.
func (b *bench) manyRules() string {
	dir := b.TempDir()
	var files, programs, names strings.Builder
	for i := range many {
		d := filepath.Join(dir, fmt.Sprint(i))
		b.Must(os.Mkdir(d, 0o755))
		fmt.Fprintf(&files, "    - {path: %s, permissions: [read]}\n", d)
		fmt.Fprintf(&names, "    - {domain: n%d.bench.test, ports: [443], protocol: tls}\n", i)
	}
	entries, err := os.ReadDir("/usr/bin")
	b.Must(err)
	for _, e := range entries[:min(many, len(entries))] {
		// Links are left out: one of them leads to the dynamic loader, which no policy may name.
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			fmt.Fprintf(&programs, "    - {command: %q}\n", "/usr/bin/"+e.Name())
		}
	}
	p := strings.Replace(policy, "process:\n", files.String()+"process:\n", 1)
	p = strings.Replace(p, "network:\n", programs.String()+"network:\n", 1)
	return p + names.String()
}

// measureGrowth: the same worker in a sandbox of few rules, of a thousand of each kind, and of few with a thousand connections open.
func measureGrowth(b *bench) {
	server, _ := harness.W.Addr()
	b.background("/proc/self/exe", "serve", server.String()+":8080")
	b.waitFor(server.String() + ":8080")
	for _, name := range []string{"tcp.bench.test", "http.bench.test"} {
		harness.W.DNS.Set(name, server)
	}
	who := []string{"few rules", "1,000 rules", "1,000 connections"}
	boxes := []*harness.Session{b.box(policy, "/workspace/bench", "work"), b.box(b.manyRules(), "/workspace/bench", "work"), b.box(policy, "/workspace/bench", "work")}
	workers := make([]*worker, len(boxes))
	for i, s := range boxes {
		b.Must(os.WriteFile(filepath.Join(s.Workspace, "file"), nil, 0o644))
		workers[i] = b.startWorker(who[i], s.Cmd)
	}
	workers[2].do("hold", many, "tcp.bench.test:8080")
	for _, j := range []struct {
		what, unit, job, arg string
		n                    int
	}{
		{"open + close in the workspace", "µs", "open", "/workspace/file", 20000},
		{"open + close below /usr", "µs", "open", "/usr/bin/git", 20000},
		{"stat in the workspace", "µs", "stat", "/workspace/file", 20000},
		{"fork + exec of /bin/true", "µs", "exec", "/bin/true", 40},
		{"HTTP, keep-alive, `tcp`", "µs", "keepalive", "http://tcp.bench.test:8080/small", 1500},
		{"HTTP, keep-alive, `http`", "µs", "keepalive", "http://http.bench.test:8080/small", 1500},
		{"HTTP, a connection each, `tcp`", "µs", "connect", "http://tcp.bench.test:8080/small", 300},
		{"HTTP, a body of 16 MiB, `tcp`", "µs", "body", "http://tcp.bench.test:8080/large", 6},
		{"DNS answers", "/s", "dns", "198.18.0.2:53 tcp.bench.test", 20000},
	} {
		b.contest(j.what, j.unit, who, func(i int) float64 { return workers[i].do(j.job, j.n, j.arg) })
	}
	argv := [][]string{b.box(policy, "/bin/true").Cmd.Args, b.box(b.manyRules(), "/bin/true").Cmd.Args}
	b.contest("start, /bin/true, exit", "µs", who[:2], func(i int) float64 { return b.start(argv[i]) })
}

// start runs a command to its end and returns how long that took, in microseconds.
func (b *bench) start(argv []string) float64 {
	cmd := exec.Command(argv[0], argv[1:]...)
	start := time.Now()
	b.Must(cmd.Run())
	return float64(time.Since(start).Nanoseconds()) / 1000
}
