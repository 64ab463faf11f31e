package main

import (
	"bufio"
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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// jobs are what a worker can measure. Each does something n times and returns microseconds per time, or answers per second.
var jobs = map[string]func(arg string, n int) (float64, error){
	"open": func(path string, n int) (float64, error) {
		return each(n, func() error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	},
	"stat": func(path string, n int) (float64, error) {
		var st unix.Stat_t
		return each(n, func() error { return unix.Stat(path, &st) })
	},
	"exec": func(command string, n int) (float64, error) {
		argv := strings.Fields(command)
		return each(n, func() error { return exec.Command(argv[0], argv[1:]...).Run() })
	},
	"keepalive": func(url string, n int) (float64, error) {
		client := newClient(true)
		defer client.CloseIdleConnections()
		if err := fetch(client, url); err != nil { // the connection is not part of it
			return 0, err
		}
		return each(n, func() error { return fetch(client, url) })
	},
	"connect": func(url string, n int) (float64, error) {
		client := newClient(false)
		if err := fetch(client, url); err != nil { // nor is the look-up
			return 0, err
		}
		return each(n, func() error { return fetch(client, url) })
	},
	"body": func(url string, n int) (float64, error) {
		client := newClient(true)
		defer client.CloseIdleConnections()
		if err := fetch(client, url); err != nil {
			return 0, err
		}
		return each(n, func() error { return fetch(client, url) })
	},
	"dns":  askDNS,
	"hold": hold,
	// Whether a connection can be made.
	"reach": func(addr string, _ int) (float64, error) {
		c, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			return 0, nil //nolint:nilerr // that is the answer
		}
		return 1, c.Close()
	},
	// When a connection is refused that must be, in microseconds of the clock.
	"when": func(addr string, _ int) (float64, error) {
		start := time.Now().UnixMicro()
		if c, err := net.DialTimeout("tcp", addr, 10*time.Second); err == nil {
			return 0, errors.Join(c.Close(), fmt.Errorf("%s was reached", addr))
		}
		return float64(start), nil
	},
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
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: !keepAlive, DisableCompression: true, DialContext: dial}}
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
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	errs := make(chan error, sockets)
	start := time.Now()
	for range sockets {
		wg.Go(func() {
			if err := askOver(server, question, &left); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(n) / took.Seconds(), nil
	}
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

// work reads "job n arg..." lines and answers each with a number, or with "error ...".
func work() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.SplitN(in.Text(), " ", 3)
		n, err := strconv.Atoi(words[1])
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		v, err := jobs[words[0]](words[2], n)
		if err != nil {
			fmt.Println("error", err)
			continue
		}
		fmt.Println(v)
	}
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
	return &worker{b: b, who: who, in: in, out: bufio.NewScanner(out)}
}

func (w *worker) do(job string, n int, arg string) float64 {
	fmt.Fprintf(w.in, "%s %d %s\n", job, n, arg)
	if !w.out.Scan() {
		w.b.Fatalf("the worker %s is gone: %v", w.who, w.out.Err())
	}
	v, err := strconv.ParseFloat(w.out.Text(), 64)
	if err != nil {
		w.b.Fatalf("%s: %s %s: %s", w.who, job, arg, w.out.Text())
	}
	return v
}
