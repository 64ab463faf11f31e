package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/forward"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	nemoclaw "github.com/nemoclaw/nemoclaw/policy"
)

// logged is how many records the audit part writes, and searches.
const logged = 10_000_000

// hosts are made once: to name a host is no part of what a record costs.
var hosts = sync.OnceValue(func() *[5000]string {
	var list [5000]string
	for i := range list {
		list[i] = fmt.Sprintf("host-%d.example.org:443", i)
	}
	return &list
})

// decision is a record as an agent at work makes them; of the plane system, because records of the others are folded when they are
// so many.
func decision(i int) nemoclaw.Decision {
	d := nemoclaw.Decision{
		Plane: nemoclaw.PlaneSystem, Action: "connect", Object: hosts()[i%len(hosts())], Verdict: nemoclaw.Verdict(i % 3),
		Rule: "policy.yaml:17", Revision: "4235370766525688", Subject: nemoclaw.Subject{PID: 1000 + i%30000, Exe: "/usr/bin/curl", Args: "curl -sS https://host.example.org/"},
	}
	if i == logged/2 {
		d.Object = "the-one-needle.example.org:443"
	}
	return d
}

func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // never fails for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measureAudit is the whole way of a record, from a plane's call on, on one core: numbered, hashed, written, signed, compressed.
func measureAudit(b *bench) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir := b.TempDir()
	signer, err := audit.OpenSigner(filepath.Join(dir, "key"))
	b.Must(err)
	log, err := audit.OpenChain(filepath.Join(dir, "log"), "agent", "", audit.Options{Signer: signer})
	b.Must(err)
	h := hub.New(log)
	box, rare := h.Sandbox("my-assistant"), h.Sandbox("rare")

	began, was := time.Now(), cpu()
	for n := 0; n < 50_000; {
		for due := int(time.Since(began).Seconds() * 10_000); n < due; n++ {
			box.Record(decision(n))
		}
		time.Sleep(time.Millisecond)
	}
	b.fact("10,000 decisions/s for 5 s", fmt.Sprintf("%.1f %% of a core", 100*float64(cpu()-was)/float64(time.Since(began))))

	began, was = time.Now(), cpu()
	for i := range logged {
		if i%(logged/10) == logged/20 {
			rare.Record(decision(i))
		} else {
			box.Record(decision(i))
		}
	}
	b.Must(log.Flush())
	wall, used := time.Since(began), cpu()-was
	b.fact("10,000,000 decisions audited, one core", fmt.Sprintf("%.0f/s; %.2f µs of processor time each, with compressing", logged/wall.Seconds(), float64(used.Microseconds())/logged))

	runtime.GOMAXPROCS(runtime.NumCPU())
	for _, n := range []int{1, 64} {
		const each = 200
		var wg sync.WaitGroup
		began = time.Now()
		for range n {
			wg.Go(func() {
				for i := range each {
					if err := box.Permit(decision(i), true); err != nil {
						fmt.Fprintln(os.Stderr, err)
					}
				}
			})
		}
		wg.Wait()
		b.fact(fmt.Sprintf("strict, %d at a time", n), fmt.Sprintf("%.0f/s", float64(n*each)/time.Since(began).Seconds()))
	}
	runtime.GOMAXPROCS(1)
	b.forward(log)
	h.Close()
	b.Must(log.Close())
	b.auditSizes(filepath.Join(dir, "log"))
	b.auditSearch(filepath.Join(dir, "log"))
}

// forward is how fast records of the log, all of them waiting in it, go to a syslog server of this process, which only counts bytes.
func (b *bench) forward(log *audit.Writer) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	b.Must(err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	all, err := forward.Open([]config.Forward{{Name: "bench", Syslog: "tcp://" + l.Addr().String()}}, b.TempDir(), func(string, string, string) {})
	b.Must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	began, was := time.Now(), cpu()
	all.Run(ctx, log)
	n, wall, used := float64(all.Forwarded()), time.Since(began), cpu()-was
	b.fact("records forwarded to syslog, one core", fmt.Sprintf("%.0f/s; %.2f µs of processor time each, the server's among it", n/wall.Seconds(), float64(used.Microseconds())/n))
}

// auditSizes is how many bytes a decision takes, in the live file and in those that are compressed.
func (b *bench) auditSizes(dir string) {
	var packed int64
	files, err := filepath.Glob(filepath.Join(dir, "*.zst"))
	b.Must(err)
	for _, f := range files {
		st, err := os.Stat(f)
		b.Must(err)
		packed += st.Size()
	}
	d := decision(logged)
	d.Seq, d.Time, d.Sandbox = logged, time.Now(), "my-assistant"
	written := len(audit.AppendJSON(nil, &d)) + len(`,"salt":"","prev":"","hash":""`) + 160 + 1
	b.fact("bytes a decision", fmt.Sprintf("%d written, %.0f compressed, in %d files", written, float64(packed)/logged, len(files)))
}

// auditSearch looks for something in all of it.
func (b *bench) auditSearch(dir string) {
	for _, s := range []struct {
		what string
		flt  audit.Filter
	}{
		{"the 10 records of a sandbox", audit.Filter{Sandbox: "rare"}},
		{"records of a plane that is not there", audit.Filter{Planes: []nemoclaw.Plane{nemoclaw.PlaneExec}}},
		{"records of the last second", audit.Filter{From: time.Now().Add(-time.Second)}},
		{"a text that one record has, so all are read", audit.Filter{Text: "the-one-needle"}},
		{"all that was denied, a third", audit.Filter{Verdicts: []nemoclaw.Verdict{nemoclaw.Deny}}},
	} {
		n, began, was := 0, time.Now(), cpu()
		b.Must(audit.Query(context.Background(), dir, "agent", s.flt, func(uint64, []byte) error { n++; return nil }))
		b.fact("search of 10,000,000: "+s.what, fmt.Sprintf("%d found in %.2f s, of which %.2f of processor time", n, time.Since(began).Seconds(), (cpu()-was).Seconds()))
	}
}
