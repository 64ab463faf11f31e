package classify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ordinary is text without a find: prose, code and a log, as prompts have them.
var ordinary = []struct{ name, text string }{
	{"prose", strings.Repeat(`The scheduler looks at each task in turn and decides whether it may run now or has to wait for another one. When two of
them want the same page at the same time, the one that asked first gets it, and the other is told to come back later. None of this is
visible to the programs themselves, which only notice that some calls take longer than others do. It isn't a problem in practice: even
on a busy machine the delay stays below what a person can see. Please read the whole document before changing anything in this part of
the system, since several of its rules look strange until the reason for them is understood.
`, 40)},
	{"code", strings.Repeat(`func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.config.Timeout)
	defer cancel()
	items, err := s.store.List(ctx, r.URL.Query().Get("filter"))
	if err != nil {
		http.Error(w, fmt.Sprintf("list: %v", err), http.StatusInternalServerError)
		return
	}
	for i := 0; i < len(items); i++ {
		if items[i].Deleted || items[i].Size > maxSize<<20 {
			continue // it was removed while the list was made
		}
		s.metrics.requests.WithLabelValues("list", strconv.Itoa(i)).Inc()
	}
}
`, 50)},
	{"log", strings.Repeat(`2026-11-23T04:12:09.113Z INFO  worker-7 job=81f2c3d4 state=running attempt=1 elapsed=12.4ms queue=default
2026-11-23T04:12:09.214Z DEBUG worker-3 cache hit ratio 0.934 of 18241 lookups, 1204 misses, shard 5/16
2026-11-23T04:12:09.377Z WARN  worker-7 job=81f2c3d4 slow write: 1048576 bytes to /var/lib/data/segment-000123.dat in 87ms
`, 90)},
	{"data", strings.Repeat(`{"id":81234,"type":"node","tags":["a","b"],"position":{"x":12.5,"y":-3.75},"hash":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b","ok":true},
`, 200)},
	{"french", strings.Repeat(`L’ordonnanceur examine chaque tâche à son tour et décide si elle peut être exécutée tout de suite ou si elle doit en attendre une autre.
`, 200)},
	{"chinese", strings.Repeat("调度程序依次查看每个任务，并决定它现在是否可以运行，或者必须等待另一个任务。\n", 200)},
}

func BenchmarkParts(b *testing.B) {
	c := newClassifier(b, Rules{})
	for _, x := range ordinary {
		b.Run(x.name, func(b *testing.B) {
			b.SetBytes(int64(len(x.text)))
			b.ReportAllocs()
			parts := []string{x.text}
			defer perCore(b, len(x.text))()
			for b.Loop() {
				if _, err := c.Parts(parts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("messages", func(b *testing.B) { // a conversation: many small parts
		var parts []string
		n := 0
		for i := range 200 {
			text := ordinary[0].text[i*40 : i*40+700]
			parts = append(parts, text)
			n += len(text)
		}
		b.SetBytes(int64(n))
		defer perCore(b, n)()
		for b.Loop() {
			if _, err := c.Parts(parts); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPrompts takes this project's own documents and sources: unlike a text that is repeated, what comes next in them can't be
// foreseen by a processor.
func BenchmarkPrompts(b *testing.B) {
	c := newClassifier(b, Rules{})
	for _, x := range []struct{ name, files string }{{"docs", "../../../docs/*.md"}, {"source", "../*.go"}} {
		files, err := filepath.Glob(x.files)
		if err != nil || len(files) == 0 {
			b.Fatal(x.files, err)
		}
		var all strings.Builder
		for all.Len() < 1<<20 {
			for _, f := range files {
				data, err := os.ReadFile(f)
				if err != nil {
					b.Fatal(err)
				}
				all.Write(data)
			}
		}
		for _, n := range []int{1 << 10, 32 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dK", x.name, n>>10), func(b *testing.B) {
				texts := [][]string{}
				for at := 0; at+n <= all.Len(); at += n {
					texts = append(texts, []string{all.String()[at : at+n]})
				}
				b.SetBytes(int64(n))
				b.ReportAllocs()
				defer perCore(b, n)()
				for i := 0; b.Loop(); i++ {
					if _, err := c.Parts(texts[i%len(texts)]); err != nil && !errors.Is(err, ErrUndecodable) {
						b.Fatal(err) // what was cut can't be decompressed
					}
				}
			})
		}
	}
}

// perCore reports what a core does when it does nothing else: the machines of this project are shared, and the clock shows that.
func perCore(b *testing.B, n int) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64(n)*float64(b.N)/1e6/(used()-before).Seconds(), "MB/s-core") }
}

// TestNothingIsAllocated: a text without a find costs nothing but the work.
func TestNothingIsAllocated(t *testing.T) {
	c := newClassifier(t, Rules{})
	for _, x := range ordinary[:4] {
		parts := []string{x.text}
		if got := find(t, c, x.text); len(got) > 0 {
			t.Errorf("%s: %q", x.name, got[:1])
		}
		if n := testing.AllocsPerRun(5, func() { _, _ = c.Parts(parts) }); n > 2 {
			t.Errorf("%s: %v allocations", x.name, n)
		}
	}
}

// BenchmarkHostile shows what texts cost that were made to be slow.
func BenchmarkHostile(b *testing.B) {
	c := newClassifier(b, Rules{})
	for _, unit := range []string{"eyJ-", "eyJa.", "1 ", "4111 ", "a@", "@", "a@b.", "://a:", "::", "a:", "-----BEGIN PRIVATE KEY", "zoo ", "password=", "Dr. ", "James ", "1 Rue ", "%25", "&amp;",
		"\\", "\\n", "H4sI", "\u0430", "\u200b", "GB82", "AKIA", "/a", "box 1", "QUFB", "QUFBQUFBQUFBQUFB ", "a@b.com ", "a@b.com\\n", "+1", "ssn ", "0x", "sk-", "James-", "eyJaaaaa-", "MRN-a1234b-", ":api_key", "=xoxb-eJ:api_key_", "\n\n", "3132333435363738 "} {
		b.Run(fmt.Sprintf("%q", unit), func(b *testing.B) {
			parts := []string{strings.Repeat(unit, 1<<20/len(unit))}
			b.SetBytes(1 << 20)
			for b.Loop() {
				start := time.Now()
				_, _ = c.Parts(parts) // that it can't be judged is an answer, too
				if d := time.Since(start); d > 10*time.Second {
					b.Fatal(d)
				}
			}
		})
	}
}
