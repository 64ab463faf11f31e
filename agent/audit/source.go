package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// A source is a file of a chain to read from, as the lines that were written, however it is kept.
type source interface {
	io.ReaderAt
	io.Closer
	Name() string
	Size() (int64, error)
}

// plain is a file that is kept as it was written. It may grow.
type plain struct{ *os.File }

func (p plain) Size() (int64, error) {
	st, err := p.Stat()
	if err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	return st.Size(), nil
}

func openPlain(name string) (source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return plain{f}, nil
}

// open opens a closed file, which may be compressed at this moment; the error is fs.ErrNotExist when it was removed.
func (f files) open(number int) (source, error) {
	in, err := openPlain(f.closed(number))
	if errors.Is(err, fs.ErrNotExist) {
		return openPacked(f.closed(number) + packedExtension)
	}
	return in, err
}
