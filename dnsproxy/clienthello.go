package dnsproxy

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// TLS numbers used here: RFC 8446 and RFC 6066; ECH: RFC 9849.
const (
	recordAlert      = 21
	recordHandshake  = 22
	msgClientHello   = 1
	extServerName    = 0
	extECH           = 0xfe0d
	extECHOuter      = 0xfd00
	extESNI          = 0xffce // ECH's predecessor
	sniHostName      = 0
	recordHeader     = 5
	handshakeHeader  = 4
	maxRecord        = 1 << 14
	maxHelloRecords  = 64      // records one ClientHello may be split over
	maxHello         = 1 << 15 // bytes of the handshake message; the largest seen (post-quantum, many tickets) is about 4 KiB
	maxHelloBytes    = maxHello + maxHelloRecords*recordHeader
	alertAccess      = 49  // access_denied
	alertDecode      = 50  // decode_error
	alertUnrecognize = 112 // unrecognized_name
)

// hello is what a ClientHello says about its destination.
type hello struct {
	name string // canonical server name; "" when there is none
	ech  bool   // an ECH or ESNI extension is present, real or GREASE
	size int    // bytes that it takes of the connection, headers of records included
}

// The ways in which a ClientHello can be wrong. errHelloShort means that more bytes are needed.
var (
	errHelloShort    = errors.New("the ClientHello is not complete")
	errNotTLS        = errors.New("the first bytes are not a TLS ClientHello")
	errHelloBig      = errors.New("the ClientHello is larger or in more pieces than any real one")
	errHelloForm     = errors.New("the ClientHello is malformed")
	errHelloTrail    = errors.New("more handshake bytes follow the ClientHello in its record")
	errHelloTwice    = errors.New("the ClientHello repeats an extension")
	errHelloName     = errors.New("the ClientHello's server name is not a host name")
	errHelloNames    = errors.New("the ClientHello has more than one server name")
	errHelloNameIPv4 = errors.New("the ClientHello's server name is an IP address")
)

// parseClientHello reads the ClientHello that b, the first bytes of a connection, starts with. It may be split over records
// at any byte, and b may end anywhere: then the error is errHelloShort. Other errors are final.
func parseClientHello(b []byte) (hello, error) {
	var msg []byte // the handshake message, joined only when it is split
	want := -1     // its length with header, once known
	all := len(b)
	for n := 0; ; n++ {
		if n == maxHelloRecords {
			return hello{}, errHelloBig
		}
		if len(b) > 0 && b[0] != recordHandshake || len(b) > 1 && b[1] != 3 {
			return hello{}, errNotTLS
		}
		if len(b) < recordHeader {
			return hello{}, errHelloShort
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if size == 0 || size > maxRecord {
			return hello{}, errNotTLS
		}
		body := b[recordHeader:]
		whole := len(body) >= size
		if whole {
			body = body[:size]
		}
		if n == 0 {
			msg = body
		} else {
			msg = append(msg[:len(msg):len(msg)], body...)
		}
		if len(msg) > 0 && msg[0] != msgClientHello {
			return hello{}, errNotTLS
		}
		if want < 0 && len(msg) >= handshakeHeader {
			want = handshakeHeader + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3])
			if want > maxHello {
				return hello{}, errHelloBig
			}
		}
		if want >= 0 && len(msg) > want {
			return hello{}, errHelloTrail
		}
		if !whole {
			return hello{}, errHelloShort
		}
		b = b[recordHeader+size:]
		if len(msg) == want {
			h, err := parseHelloBody(msg[handshakeHeader:])
			h.size = all - len(b)
			return h, err
		}
	}
}

// cursor reads length-prefixed fields; after a short read ok is false and everything it returns is empty.
type cursor struct {
	b  []byte
	ok bool
}

func (c *cursor) take(n int) []byte {
	if !c.ok || len(c.b) < n {
		c.ok = false
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) vector8() []byte {
	n := c.take(1)
	if !c.ok {
		return nil
	}
	return c.take(int(n[0]))
}

func (c *cursor) uint16() int {
	n := c.take(2)
	if !c.ok {
		return 0
	}
	return int(binary.BigEndian.Uint16(n))
}

func (c *cursor) vector16() []byte { return c.take(c.uint16()) }

func parseHelloBody(b []byte) (hello, error) {
	var h hello
	c := cursor{b: b, ok: true}
	c.take(2 + 32) // legacy_version, random
	session := c.vector8()
	suites := c.vector16()
	compression := c.vector8()
	if !c.ok || len(session) > 32 || len(suites) < 2 || len(suites)%2 != 0 || len(compression) < 1 {
		return h, errHelloForm
	}
	if len(c.b) == 0 {
		return h, nil // no extensions at all: TLS 1.2 allows it, and there is no name
	}
	exts := cursor{b: c.vector16(), ok: true}
	if !c.ok || len(c.b) != 0 {
		return h, errHelloForm
	}
	var seen [1 << 16 / 64]uint64
	for len(exts.b) > 0 {
		kind, data := exts.uint16(), exts.vector16()
		if !exts.ok {
			return h, errHelloForm
		}
		if seen[kind/64]&(1<<(kind%64)) != 0 {
			return h, errHelloTwice
		}
		seen[kind/64] |= 1 << (kind % 64)
		switch kind {
		case extServerName:
			name, err := parseServerName(data)
			if err != nil {
				return h, err
			}
			h.name = name
		case extECH, extECHOuter, extESNI:
			h.ech = true
		}
	}
	return h, nil
}

// parseServerName reads the server_name extension. RFC 6066 allows several names of different types; only one type
// exists, and a second entry could only serve to tell two parsers different things.
func parseServerName(data []byte) (string, error) {
	c := cursor{b: data, ok: true}
	list := cursor{b: c.vector16(), ok: true}
	if !c.ok || len(c.b) != 0 {
		return "", errHelloForm
	}
	kind, raw := list.take(1), []byte(nil)
	if list.ok {
		raw = list.vector16()
	}
	if !list.ok || len(raw) == 0 {
		return "", errHelloForm
	}
	if len(list.b) != 0 {
		return "", errHelloNames
	}
	if kind[0] != sniHostName {
		return "", errHelloForm
	}
	text := string(raw)
	if _, err := netip.ParseAddr(text); err == nil {
		return "", errHelloNameIPv4
	}
	name, ok := canonicalName(text)
	if !ok {
		return "", errHelloName
	}
	return name, nil
}

// tlsAlert is a fatal alert record. It is understood before any version is agreed on.
func tlsAlert(code byte) []byte {
	return []byte{recordAlert, 3, 3, 0, 2, 2, code}
}
