package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds on one copy.
const (
	maxFiles = 4 << 20
	maxDepth = 256
	maxPath  = 4095
)

// copier copies a tree by descriptors.
type copier struct {
	Report
	ctx   context.Context
	to    int               // the new tree's root
	links map[inode]string  // paths below to of files that have several names
	buf   []byte            // for content
	most  int               // of files
	keep  func(int64) error // fails when a file of a size would fill the disk
}

type inode struct{ dev, ino uint64 }

// copyTo copies the directory behind a descriptor to a new one.
func copyTo(ctx context.Context, from int, at string) (Report, error) {
	if err := os.Mkdir(at, 0o700); err != nil {
		return Report{}, err
	}
	to, err := openWorkspace(at)
	if err != nil {
		return Report{}, err
	}
	defer unix.Close(to)
	return copyInto(ctx, from, to)
}

func copyInto(ctx context.Context, from, to int) (Report, error) {
	c := &copier{
		ctx: ctx, to: to, links: map[inode]string{}, buf: make([]byte, 1<<20), most: maxFiles,
		keep: func(size int64) error { return room(to, size) },
	}
	source, err := openDir(from, ".") // a descriptor of its own: it is closed
	if err != nil {
		return c.Report, err
	}
	err = c.dir(source, to, "", 0)
	return c.Report, err
}

// room checks that a disk does not get full by a file: others need it as well.
func room(at int, size int64) error {
	const small, most, share = 1 << 20, 1 << 30, 20
	if size < small {
		return nil
	}
	var disk unix.Statfs_t
	if err := unix.Fstatfs(at, &disk); err != nil {
		return err
	}
	free, keep := int64(disk.Bavail)*disk.Bsize, min(most, int64(disk.Blocks)*disk.Bsize/share)
	if free-size < keep {
		return fmt.Errorf("the disk has %d bytes free, %d are kept so, and %d are needed: %w", free, keep, size, unix.ENOSPC)
	}
	return nil
}

func (c *copier) count() error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if c.Files++; c.Files > c.most {
		return fmt.Errorf("there are more than %d files", c.most)
	}
	return nil
}

