package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	deepNames = 40 // names that a wildcard allows
	pause     = 400 * time.Millisecond
)

func deepName(i int) string { return fmt.Sprintf("n%d.deep.soak.test", i) }

// work does a bit of everything, allowed and refused, until its input ends. It prints how often, or fails with what went otherwise than
// it should.
func work() {
	stopped := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stopped)
	}()
	keep := &http.Client{Timeout: 20 * time.Second}
	for n := 0; ; n++ {
		for _, step := range []struct {
			what string
			do   func() error
		}{
			{"files", files},
			{"true", func() error { return exec.Command("/bin/true").Run() }},
			{"git", func() error {
				return exec.Command("git", "-C", "/workspace", "status", "--porcelain", "--untracked-files=no").Run()
			}},
			{"keep-alive", func() error { return get(keep, "http://tcp.soak.test:8080/large") }},
			{"a connection", func() error { return once("http://http.soak.test:8080/") }},
			{"a name of a wildcard", func() error { return once("http://" + deepName(n%deepNames) + ":8080/") }},
			{"a refused name", func() error { return refused(dial("denied.soak.test:443"), syscall.EPERM) }},
			{"a refused address", func() error { return refused(dial("192.0.2.1:80"), syscall.EPERM) }},
			{"a refused file", func() error { _, err := os.ReadFile("/etc/shadow"); return refused(err, fs.ErrNotExist) }},
			{"a refused program", func() error { return refused(exec.Command("/usr/bin/id").Run(), syscall.EACCES) }},
		} {
			if err := step.do(); err != nil {
				fmt.Printf("round %d: %s: %v\n", n, step.what, err)
				os.Exit(1)
			}
		}
		select {
		case <-stopped:
			fmt.Println(n + 1)
			return
		case <-time.After(pause):
		}
	}
}

func files() error {
	const a, b = "/workspace/a", "/tmp/b"
	if err := os.WriteFile(a, make([]byte, 10_000), 0o600); err != nil {
		return err
	}
	data, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(b, data, 0o600), os.Rename(a, a+"2"), os.Remove(a+"2"), os.Remove(b))
}

func get(c *http.Client, url string) error {
	r, err := c.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

func once(url string) error {
	return get(&http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}, url)
}

func dial(addr string) error {
	c, err := net.DialTimeout("tcp", addr, 20*time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// refused turns the error that is wanted into none.
func refused(err, want error) error {
	switch {
	case errors.Is(err, want):
		return nil
	case err == nil:
		return errors.New("was allowed")
	}
	return fmt.Errorf("was refused otherwise: %w", err)
}
