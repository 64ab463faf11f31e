package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A job does something n times and returns microseconds per time, or answers per second; those about models return each time's.
type job func(arg string, n int) ([]float64, error)

// jobs are what a worker can measure.
var jobs = map[string]job{
	"open": one(func(path string, n int) (float64, error) {
		return each(n, func() error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	}),
	"stat": one(func(path string, n int) (float64, error) {
		var st unix.Stat_t
		return each(n, func() error { return unix.Stat(path, &st) })
	}),
	"exec": one(func(command string, n int) (float64, error) {
		argv := strings.Fields(command)
		return each(n, func() error { return exec.Command(argv[0], argv[1:]...).Run() })
	}),
	"keepalive": one(func(url string, n int) (float64, error) {
		client := newClient(true)
		defer client.CloseIdleConnections()
		if err := fetch(client, url); err != nil { // the connection is not part of it
			return 0, err
		}
		return each(n, func() error { return fetch(client, url) })
	}),
	"connect": one(func(url string, n int) (float64, error) {
		client := newClient(false)
		if err := fetch(client, url); err != nil { // nor is the look-up
			return 0, err
		}
		return each(n, func() error { return fetch(client, url) })
	}),
	"body": one(func(url string, n int) (float64, error) {
		client := newClient(true)
		defer client.CloseIdleConnections()
		if err := fetch(client, url); err != nil {
			return 0, err
		}
		return each(n, func() error { return fetch(client, url) })
	}),
	"dns":  one(askDNS),
	"hold": one(hold),
	// Whether a connection can be made.
	"reach": one(func(addr string, _ int) (float64, error) {
		c, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			return 0, nil //nolint:nilerr // that is the answer
		}
		return 1, c.Close()
	}),
	"refused": one(refused),
	"begin":   one(begin),
	"end":     one(end),
	// What a connection to a name takes up to its first byte, with the look-up.
	"first": one(func(addr string, _ int) (float64, error) {
		start := now()
		to, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			return 0, err
		}
		if at := firstByte(to, addr); at > 0 {
			return at - start, nil
		}
		return 0, fmt.Errorf("%s did not answer", addr)
	}),
	"flood":    one(flooding),
	"classify": one(classifyText),

	"ask":         ofModel(asks),
	"first-word":  ofModel(firstWords),
	"later-words": ofModel(laterWords),
	"streams":     ofModel(streamsPerSecond),
	"keep-open":   ofModel(keepOpen),
}

func one(f func(arg string, n int) (float64, error)) job {
	return func(arg string, n int) ([]float64, error) {
		v, err := f(arg, n)
		return []float64{v}, err
	}
}

func ofModel(f func(a *asker, n int) ([]float64, error)) job {
	return func(arg string, n int) ([]float64, error) {
		a, err := askerFor(arg)
		if err != nil {
			return nil, err
		}
		return f(a, n)
	}
}

// now is the time since the machine's start, in microseconds: the same inside of a sandbox and outside.
func now() float64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // fails for a bad clock only
	return float64(t.Nano()) / 1000
}

// used is this process's time of the processors, in microseconds.
func used() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // fails for a bad argument only
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1000
}

// refused returns when an attempt to connect begins that must be refused, in microseconds.
func refused(addr string, _ int) (float64, error) {
	start := now()
	if c, err := net.DialTimeout("tcp", addr, 10*time.Second); err == nil {
		return 0, errors.Join(c.Close(), fmt.Errorf("%s was reached", addr))
	}
	return start, nil
}

// begun tells when the first byte of the connection that was begun came; 0: none ever will.
var begun = make(chan float64, 1)

// begin returns when it begins to connect. What becomes of it end tells: it may be held. The look-up is no part of it.
func begin(addr string, _ int) (float64, error) {
	to, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return 0, err
	}
	start := now()
	go func() { begun <- firstByte(to, addr) }()
	return start, nil
}

func end(string, int) (float64, error) { return <-begun, nil }

// firstByte asks a server for something, and returns when the first byte of the answer is there; 0: there is none.
func firstByte(to *net.TCPAddr, host string) float64 {
	c, err := net.Dial("tcp", to.String())
	if err != nil {
		return 0
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET /small HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return 0
	}
	answer := make([]byte, 64)
	n, err := c.Read(answer)
	at := now()
	if err != nil || !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200 ")) { // the proxy's refusal is an answer too
		return 0
	}
	return at
}

