package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// A Checkpoint is a head with a signature: whoever holds the key says that the log was so, from its beginning to that record.
//
// Its line, in the file FILE.sig beside the log and wherever it is anchored, is
//
//	{"seq":7,"hash":"<64 hex>","time":"<RFC 3339>","sig":"<base64>"}
//
// The signature is Ed25519, over the words of signedAs and the line's bytes before `,"sig":"`.
type Checkpoint struct {
	Head
	Time time.Time // when it was signed
}

// signedAs comes before what is signed, so that no other use of a key gives a checkpoint.
const signedAs = "nemoclaw audit checkpoint 1\n"

const (
	sigExtension  = ".sig"
	maxCheckpoint = 512 // bytes of a line
)

var (
	keyHead = []byte(`,"hash":"`)
	keyWhen = []byte(`","time":"`)
	keySig  = []byte(`","sig":"`)
)

// signHead returns the line of a checkpoint, newline included.
func signHead(key ed25519.PrivateKey, c Checkpoint) []byte {
	b := fmt.Appendf(nil, `{"seq":%d,"hash":"%s","time":"%s`, c.Seq, c.Hash, c.Time.UTC().Format(time.RFC3339Nano))
	sig := ed25519.Sign(key, append([]byte(signedAs), b...))
	b = append(b, keySig...)
	b = base64.StdEncoding.AppendEncode(b, sig)
	return append(b, "\"}\n"...)
}

var errNotCheckpoint = errors.New("is not a checkpoint")

// parseCheckpoint reads a line without its newline, whoever signed it.
func parseCheckpoint(line []byte) (c Checkpoint, signed, sig []byte, err error) {
	i := bytes.LastIndex(line, keySig)
	text, ok := bytes.CutSuffix(line, []byte(`"}`))
	if i < 0 || !ok || i+len(keySig) > len(text) || len(line) > maxCheckpoint {
		return c, nil, nil, errNotCheckpoint
	}
	signed = line[:i]
	sig, err = base64.StdEncoding.Strict().DecodeString(string(text[i+len(keySig):]))
	if err != nil || len(sig) != ed25519.SignatureSize {
		return c, nil, nil, errNotCheckpoint
	}
	rest, ok := bytes.CutPrefix(signed, keySeq)
	num, rest, found := bytes.Cut(rest, keyHead)
	hash, when, found2 := bytes.Cut(rest, keyWhen)
	if !ok || !found || !found2 {
		return c, nil, nil, errNotCheckpoint
	}
	if c.Head, err = ParseHead(string(num) + ":" + string(hash)); err != nil {
		return c, nil, nil, errNotCheckpoint
	}
	if c.Time, err = time.Parse(time.RFC3339Nano, string(when)); err != nil {
		return c, nil, nil, errNotCheckpoint
	}
	return c, signed, sig, nil
}

// ReadCheckpoint reads a checkpoint that one of the keys signed, from a line without its newline.
func ReadCheckpoint(line []byte, keys []ed25519.PublicKey) (Checkpoint, error) {
	c, signed, sig, err := parseCheckpoint(line)
	if err != nil {
		return c, err
	}
	message := append([]byte(signedAs), signed...)
	for _, k := range keys {
		if ed25519.Verify(k, message, sig) {
			return c, nil
		}
	}
	return c, fmt.Errorf("of record %d is not signed with the key: it was forged, or another key was the log's then (--key can be given several times)", c.Seq)
}

// ReadCheckpoints reads a file of checkpoints. What a line has before the first brace, as syslog has, is left out; so is a last
// line that has no end, which a kill may leave.
func ReadCheckpoints(path string, keys []ed25519.PublicKey) ([]Checkpoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	defer f.Close()
	return readCheckpoints(f, path, keys)
}

func readCheckpoints(f io.Reader, path string, keys []ed25519.PublicKey) ([]Checkpoint, error) {
	var list []Checkpoint
	in := bufio.NewReaderSize(f, 16<<10)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return nil, fmt.Errorf("checkpoints %s:%d: %w", path, n, err)
		}
		c, err := ReadCheckpoint(line[max(0, bytes.IndexByte(line, '{')):len(line)-1], keys)
		if err != nil {
			return nil, fmt.Errorf("checkpoints %s:%d: it %w", path, n, err)
		}
		list = append(list, c)
	}
}

// besides reads the checkpoints beside a log; none when there is no such file.
func besides(path string, keys []ed25519.PublicKey) ([]Checkpoint, error) {
	f, err := openFile(path + sigExtension)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("checkpoints: %w", err)
	}
	defer f.Close()
	return readCheckpoints(f, f.Name(), keys)
}

const keyWord = "ed25519:"

// FormatKey writes a public key as ParseKey reads it.
func FormatKey(k ed25519.PublicKey) string { return keyWord + base64.StdEncoding.EncodeToString(k) }

// ParseKey reads a public key, as `nemoclaw audit key` prints it.
func ParseKey(s string) (ed25519.PublicKey, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(s), keyWord)
	k, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(k) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("key %q: want ed25519: and 44 characters of base64, as `nemoclaw audit key` prints it", s)
	}
	return k, nil
}
