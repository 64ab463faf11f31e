package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// measureTraces: the same connections under a daemon that traces nothing, every tenth, and all.
func measureTraces(b *bench) {
	server, _ := harness.W.Addr()
	b.background("/proc/self/exe", "serve", server.String()+":8080")
	b.waitFor(server.String() + ":8080")
	for _, name := range []string{"tcp.bench.test", "http.bench.test"} {
		harness.W.DNS.Set(name, server)
	}
	var came atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body) // what breaks off is sent again
		came.Add(n)
	}))
	b.Cleanup(collector.Close)
	workers := []*worker{b.startWorker("native", exec.Command("/proc/self/exe", "work"))}
	var pids []int
	for _, ratio := range []string{"", "0.1", "1"} {
		d := &daemon{Daemon: harness.W.PrepareDaemon(b), b: b}
		if ratio != "" {
			settings := fmt.Sprintf("traces: {endpoint: %q, ratio: %s}\n", collector.URL, ratio)
			b.Must(os.WriteFile(filepath.Join(d.Dir, "agent.yaml"), []byte(settings), 0o600))
		}
		d.Daemon.Start(b)
		d.Client = api.Dial(d.Socket)
		b.Cleanup(d.Client.Close)
		workers = append(workers, d.sandbox("traced", policy))
		pids = append(pids, d.PID())
	}
	who := []string{"direct", "nothing traced", "every tenth", "all"}
	const each = 300
	before, rules := b.processor(pids), []string{"tcp", "http"}
	for _, rule := range rules {
		b.contest("HTTP, a connection each, `"+rule+"`", "µs", who, func(i int) float64 {
			url := "http://" + rule + ".bench.test:8080/small"
			if i == 0 {
				url = "http://" + server.String() + ":8080/small"
			}
			return workers[i].do("connect", each, url)
		})
	}
	for i, was := range before {
		took := (b.processor(pids)[i] - was) / time.Duration(len(rules)*(b.rounds+1)*each)
		b.fact("processor time of the daemon for a connection, "+who[i+1], took.String())
	}
	b.contest("HTTP, keep-alive, `tcp`", "µs", who, func(i int) float64 {
		url := "http://tcp.bench.test:8080/small"
		if i == 0 {
			url = "http://" + server.String() + ":8080/small"
		}
		return workers[i].do("keepalive", 1500, url)
	})
	b.fact("traces: bytes that came to the collector", fmt.Sprint(came.Load()))
}

// processor is the time that each of several processes has used of the processors, to a hundredth of a second.
func (b *bench) processor(pids []int) (used []time.Duration) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		b.Must(err)
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		user, err := strconv.Atoi(f[11])
		b.Must(err)
		system, err := strconv.Atoi(f[12])
		b.Must(err)
		used = append(used, time.Duration(user+system)*10*time.Millisecond)
	}
	return used
}
