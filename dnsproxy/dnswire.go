package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// DNS numbers (RFC 1035, 6891, 8914) that the hand-written codec below uses; dns.TypeX name the rest.
const (
	dnsHeader  = 12
	flagQR     = 0x80
	flagTC     = 0x02
	flagRD     = 0x01
	flagRA     = 0x80
	flagCD     = 0x10
	ednsSize   = 1232 // DNS flag day 2020: what fits every path unfragmented
	minUDPSize = 512
	edeBlocked = 15
	edeOther   = 0
	edeNoReach = 22
	edeLimit   = 17 // Filtered: used for names over the rate or the cap
	maxKey     = maxName + 3
)

// query is one parsed question. Its slices point into the packet.
type query struct {
	id       uint16
	flags    byte   // RD of byte 2
	flags2   byte   // CD of byte 3
	question []byte // the question section as it came, case preserved
	qtype    uint16
	class    uint16
	edns     bool
	size     int // the largest answer the client takes over UDP

	weird bool // the name is no host name: no policy could list it
	nameN int  // bytes of key that are the name
	key   [maxKey]byte
}

// name returns the canonical name asked for.
func (q *query) name() string { return string(q.key[:q.nameN]) }

// cacheKey is the name and the type; valid until the query is parsed into again.
func (q *query) cacheKey() []byte { return q.key[:q.nameN+2] }

// parse outcomes that are not a question to answer.
const (
	parseOK   = -1
	parseDrop = -2 // not a query: answering could make two servers talk for ever
)

// parse reads one packet into q without allocating. It returns parseOK, parseDrop, or the response code of an error answer
// (whose question may be missing).
func (q *query) parse(p []byte) int {
	if len(p) < dnsHeader || p[2]&flagQR != 0 {
		return parseDrop
	}
	*q = query{id: binary.BigEndian.Uint16(p), flags: p[2] & flagRD, flags2: p[3] & flagCD, size: minUDPSize}
	if p[2]>>3&0xf != 0 {
		return dns.RcodeNotImplemented
	}
	count := func(off int) int { return int(binary.BigEndian.Uint16(p[off:])) }
	if count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 1 {
		return dns.RcodeFormatError
	}
	off := q.parseName(p)
	if off < 0 || len(p) < off+4 {
		return dns.RcodeFormatError
	}
	q.qtype = binary.BigEndian.Uint16(p[off:])
	q.class = binary.BigEndian.Uint16(p[off+2:])
	off += 4
	q.question = p[dnsHeader:off]
	binary.BigEndian.PutUint16(q.key[q.nameN:], q.qtype)
	if count(10) == 1 {
		rest := p[off:]
		// The OPT record: root, type, size, extended code, version, flags, options.
		if len(rest) < 11 || rest[0] != 0 || binary.BigEndian.Uint16(rest[1:]) != dns.TypeOPT {
			return dns.RcodeFormatError
		}
		if len(rest) != 11+int(binary.BigEndian.Uint16(rest[9:])) {
			return dns.RcodeFormatError
		}
		q.edns = true
		q.size = min(max(int(binary.BigEndian.Uint16(rest[3:])), minUDPSize), ednsSize)
		if rest[6] != 0 {
			return dns.RcodeBadVers
		}
	} else if len(p) != off {
		return dns.RcodeFormatError
	}
	return parseOK
}

// parseName reads the question's name into key, lower-cased and dotted, and returns the offset behind it; -1 when it is
// malformed. A question is the first name of a packet, so a compression pointer in it can only be an attack.
func (q *query) parseName(p []byte) int {
	off, n := dnsHeader, 0
	for {
		if off >= len(p) {
			return -1
		}
		l := int(p[off])
		off++
		if l == 0 {
			break
		}
		if l > 63 || off+l > len(p) || n+1+l > maxName { // n+1: the dot before it
			return -1
		}
		if n > 0 {
			q.key[n] = '.'
			n++
		}
		for _, c := range p[off : off+l] {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			if !nameByte(c) {
				q.weird = true
				c = '?'
			}
			q.key[n] = c
			n++
		}
		off += l
	}
	q.nameN = n
	return off
}

// answer is the part of a response that does not depend on who asks: it can be kept and packed behind any question for the
// same name and type, in whatever case that is written.
type answer struct {
	rcode   int
	count   uint16 // records
	records []byte // packed; an owner that is the question's name is a pointer to it
	ede     int    // extended error code; -1: none
	text    string // its text
	until   int64  // nanoseconds of the server's clock after which it may not be used
	outcome DNSOutcome
}

// pointer to the question's name, which always starts behind the header.
const (
	questionPtrHi = 0xc0
	questionPtrLo = dnsHeader
)

// pack appends the response to q to dst. limit is the largest size; a longer response is cut to its question with TC set.
func (a *answer) pack(dst []byte, q *query, limit int) []byte {
	start := len(dst)
	var h [dnsHeader]byte
	binary.BigEndian.PutUint16(h[0:], q.id)
	h[2] = flagQR | q.flags
	h[3] = flagRA | q.flags2 | byte(a.rcode&0xf)
	if len(q.question) > 0 {
		h[5] = 1
	}
	binary.BigEndian.PutUint16(h[6:], a.count)
	dst = append(dst, h[:]...)
	dst = append(dst, q.question...)
	opt := 0
	if q.edns {
		opt = 11
		if a.ede >= 0 {
			opt += 6 + len(a.text)
		}
		dst[start+11] = 1
	}
	if len(dst)-start+len(a.records)+opt > limit {
		dst[start+2] |= flagTC
		dst[start+6], dst[start+7] = 0, 0
	} else {
		dst = append(dst, a.records...)
	}
	if q.edns {
		rdlen := opt - 11
		dst = append(dst, 0, 0, byte(dns.TypeOPT), ednsSize>>8, ednsSize&0xff, byte(a.rcode>>4), 0, 0, 0, byte(rdlen>>8), byte(rdlen))
		if a.ede >= 0 {
			n := 2 + len(a.text)
			dst = append(dst, 0, byte(dns.EDNS0EDE), byte(n>>8), byte(n), byte(a.ede>>8), byte(a.ede))
			dst = append(dst, a.text...)
		}
	}
	return dst
}

// record appends one record whose owner is the question's name.
func (a *answer) record(rtype uint16, ttl uint32, data []byte) {
	a.records = append(a.records, questionPtrHi, questionPtrLo)
	a.records = binary.BigEndian.AppendUint16(a.records, rtype)
	a.records = binary.BigEndian.AppendUint16(a.records, dns.ClassINET)
	a.records = binary.BigEndian.AppendUint32(a.records, ttl)
	a.records = binary.BigEndian.AppendUint16(a.records, uint16(len(data)))
	a.records = append(a.records, data...)
	a.count++
}

// rr appends a record of any owner, uncompressed. A record that does not pack is left out.
func (a *answer) rr(rr dns.RR) {
	buf := make([]byte, dns.Len(rr)+dnsHeader)
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil || len(a.records)+n > dns.MaxMsgSize-1024 {
		return
	}
	a.records = append(a.records, buf[:n]...)
	a.count++
}

// packName returns a canonical name in wire form.
func packName(name string) []byte {
	out := make([]byte, 0, len(name)+2)
	for start := 0; start < len(name); {
		end := start
		for end < len(name) && name[end] != '.' {
			end++
		}
		out = append(out, byte(end-start))
		out = append(out, name[start:end]...)
		start = end + 1
	}
	return append(out, 0)
}
