package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// A server may answer a ClientHello with a HelloRetryRequest, and the client then sends another ClientHello (RFC 8446,
// 4.1.4). Few servers compare the two, so without a look at the second one its server name could be any.

// retryRandom is the random of a ServerHello that is a HelloRetryRequest: RFC 8446, 4.1.3.
var retryRandom = []byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

const (
	recordChangeCipherSpec = 20
	recordApplicationData  = 23
	msgServerHello         = 2
	serverHelloStart       = handshakeHeader + 2 + 32 // up to the end of the random
)

// The ways in which what follows a ClientHello can be wrong.
var (
	errRetryName = errors.New("the client's second ClientHello, after a HelloRetryRequest, names another server than its first")
	errRetryECH  = errors.New("the client's second ClientHello, after a HelloRetryRequest, has an encrypted part (ECH) that the first had not")
	errRetryForm = errors.New("what followed the ClientHello is not TLS")
)

// helloRetry follows a TLS connection until no second ClientHello can come. The server's bytes go on as they come; a
// handshake record of the client's waits until the server's first message is known.
type helloRetry struct {
	first hello // the one that was judged
	pass  int   // bytes of the client's that may go on unseen: the first ClientHello, then records of no interest

	header  []byte // of the server's current record, incomplete
	record  int    // bytes that are left of it
	alert   bool   // it is an alert
	server  []byte // the start of the server's first message, joined
	decided bool   // the server's first message is known
	retry   bool   // it is a HelloRetryRequest
	over    bool   // nothing is left to look at
}

func newHelloRetry(h hello) *helloRetry { return &helloRetry{first: h, pass: h.size} }

// fromServer looks at what the server sends.
func (r *helloRetry) fromServer(b []byte) {
	for len(b) > 0 && !r.decided {
		if r.record == 0 {
			n := min(recordHeader-len(r.header), len(b))
			r.header = append(r.header, b[:n]...)
			b = b[n:]
			if len(r.header) < recordHeader {
				return
			}
			r.record = int(binary.BigEndian.Uint16(r.header[3:]))
			r.alert = r.header[0] == recordAlert
			if r.header[0] != recordHandshake && !r.alert || r.record == 0 {
				r.decide(false) // no TLS: the client's matter
				return
			}
			r.header = r.header[:0]
			continue
		}
		if r.alert { // a warning, with which some servers begin, or the end
			n := min(r.record, len(b))
			r.record -= n
			b = b[n:]
			continue
		}
		n := min(r.record, len(b), serverHelloStart-len(r.server))
		r.server = append(r.server, b[:n]...)
		r.record -= n
		b = b[n:]
		if len(r.server) == serverHelloStart {
			r.decide(r.server[0] == msgServerHello && bytes.Equal(r.server[handshakeHeader+2:], retryRandom))
		}
	}
}

func (r *helloRetry) decide(retry bool) {
	r.decided, r.retry = true, retry
	r.over = !retry
	r.server, r.header = nil, nil
}

// fromClient returns how many bytes of b, which begins with the client's first that have not gone on, may go on. errPause:
// the rest has to wait for the server; errHelloShort: for the client. Any other error is final.
func (r *helloRetry) fromClient(b []byte) (n int, err error) {
	for n < len(b) && !r.over {
		if r.pass > 0 {
			step := min(r.pass, len(b)-n)
			r.pass -= step
			n += step
			continue
		}
		rest := b[n:]
		switch kind := rest[0]; kind {
		case recordHandshake:
			if !r.decided {
				return n, errPause
			}
			h, err := parseClientHello(rest)
			switch {
			case err != nil:
				return n, err
			case h.name != r.first.name:
				return n, errRetryName
			case h.ech && !r.first.ech:
				return n, errRetryECH
			}
			r.over = true
		case recordChangeCipherSpec, recordApplicationData, recordAlert: // early data, and what middle boxes want to see
			if len(rest) < recordHeader {
				return n, errHelloShort
			}
			r.pass = recordHeader + int(binary.BigEndian.Uint16(rest[3:]))
		default:
			return n, errRetryForm
		}
	}
	if r.over {
		return len(b), nil
	}
	return n, nil
}
