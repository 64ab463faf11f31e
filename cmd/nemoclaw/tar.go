package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pack writes src, called as, as a tar stream: a file, or a directory with its contents. Links are packed as they are.
// left names what a tar stream for a sandbox doesn't take: devices, sockets, named pipes.
//
// Nothing outside of src is read, even if somebody, such as an agent that works there, changes it meanwhile.
func pack(w io.Writer, src, as string, dir bool) (left []string, err error) {
	t := tar.NewWriter(w)
	if dir {
		left, err = packDir(t, src, as)
	} else {
		err = packPath(t, os.OpenFile, src, as)
	}
	if err != nil {
		return left, err
	}
	return left, t.Close()
}

func packDir(t *tar.Writer, src, as string) (left []string, err error) {
	root, err := os.OpenRoot(src)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: path.Join(as, name), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX}
		switch info.Mode().Type() {
		case fs.ModeDir:
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
			return t.WriteHeader(h)
		case fs.ModeSymlink:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = root.Readlink(name); err != nil {
				return err
			}
			return t.WriteHeader(h)
		case 0:
			return packPath(t, root.OpenFile, name, h.Name)
		}
		left = append(left, name+", which is "+kind(info.Mode()))
		return nil
	})
	return left, err
}

// packPath packs a file.
func packPath(t *tar.Writer, open func(string, int, fs.FileMode) (*os.File, error), name, as string) error {
	f, err := open(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe that has taken its place must not block
	if err != nil {
		return err
	}
	defer f.Close()
	return packFile(t, f, as)
}

func packFile(t *tar.Writer, f *os.File, name string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is %s, not a file or directory", name, kind(info.Mode()))
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Format: tar.FormatPAX}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(t, f, h.Size); errors.Is(err, io.EOF) {
		return fmt.Errorf("%s became shorter while it was read", name)
	} else if err != nil {
		return err
	}
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeDevice != 0:
		return "a device"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m.IsDir():
		return "a directory"
	}
	return "something else"
}

// unpackFile writes the one file that a tar stream from a sandbox holds to w.
func unpackFile(r io.Reader, w io.Writer) error {
	t := tar.NewReader(r)
	h, err := first(t)
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return errors.New("only a file can be written to standard output; name a directory of this host instead of -")
	}
	if _, err = io.Copy(w, t); err == nil {
		_, err = io.Copy(io.Discard, r) // padding
	}
	return err
}

// first is the first entry of a stream.
func first(t *tar.Reader) (*tar.Header, error) {
	h, err := t.Next()
	if errors.Is(err, io.EOF) {
		err = errors.New("the sandbox sent nothing")
	}
	return h, err
}

// unpack writes what a tar stream from a sandbox holds to dst: a directory, whose entry comes first and whose name all others
// begin with, or one file. The stream's maker is hostile: nothing outside of dst is written, no link that leads out of it
// is made, and no file is more than a file with permissions. left names what was left out, and why.
func unpack(r io.Reader, dst string) (left []string, err error) {
	t := tar.NewReader(r)
	h, err := first(t)
	if err != nil {
		return nil, err
	}
	u := unpacker{from: path.Dir(path.Clean(h.Name)), modes: map[string]fs.FileMode{}}
	to := dst
	if h.Typeflag == tar.TypeDir {
		u.from = path.Clean(h.Name)
		if err := os.MkdirAll(dst, 0o755); err != nil {
			return nil, err
		}
	} else if to, u.as, err = fileDestination(dst); err != nil {
		return nil, err
	}
	if u.root, err = os.OpenRoot(to); err != nil {
		return nil, err
	}
	defer func() { _ = u.root.Close() }() // the files in it are closed, and their errors known
	for err == nil {
		if err = u.entry(h, t); err == nil {
			h, err = t.Next()
		}
	}
	if !errors.Is(err, io.EOF) {
		return u.left, err
	}
	_, err = io.Copy(io.Discard, r) // padding
	return u.left, errors.Join(err, u.finish())
}

// fileDestination says into which directory a file goes, and how it is called there; "": as it is.
func fileDestination(dst string) (dir, as string, err error) {
	info, err := os.Stat(dst)
	switch {
	case err == nil && info.IsDir() || strings.HasSuffix(dst, "/"):
		return filepath.Clean(dst), "", nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	}
	return filepath.Dir(dst), filepath.Base(dst), nil
}

