package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/tarname"
)

// Bounds on what an image may unpack to, all layers together: what a large one with a machine learning framework has, and
// some. A few kilobytes can say that they are more.
const (
	maxBytes   = 64 << 30
	maxEntries = 4 << 20
	keepFree   = 1 << 30 // of the disk, which others need as well
	maxLinks   = 40
)

// AUFS names, as the image specification has them.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// unpackInto unpacks an image's layers below a directory.
func unpackInto(ctx context.Context, dir string, from *source, progress func(Progress)) (Image, error) {
	at := filepath.Join(dir, rootDir)
	if err := os.Mkdir(at, 0o755); err != nil {
		return Image{}, err
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = root.Close() }()
	u := newUnpacker(root, maxBytes, maxEntries)
	for i, l := range from.layers {
		report := func() { progress(Progress{i + 1, len(from.layers), u.written}) }
		report()
		if err := u.layer(ctx, l, from.config.RootFS.DiffIDs[i], report); err != nil {
			return Image{}, fmt.Errorf("layer %d of %d: %w", i+1, len(from.layers), err)
		}
	}
	if err := u.finish(); err != nil {
		return Image{}, err
	}
	c := from.config.Config
	return Image{
		Digest: from.digest.String(), Bytes: u.written, Files: u.entries, Skipped: u.skipped,
		Config: Config{Env: c.Env, WorkDir: c.WorkingDir, User: c.User, Entrypoint: c.Entrypoint, Cmd: c.Cmd},
	}, nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// counted fails when more was read than an image may have: here a compressed bomb ends.
type counted struct {
	io.Reader
	left *int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if *c.left -= int64(n); *c.left < 0 {
		return n, errTooLarge
	}
	return n, err
}

var errTooLarge = errors.New("the image is larger than is unpacked")

// unpacker applies layers to a directory.
type unpacker struct {
	root    *os.Root
	bytes   int64 // that may be written
	left    int64 // that may still be read of layers
	most    int   // of entries
	written int64
	entries int
	work    int // looks at files for whiteouts
	skipped int
	dirs    map[string]dirMeta  // all that were ever made: modes and times are set at the end
	fresh   map[string]struct{} // real paths of this layer, and the directories above them
	parents map[string]string   // real paths of directories, by name; forgotten when a link or a directory goes
}

type dirMeta struct {
	mode fs.FileMode
	time time.Time
}

func newUnpacker(root *os.Root, bytes int64, entries int) *unpacker {
	return &unpacker{root: root, bytes: bytes, left: bytes, most: entries, dirs: map[string]dirMeta{".": {mode: 0o755}}, parents: map[string]string{}}
}

// layer applies one layer. What it unpacks to is the caller's only when its digest is the config's.
func (u *unpacker) layer(ctx context.Context, l v1.Layer, want v1.Hash, progress func()) error {
	if want.Algorithm != "sha256" {
		return fmt.Errorf("its digest %s is not SHA-256", want)
	}
	in, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer in.Close()
	sum := sha256.New()
	stream := io.TeeReader(counted{reader{ctx, in}, &u.left}, sum)
	if err := u.apply(stream, progress); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, stream); err != nil { // what follows the archive's end
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want.Hex {
		return fmt.Errorf("its digest is sha256:%s, and the config says %s: it was changed", got, want)
	}
	return nil
}

// apply unpacks one layer's archive.
func (u *unpacker) apply(stream io.Reader, progress func()) error {
	u.fresh = map[string]struct{}{}
	const step = 16 << 20
	next := u.written + step
	r := tar.NewReader(stream)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading its archive: %w", err)
		}
		if err := u.count(); err != nil {
			return err
		}
		if err := u.entry(h, r); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
		if u.written >= next {
			progress()
			next = u.written + step
		}
	}
}

func (u *unpacker) count() error {
	if u.entries++; u.entries > u.most {
		return fmt.Errorf("the image has more than %d files", u.most)
	}
	return nil
}

// entry applies one entry of an archive.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := tarname.Clean(h.Name)
	if err != nil {
		return err
	}
	if name == "" { // the root itself
		u.dirs["."] = dirMeta{h.FileInfo().Mode().Perm(), h.ModTime}
		return nil
	}
	dir, base := path.Split(name)
	if target, ok := strings.CutPrefix(base, whiteout); ok {
		return u.whiteOut(path.Clean(dir), base, target)
	}
	switch h.Typeflag {
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		u.skipped++
		return nil
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return fmt.Errorf("an entry of the unknown type %q", h.Typeflag)
	}
	in, err := u.parent(path.Clean(dir), true)
	if err != nil {
		return err
	}
	at := path.Join(in, base)
	if err := u.makeRoom(at, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	for p := at; p != "."; p = path.Dir(p) {
		u.fresh[p] = struct{}{}
	}
	mode := h.FileInfo().Mode().Perm() // no set-uid, set-gid or sticky bit
	switch h.Typeflag {
	case tar.TypeDir:
		u.dirs[at] = dirMeta{mode, h.ModTime}
		if err := u.root.Mkdir(at, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) >= tarname.MaxLength {
			return errors.New("a symbolic link to an empty or overlong name")
		}
		return u.root.Symlink(h.Linkname, at)
	case tar.TypeLink:
		return u.link(h.Linkname, at)
	}
	return u.file(at, h, mode, content)
}

