package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

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
	var bytes atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body) // what breaks off is sent again
		bytes.Add(n)
	}))
	b.Cleanup(collector.Close)
	workers := []*worker{b.startWorker("native", exec.Command("/proc/self/exe", "work"))}
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
	}
	who := []string{"direct", "nothing traced", "every tenth", "all"}
	for _, rule := range []string{"tcp", "http"} {
		b.contest("HTTP, a connection each, `"+rule+"`", "µs", who, func(i int) float64 {
			url := "http://" + rule + ".bench.test:8080/small"
			if i == 0 {
				url = "http://" + server.String() + ":8080/small"
			}
			return workers[i].do("connect", 300, url)
		})
	}
	b.contest("HTTP, keep-alive, `tcp`", "µs", who, func(i int) float64 {
		url := "http://tcp.bench.test:8080/small"
		if i == 0 {
			url = "http://" + server.String() + ":8080/small"
		}
		return workers[i].do("keepalive", 1500, url)
	})
	b.fact("traces: bytes that came to the collector", fmt.Sprint(bytes.Load()))
}
