package dnsproxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// The comparison of BenchmarkAgainst runs each party in a process of its own: this test binary, started again with
// roleVariable set, is the origin server, our proxy or a naive one.
const roleVariable = "DNSPROXY_BENCH_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := playRole(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// playRole serves until its standard input ends. It prints the address it listens on.
func playRole(role string) error {
	kind, to, _ := strings.Cut(role, " ")
	if kind == "dns" {
		return playDNS()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	switch kind {
	case "origin":
		big := make([]byte, 16<<20)
		mux := http.NewServeMux()
		mux.HandleFunc("/small", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "hello, world\n") })
		mux.HandleFunc("/close", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Connection", "close")
			_, _ = io.WriteString(rw, "hello, world\n")
		})
		mux.HandleFunc("/big", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(big)))
			_, _ = rw.Write(big)
		})
		return http.Serve(l, mux)
	case "naive":
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go naive(c, to)
		}
	default:
		return playProxy(l, kind, to)
	}
}

func naive(c net.Conn, to string) {
	defer c.Close()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
	_ = c.(*net.TCPConn).CloseWrite()
}

// playProxy runs the real proxy; every connection is taken as one to bench.example.
func playProxy(l net.Listener, protocol, to string) error {
	target := netip.MustParseAddrPort(to)
	yaml := fmt.Sprintf("network:\n  allow:\n    - domain: bench.example\n      ports: [%d]\n      protocol: %s\n    - cidr: 127.0.0.0/8\n      ports: [%d]\n      protocol: tcp\n", target.Port(), protocol, target.Port())
	p, err := policy.Parse("bench.yaml", []byte(yaml))
	if err != nil {
		return err
	}
	c, err := policy.Compile(p)
	if err != nil {
		return err
	}
	loops, _ := strconv.Atoi(os.Getenv("LOOPS"))
	s, err := New(Config{
		Policy:   c,
		Identify: func(client, local netip.AddrPort) (Peer, bool) { return Peer{}, true },
		Record:   func(policy.Decision) {},
		MaxConns: 4096,
		Loops:    loops,
	})
	if err != nil {
		return err
	}
	s.names.put("bench.example", cachedName{Addresses: Addresses{IPv4: []netip.Addr{target.Addr()}}, until: never})
	a4, _, _ := s.book.lookup("bench.example")
	s.wanted = func(fd int, _ netip.AddrPort) (netip.AddrPort, error) {
		_, err := sysLocal(fd) // the real cost
		return netip.AddrPortFrom(a4, target.Port()), err
	}
	return s.ServeTCP(l)
}

// contender is a process of the comparison.
type contender struct {
	name, addr string
	pid        int
	best       float64       // requests per second
	cpu        time.Duration // spent by the process in all rounds
	requests   float64
}

// party starts this binary in a role.
func party(b *testing.B, name, role string) *contender {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		b.Fatal(err)
	}
	return &contender{name: name, addr: strings.TrimSpace(string(line[:n])), pid: cmd.Process.Pid}
}

// cpuTime is what a process has used of the processors, to a hundredth of a second.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	sys, _ := strconv.Atoi(f[12])
	return time.Duration(user+sys) * 10 * time.Millisecond
}

