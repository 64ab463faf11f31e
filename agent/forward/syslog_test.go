package forward

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// message is one of RFC 5424, as a server reads it.
type message struct {
	priority int
	head     []string // time, host, application, process, message id
	element  string
	data     map[string]string
	text     string
}

// readFrame reads a length and so many bytes, as RFC 6587 says (octet counting).
func readFrame(in *bufio.Reader) ([]byte, error) {
	digits, err := in.ReadString(' ')
	if err != nil {
		if errors.Is(err, io.EOF) && digits != "" {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(digits, " "))
	if err != nil || n <= 0 || n > 1<<20 || digits[0] == '0' {
		return nil, fmt.Errorf("a frame of the length %q", digits)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(in, b)
	return b, err
}

var timestamp = regexp.MustCompile(`^(-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d))$`)

// readMessage reads a message by the letter of RFC 5424's grammar.
func readMessage(b []byte) (m message, err error) {
	s := string(b)
	bad := func(what string) (message, error) { return m, fmt.Errorf("%s in %.200q", what, b) }
	pri, s, ok := strings.Cut(strings.TrimPrefix(s, "<"), ">1 ")
	if m.priority, err = strconv.Atoi(pri); err != nil || !ok || m.priority > 191 || b[0] != '<' {
		return bad("no priority and version")
	}
	for _, limit := range []int{32, 255, 48, 128, 32} {
		var word string
		word, s, ok = strings.Cut(s, " ")
		if !ok || word == "" || len(word) > limit || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return bad("a field of the head")
		}
		m.head = append(m.head, word)
	}
	if !timestamp.MatchString(m.head[0]) {
		return bad("the time")
	}
	s, ok = strings.CutPrefix(s, "[")
	end := strings.IndexAny(s, " ]")
	if !ok || end <= 0 {
		return bad("no structured data")
	}
	m.element, s, m.data = s[:end], s[end:], map[string]string{}
	for strings.HasPrefix(s, " ") {
		name, rest, ok := strings.Cut(s[1:], `="`)
		if !ok || name == "" || len(name) > 32 || strings.ContainsAny(name, ` ]"=`) {
			return bad("a parameter's name")
		}
		var value strings.Builder
		i := 0
		for ; i < len(rest) && rest[i] != '"'; i++ {
			switch {
			case rest[i] == ']':
				return bad("a bracket in a parameter")
			case rest[i] == '\\' && i+1 < len(rest) && strings.IndexByte(`"\]`, rest[i+1]) >= 0:
				i++
			}
			value.WriteByte(rest[i])
		}
		if i == len(rest) || !utf8.ValidString(value.String()) {
			return bad("a parameter's value")
		}
		if _, twice := m.data[name]; twice {
			return bad("a parameter is there twice")
		}
		m.data[name], s = value.String(), rest[i+1:]
	}
	if m.text, ok = strings.CutPrefix(s, "] "); !ok {
		return bad("the end of the structured data")
	}
	if !utf8.Valid(b) || bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return bad("a character that is not printable")
	}
	return m, nil
}

// TestMessages: whatever is inside of a record, the message is one, and says what the record does.
func TestMessages(t *testing.T) {
	t.Parallel()
	for seq := uint64(1); seq <= 210; seq++ {
		for _, format := range []string{"json", "cef", "ocsf"} {
			r := recordOf(t, seq, format)
			b := appendFrame(nil, "host", &r)
			in := bufio.NewReader(bytes.NewReader(b))
			frame, err := readFrame(in)
			if err != nil {
				t.Fatal(err)
			}
			m, err := readMessage(frame)
			if err != nil {
				t.Fatal(err)
			}
			d := decision(seq)
			want := facility*8 + map[policy.Verdict]int{policy.Deny: 4, policy.Ask: 5, policy.Allow: 6}[d.Verdict]
			if m.priority != want || m.head[4] != string(d.Plane) || m.head[0] != d.Time.UTC().Format("2006-01-02T15:04:05.000000Z") || m.data["seq"] != fmt.Sprint(seq) ||
				m.data["hash"] != r.Hash || m.data["sandbox"] != "box" || m.data["verdict"] != d.Verdict.String() || len(m.data) != 4 {
				t.Errorf("%+v", m)
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Error("there is something after the message")
			}
			if format == "json" && m.text != string(r.body) {
				t.Errorf("%q", m.text)
			}
		}
	}
}

