// Command bench measures nemoclaw against native execution, bubblewrap, Landlock alone, HAProxy, Go's reverse proxy, dnsmasq, unbound and runc, all in one run and interleaved (A B A B), so that
// what else the machine does falls on everybody alike. It prints one Markdown table of medians and ratios; the ratios are what to compare
// between machines. It runs in the world of package harness and talks to nobody outside it.
//
// Started again as `bench work` it is the worker that runs inside and outside of a sandbox, as `bench landlock DIR` one that Landlock
// restricts and nothing else, as `bench serve` the upstream server, as `bench model` a model server and as `bench relay` a reverse proxy in Go.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "work" {
		work()
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "model" {
		model(os.Args[2])
		return
	}
	if len(os.Args) > 4 && os.Args[1] == "relay" {
		relay(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "landlock" {
		restrict(os.Args[2])
		work()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		serve(os.Args[2:])
		return
	}
	rounds := flag.Int("rounds", 15, "how often each contestant is measured")
	only := flag.String("only", "", "start, files, proxy, dns, growth, daemon, decide, approvals, inference, audit or traces: only that part")
	flag.Parse()
	os.Exit(harness.Inside(func() int {
		b := &bench{Program: harness.Program{Name: "bench"}, rounds: *rounds}
		return b.Do(func() {
			for _, p := range []struct {
				name string
				run  func(*bench)
			}{{"start", measureStart}, {"files", measureFiles}, {"proxy", measureProxy}, {"dns", measureDNS}, {"growth", measureGrowth}, {"daemon", measureDaemon}, {"decide", measureDecide}, {"approvals", measureApprovals}, {"inference", measureInference}, {"audit", measureAudit}, {"traces", measureTraces}} {
				if *only == "" || *only == p.name {
					fmt.Fprintf(os.Stderr, "measuring %s ...\n", p.name)
					p.run(b)
				}
			}
			b.print(os.Stdout)
		})
	}))
}

// bench collects the rows.
type bench struct {
	harness.Program
	rounds int
	rows   []row
	delays []delays
	spread []spread
	facts  []fact
}

// background starts a process of the world's host side and ends it with the run.
func (b *bench) background(name string, args ...string) (pid int) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	b.Must(cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}
