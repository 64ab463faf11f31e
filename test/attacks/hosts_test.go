//go:build e2e

package attacks

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"golang.org/x/sys/unix"
)

// The internet of the suite, made once. ok may be reached, other may not; rebind may, and its answers change.
const (
	okName     = "ok.net.attacks.test"
	otherName  = "other.net.attacks.test"
	rebindName = "rebind.net.attacks.test"
	mixedName  = "mixed.net.attacks.test"
	frontName  = "front.net.attacks.test"
	localPort  = 4432
)

var internet struct {
	vars              map[string]string
	other, local, ssh *harness.Server
	rebound           atomic.Int32
}

var (
	metadata = netip.MustParseAddr("169.254.169.254")
	loopback = netip.MustParseAddr("127.0.0.1")
	private  = netip.MustParseAddr("10.9.0.77")
)

func makeInternet(t *testing.T) {
	w := harness.W
	ok4, _ := w.Addr()
	other4, other6 := w.Addr()
	w.DNS.Set(okName, ok4)
	w.DNS.Set(frontName, ok4)
	w.DNS.Set(otherName, other4)
	nobody, _ := w.Addr()
	w.DNS.Set(mixedName, nobody, loopback)
	w.DNS.SetFunc(rebindName, func() []netip.Addr {
		if internet.rebound.Add(1) <= 2 { // A and AAAA of the first look-up
			return []netip.Addr{ok4}
		}
		return []netip.Addr{loopback}
	})
	from := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/to-metadata":
			http.Redirect(w, r, "http://"+metadata.String()+"/", http.StatusFound)
		case "/to-other":
			http.Redirect(w, r, "http://"+otherName+"/", http.StatusFound)
		default:
			fmt.Fprintf(w, "hello from-%s", r.Host)
		}
	})
	key, list, err := harness.ECH(okName)
	if err != nil {
		t.Fatal(err)
	}
	w.HTTPS(t, ok4, 443, from)
	w.HTTPS(t, ok4, 4443, from, key)
	w.HTTP(t, ok4, 80, from)
	w.HTTP(t, ok4, 81, from)
	for _, port := range []uint16{7000, 7001, 7010, 7011, localPort} {
		w.TCP(t, ok4, port)
	}
	internet.ssh = w.TCP(t, ok4, 8443)
	internet.other = w.TCP(t, other4, 7000)
	w.TCP(t, other6, 7000)
	w.TCP(t, other4, 20000)
	w.HTTP(t, other4, 80, from)
	w.HTTPS(t, other4, 443, from)
	w.HTTP(t, metadata, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "metadata") }))
	w.TCP(t, private, localPort)
	w.TCP(t, metadata, localPort)
	internet.local = w.TCP(t, loopback, localPort)
	w.TCP(t, harness.Resolver.Addr(), 853)
	b := other4.As4()
	number := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	internet.vars = map[string]string{
		"{ok4}": ok4.String(), "{other4}": other4.String(), "{other6}": other6.String(), "{private}": private.String(), "{localport}": fmt.Sprint(localPort), "{localhex}": fmt.Sprintf("%04X", localPort),
		"{decimal}": fmt.Sprint(number), "{hex}": fmt.Sprintf("0x%x", number), "{octal}": fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]),
		"{short}": fmt.Sprintf("%d.%d.%d", b[0], b[1], uint32(b[2])<<8|uint32(b[3])), "{ech}": base64.StdEncoding.EncodeToString(list), "{proxy}": openProxy(t),
	}
}

// openProxy is a proxy that connects to whatever it is asked for, as an unsuspecting company has one. It returns its address.
func openProxy(t *testing.T) string {
	a4, _ := harness.W.Addr()
	l, err := net.Listen("tcp", netip.AddrPortFrom(a4, 3128).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				up, err := net.Dial("tcp", r.Host)
				if err != nil {
					return
				}
				defer up.Close()
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
			}()
		}
	}()
	return a4.String()
}

// hosts tells a plane of the internet, and gives it a program that connects as a C library spells addresses.
func hosts(p *place) {
	for name, value := range internet.vars {
		p.vars[name] = value
	}
	const connect = "import socket, sys\nsocket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
	if err := os.WriteFile(filepath.Join(p.ws, "connect.py"), []byte(connect), 0o644); err != nil {
		p.Fatal(err)
	}
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// request packs the lines of an HTTP request.
func request(lines ...string) string { return b64(strings.Join(lines, "\r\n") + "\r\n\r\n") }

// spoken packs what an attempt says: {say} is the token.
func spoken(s *scene) { s.set("say", b64(s.token)) }

func toOther(s *scene, _ string) bool { return strings.Contains(internet.other.Bytes(), s.token) }
func toLocal(s *scene, _ string) bool { return strings.Contains(internet.local.Bytes(), s.token) }
func toSSH(s *scene, _ string) bool   { return strings.Contains(internet.ssh.Bytes(), s.token) }

// serveUnix lets a program of the host listen at a path, or, with an @, at an abstract name.
func serveUnix(s *scene, path string, answer func(*scene, *net.UnixConn)) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { l.Close() })
	if path[0] != '@' {
		if err := os.Chmod(path, 0o666); err != nil {
			s.Fatal(err)
		}
	}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			answer(s, c)
			c.Close()
		}
	}()
}

func greet(s *scene, c *net.UnixConn) { _, _ = io.WriteString(c, s.token) }

// give passes a descriptor of {out}/secret.
func give(s *scene, c *net.UnixConn) {
	f, err := os.Open(filepath.Join(s.out(), "secret"))
	if err != nil {
		return
	}
	defer f.Close()
	_, _, _ = c.WriteMsgUnix([]byte("x"), unix.UnixRights(int(f.Fd())), nil)
}

// The directories of /var/tmp have names too long for a socket's address, so a host's socket lies below /tmp and is moved.
func socketIn(dir func(*scene) string, answer func(*scene, *net.UnixConn)) func(*scene) {
	return func(s *scene) {
		short := filepath.Join(os.TempDir(), "na-"+s.token)
		serveUnix(s, short, answer)
		if err := os.Rename(short, filepath.Join(dir(s), "sock")); err != nil {
			s.Fatal(err)
		}
	}
}

// mailbox is a host's socket in the workspace that takes datagrams.
func mailbox(s *scene) {
	short := filepath.Join(os.TempDir(), "na-"+s.token)
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: short, Net: "unixgram"})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { l.Close() })
	if err := errors.Join(os.Chmod(short, 0o666), os.Rename(short, filepath.Join(s.ws, "sock"))); err != nil {
		s.Fatal(err)
	}
	s.mail = l
}

// delivered: the mailbox has the token.
func delivered(s *scene, _ string) bool {
	buf := make([]byte, 256)
	_ = s.mail.SetReadDeadline(time.Now().Add(time.Second))
	n, err := s.mail.Read(buf)
	return err == nil && string(buf[:n]) == s.token
}

func inOut(s *scene) string       { return s.out() }
func inWorkspace(s *scene) string { return s.ws }

func abstract(s *scene) {
	s.set("abstract", "@"+s.token)
	serveUnix(s, "@"+s.token, greet)
}