// TestWhatIsNoRecord in the log, since somebody wrote there, breaks no request.
func TestWhatIsNoRecord(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		`{"seq":5,"time":"x","sandbox":"]\\ [x","plane":"a b\n","x`, `{"seq":5,"time":"2026-01-01T00:00:00Z","sandbox":"a","plane":"dns"}]}` + "\r", "{\"seq\":5,\"time\":\"\",\"sandbox\":\"\xff\",\"plane\":\"\x00\"}",
		`{"seq":5,"time":"-999999999-01-01T00:00:00Z","sandbox":"","plane":"` + strings.Repeat("p", 1000) + `"}`,
	} {
		e, ok := audit.ReadEntry([]byte(line))
		if !ok {
			t.Fatalf("%q", line)
		}
		for _, format := range []string{"json", "cef", "ocsf"} {
			r := newRecord(e, []byte(line), format)
			if m, err := readMessage(appendMessage(nil, "h", &r)); err != nil || m.data["seq"] != "5" {
				t.Errorf("%v: %q", err, line)
			}
			for kind, k := range kinds {
				s, err := newReceiver(k.c("http://127.0.0.1:1", tokenFile(t, "s3cret")))
				if err != nil {
					t.Fatal(err)
				}
				body, err := s.(*server).dialect.request(nil, []record{r, recordOf(t, 6, "json")})
				if err != nil {
					t.Fatal(err)
				}
				if format == "cef" && kind == "elastic" {
					continue // it is refused by the configuration
				}
				var g got
				_, _, seqs, _ := k.read(&g, body)
				if len(seqs) != 2 || seqs[0] != 5 || seqs[1] != 6 {
					t.Errorf("%s reads %v of %.300q", kind, seqs, body)
				}
			}
		}
	}
}

// TestLongMessage: what no server takes is cut, and says so.
func TestLongMessage(t *testing.T) {
	t.Parallel()
	r := recordOf(t, 1, "json")
	r.body = []byte(`{"x":"` + strings.Repeat("é", maxMessage) + `"}`)
	b := appendMessage(nil, "h", &r)
	m, err := readMessage(b)
	if err != nil || len(m.text) > maxMessage || len(m.text) < maxMessage-4 || m.data["cut"] != strconv.Itoa(len(r.body)) {
		t.Errorf("%v: %d bytes, %v", err, len(m.text), m.data)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(`{"seq":5,"time":"2026-01-01T00:00:00Z","sandbox":"a","plane":"dns"}`, "host")
	f.Add(`{"seq":5,"time":"x","sandbox":"]\\","plane":" "}`, "\n")
	f.Fuzz(func(t *testing.T, line, host string) {
		e, ok := audit.ReadEntry([]byte(line))
		if !ok {
			return
		}
		r := newRecord(e, []byte(line), "json")
		in := bufio.NewReader(bytes.NewReader(appendFrame(nil, headerWord(host, 255), &r)))
		frame, err := readFrame(in)
		if err != nil {
			t.Fatal(err)
		}
		m, err := readMessage(frame)
		if err != nil || m.data["seq"] != fmt.Sprint(e.Seq) || m.data["verdict"] != e.Verdict.String() || in.Buffered() > 0 {
			t.Fatalf("%v: %+v", err, m)
		}
	})
}

// A habit is how a syslog server treats a connection.
type habit int

const (
	good     habit = iota // it reads to the end, and closes
	dies                  // it ends with something unread
	goes                  // it closes after some messages, in order
	hangs                 // it takes the connection and does nothing for a while, then ends
	refuses               // it ends at once
	habitSum              // how many there are
)

// oneRecord reads no more of a connection than the record of TLS that is being read. What a server has read and then forgets, the end of
// the connection among it, nobody can see; what it leaves to its kernel is answered with a reset.
type oneRecord struct {
	net.Conn
	head []byte
	left int
}

func (c *oneRecord) Read(p []byte) (int, error) {
	want := c.left
	if want == 0 {
		want = 5 - len(c.head)
	}
	n, err := c.Conn.Read(p[:min(len(p), want)])
	if c.left > 0 {
		c.left -= n
	} else if c.head = append(c.head, p[:n]...); len(c.head) == 5 {
		c.left, c.head = int(binary.BigEndian.Uint16(c.head[3:])), c.head[:0]
	}
	return n, err
}

// syslogServer reads strictly what comes, with a habit for each connection.
func syslogServer(t *testing.T, g *got, c *tls.Config, next func() habit) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended); l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				h := next()
				switch h {
				case refuses:
					return
				case hangs:
					select {
					case <-ended:
					case <-time.After(20 * time.Millisecond):
					}
					return
				}
				var from net.Conn = conn
				if c != nil {
					from = tls.Server(&oneRecord{Conn: conn}, c)
					defer from.Close()
				}
				in := bufio.NewReaderSize(from, 16)
				left := mathrand.IntN(400)
				for {
					if left--; left < 0 && h != good {
						return
					}
					frame, err := readFrame(in)
					if err != nil {
						if errors.Is(err, io.ErrUnexpectedEOF) == errors.Is(err, io.EOF) && c == nil {
							var op *net.OpError
							if !errors.As(err, &op) {
								g.fault("%v", err)
							}
						}
						return
					}
					m, err := readMessage(frame)
					if err != nil {
						g.fault("%v", err)
						return
					}
					seq, _ := strconv.ParseUint(m.data["seq"], 10, 64)
					g.inner(seq, []byte(m.text))
					g.add(seq, m.data["hash"])
					if h == dies && left == 5 {
						time.Sleep(2 * time.Millisecond) // more has come, and is acknowledged by the kernel
					}
				}
			})
		}
	})
	return l.Addr().String()
}

