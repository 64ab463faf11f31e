package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
)

const (
	signEvery   = 4096            // records after which a checkpoint is made
	signAfter   = 5 * time.Second // after the first record that no checkpoint is about
	anchorAfter = time.Minute     // between two checkpoints that are anchored, but for the last one
	keyFile     = "key.pem"
)

// A Signer has the key that checkpoints are signed with, and beside it what its log was told to hold last. Its directory is
// root's, and nobody's who may only write the log: who has it can forge the log.
type Signer struct {
	dir string
	key ed25519.PrivateKey
}

// OpenSigner reads the key of a directory. Both are made when they are missing: a key that was there is never replaced, nor one that
// another process makes at the same time.
func OpenSigner(dir string) (*Signer, error) {
	s, err := ReadSigner(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	alone, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	defer alone.Close()
	if err := unix.Flock(int(alone.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("audit key: lock %s: %w", dir, err)
	}
	if s, err := ReadSigner(dir); !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	name := filepath.Join(dir, keyFile)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	if err := atomicfile.Write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	return &Signer{dir, key}, nil
}

// ReadSigner is OpenSigner for a key that must be there.
func ReadSigner(dir string) (*Signer, error) {
	name := filepath.Join(dir, keyFile)
	st, err := os.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("audit key %s: others than its owner can read it (mode %04o), so its signatures prove nothing: move it away, and a new one is made at the next start", name, st.Mode().Perm())
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("audit key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("audit key %s: is no PEM; move it away, and a new one is made at the next start", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("audit key %s: is no Ed25519 key; move it away, and a new one is made at the next start", name)
	}
	return &Signer{dir, key}, nil
}

// Public returns the key that the signatures are verified with.
func (s *Signer) Public() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// keptFor is the file with the head of a chain. A log that is begun in another place is another log.
func (s *Signer) keptFor(f files) string {
	at, err := filepath.Abs(f.live())
	if err != nil {
		at = f.live() // the working directory is gone: relative to it is as good
	}
	return filepath.Join(s.dir, f.name+"-"+sum([]byte(at))[:16]+".head")
}

// Evidence is what the Signer knows of the log at a path: its key, and the head that was kept with it.
func (s *Signer) Evidence(path string) (Evidence, error) {
	e := Evidence{Keys: []ed25519.PublicKey{s.Public()}}
	f, _ := filesOf(path)
	kept, err := os.Open(s.keptFor(f))
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	} else if err != nil {
		return e, fmt.Errorf("audit key: %w", err)
	}
	defer kept.Close()
	h, _, err := readKept(kept)
	if err != nil {
		return e, fmt.Errorf("audit key: %s: %w", kept.Name(), err)
	}
	if h.Seq > 0 {
		e.Heads = append(e.Heads, h)
	}
	return e, nil
}

// signing is a Signer at work on one chain. All of it is guarded by Writer.disk.
type signing struct {
	key      ed25519.PrivateKey
	file     *os.File // FILE.sig
	size     int64    // of its whole lines
	kept     *os.File // in the Signer's directory, where who may write the log can't: see writeKept
	last     uint64   // record of the last checkpoint
	wrote    Head     // the last line that is in the log
	timer    *time.Timer
	anchor   chan []byte // nil: checkpoints are anchored nowhere
	anchored time.Time
	ended    chan struct{} // closed when nothing is anchored any more
}

// state is what the log held when it was last written, as far as it is known from elsewhere.
type state struct {
	last Checkpoint // the last one beside the log
	kept Head       // the head in the Signer's directory
	lost uint64     // the last record that a full disk did not take, after that head; 0: none
}

// Signs reports whether the last checkpoint beside the log at a path is signed with this key. A log without any is everybody's.
func (s *Signer) Signs(path string) (bool, error) {
	b, err := os.ReadFile(path + sigExtension)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	} else if err != nil {
		return false, fmt.Errorf("audit checkpoints: %w", err)
	}
	line, size := lastLine(b)
	if size == 0 {
		return true, nil
	}
	_, err = ReadCheckpoint(line, []ed25519.PublicKey{s.Public()})
	return err == nil, nil
}

