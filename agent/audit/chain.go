package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

const (
	hashLen = 2 * sha256.Size // in hex digits
	// MaxLine bounds one line in bytes, its newline left out. What the hub lets into a record needs an eighth of it;
	// the recovery of a torn line, which keeps that line's bytes, needs the most.
	MaxLine = 1 << 20
)

// genesis is the "prev" of a chain's first line: 64 zeros.
var genesis = string(bytes.Repeat([]byte{'0'}, hashLen))

// A Head names a chain's last line: its sequence number, and its hash, which is what the next line's "prev" will be. Who keeps a Head elsewhere can tell later that nothing before it was cut off.
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

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// line is what the chain needs to know of one line.
type line struct {
	seq    uint64
	prev   string
	hash   string // what the next line names as the one before it
	own    bool   // the "hash" field is right
	sealed bool   // it is not of version 1, so its texts can be erased
	erased bool   // they were
}

var (
	errNotRecord = errors.New("is not a record of this log")
	keySeq       = []byte(`{"seq":`)
	keyPrev      = []byte(`,"prev":"`)
	keyHash      = []byte(`,"hash":"`)
)

// parseLine reads one line, without its newline. The places of seq, salt, prev and hash are fixed by appendLine, and only
// those places count: a "prev" inside some string can't be taken for the line's own.
func parseLine(b []byte) (line, error) {
	num, _, _ := bytes.Cut(b[min(len(keySeq), len(b)):], []byte{','})
	seq, err := strconv.ParseUint(string(num), 10, 64)
	if err != nil || !bytes.HasPrefix(b, keySeq) || !json.Valid(b) {
		return line{}, errNotRecord
	}
	content, own, ok := cutTail(b, keyHash, hashLen, `"}`)
	if !ok {
		return line{}, errNotRecord
	}
	_, prev, ok := cutTail(content, keyPrev, hashLen, `"`)
	if !ok {
		return line{}, errNotRecord
	}
	l := line{seq: seq, prev: string(prev)}
	if p, ok := cutSealed(b); ok {
		l.hash, l.own, l.sealed, l.erased = string(own), p.right(), true, p.salt == nil
		return l, nil
	}
	l.hash, l.own = sum(b), sum(content) == string(own)
	return l, nil
}

func isHash(b []byte) bool { return len(b) == hashLen && isHex(b) }