// certificate makes one for 127.0.0.1 and its file.
func certificate(t *testing.T, dir, name string) (pair tls.Certificate, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	certPEM, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := errors.Join(os.WriteFile(cert, certPEM, 0o600), os.WriteFile(key, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return pair, cert, key
}

// TestSyslogOutages: the server fails in every way that a server does, over TCP and TLS, though the protocol has no acknowledgements;
// in the end it has read all of the log.
func TestSyslogOutages(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			t.Parallel()
			tr := newTrail(t, audit.Options{Rotate: 200_000})
			var g got
			var n notes
			var mu sync.Mutex
			calm := false
			habits := func() habit {
				mu.Lock()
				defer mu.Unlock()
				if calm {
					return good
				}
				return habit(mathrand.IntN(int(habitSum)))
			}
			c := config.Forward{}
			if secure {
				dir := t.TempDir()
				pair, cert, _ := certificate(t, dir, "server")
				_, theirs, key := certificate(t, dir, "client")
				clients := x509.NewCertPool()
				text, err := os.ReadFile(theirs)
				if err != nil || !clients.AppendCertsFromPEM(text) {
					t.Fatal(err)
				}
				c = config.Forward{Syslog: "tls://" + syslogServer(t, &g, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}, habits), Server: config.Server{CA: cert, Cert: theirs, Key: key}}
			} else {
				c.Syslog = "tcp://" + syslogServer(t, &g, nil, habits)
			}
			all := open(t, c, t.TempDir(), &n)
			defer start(t, all, tr.Writer)()
			for range 30 {
				tr.write(100)
				time.Sleep(5 * time.Millisecond)
			}
			mu.Lock()
			calm = true
			mu.Unlock()
			until(t, "all is there", func() bool { return all.Forwarded() == tr.Head().Seq })
			g.check(t, tr)
			t.Logf("%d of %d came more than once", g.dups, g.count())
		})
	}
}

// TestWhoClosesFirst: a server that has closed before our records came has not read them, though the end that it sent is read after
// they were.
func TestWhoClosesFirst(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone := make(chan struct{})
	go func() {
		for range 2 {
			if conn, err := l.Accept(); err == nil {
				_, _ = conn.Read(make([]byte, 1<<20))
				conn.Close()
				gone <- struct{}{}
			}
		}
	}()
	s, err := newSyslog(config.Forward{Syslog: "tcp://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.send(t.Context(), []record{recordOf(t, 1, "json")}); err != nil {
		t.Fatal(err)
	}
	<-gone
	if err := s.settle(t.Context()); err == nil {
		t.Error("it is settled, though the server did not wait for our end")
	}
	if err := s.settle(t.Context()); err == nil {
		t.Error("it is settled the second time")
	}
	if err := s.send(t.Context(), []record{recordOf(t, 1, "json")}); err != nil {
		t.Fatal(err)
	}
	<-gone
	err = s.send(t.Context(), []record{recordOf(t, 2, "json")})
	if err == nil {
		err = s.settle(t.Context())
	}
	if err == nil {
		t.Error("what came after the server's end is settled")
	}
}

// TestSyslogTrust: a server whose certificate does not verify gets nothing, nor does one that wants ours and may not have it.
func TestSyslogTrust(t *testing.T) {
	t.Parallel()
	var g got
	dir := t.TempDir()
	pair, cert, _ := certificate(t, dir, "server")
	_, other, _ := certificate(t, dir, "other")
	at := "tls://" + syslogServer(t, &g, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}, func() habit { return good })
	for _, c := range []config.Forward{{Syslog: at}, {Syslog: at, Server: config.Server{CA: other}}, {Syslog: strings.Replace(at, "127.0.0.1", "localhost", 1), Server: config.Server{CA: cert}}, {Syslog: at, Server: config.Server{CA: cert}}} {
		s, err := newSyslog(c)
		if err != nil {
			t.Fatal(err)
		}
		err = s.send(t.Context(), []record{recordOf(t, 1, "json")})
		if err == nil {
			err = s.settle(t.Context())
		}
		if err == nil || g.count() > 0 {
			t.Errorf("%+v: %v, %d came", c, err, g.count())
		}
	}
}
