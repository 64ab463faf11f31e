package classify

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// sextet is the value of a character of base64, of either alphabet; 0xff for others.
var sextet = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, b := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[b] = byte(i)
	}
	t['-'], t['_'] = 62, 63
	return t
}()

// printable is a byte of written text.
func printable(b byte) bool { return b >= ' ' && b != 0x7f || b == '\n' || b == '\t' || b == '\r' }

// encoded notes a run of base64 or hexadecimal digits in which there may be a text. What was only drawn, or is a path or a name,
// gives bytes that aren't text within the first few.
func (s *scanner) encoded(start, end int) {
	t := s.s
	for start > 0 && (t[start-1] == '+' || t[start-1] == '/') {
		start--
	}
	tries := 0
	for i := start; i+minBlob <= end && tries < 32; i++ {
		if i > start+3 && alnum(t[i-1]) {
			continue
		}
		tries++
		if promising(t[i:end]) {
			s.blobs = append(s.blobs, blob{i, s.wrapped(i, end)})
			return
		}
	}
	if end-start >= 64 {
		for _, at := range [...]int{(end - start) / 4, (end - start) / 2, (end - start) * 3 / 4} {
			for shift := range 4 {
				if i := start + at&^3 + shift; i+minBlob <= end && textual(t[i:i+minBlob]) {
					s.blobs = append(s.blobs, blob{start + shift, s.wrapped(start, end)})
					return
				}
			}
		}
	}
}

// promising looks at the first characters of what may be encoded.
func promising(t string) bool {
	switch t[0] {
	case 'H':
		if strings.HasPrefix(t, "H4sI") { // gzip
			return true
		}
	case '1':
		if strings.HasPrefix(t, "1f8b08") || strings.HasPrefix(t, "1F8B08") {
			return true
		}
	case 'e':
		if strings.IndexByte("JNFA", t[1]) >= 0 { // 0x78: zlib
			return true
		}
	case 'M':
		if t[1] == 'I' || strings.HasPrefix(t, "MHc") { // ASN.1
			return true
		}
	}
	return textual(t) || hexText(t[:minBlob])
}

// textual reports whether base64 gives text, of one or two bytes a character.
func textual(t string) bool {
	var c written
	for i := 0; i+4 <= minBlob; i += 4 {
		a, b := sextet[t[i]], sextet[t[i+1]]
		if a|b > 63 || !c.next(a<<2|b>>4) {
			return false
		}
		d, e := sextet[t[i+2]], sextet[t[i+3]]
		if d|e > 63 || !c.next(b<<4|d>>2) || !c.next(d<<6|e) {
			return false
		}
	}
	return c.zeros == 0 || c.zeros == minBlob/4*3/2
}

// hexText reports whether hexadecimal digits give text.
func hexText(t string) bool {
	var c written
	for i := 0; i+2 <= minBlob; i += 2 {
		if !hexByte(t[i]) || !hexByte(t[i+1]) || !c.next(nibble(t[i])<<4|nibble(t[i+1])) {
			return false
		}
	}
	return c.zeros == 0 || c.zeros == minBlob/2/2
}

// written follows bytes that should be text: in UTF-8, or with a zero for every other byte.
type written struct{ more, zeros uint8 }

func (c *written) next(b byte) bool {
	k := lead[b]
	if c.more > 0 {
		c.more--
		return k == leadNone
	}
	if b == 0 {
		c.zeros++
	}
	c.more = k & 3
	return k < leadNone
}

// lead is how many bytes follow the first of a character. Others have one of the signs below.
var lead = func() (t [256]uint8) {
	for i := range t {
		switch b := byte(i); {
		case b >= 0xc2 && b < 0xe0:
			t[i] = 1
		case b >= 0xe0 && b < 0xf0:
			t[i] = 2
		case b >= 0xf0 && b < 0xf5:
			t[i] = 3
		case b >= 0x80 && b < 0xc0:
			t[i] = leadNone
		case b != 0 && !printable(b) || b >= 0x80:
			t[i] = leadNever
		}
	}
	return t
}()

const (
	leadNone  = 4 // stands in a character, and begins none
	leadNever = 8 // is in no text
)

func nibble(b byte) byte {
	if digit(b) {
		return b - '0'
	}
	return lower[b] - 'a' + 10
}

// wrapped is where a run ends that goes on over lines.
func (s *scanner) wrapped(start, end int) int {
	t := s.s
	before := end - start
	for end < len(t) && t[end-1] != '=' {
		i := end
		if t[i] == '\r' {
			i++
		}
		if i >= len(t) || t[i] != '\n' {
			break
		}
		i++
		for i < len(t) && (t[i] == ' ' || t[i] == '\t' || t[i] == '>') {
			i++
		}
		j := i
		for j < len(t) && sextet[t[j]] != 0xff {
			j++
		}
		for j < len(t) && t[j] == '=' {
			j++
		}
		if j == i || j < len(t) && t[j] != '\n' && t[j] != '\r' && !(j-i < before && j-i > 3) || j-i > before+3 && before < 60 {
			break
		}
		before = j - i
		end = j
	}
	s.blobs0 = max(s.blobs0, end)
	return end
}

// blobs finds what is sensitive in encoded texts.
func (w *work) blobs(s string, blobs []blob, depth int) ([]Match, error) {
	var found []Match
	for _, b := range blobs {
		inner, err := w.blob(s[b.start:b.end], depth)
		if err != nil {
			return nil, err
		}
		for _, m := range inner {
			m.Start, m.End = b.start, b.end
			found = append(found, m)
		}
	}
	return found, nil
}