type unpacker struct {
	root  *os.Root
	from  string                 // what names in the stream begin with
	as    string                 // what the one file is called; "": as it is
	modes map[string]fs.FileMode // of directories, set when all is in them
	left  []string
}

// place is where an entry of the stream goes; "" for nowhere.
func (u *unpacker) place(name string) string {
	name = path.Clean(name)
	if u.from != "." && name != u.from {
		below, ok := strings.CutPrefix(name, u.from+"/")
		if !ok {
			return ""
		}
		name = below
	} else if name == u.from {
		return "."
	}
	if u.as != "" {
		name = u.as
	}
	if !filepath.IsLocal(name) {
		return ""
	}
	return name
}

// entry unpacks one entry. It returns an error when unpacking can't go on.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name := u.place(h.Name)
	if name == "" {
		u.leave(h.Name, "it is outside of what was asked for")
		return nil
	}
	mode := fs.FileMode(h.Mode) & fs.ModePerm
	if why := u.parents(name); why != "" {
		u.leave(name, why)
		return nil
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if info, err := u.root.Lstat(name); err != nil || !info.IsDir() {
			if err := u.clear(name); err != nil {
				return err
			}
			if err := u.root.Mkdir(name, mode|0o700); err != nil {
				return err
			}
		}
		u.modes[name] = mode
		return nil
	case tar.TypeReg:
		if err := u.clear(name); err != nil {
			return err
		}
		return u.file(name, mode, h.ModTime, content)
	case tar.TypeLink:
		// Another name of a file that came before. Of a symbolic link it would be one whose target is counted from elsewhere.
		old := u.place(h.Linkname)
		if info, err := u.root.Lstat(old); old == "" || u.parents(old) != "" || err != nil || !info.Mode().IsRegular() {
			u.leave(name, "it is another name of "+h.Linkname+", which is no file in the directory")
			return nil
		}
		if old == name {
			return nil
		}
		if err := u.clear(name); err != nil {
			return err
		}
		return u.root.Link(old, name)
	case tar.TypeSymlink:
		if !staysBelow(name, h.Linkname) {
			u.leave(name, "it is a link that leads out of the directory, to "+h.Linkname)
			return nil
		}
		if err := u.clear(name); err != nil {
			return err
		}
		return u.root.Symlink(h.Linkname, name)
	}
	u.leave(name, "it is no file, directory or link")
	return nil
}

// parents makes the directories that lead to name, and says why name can't be there: a link on the way would put it,
// and where its own target is counted from, elsewhere.
func (u *unpacker) parents(name string) string {
	for i, c := range name {
		if c != '/' {
			continue
		}
		info, err := u.root.Lstat(name[:i])
		if errors.Is(err, fs.ErrNotExist) {
			if err = u.root.Mkdir(name[:i], 0o755); err == nil {
				continue
			}
		}
		switch {
		case err != nil:
			return err.Error()
		case !info.IsDir():
			return name[:i] + " is no directory"
		}
	}
	return ""
}

// clear removes what is in the way of name: nothing is written through it.
func (u *unpacker) clear(name string) error {
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u *unpacker) file(name string, mode fs.FileMode, modified time.Time, content io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	return errors.Join(err, u.root.Chtimes(name, time.Time{}, modified))
}

func (u *unpacker) leave(name, why string) { u.left = append(u.left, name+": "+why) }

// finish sets the permissions of directories, from the inside out.
func (u *unpacker) finish() error {
	var names []string
	for name := range u.modes {
		if name != "." { // it is the person's
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var failed []error
	for _, name := range slices.Backward(names) {
		failed = append(failed, u.root.Chmod(name, u.modes[name]))
	}
	return errors.Join(failed...)
}

// staysBelow reports whether a symbolic link at name leads to a place below the directory, wherever the links lead that
// it may pass: they are such links too. So ".." may only come first: behind a name it could follow another link's target.
func staysBelow(name, target string) bool {
	if path.IsAbs(target) || target == "" {
		return false
	}
	depth := strings.Count(name, "/")
	down := false
	for element := range strings.SplitSeq(target, "/") {
		switch element {
		case "", ".":
		case "..":
			if depth--; down || depth < 0 {
				return false
			}
		default:
			down = true
		}
	}
	return true
}
