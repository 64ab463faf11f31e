package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Floods: none may turn a refusal into a success.
var floodAttempts = map[string]attempt{
	"connects": connects, // connects COUNT ADDR: to as many ports; fails unless one got through
	"execs":    execs,    // execs COUNT SRC DST: starts a copy as often; fails unless one ran
	"ptys":     ptys,
	"pipes":    pipes,
	"many":     many,   // many COUNT ATTEMPT...: fails unless one worked
	"filled":   filled, // filled PATH MIB: fill, and the file is removed
	"segments": segments,
	"queries":  queries, // queries COUNT SERVER ZONE: as many names below ZONE
}

func connects(w []string) (string, error) {
	count, through := number(w[1]), 0
	var last error
	for i := range count {
		const first = 20000
		if _, err := tcp([]string{"", w[2], fmt.Sprint(first + i%10000)}); err == nil {
			through++
		} else {
			last = err
		}
	}
	if through == 0 {
		return "", last
	}
	return fmt.Sprint(through), nil
}

func execs(w []string) (string, error) {
	if err := copyFile(w[2], w[3]); err != nil {
		return "", err
	}
	ranOnce := 0
	var last error
	for range number(w[1]) {
		if _, err := run([]string{"", w[3]}); err == nil {
			ranOnce++
		} else {
			last = err
		}
	}
	if ranOnce == 0 {
		return "", last
	}
	return fmt.Sprint(ranOnce), nil
}

// pipes COUNT: fills as many.
func pipes(w []string) (string, error) {
	for i := range number(w[1]) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			return fmt.Sprint(i), err
		}
		_, _ = unix.Write(p[1], make([]byte, 1<<16))
	}
	return w[1], nil
}

// segments MIB: of System V shared memory, touched.
func segments(w []string) (string, error) {
	const private, create = 0, 0o1600
	for i := range number(w[1]) {
		id, err := unix.SysvShmGet(private, 1<<20, create)
		if err != nil {
			return fmt.Sprint(i), err
		}
		b, err := unix.SysvShmAttach(id, 0, 0)
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		if err != nil {
			return fmt.Sprint(i), err
		}
		for at := 0; at < len(b); at += 4096 {
			b[at] = 1
		}
	}
	return w[1], nil
}

func queries(w []string) (string, error) {
	answered := 0
	var last error
	for i := range number(w[1]) {
		out, err := query([]string{"", w[2], fmt.Sprintf("q%d-%d.%s", os.Getpid(), i, w[3]), "A"})
		if err == nil && strings.HasPrefix(out, "NOERROR; ") {
			answered++
		} else {
			last = errors.Join(err, errors.New(out))
		}
	}
	if answered < number(w[1]) {
		return fmt.Sprint(answered), last
	}
	return w[1], nil
}

func filled(w []string) (string, error) {
	defer os.Remove(w[1])
	return fill(w)
}

func many(w []string) (string, error) {
	worked := 0
	var last error
	for range number(w[1]) {
		if _, err := steps(w[2:]); err == nil {
			worked++
		} else {
			last = err
		}
	}
	if worked == 0 {
		return "", last
	}
	return fmt.Sprint(worked), nil
}

// ptys COUNT: terminals.
func ptys(w []string) (string, error) {
	for i := range number(w[1]) {
		if _, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Sprint(i), err
		}
	}
	return w[1], nil
}