func (w *work) blob(t string, depth int) ([]Match, error) {
	via := "base64"
	var data []byte
	if hexText(t[:minBlob]) || len(t) > 6 && asciiLower(t[:6]) == "1f8b08" {
		n := 0
		for n < len(t) && hexByte(t[n]) {
			n++
		}
		data, _ = hex.DecodeString(t[:n&^1])
		via = "hex"
	} else {
		data = unbase64(t)
	}
	if w.left -= len(data); w.left < 0 {
		return nil, fmt.Errorf("%w: over %d bytes decoded", ErrTooLarge, maxDecoded)
	}
	if asn1Key(data) || bytes.HasPrefix(data, []byte("openssh-key-v1\x00")) {
		if w.c.off[Credentials] || w.c.offKinds["private-key"] {
			return nil, nil
		}
		return []Match{{Class: Credentials, Kind: "private-key", Via: via}}, nil
	}
	plain, how, err := w.inflate(data)
	if err != nil {
		return nil, err
	}
	if how != "" {
		via += "+" + how
		data = plain
	}
	if len(data) == 0 {
		return nil, nil
	}
	inner, err := w.inner(plainText(data), depth)
	if err != nil {
		return nil, err
	}
	return once(inner, via), nil
}

const gzipMagic = "\x1f\x8b\x08"

// zipped finds what is in a text of compressed bytes. how is empty when it isn't one.
func (w *work) zipped(s string, depth int) (found []Match, how string, err error) {
	plain, how, err := w.inflate([]byte(s))
	if err != nil || how == "" {
		return nil, how, err
	}
	found, err = w.inner(plainText(plain), depth)
	for i := range found {
		found[i].Start, found[i].End = 0, len(s)
	}
	return once(found, how), how, err
}

// inner is text, one level deeper.
func (w *work) inner(s string, depth int) ([]Match, error) {
	if depth >= maxDepth {
		return nil, ErrTooDeep
	}
	return w.text(s, depth+1)
}

// once keeps one match of each kind: all have the same place.
func once(found []Match, via string) []Match {
	seen := map[[3]string]bool{}
	kept := found[:0]
	for _, m := range found {
		m.Via = joinVia(via, m.Via)
		if key := [3]string{string(m.Class), m.Kind, m.Via}; !seen[key] {
			seen[key] = true
			kept = append(kept, m)
		}
	}
	return kept
}

// unbase64 decodes either alphabet, with padding or without, over lines, as far as it goes.
func unbase64(t string) []byte {
	out := make([]byte, 0, len(t)*3/4)
	acc, n := uint32(0), 0
	for i := range len(t) {
		v := sextet[t[i]]
		if v == 0xff {
			continue
		}
		acc = acc<<6 | uint32(v)
		if n++; n == 4 {
			out = append(out, byte(acc>>16), byte(acc>>8), byte(acc))
			acc, n = 0, 0
		}
	}
	switch n {
	case 2:
		out = append(out, byte(acc>>4))
	case 3:
		out = append(out, byte(acc>>10), byte(acc>>2))
	}
	return out
}

// asn1Key tells a private key in DER: a sequence that begins with the number of its version, 0 or 1, and then a key or its kind.
func asn1Key(d []byte) bool {
	if len(d) < 32 || d[0] != 0x30 {
		return false
	}
	i := 2
	if d[1]&0x80 != 0 {
		i += int(d[1] & 0x7f)
	}
	if i > 6 || d[i] != 2 || d[i+1] != 1 || d[i+2] > 1 {
		return false
	}
	return d[i+3] == 2 || d[i+3] == 0x30 || d[i+3] == 4
}

// inflate decompresses. how is empty when the data isn't compressed.
func (w *work) inflate(d []byte) (plain []byte, how string, err error) {
	var r io.Reader
	switch {
	case len(d) > 10 && d[0] == 0x1f && d[1] == 0x8b && d[2] == 8 && d[3]&0xe0 == 0:
		how = "gzip"
		if r, err = gzip.NewReader(bytes.NewReader(d)); err != nil {
			return nil, "", ErrUndecodable
		}
	case len(d) > 6 && d[0] == 0x78 && (uint(d[0])<<8|uint(d[1]))%31 == 0:
		how = "zlib"
		if r, err = zlib.NewReader(bytes.NewReader(d)); err != nil {
			return nil, "", nil // its first two bytes were chance
		}
	default:
		return nil, "", nil
	}
	plain, err = io.ReadAll(io.LimitReader(r, int64(w.left)+1))
	if w.left -= len(plain); w.left < 0 {
		return nil, "", fmt.Errorf("%w: over %d bytes decoded", ErrTooLarge, maxDecoded)
	}
	if err != nil {
		if how == "zlib" && len(plain) < 32 {
			return nil, "", nil
		}
		return nil, "", ErrUndecodable
	}
	return plain, how, nil
}

// plainText takes the zeros out of text of two bytes a character.
func plainText(d []byte) string {
	if len(d) >= 8 && (d[1] == 0 && d[3] == 0 && d[5] == 0 || d[0] == 0 && d[2] == 0 && d[4] == 0) {
		return string(bytes.ReplaceAll(d, []byte{0}, nil))
	}
	return string(d)
}
