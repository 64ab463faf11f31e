package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds one attempt: longer than anything that is refused may take, shorter than a test.
const patience = 20 * time.Second

var netAttempts = map[string]attempt{
	"tcp":        tcp,                                                                                         // tcp ADDR PORT
	"tcp-to":     tcpTo,                                                                                       // tcp-to NAME PORT: resolve, then connect to each address in turn
	"from":       from,                                                                                        // from SRCADDR ADDR PORT: bind, then connect
	"listen":     listen,                                                                                      // listen ADDR PORT: bind and listen
	"loop":       loop,                                                                                        // loop ADDR: a server and a client of the sandbox's own
	"udp":        udp,                                                                                         // udp ADDR PORT: an unconnected sendto
	"udpconn":    udpconn,                                                                                     // udpconn ADDR PORT: connect, then send
	"dns":        query,                                                                                       // dns SERVER NAME TYPE: an unconnected query; the answer must come from SERVER
	"dns-option": odd, "dns-class": odd, "dns-two": odd, "dns-update": odd, "dns-notify": odd, "dns-tcp": odd, // SERVER NAME ...
	"lookup":  lookup,                                                                      // lookup NAME
	"lookups": lookups,                                                                     // lookups FROM TO ZONE
	"get":     get,                                                                         // get URL: HTTP or HTTPS, no proxy
	"tls":     tlsTo,                                                                       // tls HOST PORT SNI: handshake and one HEAD request
	"tls-cut": tlsCut,                                                                      // tls-cut HOST PORT SNI BYTES: the ClientHello in segments of BYTES
	"tls-rec": tlsRec,                                                                      // tls-rec HOST PORT SNI BYTES: the ClientHello in records of BYTES
	"ech":     ech,                                                                         // ech HOST PORT INNERNAME ECHCONFIGLIST(base64)
	"say":     say,                                                                         // say HOST PORT PAYLOAD(base64): send, close the write side, show what comes back
	"reach":   func(w []string) (string, error) { return some(say(w)) },                    // as say; no answer is a failure
	"await":   func(w []string) (string, error) { return some(sayWithin(w, time.Minute)) }, // as reach; somebody has to allow it first
	"sleep-then": func(w []string) (string, error) { // sleep-then DURATION say ...
		if _, err := pause(w); err != nil {
			return "", err
		}
		return some(say(w[2:]))
	},
	"talk": talk, // talk HOST PORT FILE: goes on with one connection until it ends; FILE has how often it was answered, and how it ended
	"chat": chat, // chat HOST PORT PAYLOAD(base64)...: send each and read what comes within a second
	"hold": hold, // hold HOST PORT COUNT: open COUNT connections at once, show how many worked
	"fastopen": func(w []string) (string, error) { // fastopen ADDR PORT: data in the SYN
		a, err := addrPort(w[1], w[2])
		if err != nil {
			return "", err
		}
		fd, err := unix.Socket(family(a.Addr()), unix.SOCK_STREAM, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		return "", unix.Sendto(fd, []byte("hello"), unix.MSG_FASTOPEN, sockaddr(a))
	},
}

func addrPort(a, p string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(a)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(p, 10, 16)
	return netip.AddrPortFrom(addr, uint16(port)), err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func connect(kind int, a netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(a.Addr()), kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	err = unix.Connect(fd, sockaddr(a))
	if errors.Is(err, unix.EINTR) { // by Go's scheduler, since it took its time: it goes on meanwhile
		err = connected(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// connected waits for the end of an interrupted connect.
func connected(fd int) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(p, int(patience.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil || code == 0 {
			return err
		}
		return syscall.Errno(code)
	}
}

func tcp(w []string) (string, error) {
	a, err := addrPort(w[1], w[2])
	if err != nil {
		return "", err
	}
	fd, err := connect(unix.SOCK_STREAM, a)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return "connected", nil
}

func tcpTo(w []string) (string, error) {
	addrs, err := resolve(w[1])
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if _, err = tcp([]string{"", a.String(), w[2]}); err == nil {
			return a.String(), nil
		}
	}
	return fmt.Sprint(addrs), err
}

func from(w []string) (string, error) {
	src, err := addrPort(w[1], "0")
	if err != nil {
		return "", err
	}
	dst, err := addrPort(w[2], w[3])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(family(src.Addr()), unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(src)); err != nil {
		return "bind", err
	}
	return "connect", unix.Connect(fd, sockaddr(dst))
}

func listen(w []string) (string, error) {
	a, err := addrPort(w[1], w[2])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(family(a.Addr()), unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(a)); err != nil {
		return "bind", err
	}
	return "listen", unix.Listen(fd, 1)
}

func loop(w []string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(w[1], "0"))
	if err != nil {
		return "", err
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			fmt.Fprint(c, "own server")
			c.Close()
		}
	}()
	c, err := net.DialTimeout("tcp", l.Addr().String(), patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

func udp(w []string) (string, error) {
	a, err := addrPort(w[1], w[2])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(family(a.Addr()), unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return "", unix.Sendto(fd, []byte("probe"), 0, sockaddr(a))
}

func udpconn(w []string) (string, error) {
	a, err := addrPort(w[1], w[2])
	if err != nil {
		return "", err
	}
	fd, err := connect(unix.SOCK_DGRAM, a)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("probe"))
	return "", err
}

func resolve(host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

func lookup(w []string) (string, error) {
	addrs, err := resolve(w[1])
	return strings.Trim(fmt.Sprint(addrs), "[]"), err
}

func get(w []string) (string, error) {
	client := &http.Client{Transport: &http.Transport{Proxy: nil}, Timeout: patience}
	r, err := client.Get(w[1])
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.Status + " " + string(b), err
}

func dial(host, port string) (net.Conn, error) { return dialWithin(host, port, patience) }

func dialWithin(host, port string, limit time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: limit}
	c, err := d.Dial("tcp", net.JoinHostPort(host, port))
	if err == nil {
		err = c.SetDeadline(time.Now().Add(limit))
	}
	return c, err
}

func say(w []string) (string, error) { return sayWithin(w, patience) }

func sayWithin(w []string, limit time.Duration) (string, error) {
	out, err := saidTo(w, limit)
	// A peer that has gone shows in whatever call comes next.
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EPIPE) {
		err = unix.ECONNRESET
	}
	return out, err
}

func saidTo(w []string, limit time.Duration) (string, error) {
	c, err := dialWithin(w[1], w[2], limit)
	if err != nil {
		return "", err
	}
	defer c.Close()
	payload, err := base64.StdEncoding.DecodeString(w[3])
	if err != nil {
		return "", err
	}
	if _, err := c.Write(payload); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func talk(w []string) (string, error) {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(w[1], w[2]), patience)
	for n := 0; ; n++ {
		said := strconv.Itoa(n)
		if err != nil {
			said = "ended: " + name(err)
		}
		if e := os.WriteFile(w[3]+".new", []byte(said), 0o644); e != nil {
			return "", e
		}
		if e := os.Rename(w[3]+".new", w[3]); e != nil || err != nil {
			return said, e
		}
		time.Sleep(10 * time.Millisecond)
		if _, err = c.Write([]byte{'x'}); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
	}
}

func chat(w []string) (string, error) {
	c, err := dial(w[1], w[2])
	if err != nil {
		return "", err
	}
	defer c.Close()
	var all strings.Builder
	buf := make([]byte, 64<<10)
	for _, word := range w[3:] {
		payload, err := base64.StdEncoding.DecodeString(word)
		if err != nil {
			return all.String(), err
		}
		if _, err := c.Write(payload); err != nil {
			return all.String(), err
		}
		for {
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, err := c.Read(buf)
			all.Write(buf[:n])
			if err != nil {
				break
			}
		}
	}
	return all.String(), nil
}

func hold(w []string) (string, error) {
	count, err := strconv.Atoi(w[3])
	if err != nil {
		return "", err
	}
	addrs, err := resolve(w[1])
	if err != nil {
		return "", err
	}
	a, err := addrPort(addrs[0].String(), w[2])
	if err != nil {
		return "", err
	}
	var open []int
	defer func() {
		for _, fd := range open {
			unix.Close(fd)
		}
		time.Sleep(2 * time.Second) // what comes next is not to meet a cap that these still fill on a busy machine
	}()
	// What the other side has closed meanwhile is not open at once with the rest: it is replaced, some times.
	var last error
	for range 5 {
		for range count - len(open) {
			fd, err := connect(unix.SOCK_STREAM, a)
			if err != nil {
				last = err
				continue
			}
			open = append(open, fd)
		}
		open = slices.DeleteFunc(open, hungUp)
		if last != nil || len(open) == count {
			break
		}
	}
	return strconv.Itoa(len(open)), last
}

// hungUp reports whether a connection has ended, and then closes it.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(p, 0); err != nil || n == 0 {
		return false
	}
	unix.Close(fd)
	return true
}

func handshake(c net.Conn, conf *tls.Config) (string, error) {
	t := tls.Client(c, conf)
	if err := t.Handshake(); err != nil {
		return "", err
	}
	host := conf.ServerName
	if _, err := fmt.Fprintf(t, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return "", err
	}
	b, err := io.ReadAll(t)
	return string(b), err
}

func tlsTo(w []string) (string, error) {
	c, err := dial(w[1], w[2])
	if err != nil {
		return "", err
	}
	defer c.Close()
	return handshake(c, &tls.Config{ServerName: w[3], InsecureSkipVerify: w[3] == "-"})
}
