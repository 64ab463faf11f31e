// Command probe is the hostile (or merely stubborn) program that the end-to-end tests start inside a sandbox. It is
// static, knows no proxy variables, and tries each thing it is told with bare system calls, so that a test sees the
// kernel's own answer and how long it took.
//
// Every argument is one attempt, its words separated by spaces: `probe "tcp 203.0.113.7 443" "open r /etc/shadow"`. The word
// && joins steps: the first that fails ends the attempt, and what the steps show is put together.
// For each one JSON line is printed: {"op","errno","us","out"}; errno is "" when it worked. The exit status is 0
// whatever happened, unless an attempt says otherwise.
//
// `probe apart ARGUMENT...` has a process of its own for each argument, one after the other; the lines of an argument are
// the attempts of its process.
//
// `probe siege DENIED... -- ALLOWED...` makes its attempts over and over until it is killed, and prints nothing: see siege.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
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

// attempts are those of all tables.
var attempts = map[string]attempt{}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "apart" {
		apart(os.Args[2:])
		return
	}
	for _, table := range []map[string]attempt{netAttempts, fileAttempts, sysAttempts, programAttempts, processAttempts, socketAttempts, floodAttempts} {
		for name, f := range table {
			attempts[name] = f
		}
	}
	if len(os.Args) > 1 && os.Args[1] == "siege" {
		siege(os.Args[2:])
		return
	}
	out := json.NewEncoder(os.Stdout)
	for _, arg := range os.Args[1:] {
		start := time.Now()
		shown, err := steps(strings.Fields(arg))
		o := Outcome{Op: arg, Us: time.Since(start).Microseconds(), Out: shown, Errno: name(err)}
		if err := out.Encode(o); err != nil {
			os.Exit(3)
		}
	}
}

// steps does what stands between the && of an attempt.
func steps(words []string) (string, error) {
	var shown strings.Builder
	for len(words) > 0 {
		end := slices.Index(words, "&&")
		if end < 0 {
			end = len(words)
		}
		f, ok := attempts[words[0]]
		if !ok {
			fmt.Fprintf(os.Stderr, "probe: no attempt is called %q\n", words[0])
			os.Exit(2)
		}
		s, err := f(words[:end])
		shown.WriteString(s)
		if err != nil {
			return shown.String(), err
		}
		words = words[min(end+1, len(words)):]
	}
	return shown.String(), nil
}

// apart runs this program once for each argument. A process that was killed, or that took too long, gives an outcome as well.
func apart(args []string) {
	for _, arg := range args {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		cmd := exec.CommandContext(ctx, "/proc/self/exe", strings.Split(arg, "\n")...)
		cmd.Args[0] = os.Args[0]
		cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
		said, err := cmd.Output()
		cancel()
		if _, err := os.Stdout.Write(said); err != nil {
			os.Exit(3)
		}
		if err != nil {
			o := Outcome{Op: arg, Errno: err.Error()}
			if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
				os.Exit(3)
			}
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
