package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"net"
	"strconv"
	"time"
)

// cutter writes its first message in pieces of size bytes, each its own TCP segment.
type cutter struct {
	net.Conn
	size int
	done bool
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.done {
		return c.Conn.Write(b)
	}
	c.done = true
	for i := 0; i < len(b); i += c.size {
		if _, err := c.Conn.Write(b[i:min(i+c.size, len(b))]); err != nil {
			return i, err
		}
		time.Sleep(2 * time.Millisecond) // a pause, so that the kernel doesn't join the segments
	}
	return len(b), nil
}

// recorder puts its first message, one handshake record, into records of size bytes each.
type recorder struct {
	net.Conn
	size int
	done bool
}

func (r *recorder) Write(b []byte) (int, error) {
	const header = 5
	if r.done || len(b) < header {
		return r.Conn.Write(b)
	}
	r.done = true
	var out []byte
	for body := b[header:]; len(body) > 0; {
		n := min(r.size, len(body))
		out = append(out, b[:3]...)
		out = binary.BigEndian.AppendUint16(out, uint16(n))
		out = append(out, body[:n]...)
		body = body[n:]
	}
	if _, err := r.Conn.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

func wrapped(w []string, wrap func(net.Conn, int) net.Conn) (string, error) {
	size, err := strconv.Atoi(w[4])
	if err != nil {
		return "", err
	}
	c, err := dial(w[1], w[2])
	if err != nil {
		return "", err
	}
	defer c.Close()
	return handshake(wrap(c, size), &tls.Config{ServerName: w[3]})
}

func tlsCut(w []string) (string, error) {
	return wrapped(w, func(c net.Conn, n int) net.Conn { return &cutter{Conn: c, size: n} })
}

func tlsRec(w []string) (string, error) {
	return wrapped(w, func(c net.Conn, n int) net.Conn { return &recorder{Conn: c, size: n} })
}

func ech(w []string) (string, error) {
	list, err := base64.StdEncoding.DecodeString(w[4])
	if err != nil {
		return "", err
	}
	c, err := dial(w[1], w[2])
	if err != nil {
		return "", err
	}
	defer c.Close()
	return handshake(c, &tls.Config{ServerName: w[3], EncryptedClientHelloConfigList: list, MinVersion: tls.VersionTLS13})
}
