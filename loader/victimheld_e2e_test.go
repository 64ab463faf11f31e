//go:build e2e

package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// heldTry is what programs do while a call of theirs is held.
func heldTry(f []string) (string, error) {
	switch f[0] {
	case "signalled": // path: opens it, and waits for SIGUSR1 then
		usr1 := make(chan os.Signal, 1)
		signal.Notify(usr1, unix.SIGUSR1)
		defer signal.Stop(usr1)
		if err := tryOpen(f[1], unix.O_RDONLY); err != nil {
			return "", err
		}
		<-usr1
		return "handled", nil
	case "wait": // plain|untraced path: a child opens it; says what waitpid says of the child, a line for each stop
		return waitTry(f[1], f[2])
	case "threads": // how many, path: each opens it, while another ticks
		n, _ := strconv.Atoi(f[1])
		return threadsTry(n, f[2])
	}
	return "", fmt.Errorf("unknown try %q", f)
}

func waitTry(how, path string) (string, error) {
	child := exec.Command("/bin/sh", "-c", `: < "$1"`, "sh", path)
	if err := child.Start(); err != nil {
		return "", err
	}
	options := 0
	if how == "untraced" {
		options = unix.WUNTRACED
	}
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(child.Process.Pid, &status, options, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return "", err
		case status.Stopped():
			fmt.Println("stopped")
		case status.Exited() && status.ExitStatus() == 0:
			return "exited", nil
		default:
			return "", fmt.Errorf("status %x", status)
		}
	}
}

func threadsTry(n int, path string) (string, error) {
	var opened, refused, ticks atomic.Int64
	var threads sync.WaitGroup
	stop := make(chan struct{})
	ticked := make(chan struct{})
	go func() {
		defer close(ticked)
		for {
			ticks.Add(1)
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	}()
	for range n {
		threads.Add(1)
		go func() {
			defer threads.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if err := tryOpen(path, unix.O_RDONLY); err == nil {
				opened.Add(1)
			} else if errors.Is(err, unix.EACCES) {
				refused.Add(1)
			}
		}()
	}
	threads.Wait()
	before := ticks.Load()
	for ticks.Load() == before { // for ever, if that thread did not go on
		runtime.Gosched()
	}
	close(stop)
	<-ticked
	return fmt.Sprintf("%d opened, %d refused, ticked", opened.Load(), refused.Load()), nil
}
