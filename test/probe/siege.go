package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	siegeFile  = "/workspace/siege.json" // how far a siege is
	brokenFile = "/workspace/broken"     // what was denied and worked
	siegePause = 15 * time.Millisecond
)

// Siege is what siegeFile holds.
type Siege struct {
	Rounds int            `json:"rounds"`
	Worked map[string]int `json:"worked"` // of what is allowed
}

// siege tries what is denied and what is allowed, again and again, and writes down what should not have worked and how often
// the rest did. That something allowed fails is not its concern: its daemon may be away.
func siege(args []string) {
	n := slices.Index(args, "--")
	if n < 0 {
		fmt.Fprintln(os.Stderr, "probe: siege DENIED... -- ALLOWED...")
		os.Exit(2)
	}
	denied, allowed := args[:n], args[n+1:]
	s := Siege{Worked: map[string]int{}}
	for {
		for _, op := range denied {
			if out, err := steps(strings.Fields(op)); err == nil {
				report(fmt.Sprintf("%s: %s\n", op, out))
			}
		}
		for _, op := range allowed {
			if _, err := steps(strings.Fields(op)); err == nil {
				s.Worked[op]++
			}
		}
		s.Rounds++
		text, err := json.Marshal(s)
		if err == nil {
			if err = os.WriteFile(siegeFile+".new", text, 0o644); err == nil {
				err = os.Rename(siegeFile+".new", siegeFile)
			}
		}
		if err != nil {
			report(err.Error())
		}
		time.Sleep(siegePause)
	}
}

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
