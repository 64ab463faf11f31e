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
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/tarname"
)

// Upload unpacks a tar stream below a directory of the sandbox, which is made where it is missing. What is there under the same
// name is replaced, directories excepted. Modes and times are the stream's, without set-uid and set-gid; owners are not. After an error what was unpacked
// until then stays.
func Upload(ctx context.Context, s Sandbox, to string, stream io.Reader) (Report, error) {
	var u *upload
	err := s.asUser(func() error {
		at, err := s.makeTarget(to)
		if err != nil {
			return err
		}
		defer unix.Close(at)
		var st unix.Stat_t
		if err := unix.Fstat(at, &st); err != nil {
			return fmt.Errorf("transfer: %s in the sandbox: %w", to, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("transfer: %s in the sandbox is not a directory: %w", to, unix.ENOTDIR)
		}
		u = newUpload(at)
		return u.run(ctx, stream)
	})
	if u == nil {
		return Report{}, err
	}
	return u.Report, err
}

// makeTarget opens a directory, and makes it and those above it first where they are missing.
func (s Sandbox) makeTarget(to string) (int, error) {
	at, err := s.target(to)
	if !errors.Is(err, unix.ENOENT) || path.Clean(to) == "/" || strings.Count(to, "/") > tarname.MaxDepth {
		return at, err
	}
	above, e := s.makeTarget(path.Dir(path.Clean(to)))
	if e != nil {
		return -1, err // of the whole path
	}
	defer unix.Close(above)
	base := path.Base(to)
	if err := unix.Mkdirat(above, base, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("transfer: making %s in the sandbox: %w", to, err)
	}
	at, err = openat2(above, base, unix.O_PATH|unix.O_DIRECTORY, strict)
	if err != nil {
		return -1, fmt.Errorf("transfer: %s in the sandbox: %w", to, err)
	}
	return at, nil
}

type upload struct {
	Report
	at    int // where it goes
	bytes int64
	files int
	dirs  []dirMeta
}

// dirMeta is set at the end: a directory may forbid to write in it.
type dirMeta struct {
	name string
	mode uint32
	time time.Time
}

func newUpload(at int) *upload { return &upload{at: at, bytes: maxBytes, files: maxFiles} }

func (u *upload) run(ctx context.Context, stream io.Reader) error {
	r := tar.NewReader(stream)
	for {
		if err := canceled(ctx); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("transfer: reading the tar stream: %w", err)
		}
		if u.Files++; u.Files > u.files {
			return fmt.Errorf("transfer: the tar stream has more than %d files", u.files)
		}
		if err := u.entry(ctx, h, r); err != nil {
			return fmt.Errorf("transfer: %q: %w", h.Name, err)
		}
	}
	for _, d := range slices.Backward(u.dirs) {
		if err := u.finishDir(d); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) { // moved away meanwhile
			return fmt.Errorf("transfer: %q: %w", d.name, err)
		}
	}
	return nil
}

// tries is how often something is put in the place of what others put there.
const tries = 8

func (u *upload) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	name, err := tarname.Clean(h.Name)
	if err != nil || name == "" {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.Skipped++
		return nil
	default:
		return fmt.Errorf("an entry of the unknown type %q", h.Typeflag)
	}
	dir, err := u.parent(path.Dir(name))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	base := path.Base(name)
	mode := uint32(h.Mode) & 0o777
	if h.Typeflag == tar.TypeDir {
		err := unix.Mkdirat(dir, base, 0o700)
		if err == nil {
			u.dirs = append(u.dirs, dirMeta{name, mode, h.ModTime})
		} else if errors.Is(err, unix.EEXIST) {
			err = isDir(dir, base)
		}
		return err
	}
	for range tries {
		switch h.Typeflag {
		case tar.TypeSymlink:
			err = unix.Symlinkat(h.Linkname, dir, base)
		case tar.TypeLink:
			err = u.link(h.Linkname, dir, base)
		default:
			err = u.file(ctx, dir, base, h, mode, content)
		}
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err := unix.Unlinkat(dir, base, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return err
}

// isDir checks what stands in a directory's way.
func isDir(dir int, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = fmt.Errorf("something that is no directory is there: %w", unix.EEXIST)
	}
	return err
}

// parent opens a directory below the target, and makes what is missing of it.
func (u *upload) parent(name string) (int, error) {
	fd, err := openat2(u.at, name, unix.O_PATH|unix.O_DIRECTORY, strict)
	if !errors.Is(err, unix.ENOENT) || name == "." {
		if errors.Is(err, unix.ELOOP) {
			err = fmt.Errorf("%s is, or goes through, a symbolic link, which is not followed: %w", name, err)
		}
		return fd, err
	}
	above, err := u.parent(path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, path.Base(name), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openat2(above, path.Base(name), unix.O_PATH|unix.O_DIRECTORY, strict)
}

func (u *upload) file(ctx context.Context, dir int, base string, h *tar.Header, mode uint32, content io.Reader) error {
	if h.Size < 0 || h.Size > u.bytes-u.Bytes {
		return fmt.Errorf("the tar stream has more than %d bytes", u.bytes)
	}
	// O_EXCL: nothing that is there is opened, whatever it is.
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	n, err := io.Copy(f, reader{ctx, content})
	u.Bytes += n
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	if err == nil {
		err = setTime(fd, h.ModTime)
	}
	if err = errors.Join(err, f.Close()); errors.Is(err, unix.EEXIST) {
		return errors.New(err.Error()) // no reason to try again
	}
	return err
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := canceled(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func setTime(fd int, at time.Time) error {
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
}

// link makes a hard link to what lies below the target, real directories between.
func (u *upload) link(target string, dir int, base string) error {
	name, err := tarname.Clean(target)
	if err != nil || name == "" {
		return fmt.Errorf("a hard link to %q: %w", target, errors.Join(err, unix.EPERM))
	}
	from, err := openat2(u.at, path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, strict)
	if err != nil {
		return fmt.Errorf("a hard link to %q: %w", target, err)
	}
	defer unix.Close(from)
	return unix.Linkat(from, path.Base(name), dir, base, 0)
}

func (u *upload) finishDir(d dirMeta) error {
	fd, err := openDir(u.at, d.name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return errors.Join(setTime(fd, d.time), unix.Fchmod(fd, d.mode))
}
