package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// TestRetentionAfterErasing: however many of the oldest files go, what says that texts were erased is left as long as they are.
func TestRetentionAfterErasing(t *testing.T) {
	t.Parallel()
	c := newChain(t, 100, Options{})
	c.erase(t, "5,30,100")
	for range 30 {
		c.append(t)
	}
	c.erase(t, "6,101-110")
	for range 30 {
		c.append(t)
	}
	numbers, err := c.f.numbers()
	if err != nil || len(numbers) < 8 {
		t.Fatal(numbers, err)
	}
	for keep := len(numbers); keep > 0; keep-- {
		c.w.keeping.Lock()
		c.w.keep = keep
		c.w.keeping.Unlock()
		if err := c.w.tidyUp(); err != nil {
			t.Fatal(err)
		}
		if r := c.verify(t); r.Fault != nil {
			t.Fatalf("%d files kept: %v", keep, r.Fault)
		}
	}
}

// TestReadersWhileErasing: who reads a file when it is replaced goes on at the same record, and gets no text that is erased by then.
func TestReadersWhileErasing(t *testing.T) {
	t.Parallel()
	c := newChain(t, 0, Options{Rotate: 4 << 20})
	for range 2000 {
		if err := c.w.Append(secretRecord(c.w.Head().Seq + 1)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read := func(name string, follow func(context.Context, Filter, func(uint64, []byte) error) error) func() {
		var wg sync.WaitGroup
		paused, goOn := make(chan struct{}), make(chan struct{})
		wg.Go(func() {
			next := uint64(1)
			err := follow(ctx, Filter{}, func(seq uint64, line []byte) error {
				if seq != next {
					t.Errorf("%s: record %d comes after %d", name, seq, next-1)
				}
				next = seq + 1
				if seq == 3 {
					close(paused)
					<-goOn
				}
				if seq == 1900 && bytes.Contains(line, []byte(secret(seq))) {
					t.Errorf("%s: the text that was erased: %s", name, line)
				}
				if seq == 2000 {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				t.Errorf("%s: ended at %d: %v", name, next, err)
			}
		})
		<-paused
		return func() { close(goOn); wg.Wait() }
	}
	ends := []func(){read("query", c.w.Query), read("follow", c.w.Follow)}
	c.erase(t, "1900") // in the live file, which is closed, compressed and replaced
	for _, end := range ends {
		end()
	}
	ends = []func(){read("query of a compressed file", c.w.Query), read("follow of a compressed file", c.w.Follow)}
	c.erase(t, "1800-1899")
	for _, end := range ends {
		end()
	}
	c.good(t, 101)
}

var errEnough = errors.New("enough")

// TestVerifyWhileErasing: verifying at any moment finds no fault.
func TestVerifyWhileErasing(t *testing.T) {
	t.Parallel()
	c := newChain(t, 120, Options{})
	var wg sync.WaitGroup
	done := make(chan struct{})
	known := c.known(t).Keys
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if r, err := (Evidence{Keys: known}).VerifyFile(c.f.live()); err != nil || r.Fault != nil {
					t.Errorf("fault %v, %v", r.Fault, err)
					return
				}
			}
		})
	}
	for seq := uint64(1); seq < 120; seq += 7 {
		c.erase(t, fmt.Sprintf("%d,%d", seq, seq+2))
		c.append(t)
	}
	close(done)
	wg.Wait()
	c.good(t, 34)
}

// TestKilledWhileErasing: after each step the log is whole, and the same again ends it.
func TestKilledWhileErasing(t *testing.T) {
	t.Parallel()
	const records = "3-5,25,60"
	list, _ := ParseRanges(records)
	e := Erasure{Records: list, Reason: "x", By: "root"}
	steps := []struct {
		name string
		do   func(c *secretChain) error
	}{
		{"the file is closed", func(c *secretChain) error { return c.w.closeLive(list) }},
		{"it is written down", func(c *secretChain) error { return errors.Join(c.w.Recorder()(e.decisions()[0]), c.w.Flush()) }},
		{"it is signed", func(c *secretChain) error { return c.w.vouch() }},
		{"half of a file is written", func(c *secretChain) error {
			return os.WriteFile(c.f.closed(1)+packedExtension+".tmp", read1st(c.f.closed(1)+packedExtension), 0o600)
		}},
		{"one file is replaced", func(c *secretChain) error { _, err := c.f.eraseIn(1, list); return err }},
		{"all are", func(c *secretChain) error { return c.f.erase(list, nil) }},
	}
	for i := range steps {
		t.Run(steps[i].name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, 60, Options{})
			c.w.keeping.Lock()
			if err := c.f.tidy(true); err != nil {
				t.Fatal(err)
			}
			for _, s := range steps[:i+1] {
				if err := s.do(c); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
			}
			was := c
			was.w.disk.Lock() // the rest of this writer's life does not happen
			c = &secretChain{f: files{t.TempDir(), "agent"}, key: was.key}
			if err := os.CopyFS(c.f.dir, os.DirFS(was.f.dir)); err != nil {
				t.Fatal(err)
			}
			if r, err := (Evidence{Keys: was.known(t).Keys}).VerifyFile(c.f.live()); err != nil || r.Fault != nil {
				t.Fatalf("fault %v, %v", r.Fault, err)
			}
			was.w.disk.Unlock()
			was.w.keeping.Unlock()
			c.open(t, Options{Rotate: 6000})
			c.erase(t, records)
			if err := c.close(); err != nil {
				t.Fatal(err)
			}
			c.good(t, 5)
			all := bytesOf(t, c.f.dir)
			for _, seq := range []uint64{3, 4, 5, 25, 60} {
				if bytes.Contains(all, []byte(secret(seq))) {
					t.Errorf("the text of record %d is there", seq)
				}
			}
		})
	}
}

func read1st(name string) []byte {
	b, _ := os.ReadFile(name)
	return b[:len(b)/2]
}
