package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"sync"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	hashLen = 2 * sha256.Size // in hex digits
	// MaxLine bounds one line in bytes, its newline left out. What the hub lets into a record needs an eighth of it;
	// the recovery of a torn line, which keeps that line's bytes, needs the most.
	MaxLine = 1 << 20
)

// genesis is the "prev" of a chain's first line: 64 zeros.
var genesis = string(bytes.Repeat([]byte{'0'}, hashLen))

// A Head names a chain's last line: its sequence number, and the SHA-256 of its bytes without the newline, which is
// what the next line's "prev" will be. Who keeps a Head elsewhere can tell later that nothing before it was cut off.
type Head struct {
	Seq  uint64
	Hash string // 64 lower-case hex digits
}

// String returns the head as "SEQ:HASH", which ParseHead reads.
func (h Head) String() string { return strconv.FormatUint(h.Seq, 10) + ":" + h.Hash }

// ParseHead reads "SEQ:HASH", as `nemoclaw audit verify` prints it.
func ParseHead(s string) (Head, error) {
	num, hash, ok := bytes.Cut([]byte(s), []byte{':'})
	seq, err := strconv.ParseUint(string(num), 10, 64)
	if !ok || err != nil || !isHash(hash) {
		return Head{}, fmt.Errorf("audit head %q: want SEQ:HASH, a number and 64 lower-case hex digits, as `nemoclaw audit verify` prints it", s)
	}
	return Head{Seq: seq, Hash: string(hash)}, nil
}

// appendLine appends the line for d after a line whose hash is prev, newline included, and returns the new line's hash.
func appendLine(dst []byte, d *policy.Decision, prev string) ([]byte, string) {
	start := len(dst)
	dst = AppendJSON(dst, d)
	dst = append(dst[:len(dst)-1], `,"prev":"`...)
	dst = append(dst, prev...)
	dst = append(dst, '"')
	dst = append(dst, `,"hash":"`...)
	// One state for both hashes: the line begins with what the first is about.
	h := hashers.Get().(hash.Hash)
	defer hashers.Put(h)
	h.Reset()
	var own [sha256.Size]byte
	end := len(dst)
	_, _ = h.Write(dst[start : end-len(keyHash)]) // never fails
	dst = hex.AppendEncode(dst, h.Sum(own[:0]))
	dst = append(dst, '"', '}')
	_, _ = h.Write(dst[end-len(keyHash):])
	return append(dst, '\n'), hex.EncodeToString(h.Sum(own[:0]))
}

var hashers = sync.Pool{New: func() any { return sha256.New() }}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// line is what the chain needs to know of one line.
type line struct {
	seq  uint64
	prev string
	hash string // SHA-256 of the whole line
	own  bool   // the "hash" field is right
}

var (
	errNotRecord = errors.New("is not a record of this log")
	keySeq       = []byte(`{"seq":`)
	keyPrev      = []byte(`,"prev":"`)
	keyHash      = []byte(`,"hash":"`)
)

// parseLine reads one line, without its newline. The places of seq, prev and hash are fixed by appendLine, and only
// those places count: a "prev" inside some string can't be taken for the line's own.
func parseLine(b []byte) (line, error) {
	tail := len(keyHash) + hashLen + len(`"}`)
	pre := len(keyPrev) + hashLen + len(`"`)
	if len(b) < len(keySeq)+1+pre+tail || !bytes.HasPrefix(b, keySeq) || !json.Valid(b) {
		return line{}, errNotRecord
	}
	content, end := b[:len(b)-tail], b[len(b)-tail:]
	prev := content[len(content)-pre:]
	own, ok := cutHash(end, keyHash, `"}`)
	if !ok {
		return line{}, errNotRecord
	}
	before, ok := cutHash(prev, keyPrev, `"`)
	if !ok {
		return line{}, errNotRecord
	}
	num, _, _ := bytes.Cut(b[len(keySeq):], []byte{','})
	seq, err := strconv.ParseUint(string(num), 10, 64)
	if err != nil {
		return line{}, errNotRecord
	}
	return line{seq: seq, prev: before, hash: sum(b), own: sum(content) == own}, nil
}

func cutHash(b, key []byte, end string) (string, bool) {
	rest, ok := bytes.CutPrefix(b, key)
	if !ok {
		return "", false
	}
	rest, ok = bytes.CutSuffix(rest, []byte(end))
	return string(rest), ok && isHash(rest)
}

func isHash(b []byte) bool {
	if len(b) != hashLen {
		return false
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
