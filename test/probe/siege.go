package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	siegeFile  = "/workspace/siege.json" // how far a siege is
	brokenFile = "/workspace/broken"     // what was denied and worked
	siegePause = 40 * time.Millisecond   // after each attempt
)

// besieger counts what a siege does.
type besieger struct {
	mu    sync.Mutex
	tried map[string]int
	ok    map[string]int // of what is allowed
}

// siege tries what is denied and what is allowed, all at once and again and again, and writes down what should not have worked and
// how often the rest did. That something allowed fails is not its concern: its daemon may be away.
func siege(args []string) {
	n := slices.Index(args, "--")
	if n < 0 {
		fmt.Fprintln(os.Stderr, "probe: siege DENIED... -- ALLOWED...")
		os.Exit(2)
	}
	s := &besieger{tried: map[string]int{}, ok: map[string]int{}}
	for i, op := range slices.Concat(args[:n], args[n+1:]) {
		go s.attack(op, i < n)
	}
	for {
		s.mu.Lock()
		text, err := json.Marshal(map[string]any{"tried": s.tried, "ok": s.ok})
		s.mu.Unlock()
		if err == nil {
			if err = os.WriteFile(siegeFile+".new", text, 0o644); err == nil {
				err = os.Rename(siegeFile+".new", siegeFile)
			}
		}
		if err != nil {
			report(err.Error() + "\n")
		}
		time.Sleep(siegePause)
	}
}

func (s *besieger) attack(op string, denied bool) {
	for {
		out, err := steps(strings.Fields(op))
		s.mu.Lock()
		s.tried[op]++
		switch {
		case err != nil:
		case denied:
			report(fmt.Sprintf("%s: %s\n", op, out))
		default:
			s.ok[op]++
		}
		s.mu.Unlock()
		time.Sleep(siegePause)
	}
}

// report writes down what the host is to see.
func report(text string) {
	f, err := os.OpenFile(brokenFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err != nil {
		os.Exit(3)
	}
	f.Close()
}
