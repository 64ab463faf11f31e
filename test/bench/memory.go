package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory is what the machine and the daemon have in use, in KiB.
type memory struct {
	used   int64 // by anybody, without what files are kept in memory
	daemon int64 // its own
	slab   int64
	percpu int64
	vmap   int64 // kernel stacks among it
	inits  int64 // of sandboxes, their own

	threads, files int
}

// memory looks at them. inits are the sandboxes' first processes.
func (d *daemon) memory(inits []int) (m memory) {
	f := d.b.fields("/proc/meminfo")
	m.used = f["MemTotal"] - f["MemFree"] - f["Buffers"] - f["Cached"] - f["SReclaimable"] + f["Shmem"]
	m.slab, m.percpu, m.vmap = f["SUnreclaim"], f["Percpu"], f["VmallocUsed"]
	pid := d.PID()
	m.daemon = d.b.fields(fmt.Sprintf("/proc/%d/status", pid))["RssAnon"]
	for _, pid := range inits {
		m.inits += d.b.fields(fmt.Sprintf("/proc/%d/status", pid))["RssAnon"]
	}
	m.threads, m.files = d.b.entries(pid, "task"), d.b.entries(pid, "fd")
	return m
}

// each says what one of n sandboxes that came between two looks takes.
func (m memory) each(before memory, n int) string {
	part := func(now, then int64) int64 { return (now - then) / int64(n) }
	return fmt.Sprintf("%d KiB of the machine's memory: the daemon %d, the init %d; the kernel's slab %d, per-processor %d, vmalloc %d; %.1f threads and %.1f descriptors of the daemon",
		part(m.used, before.used), part(m.daemon, before.daemon), part(m.inits, before.inits), part(m.slab, before.slab), part(m.percpu, before.percpu), part(m.vmap, before.vmap),
		float64(m.threads-before.threads)/float64(n), float64(m.files-before.files)/float64(n))
}

// fields reads the "Name: 123 kB" lines of a file of proc.
func (b *bench) fields(file string) map[string]int64 {
	text, err := os.ReadFile(file)
	b.Must(err)
	out := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if words := strings.Fields(rest); len(words) > 0 {
			out[name], _ = strconv.ParseInt(words[0], 10, 64) // the others are no numbers
		}
	}
	return out
}

func (b *bench) entries(pid int, what string) int {
	list, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), what))
	b.Must(err)
	return len(list)
}
