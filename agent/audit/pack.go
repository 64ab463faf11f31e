package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
)

const (
	packedExtension = ".zst"
	blockSize       = 1 << 20               // of lines; a block ends with a whole one
	maxBlock        = blockSize + MaxLine*2 // what a reader takes for one
)

// pack compresses a closed file: zstd, a frame for each block of lines, and behind them the index of the blocks in a frame that
// zstd's own tools skip. The lines are what they were. The file as it was is removed when the other is on the disk.
func (f files) pack(number int) (err error) {
	name := f.closed(number)
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	temp := name + packedExtension + ".tmp"
	out, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		out.Close()
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	if err := writePacked(out, in); err != nil {
		return err
	}
	if err := errors.Join(out.Sync(), os.Rename(temp, name+packedExtension), atomicfile.SyncDir(f.dir)); err != nil {
		return err
	}
	return os.Remove(name)
}

func writePacked(out io.Writer, in io.Reader) error {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	defer func() { _ = enc.Close() }() // it gives its memory back
	var x index
	var at, from int64
	lines := bufio.NewReaderSize(in, 256<<10)
	var block, packed []byte
	for end := false; !end; {
		line, err := lines.ReadSlice('\n')
		block = append(block, line...)
		end = errors.Is(err, io.EOF)
		if err != nil && !end && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if whole := err == nil; !end && (!whole || len(block) < blockSize) {
			if len(block) > maxBlock {
				return errors.New("it has a line that is longer than any record")
			}
			continue
		}
		if len(block) == 0 {
			break
		}
		packed = enc.EncodeAll(block, packed[:0])
		b := blockOf(block)
		b.At, b.Size, b.From, b.Bytes = at, int64(len(packed)), from, int64(len(block))
		x.Blocks = append(x.Blocks, b)
		at, from = at+b.Size, from+b.Bytes
		if _, err := out.Write(packed); err != nil {
			return err
		}
		block = block[:0]
	}
	frame, err := x.frame()
	if err != nil {
		return err
	}
	_, err = out.Write(frame)
	return err
}

// packed is a compressed file. Its blocks are read one at a time; it is not for several goroutines.
type packed struct {
	file  *os.File
	index index
	dec   *zstd.Decoder // nil: nothing was read yet
	now   int           // the block in data; -1: none
	data  []byte
	in    []byte
}

func openPacked(name string) (source, error) {
	file, err := openFile(name)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	p := &packed{file: file, now: -1}
	if p.index, err = readIndex(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("audit log %s: %w", name, err)
	}
	return p, nil
}

func (p *packed) Name() string { return p.file.Name() }

func (p *packed) Size() (int64, error) { return p.index.size(), nil }

func (p *packed) Close() error {
	if p.dec != nil {
		p.dec.Close()
	}
	return p.file.Close()
}

// load decompresses a block.
func (p *packed) load(i int) error {
	if p.now == i {
		return nil
	}
	b := &p.index.Blocks[i]
	p.now = -1
	if int64(cap(p.in)) < b.Size {
		p.in = make([]byte, b.Size)
	}
	p.in = p.in[:b.Size]
	if _, err := p.file.ReadAt(p.in, b.At); err != nil {
		return fmt.Errorf("audit log %s: %w", p.Name(), err)
	}
	var err error
	if p.dec == nil {
		if p.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock)); err != nil {
			return fmt.Errorf("audit log %s: %w", p.Name(), err)
		}
	}
	if p.data, err = p.dec.DecodeAll(p.in, p.data[:0]); err != nil {
		return fmt.Errorf("audit log %s: what is compressed from byte %d on was changed: %w", p.Name(), b.At, err)
	}
	if int64(len(p.data)) != b.Bytes {
		return fmt.Errorf("audit log %s: its index is wrong about the block at byte %d", p.Name(), b.At)
	}
	p.now = i
	return nil
}

// ReadAt reads of the lines.
func (p *packed) ReadAt(b []byte, off int64) (n int, err error) {
	for i := p.index.at(off); n < len(b); i++ {
		if i >= len(p.index.Blocks) {
			return n, io.EOF
		}
		if err := p.load(i); err != nil {
			return n, err
		}
		n += copy(b[n:], p.data[off+int64(n)-p.index.Blocks[i].From:])
	}
	return n, nil
}

// checked reads all of it, and compares what the index says of each block with what is in it.
type checked struct {
	*packed
	next int
	left []byte
	bad  error
}

func (c *checked) Read(b []byte) (int, error) {
	if len(c.left) == 0 {
		if c.next == len(c.index.Blocks) {
			return 0, io.EOF
		}
		if c.bad = c.load(c.next); c.bad != nil {
			return 0, io.EOF
		}
		is, was := blockOf(c.data), c.index.Blocks[c.next]
		is.At, is.Size, is.From, is.Bytes = was.At, was.Size, was.From, was.Bytes
		if !is.equal(was) {
			c.bad = fmt.Errorf("audit log %s: its index does not say what is in the block at byte %d, so a search could miss records", c.Name(), was.At)
			return 0, io.EOF
		}
		c.left = c.data
		c.next++
	}
	n := copy(b, c.left)
	c.left = c.left[n:]
	return n, nil
}

// tidy compresses what is closed, and removes what a kill left half done: a file that is there both ways is kept as it was written.
func (f files) tidy(pack bool) error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, isTemp := strings.CutSuffix(e.Name(), packedExtension+".tmp")
		of, n := filesOf(f.dir + "/" + name)
		if of != f || n == 0 {
			continue
		}
		_, err := os.Lstat(f.closed(n))
		switch there := err == nil; {
		case isTemp:
			err = os.Remove(f.closed(n) + packedExtension + ".tmp")
		case strings.HasSuffix(e.Name(), packedExtension) && there:
			err = os.Remove(f.closed(n) + packedExtension)
		case there && pack:
			err = f.pack(n)
		default:
			err = nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("audit log %s: compress: %w", f.closed(n), err)
		}
	}
	return nil
}

// skip moves a place at the beginning of a block past those that have nothing for a filter, and returns where the block ends that it
// is in then.
func (p *packed) skip(off *int64, flt *Filter, text []byte) (end int64) {
	i := p.index.at(*off)
	for i < len(p.index.Blocks) && *off == p.index.Blocks[i].From && !p.wanted(i, flt, text) {
		*off += p.index.Blocks[i].Bytes
		i++
	}
	if i == len(p.index.Blocks) {
		return *off
	}
	return p.index.Blocks[i].From + p.index.Blocks[i].Bytes
}

// backwards is the function backwards for the blocks that may have what is looked for.
func (p *packed) backwards(flt *Filter, text []byte, fn func(line []byte) bool) error {
	for i := len(p.index.Blocks) - 1; i >= 0; i-- {
		if !p.wanted(i, flt, text) {
			continue
		}
		if err := p.load(i); err != nil {
			return err
		}
		if _, more := linesBackwards(p.data, true, fn); !more {
			return nil
		}
	}
	return nil
}

// wanted reports whether a block may have what is looked for. One that can't be read is: its reader meets the error.
func (p *packed) wanted(i int, flt *Filter, text []byte) bool {
	return p.index.Blocks[i].may(flt) && (text == nil || p.load(i) != nil || bytes.Contains(p.data, text))
}