// dir copies what a directory holds, and then what is said about it. It closes from.
func (c *copier) dir(from, to int, name string, depth int) error {
	f := os.NewFile(uintptr(from), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if depth > maxDepth || len(name) > maxPath {
		return fmt.Errorf("%q...: more than %d directories deep, or its path longer than %d bytes", name[:min(len(name), 60)], maxDepth, maxPath)
	}
	const some = 1024
	for {
		names, err := f.Readdirnames(some)
		for _, base := range names {
			if err := c.entry(from, to, base, path.Join(name, base), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return c.describe(from, to, &st, st.Mode&0o7777)
}

// entry copies one entry of a directory. What is gone meanwhile is left out.
func (c *copier) entry(from, to int, base, name string, depth int) error {
	at, err := unix.Openat2(from, base, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS})
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EXDEV): // something is mounted there
		c.Skipped++
		return c.count()
	case err != nil:
		return fmt.Errorf("%q: %w", name, err)
	}
	defer unix.Close(at)
	err = c.copy(at, to, base, name, depth)
	var deeper *entryError
	if err == nil || errors.As(err, &deeper) {
		return err
	}
	return &entryError{name, err}
}

// entryError names the entry that could not be copied, once.
type entryError struct {
	name string
	err  error
}

func (e *entryError) Error() string { return fmt.Sprintf("%q: %v", e.name, e.err) }
func (e *entryError) Unwrap() error { return e.err }

func (c *copier) copy(at, to int, base, name string, depth int) error {
	if err := c.count(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return c.subdir(at, to, base, name, depth)
	case unix.S_IFREG:
		return c.file(at, to, base, name, &st)
	case unix.S_IFLNK:
		buf := make([]byte, maxPath+1)
		n, err := unix.Readlinkat(at, "", buf)
		if err == nil {
			err = unix.Symlinkat(string(buf[:n]), to, base)
		}
		return errors.Join(seen(err), c.describeAt(to, base, &st))
	case unix.S_IFIFO:
		err := seen(unix.Mknodat(to, base, unix.S_IFIFO|0o600, 0))
		if err == nil {
			err = unix.Fchmodat(to, base, st.Mode&0o777, 0)
		}
		return errors.Join(err, c.describeAt(to, base, &st))
	}
	c.Skipped++
	return nil
}

// seen forgives that an entry is there already: a directory that changes may say a name twice.
func seen(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func (c *copier) subdir(at, to int, base, name string, depth int) error {
	if err := unix.Mkdirat(to, base, 0o700); err != nil {
		return seen(err)
	}
	below, err := openDir(to, base)
	if err != nil {
		return err
	}
	defer unix.Close(below)
	source, err := reopen(at, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return c.dir(source, below, name, depth+1)
}

// reopen opens for reading what an O_PATH descriptor stands for, and nothing else.
func reopen(at, flags int) (int, error) {
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC|flags, 0)
}

func (c *copier) file(at, to int, base, name string, st *unix.Stat_t) error {
	id := inode{st.Dev, st.Ino}
	if first, ok := c.links[id]; ok {
		return seen(unix.Linkat(c.to, first, to, base, 0))
	}
	if err := c.keep(st.Blocks * 512); err != nil {
		return err
	}
	from, err := reopen(at, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	made, err := unix.Openat(to, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return seen(err)
	}
	defer unix.Close(made)
	if err := c.content(from, made, st.Size); err != nil {
		return err
	}
	var after unix.Stat_t
	if err := unix.Fstat(from, &after); err != nil {
		return err
	}
	if after.Size != st.Size || after.Mtim != st.Mtim {
		c.Changed++
	}
	if st.Nlink > 1 && len(name) <= maxPath {
		c.links[id] = name
	}
	// No set-uid program of anybody's comes back: what is inside could have made it.
	return c.describe(from, made, st, st.Mode&0o777)
}

// content copies a file's bytes: shared with the original where the file system can, else without its holes.
func (c *copier) content(from, to int, size int64) error {
	if unix.IoctlFileClone(to, from) == nil {
		c.Bytes += size
		return unix.Ftruncate(to, size) // it may have grown
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(from, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole to its end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(from, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if at, err = c.bytes(from, to, data, min(end, size)); err != nil {
			return err
		}
		if at < min(end, size) {
			break // it became shorter
		}
	}
	return unix.Ftruncate(to, size)
}

// bytes copies a part of a file, and returns where it ended.
func (c *copier) bytes(from, to int, at, end int64) (int64, error) {
	for at < end {
		if c.ctx.Err() != nil {
			return at, context.Cause(c.ctx)
		}
		n, err := unix.Pread(from, c.buf[:min(int64(len(c.buf)), end-at)], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return at, err
		}
		for written := 0; written < n; {
			m, err := unix.Pwrite(to, c.buf[written:n], at+int64(written))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return at, err
			}
			written += max(m, 0)
		}
		at += int64(n)
		c.Bytes += int64(n)
	}
	return at, nil
}

// describe gives a new file or directory what the original says about itself. Times come last.
func (c *copier) describe(from, to int, st *unix.Stat_t, mode uint32) error {
	if err := c.attributes(from, to); err != nil {
		return err
	}
	if err := errors.Join(unix.Fchown(to, int(st.Uid), int(st.Gid)), unix.Fchmod(to, mode)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

func (c *copier) describeAt(to int, base string, st *unix.Stat_t) error {
	if err := unix.Fchownat(to, base, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, base, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// attributes copies the user.* attributes. The kernel bounds their list and each value to 64 KiB.
func (c *copier) attributes(from, to int) error {
	n, err := unix.Flistxattr(from, c.buf)
	if errors.Is(err, unix.EOPNOTSUPP) || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range strings.Split(string(c.buf[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		n, err := unix.Fgetxattr(from, name, c.buf)
		if errors.Is(err, unix.ENODATA) {
			continue // gone meanwhile
		}
		if err == nil {
			err = unix.Fsetxattr(to, name, c.buf[:n], 0)
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			c.Skipped++
			return nil // the other file system has none
		}
		if err != nil {
			return fmt.Errorf("its attribute %q: %w", name, err)
		}
	}
	return nil
}
