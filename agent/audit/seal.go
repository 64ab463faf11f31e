package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	mathrand "math/rand/v2"
	"sync"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A sealed line ends with a salt, the hash of the line before and its own:
//
//	...,"salt":"<32 hex>","prev":"<64 hex>","hash":"<64 hex>"}
//
// "hash" is in two steps, so that texts can be erased and it stays right: digest is the SHA-256 of the salt and of the texts, and
// "hash" that of all the rest, with a zero byte in the place of each text, of the digest, and of "prev". When the texts go, the digest
// takes the salt's place, and nobody who guesses a text can see whether it was that one:
//
//	...,"erased":"<64 hex>","prev":"<64 hex>","hash":"<64 hex>"}
//
// The "prev" of the line after a sealed one is that "hash". A line of version 1, of before there was a salt, has no such hash: what
// follows from it names the SHA-256 of all of its bytes. What is hashed of the one begins with a brace and of the other with
// sealedAs, so neither can be taken for the other.
const (
	sealedAs = "nemoclaw audit 2 line\n"
	textsAs  = "nemoclaw audit 2 texts\n"

	saltSize = 16
	saltLen  = 2 * saltSize // in hex digits
	gap      = 0            // in the place of a text: no byte of any JSON
	maxSpare = 64 << 10     // bytes of a sealer's memory that are kept
)

var (
	keySalt   = []byte(`,"salt":"`)
	keyErased = []byte(`,"erased":"`)
)

// sealer makes salts and hashes. It is for one line at a time.
type sealer struct {
	random *mathrand.ChaCha8
	list   [maxTexts]text
	buf    []byte
}

var sealers = sync.Pool{New: func() any {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	return &sealer{random: mathrand.NewChaCha8(seed)}
}}

func getSealer() *sealer { return sealers.Get().(*sealer) }

func (s *sealer) free() {
	if cap(s.buf) <= maxSpare {
		sealers.Put(s)
	}
}

// digest is what stands for a line's texts.
func (s *sealer) digest(salt []byte, line []byte, texts []text) [sha256.Size]byte {
	b := append(append(s.buf[:0], textsAs...), salt...)
	for _, t := range texts {
		b = binary.BigEndian.AppendUint32(b, uint32(t.end-t.start))
		b = append(b, line[t.start:t.end]...)
	}
	s.buf = b
	return sha256.Sum256(b)
}

// hash is a line's own, of what comes before its salt and of its "prev", quote marks and all.
func (s *sealer) hash(body []byte, texts []text, digest [sha256.Size]byte, prev []byte) [sha256.Size]byte {
	b := append(s.buf[:0], sealedAs...)
	at := 0
	for _, t := range texts {
		b = append(append(b, body[at:t.start]...), gap)
		at = t.end
	}
	b = append(append(append(b, body[at:]...), digest[:]...), prev...)
	s.buf = b
	return sha256.Sum256(b)
}

// appendLine appends the line for d after a line whose hash is prev, newline included, and returns the new line's hash.
func appendLine(dst []byte, d *policy.Decision, prev string) ([]byte, string) {
	s := getSealer()
	defer s.free()
	start := len(dst)
	dst, list := appendRecord(dst, s.list[:0], d)
	dst = dst[:len(dst)-1]
	end := len(dst)
	for i := range list {
		list[i].start -= start
		list[i].end -= start
	}
	var salt [saltSize]byte
	_, _ = s.random.Read(salt[:]) // never fails
	dst = hex.AppendEncode(append(dst, keySalt...), salt[:])
	from := len(dst) + 1
	dst = append(append(append(append(dst, '"'), keyPrev...), prev...), '"')
	body := dst[start:end]
	own := s.hash(body, list, s.digest(salt[:], body, list), dst[from:])
	dst = append(dst, keyHash...)
	at := len(dst)
	dst = hex.AppendEncode(dst, own[:])
	hash := string(dst[at:])
	return append(dst, '"', '}', '\n'), hash
}

// sealed are the parts of a sealed line.
type sealed struct {
	body   []byte // up to the salt or what is there instead
	salt   []byte // nil: it was erased
	digest []byte // nil: it was not
	prev   []byte // from its comma to its last quote
	hash   []byte // in hex digits
}

// cutSealed takes a sealed line apart; false when it is none, and perhaps one of version 1.
func cutSealed(line []byte) (p sealed, ok bool) {
	rest, hash, ok := cutTail(line, keyHash, hashLen, `"}`)
	if !ok {
		return p, false
	}
	before, _, ok := cutTail(rest, keyPrev, hashLen, `"`)
	if !ok {
		return p, false
	}
	p.hash, p.prev = hash, rest[len(before):]
	if p.body, p.salt, ok = cutTail(before, keySalt, saltLen, `"`); ok {
		return p, true
	}
	p.body, p.digest, ok = cutTail(before, keyErased, hashLen, `"`)
	return p, ok
}

// cutTail cuts a key and its value, of so many hex digits, from the end of a line.
func cutTail(line, key []byte, digits int, end string) (before, value []byte, ok bool) {
	at := len(line) - len(key) - digits - len(end)
	if at < 0 || string(line[at:at+len(key)]) != string(key) || string(line[len(line)-len(end):]) != end {
		return line, nil, false
	}
	value = line[at+len(key) : len(line)-len(end)]
	return line[:at], value, isHex(value)
}

// isHex reports whether b has only lower-case hex digits.
func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// right reports whether a line's content gives its own hash. false also for one whose texts can't be found, and for an erased one with
// something else in their place.
func (p *sealed) right() bool {
	s := getSealer()
	defer s.free()
	list, ok := cutTexts(s.list[:0], p.body)
	if !ok {
		return false
	}
	var digest [sha256.Size]byte
	if p.salt != nil {
		var salt [saltSize]byte
		_, _ = hex.Decode(salt[:], p.salt) // never fails: they are hex digits
		digest = s.digest(salt[:], p.body, list)
	} else if _, _ = hex.Decode(digest[:], p.digest); !blank(p.body, list) {
		return false
	}
	own := s.hash(p.body, list, digest, p.prev)
	return hex.EncodeToString(own[:]) == string(p.hash)
}

// erase appends a line without its texts; the line as it is where it has none any more. false: it is of version 1, or was changed.
func erase(dst, line []byte) ([]byte, bool) {
	p, ok := cutSealed(line)
	if !ok || !p.right() {
		return dst, false
	}
	if p.salt == nil {
		return append(dst, line...), true
	}
	s := getSealer()
	defer s.free()
	list, _ := cutTexts(s.list[:0], p.body) // right has found them
	var salt [saltSize]byte
	_, _ = hex.Decode(salt[:], p.salt)
	digest := s.digest(salt[:], p.body, list)
	at := 0
	for _, t := range list {
		dst = append(append(dst, p.body[at:t.start]...), blanks[t.is]...)
		at = t.end
	}
	dst = append(append(dst, p.body[at:]...), keyErased...)
	dst = append(hex.AppendEncode(dst, digest[:]), '"')
	return append(dst, line[len(line)-len(p.prev)-len(keyHash)-hashLen-len(`"}`):]...), true
}

// hashOf is what the line after a line names as the one before it.
func hashOf(line []byte) string {
	if p, ok := cutSealed(line); ok {
		return string(p.hash)
	}
	return sum(line)
}