// held are connections that stay open as long as the worker.
var held []net.Conn

func hold(addr string, n int) (float64, error) {
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return 0, fmt.Errorf("connection %d: %w", len(held)+1, err)
		}
		held = append(held, c)
	}
	return float64(len(held)), nil
}

func each(n int, f func() error) (float64, error) {
	start := time.Now()
	for range n {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(start).Nanoseconds()) / 1000 / float64(n), nil
}

// newClient makes a client that looks each name up once: what a look-up costs is measured by itself.
func newClient(keepAlive bool) *http.Client {
	known := map[string]string{}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if known[addr] == "" {
			tcp, err := net.ResolveTCPAddr(network, addr)
			if err != nil {
				return nil, err
			}
			known[addr] = tcp.String()
		}
		var d net.Dialer
		return d.DialContext(ctx, network, known[addr])
	}
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: !keepAlive, MaxIdleConnsPerHost: atOnce, DisableCompression: true, DialContext: dial}}
}

func fetch(c *http.Client, url string) error {
	r, err := c.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, r.Status)
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

// askDNS asks "SERVER NAME" n times over some sockets at once, one question in flight on each, and returns answers per second.
func askDNS(arg string, n int) (float64, error) {
	const sockets = 8
	server, name, _ := strings.Cut(arg, " ")
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	question, err := m.Pack()
	if err != nil {
		return 0, err
	}
	return perSecond(n, sockets, func(left *atomic.Int64) error { return askOver(server, question, left) })
}

// perSecond returns how many of n things were done a second by some workers at once, each of which takes from what is left while it is
// not negative.
func perSecond(n, workers int, work func(left *atomic.Int64) error) (float64, error) {
	var left atomic.Int64
	left.Store(int64(n))
	var g errgroup.Group
	start := time.Now()
	for range workers {
		g.Go(func() error { return work(&left) })
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

func askOver(server string, question []byte, left *atomic.Int64) error {
	c, err := net.Dial("udp", server)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for left.Add(-1) >= 0 {
		if _, err := c.Write(question); err != nil {
			return err
		}
		got, err := c.Read(buf)
		if err != nil {
			return err
		}
		const header, rcode = 12, 0xf
		if got < header || buf[3]&rcode != 0 || buf[7] == 0 {
			return fmt.Errorf("%s: an answer without a record", server)
		}
	}
	return nil
}

// work reads "job n arg..." lines and answers each with numbers, or with "error ...".
func work() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.SplitN(in.Text(), " ", 3)
		list, err := do(words[0], words[1], words[2])
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		fmt.Println(strings.Trim(fmt.Sprint(list), "[]"))
	}
}

func do(job, times, arg string) ([]float64, error) {
	n, err := strconv.Atoi(times)
	if err != nil {
		return nil, err
	}
	return jobs[job](arg, n)
}

// worker is a `bench work` that runs somewhere.
type worker struct {
	b   *bench
	who string
	in  io.Writer
	out *bufio.Scanner
}

func (b *bench) startWorker(who string, cmd *exec.Cmd) *worker {
	in, err := cmd.StdinPipe()
	b.Must(err)
	out, err := cmd.StdoutPipe()
	b.Must(err)
	cmd.Stderr = os.Stderr
	if who == "native" {
		// As inside a sandbox: the scheduler groups tasks by session (autogroup), and a client in the group of its
		// server is woken sooner.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	b.Must(cmd.Start())
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	return newWorker(b, who, in, out)
}

func newWorker(b *bench, who string, in io.Writer, out io.Reader) *worker {
	w := &worker{b: b, who: who, in: in, out: bufio.NewScanner(out)}
	w.out.Buffer(nil, 1<<20)
	return w
}

// do has the worker do something and returns its number.
func (w *worker) do(job string, n int, arg string) float64 { return w.list(job, n, arg)[0] }

// list has the worker do something and returns its numbers.
func (w *worker) list(job string, n int, arg string) []float64 {
	fmt.Fprintf(w.in, "%s %d %s\n", job, n, arg)
	if !w.out.Scan() {
		w.b.Fatalf("the worker %s is gone: %v", w.who, w.out.Err())
	}
	var list []float64
	for word := range strings.FieldsSeq(w.out.Text()) {
		v, err := strconv.ParseFloat(word, 64)
		if err != nil {
			w.b.Fatalf("%s: %s %s: %s", w.who, job, arg, w.out.Text())
		}
		list = append(list, v)
	}
	return list
}
