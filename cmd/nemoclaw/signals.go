package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// takeSignals returns where the signals arrive from now on that a run passes on, or ends in good order by.
//
// Go takes each signal by a round trip between two threads, 50 µs each, so that is done beside the set-up. A signal that
// comes before it is taken ends the process as SIGKILL would: the next start sweeps what there is to sweep.
func takeSignals() <-chan os.Signal {
	c := make(chan os.Signal, 64)
	go func() {
		for _, sig := range []os.Signal{
			unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH, unix.SIGUSR1, unix.SIGUSR2,
		} {
			if !signal.Ignored(sig) { // as nohup and a shell's `&` have it
				signal.Notify(c, sig)
			}
		}
		// A reader of our output that goes away is no reason to die without clearing up: the write fails instead.
		signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	}()
	return c
}