func (u *unpacker) file(at string, h *tar.Header, mode fs.FileMode, content io.Reader) error {
	if h.Size < 0 || h.Size > u.bytes-u.written { // a sparse file may say more than its layer has
		return errTooLarge
	}
	u.written += h.Size
	if err := u.room(h.Size); err != nil {
		return err
	}
	f, err := u.root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.root.Chtimes(at, h.ModTime, h.ModTime)
}

// room checks before a file of some size that the disk does not get full by it.
func (u *unpacker) room(size int64) error {
	const small = 1 << 20
	if size < small {
		return nil
	}
	var fs unix.Statfs_t
	d, err := u.root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Fstatfs(int(d.Fd()), &fs); err != nil {
		return err
	}
	if free := int64(fs.Bavail) * fs.Bsize; free-size < keepFree {
		return fmt.Errorf("the disk has %d bytes free, and %d are kept so: %w", free, int64(keepFree), unix.ENOSPC)
	}
	return nil
}

// link makes a hard link to what the image has already.
func (u *unpacker) link(target, at string) error {
	name, err := tarname.Clean(target)
	if err != nil {
		return fmt.Errorf("a hard link to %q: %w", target, err)
	}
	in, err := u.parent(path.Dir(name), false)
	if err != nil {
		return fmt.Errorf("a hard link to %q: %w", target, err)
	}
	from := path.Join(in, path.Base(name))
	info, err := u.root.Lstat(from)
	if err != nil {
		return fmt.Errorf("a hard link to %q: %w", target, err)
	}
	if info.IsDir() {
		return fmt.Errorf("a hard link to the directory %q", target)
	}
	return u.root.Link(from, at)
}

// makeRoom removes what a lower layer, or an earlier entry, has at a path.
func (u *unpacker) makeRoom(at string, dir bool) error {
	info, err := u.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) || err == nil && dir && info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	return u.remove(at, info)
}

func (u *unpacker) remove(at string, info fs.FileInfo) error {
	if !info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
		return u.root.Remove(at)
	}
	clear(u.parents)
	return u.root.RemoveAll(at) // modes are set at the end, so nothing in there refuses to be removed
}

// whiteOut removes what lower layers have at a path, or in a directory.
func (u *unpacker) whiteOut(dir, base, target string) error {
	if base != opaque && (target == "" || target == "." || target == ".." || strings.HasPrefix(target, whiteout)) {
		if strings.HasPrefix(target, whiteout) {
			return nil // AUFS's own
		}
		return errors.New("a whiteout of no file")
	}
	in, err := u.parent(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if base == opaque {
		return u.removeLower(in)
	}
	return u.removeLowerAt(path.Join(in, target))
}

// removeLower empties a directory of what this layer did not put there.
func (u *unpacker) removeLower(dir string) error {
	d, err := u.root.Open(dir)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	d.Close()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := u.removeLowerAt(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) removeLowerAt(at string) error {
	if u.work++; u.work > 4*u.most {
		return errors.New("the image's layers remove too much")
	}
	info, err := u.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, ok := u.fresh[at]; !ok {
		return u.remove(at, info)
	}
	if info.IsDir() {
		return u.removeLower(at)
	}
	return nil
}

// parent follows the symbolic links of a directory's name within the image, as a process in there would, and makes what is
// missing where told. os.Root would refuse absolute links.
func (u *unpacker) parent(name string, create bool) (string, error) {
	if real, ok := u.parents[name]; ok {
		return real, nil
	}
	real, links := ".", 0
	rest := strings.Split(name, "/")
	for len(rest) > 0 {
		element := rest[0]
		rest = rest[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			real = path.Dir(real) // of "." it is "."
			continue
		}
		at := path.Join(real, element)
		info, err := u.root.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && create:
			if strings.Count(at, "/") >= tarname.MaxDepth {
				return "", fmt.Errorf("more than %d directories deep", tarname.MaxDepth)
			}
			if err := errors.Join(u.count(), u.root.Mkdir(at, 0o700)); err != nil {
				return "", err
			}
			u.dirs[at] = dirMeta{mode: 0o755}
			u.fresh[at] = struct{}{}
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := u.root.Readlink(at)
			if err != nil {
				return "", err
			}
			if links++; links > maxLinks {
				return "", fmt.Errorf("more than %d symbolic links", maxLinks)
			}
			if strings.HasPrefix(target, "/") {
				real = "."
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		case !info.IsDir():
			return "", fmt.Errorf("%s is not a directory", at)
		}
		real = at
	}
	u.parents[name] = real
	return real, nil
}

// finish gives the directories their modes and times, the deepest first: they may forbid to enter them. Some are no
// more, and something else may be there.
func (u *unpacker) finish() error {
	there := []string{"."}
	known := map[string]bool{".": true}
	for _, at := range slices.Sorted(maps.Keys(u.dirs)) {
		if at == "." || !known[path.Dir(at)] {
			continue
		}
		if info, err := u.root.Lstat(at); err == nil && info.IsDir() {
			there = append(there, at)
			known[at] = true
		}
	}
	for _, at := range slices.Backward(there) {
		meta := u.dirs[at]
		if err := u.root.Chtimes(at, meta.time, meta.time); err != nil {
			return err
		}
		if err := u.root.Chmod(at, meta.mode); err != nil {
			return err
		}
	}
	return nil
}