// lastLine returns the last whole line, without its end, and how long all of them are.
func lastLine(b []byte) (line []byte, size int) {
	size = bytes.LastIndexByte(b, '\n') + 1
	if size == 0 {
		return nil, 0
	}
	return b[bytes.LastIndexByte(b[:size-1], '\n')+1 : size-1], size
}

// begin opens what belongs to a chain.
func (s *Signer) begin(f files) (g *signing, was state, err error) {
	g = &signing{key: s.key}
	defer func() {
		if err != nil {
			g.close()
			g = nil
		}
	}()
	if g.file, err = os.OpenFile(f.live()+sigExtension, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600); err != nil {
		return g, was, fmt.Errorf("audit checkpoints: %w", err)
	}
	if g.kept, err = os.OpenFile(s.keptFor(f), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600); err != nil {
		return g, was, fmt.Errorf("audit key: %w", err)
	}
	if was.kept, was.lost, err = readKept(g.kept); err != nil {
		return g, was, fmt.Errorf("audit key: %s: %w; delete it if you know why it is so", g.kept.Name(), err)
	}
	b, err := os.ReadFile(g.file.Name())
	if err != nil {
		return g, was, fmt.Errorf("audit checkpoints: %w", err)
	}
	// A torn line is written over. What somebody else put there is left for the verifier to name.
	line, size := lastLine(b)
	g.size = int64(size)
	if c, err := ReadCheckpoint(line, []ed25519.PublicKey{s.Public()}); err == nil {
		was.last = c
	}
	if err = g.file.Truncate(g.size); err != nil {
		err = fmt.Errorf("audit checkpoints: %w", err)
	}
	g.last, g.wrote = was.last.Seq, was.last.Head
	return g, was, err
}

func (g *signing) close() {
	for _, f := range []*os.File{g.file, g.kept} {
		if f != nil {
			f.Close()
		}
	}
}

// anchorTo begins to take checkpoints elsewhere. Who is slow there gets only the newest.
func (g *signing) anchorTo(anchor func([]byte) error, warn func(error)) {
	if anchor == nil {
		return
	}
	g.anchor, g.ended = make(chan []byte, 1), make(chan struct{})
	go func() {
		defer close(g.ended)
		for line := range g.anchor {
			if err := anchor(line); err != nil {
				warn(fmt.Errorf("audit checkpoint: anchor: %w", err))
			}
		}
	}()
}

// end makes the last checkpoint, and waits until it is anchored.
func (g *signing) end() error {
	if g == nil {
		return nil
	}
	err := g.sign(true)
	g.stop()
	return err
}

func (g *signing) stop() {
	if g.timer != nil {
		g.timer.Stop()
	}
	if g.anchor != nil {
		close(g.anchor)
		<-g.ended
	}
	g.close()
}

// writeKept replaces what is kept of a chain in place: the head, and on a line of its own the last record that was lost after it.
// Like the head it always has the same length, so it can be written where there is no room.
func writeKept(f *os.File, h Head, lost uint64) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%020d:%s\n%020d\n", h.Seq, h.Hash, lost), 0)
	return err
}

// readKept reads what writeKept wrote; zero values where it never did.
func readKept(f *os.File) (h Head, lost uint64, err error) {
	buf := make([]byte, 128)
	n, err := f.ReadAt(buf, 0)
	if n == 0 && errors.Is(err, io.EOF) {
		return h, 0, nil
	} else if err != nil && !errors.Is(err, io.EOF) {
		return h, 0, err
	}
	head, number, _ := strings.Cut(strings.TrimSuffix(string(buf[:n]), "\n"), "\n")
	if h, err = ParseHead(head); err != nil || number == "" { // one of before there was a number
		return h, 0, err
	}
	lost, err = strconv.ParseUint(number, 10, 64)
	return h, lost, err
}

