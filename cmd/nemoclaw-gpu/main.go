//go:build cgo

// Command nemoclaw-gpu asks NVIDIA's driver what GPUs a host has, in a process of its own: the driver's libraries are C, may
// crash or hang, and are nobody's to trust with a daemon that is root. nemoclaw-agent starts it where there is a driver, as
// nobody, and asks it through its standard input (package agent/gpu has the frames). It opens no connection, writes no
// file, and ends with its input.
//
// `nemoclaw-gpu cuda` computes on every device that it sees, says what came of it, and holds the devices until its input ends: what a test
// runs inside a sandbox.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
)

// watch is how long one answer may take before this process ends itself: whoever asked may be gone, and the libraries may
// never return.
const watch = 2 * time.Minute

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 0:
		err = restrict() // it begins anew, with the argument below
	case len(args) == 1 && args[0] == restricted:
		err = serve(os.Stdin)
	case len(args) == 1 && args[0] == "cuda":
		err = prove(os.Stdin, os.Stdout)
	default:
		err = errors.New("this is a helper of nemoclaw-agent, which starts it; by hand: nemoclaw gpus, nemoclaw doctor --gpu, or nemoclaw-gpu cuda")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nemoclaw-gpu:", err)
		os.Exit(1)
	}
}

// serve answers questions until there are no more.
func serve(in io.Reader) error {
	// What the libraries print to standard output would be taken for an answer.
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	if err := unix.Dup3(2, 1, 0); err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), "answers")
	questions := bufio.NewReader(in)
	var driver driver
	for {
		var q gpu.Question
		if err := gpu.ReadFrame(questions, &q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		late := time.AfterFunc(watch, func() { os.Exit(3) })
		a := driver.answer(q)
		late.Stop()
		if err := gpu.WriteFrame(out, a); err != nil {
			return err
		}
	}
}

// answer answers one question. What goes wrong in the binding is an answer too.
func (d *driver) answer(q gpu.Question) (a gpu.Answer) {
	defer func() {
		if r := recover(); r != nil {
			a = gpu.Answer{Error: fmt.Sprint("reading what the driver said: ", r)}
		}
	}()
	switch q.Op {
	case gpu.Look:
		return d.look()
	case gpu.Prove:
		proofs, err := compute()
		if err != nil {
			return gpu.Answer{Error: err.Error()}
		}
		return gpu.Answer{Proofs: proofs}
	}
	return gpu.Answer{Error: fmt.Sprintf("the question %q is not known", q.Op)}
}

// prove computes, prints what came of it, one device a line, and fails where anything did, or waits for the end of its input.
func prove(in io.Reader, w io.Writer) error {
	proofs, err := compute()
	if err != nil {
		return err
	}
	var failed error
	for _, p := range proofs {
		if err := json.NewEncoder(w).Encode(p); err != nil {
			return err
		}
		if p.Error != "" {
			failed = errors.Join(failed, fmt.Errorf("device %d: %s", p.Index, p.Error))
		}
	}
	if failed == nil {
		_, failed = io.Copy(io.Discard, in)
	}
	return failed
}
