package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
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
	f, err := openFile(name)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return plain{f}, nil
}

// openFile opens a file of a log, or beside one, to read it. Logs of other accounts are read by root too, so nothing else is waited for,
// nor read without end.
func openFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is a %s, and no file of a log", name, fileKind(st.Mode()))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// open opens a closed file, which may be compressed at this moment; the error is fs.ErrNotExist when it was removed.
func (f files) open(number int) (source, error) {
	in, err := openPlain(f.closed(number))
	if errors.Is(err, fs.ErrNotExist) {
		return openPacked(f.closed(number) + packedExtension)
	}
	return in, err
}

// linked reports whether a file still has a name: not once it was removed, nor once another has taken its place.
func linked(in source) bool {
	var st os.FileInfo
	var err error
	switch f := in.(type) {
	case plain:
		st, err = f.Stat()
	case *packed:
		st, err = f.file.Stat()
	}
	return err != nil || st == nil || st.Sys().(*syscall.Stat_t).Nlink > 0
}
