package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

// sayEach is how often a person is told that something goes on, the first time after as long.
const sayEach = time.Second

// waiting says what is waited for, on a terminal that standard error is, from the first second on. What it returns ends that and
// clears the line: call it before anything else is written. Nothing of it goes into a file or a pipe.
func waiting(cmd *cobra.Command, format string, args ...any) (end func()) {
	f, ok := cmd.ErrOrStderr().(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !term.Is(f) {
		return func() {}
	}
	tick := time.NewTicker(sayEach)
	ended := sayWaiting(f, tick.C, text.Escape(fmt.Sprintf(format, args...)))
	return func() {
		tick.Stop()
		ended()
	}
}

// sayWaiting says at each tick how many there were. The function that it returns may be called more than once.
func sayWaiting(w io.Writer, tick <-chan time.Time, what string) (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 1; ; n++ {
			select {
			case <-tick:
				fmt.Fprintf(w, "\r%s ... %d s\x1b[K", what, n)
			case <-stop:
				if n > 1 {
					fmt.Fprint(w, "\r\x1b[K")
				}
				return
			}
		}
	}()
	open := true
	return func() {
		if open {
			open = false
			close(stop)
			<-stopped
		}
	}
}