// losing keeps the number of a record that was lost, so that a kill does not forget it.
func (g *signing) losing(h Head, lost uint64) {
	if g != nil {
		// There is nowhere else to write it to; without it only a kill in this moment loses the count.
		_ = writeKept(g.kept, h, lost)
	}
}

// took is told of each head that is in the log, and makes a checkpoint when there is enough.
func (g *signing) took(w *Writer, h Head) error {
	if g == nil {
		return nil
	}
	if err := writeKept(g.kept, h, 0); err != nil {
		return err
	}
	g.wrote = h
	if h.Seq-g.last >= signEvery || g.last == 0 { // a log has a checkpoint from its first record on: else it would be called unsigned
		if err := g.sign(false); !full(err) { // without room the next one is about these records too
			return err
		}
	}
	if g.timer == nil {
		g.timer = time.AfterFunc(signAfter, func() { w.sign() })
	}
	return nil
}

// sign makes a checkpoint of what is in the log, if there is something new.
func (g *signing) sign(end bool) error {
	if g == nil || g.wrote.Seq <= g.last {
		return nil
	}
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	c := Checkpoint{g.wrote, time.Now()}
	line := signHead(g.key, c)
	if _, err := g.file.WriteAt(line, g.size); err != nil {
		_ = g.file.Truncate(g.size)
		return err
	}
	g.size += int64(len(line))
	g.last = c.Seq
	if g.anchor != nil && (end || c.Time.Sub(g.anchored) >= anchorAfter) {
		g.anchored = c.Time
		select { // the newest is what counts
		case <-g.anchor:
		default:
		}
		g.anchor <- line
	}
	return nil
}

// sync returns when the checkpoints are on the disk.
func (g *signing) sync() error {
	if g == nil {
		return nil
	}
	return g.file.Sync()
}

// sign is the timer's.
func (w *Writer) sign() {
	w.disk.Lock()
	defer w.disk.Unlock()
	select {
	case <-w.stopped:
		return
	default:
	}
	w.signing.timer = nil
	// A full disk keeps it from being written: the next record meets that, and the next checkpoint is about this one's too.
	_ = w.signing.sign(false)
}

// prune drops the checkpoints that are about removed records only, but for the one that vouches for the first one left.
func (g *signing) prune(first uint64) error {
	if g == nil {
		return nil
	}
	b := make([]byte, g.size)
	if _, err := g.file.ReadAt(b, 0); err != nil {
		return err
	}
	keep := b[:0]
	for line := range bytes.Lines(b) {
		if c, _, _, err := parseCheckpoint(line[:len(line)-1]); err != nil || c.Seq+1 >= first {
			keep = append(keep, line...)
		}
	}
	if err := atomicfile.Write(g.file.Name(), keep); err != nil {
		return err
	}
	file, err := os.OpenFile(g.file.Name(), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	g.file.Close()
	g.file, g.size = file, int64(len(keep))
	return nil
}

// compare says how the end of the live file differs from what it was, "" when it doesn't. It reads what came after the last
// checkpoint.
func (w *Writer) compare(was state) (string, error) {
	if was.kept.Seq == 0 {
		return "", nil
	}
	if w.offset == 0 && was.kept == w.last { // the file before ends with it
		return "", nil
	}
	_, off, err := recordAfter(plain{w.log}, max(was.last.Seq, 1)-1)
	if err != nil {
		return "", err
	}
	v := verifier{hash: genesis, anywhere: off > 0 || w.number > 0, known: map[uint64][]known{}}
	v.add(known{Head: was.kept, must: true}, known{Head: was.last.Head})
	if _, err := v.file(io.NewSectionReader(w.log, off, w.offset-off), ""); err != nil {
		return "", err
	}
	if v.report.Fault == nil {
		v.atEnd()
	}
	if f := v.report.Fault; f != nil {
		f.Line = 0
		return strings.TrimPrefix(f.Error(), "0: "), nil
	}
	return "", nil
}