func haproxy(b *testing.B, to string) *contender {
	b.Helper()
	path, err := exec.LookPath("haproxy")
	if err != nil {
		path = "/usr/sbin/haproxy"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	conf := filepath.Join(b.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf("global\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\nlisten x\n  bind %s\n  server s %s\n", addr, to)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, "-db", "-q", "-f", conf)
	if err := cmd.Start(); err != nil {
		b.Skipf("haproxy: %v", err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return &contender{name: "haproxy", addr: addr, pid: cmd.Process.Pid}
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Fatal("haproxy does not listen")
	return nil
}

var requestsPerSecond = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

func wrk(b *testing.B, conns int, seconds, url string) float64 {
	b.Helper()
	out, err := exec.Command("wrk", "-t1", "-c"+strconv.Itoa(conns), "-d"+seconds, "-H", "Host: bench.example", url).CombinedOutput()
	m := requestsPerSecond.FindSubmatch(out)
	if err != nil || m == nil {
		b.Skipf("wrk: %v %s", err, out)
	}
	if i := bytes.Index(out, []byte("Non-2xx")); i >= 0 {
		b.Fatalf("%s", out[i:])
	}
	v, _ := strconv.ParseFloat(string(m[1]), 64)
	return v
}

// BenchmarkAgainst prints how much longer a request takes than directly, for our proxy (tcp and http rules), HAProxy in TCP
// mode and a naive proxy, all in one run, in turns, the best round of each; and the processor time that each proxy spent on
// a request, which other work on the machine disturbs less.
func BenchmarkAgainst(b *testing.B) {
	if b.N > 1 {
		return
	}
	origin := party(b, "direct", "origin")
	all := []*contender{origin, haproxy(b, origin.addr), party(b, "ours-tcp", "tcp "+origin.addr), party(b, "ours-http", "http "+origin.addr), party(b, "naive", "naive "+origin.addr)}
	const rounds = 5
	fmt.Printf("\n%-14s%10s", "ratio (cpu us)", "direct/s")
	for _, p := range all[1:] {
		fmt.Printf("%18s", p.name)
	}
	fmt.Printf("   %d processors\n", runtime.NumCPU())
	for _, load := range []struct {
		name, path string
		conns      int
	}{{"keep-alive 1", "/small", 1}, {"keep-alive 16", "/small", 16}, {"keep-alive 64", "/small", 64}, {"connection", "/close", 8}, {"16 MiB", "/big", 1}, {"16 MiB x4", "/big", 4}} {
		if only := os.Getenv("LOAD"); only != "" && !strings.Contains(only, load.name+";") {
			continue
		}
		for _, p := range all {
			p.best, p.cpu, p.requests = 0, 0, 0
		}
		for range rounds {
			for _, p := range all {
				before := cpuTime(b, p.pid)
				rate := wrk(b, load.conns, "1s", "http://"+p.addr+load.path)
				p.cpu += cpuTime(b, p.pid) - before
				p.requests += rate
				p.best = max(p.best, rate)
			}
		}
		fmt.Printf("%-14s%10.0f", load.name, origin.best)
		for _, p := range all[1:] {
			fmt.Printf("%8.2fx (%6.1f)", origin.best/p.best, float64(p.cpu.Microseconds())/p.requests)
		}
		fmt.Println()
	}
}

// benchNames are asked of both DNS servers.
func benchNames() []string {
	var out []string
	for i := range 100 {
		out = append(out, fmt.Sprintf("host%d.bench.example", i))
	}
	return out
}

// playDNS answers for benchNames until standard input ends.
func playDNS() error {
	var yaml strings.Builder
	yaml.WriteString("network:\n  allow:\n")
	for _, n := range benchNames() {
		fmt.Fprintf(&yaml, "    - domain: %s\n      ports: [443]\n      protocol: https\n", n)
	}
	p, err := policy.Parse("bench.yaml", []byte(yaml.String()))
	if err != nil {
		return err
	}
	c, err := policy.Compile(p)
	if err != nil {
		return err
	}
	s, err := New(Config{
		Policy:   c,
		Identify: func(client, local netip.AddrPort) (Peer, bool) { return Peer{}, true },
		Record:   func(policy.Decision) {},
	})
	if err != nil {
		return err
	}
	for _, n := range benchNames() {
		s.names.put(n, cachedName{Addresses: Addresses{IPv4: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}, until: never})
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(pc.LocalAddr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return s.ServeDNS(pc)
}

func dnsmasq(b *testing.B) *contender {
	b.Helper()
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		path = "/usr/sbin/dnsmasq"
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	pc.Close()
	hosts := filepath.Join(b.TempDir(), "hosts")
	var text strings.Builder
	for i, n := range benchNames() {
		fmt.Fprintf(&text, "203.0.113.%d %s\n", i+1, n)
	}
	if err := os.WriteFile(hosts, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(path, "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts", "--addn-hosts="+hosts,
		"--listen-address=127.0.0.1", "--bind-interfaces", "--port="+port)
	if err := cmd.Start(); err != nil {
		b.Skipf("dnsmasq: %v", err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	time.Sleep(300 * time.Millisecond)
	return &contender{name: "dnsmasq", addr: addr, pid: cmd.Process.Pid}
}

var queriesPerSecond = regexp.MustCompile(`Queries per second:\s+([0-9.]+)`)

// BenchmarkDNSAgainst prints answers per second from memory, ours and dnsmasq's, the best round of each, and the processor
// time of an answer.
func BenchmarkDNSAgainst(b *testing.B) {
	if b.N > 1 {
		return
	}
	both := []*contender{dnsmasq(b), party(b, "ours", "dns")}
	data := filepath.Join(b.TempDir(), "queries")
	if err := os.WriteFile(data, []byte(strings.Join(benchNames(), " A\n")+" A\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	for range 5 {
		for _, p := range both {
			_, port, _ := net.SplitHostPort(p.addr)
			before := cpuTime(b, p.pid)
			out, err := exec.Command("dnsperf", "-s", "127.0.0.1", "-p", port, "-d", data, "-l", "1", "-c", "4", "-q", "200").CombinedOutput()
			m := queriesPerSecond.FindSubmatch(out)
			if err != nil || m == nil || !bytes.Contains(out, []byte("NOERROR")) {
				b.Fatalf("dnsperf: %v %s", err, out)
			}
			rate, _ := strconv.ParseFloat(string(m[1]), 64)
			p.best, p.requests, p.cpu = max(p.best, rate), p.requests+rate, p.cpu+cpuTime(b, p.pid)-before
		}
	}
	for _, p := range both {
		fmt.Printf("%-10s %8.0f answers/s  %5.2f us of processor each  %.2fx dnsmasq\n", p.name, p.best, float64(p.cpu.Microseconds())/p.requests, p.best/both[0].best)
	}
}

// BenchmarkDNSFromMemory is one answer without the sockets.
func BenchmarkDNSFromMemory(b *testing.B) {
	w := dnsWorld(b)
	w.ask("both.example", 1)
	pkt := append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, append(packName("BOTH.example"), 0, 1, 0, 1)...)
	var q query
	out := make([]byte, 0, ednsSize)
	b.ReportAllocs()
	for b.Loop() {
		if q.parse(pkt) != parseOK {
			b.Fatal("not parsed")
		}
		a := w.s.quick(&q, w.s.now())
		if a == nil {
			b.Fatal("not from memory")
		}
		out = a.pack(out[:0], &q, q.size)
	}
}

func BenchmarkClientHello(b *testing.B) {
	h := helloFor("registry.example.org")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseClientHello(h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequestHead(b *testing.B) {
	h := []byte("GET /path/to/something?x=y HTTP/1.1\r\nHost: web.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseRequestHead(h[:headEnd(h, 0)]); err != nil {
			b.Fatal(err)
		}
	}
}
