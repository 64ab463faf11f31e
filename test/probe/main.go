// Command probe is the hostile (or merely stubborn) program that the end-to-end tests start inside a sandbox. It is
// static, knows no proxy variables, and tries each thing it is told with bare system calls, so that a test sees the
// kernel's own answer and how long it took.
//
// Every argument is one attempt, its words separated by spaces: `probe "tcp 203.0.113.7 443" "open r /etc/shadow"`.
// For each one JSON line is printed: {"op","errno","us","out"}; errno is "" when it worked. The exit status is 0
// whatever happened, unless an attempt says otherwise.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Outcome is what one attempt gave. The harness decodes the same shape.
type Outcome struct {
	Op    string `json:"op"`
	Errno string `json:"errno"` // ECONNREFUSED, ...; for what isn't a system call the error's text
	Us    int64  `json:"us"`    // microseconds
	Out   string `json:"out,omitempty"`
}

// An attempt gets its words (the first is its own name) and returns what to show.
type attempt func(words []string) (string, error)

func main() {
	attempts := map[string]attempt{}
	for _, table := range []map[string]attempt{netAttempts, fileAttempts, sysAttempts} {
		for name, f := range table {
			attempts[name] = f
		}
	}
	out := json.NewEncoder(os.Stdout)
	for _, arg := range os.Args[1:] {
		words := strings.Fields(arg)
		f, ok := attempts[words[0]]
		if !ok {
			fmt.Fprintf(os.Stderr, "probe: no attempt is called %q\n", words[0])
			os.Exit(2)
		}
		start := time.Now()
		shown, err := f(words)
		o := Outcome{Op: arg, Us: time.Since(start).Microseconds(), Out: shown, Errno: name(err)}
		if err := out.Encode(o); err != nil {
			os.Exit(3)
		}
	}
}

func name(err error) string {
	if err == nil {
		return ""
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}
