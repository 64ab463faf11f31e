package transfer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/tarname"
)

// Download packs what is at a path of the sandbox as a tar stream: a directory as ".", with all below it, or one file under its
// name. Symbolic links are packed as such; the path's own last element is followed.
func Download(ctx context.Context, s Sandbox, from string, to io.Writer) (Report, error) {
	d := &download{ctx: ctx, out: tar.NewWriter(to), links: map[inode]string{}, bytes: maxBytes, files: maxFiles}
	err := s.asUser(func() error {
		at, err := s.target(from)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		return d.run(at, from)
	})
	return d.Report, err
}

type inode struct{ dev, ino uint64 }

type download struct {
	Report
	ctx   context.Context
	out   *tar.Writer
	links map[inode]string // names of files that have several
	bytes int64
	files int
}

func (d *download) run(at int, from string) error {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return fmt.Errorf("transfer: %s in the sandbox: %w", from, err)
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		var fd int
		if fd, err = reopen(at, unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
			err = d.dir(fd, ".", 0)
		}
	case unix.S_IFREG:
		var fd int
		if fd, err = reopen(at, unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
			err = d.file(fd, path.Base(path.Clean(from)))
		}
	default:
		err = errors.New("it is neither a file nor a directory")
	}
	if err == nil {
		err = d.out.Close()
	}
	if err != nil {
		return fmt.Errorf("transfer: %s in the sandbox: %w", from, err)
	}
	return nil
}

// reopen opens what an O_PATH descriptor stands for, and nothing else.
func reopen(at int, flags int) (int, error) {
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
}

func (d *download) count() error {
	if err := canceled(d.ctx); err != nil {
		return err
	}
	if d.Files++; d.Files > d.files {
		return fmt.Errorf("it has more than %d files", d.files)
	}
	return nil
}

func header(name string, st *unix.Stat_t) *tar.Header {
	return &tar.Header{Name: name, Mode: int64(st.Mode & 0o777), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
}

// dir packs a directory. It closes its descriptor.
func (d *download) dir(fd int, name string, depth int) error {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	what, err := kernels(fd)
	if err != nil {
		return err
	}
	if what != "" {
		d.Skipped++
		return nil
	}
	if depth == tarname.MaxDepth {
		return fmt.Errorf("%q: more than %d directories deep", name, tarname.MaxDepth)
	}
	if err := d.count(); err != nil {
		return err
	}
	h := header(name+"/", &st)
	h.Typeflag = tar.TypeDir
	if err := d.out.WriteHeader(h); err != nil {
		return err
	}
	const some = 1024
	for {
		names, err := f.Readdirnames(some)
		slices.Sort(names)
		for _, base := range names {
			if err := d.entry(fd, base, path.Join(name, base), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// entry packs what a directory has under a name. What is gone meanwhile, or may not be read, is left out.
func (d *download) entry(dir int, base, name string, depth int) error {
	at, err := openat2(dir, base, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_MAGICLINKS)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFREG:
	case unix.S_IFLNK:
		return d.link(at, name, &st)
	default:
		if err := d.count(); err != nil {
			return err
		}
		d.Skipped++
		return nil
	}
	directory := st.Mode&unix.S_IFMT == unix.S_IFDIR
	flags := unix.O_RDONLY | unix.O_NONBLOCK
	if directory {
		flags |= unix.O_DIRECTORY
	}
	fd, err := reopen(at, flags) // the very file that was looked at
	switch {
	case errors.Is(err, unix.EACCES):
		d.Skipped++
		return d.count()
	case err != nil:
		return fmt.Errorf("%q: %w", name, err)
	case directory:
		return d.dir(fd, name, depth+1)
	}
	return d.file(fd, name)
}

func (d *download) link(at int, name string, st *unix.Stat_t) error {
	if err := d.count(); err != nil {
		return err
	}
	buf := make([]byte, tarname.MaxLength)
	n, err := unix.Readlinkat(at, "", buf)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	h := header(name, st)
	h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, string(buf[:n]), 0o777
	return d.out.WriteHeader(h)
}

// file packs a file of the size that it has now. It closes its descriptor.
func (d *download) file(fd int, name string) error {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if err := d.count(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	h := header(name, &st)
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if id := (inode{st.Dev, st.Ino}); st.Nlink > 1 {
		if first, ok := d.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return d.out.WriteHeader(h)
		}
		d.links[id] = name
	}
	if st.Size > d.bytes-d.Bytes {
		return fmt.Errorf("%q: all files together have more than %d bytes", name, d.bytes)
	}
	d.Bytes += st.Size
	if err := d.out.WriteHeader(h); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	n, err := io.Copy(d.out, reader{d.ctx, io.LimitReader(f, st.Size)})
	if err == nil && n < st.Size {
		const worth = 16
		if len(d.Changed) < worth {
			d.Changed = append(d.Changed, name)
		}
		_, err = io.CopyN(d.out, zeros{d.ctx}, st.Size-n)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// zeros fill up what became shorter: a stream can't take its word back.
type zeros struct{ ctx context.Context }

func (z zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), canceled(z.ctx)
}
