package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// find looks for a command as execvp would inside: an absolute path, or the first executable file on PATH.
func (p *programs) find(name string) (found, error) {
	if name[0] == '/' {
		return p.open(name)
	}
	var failed error
	for dir := range strings.SplitSeq(policy.SearchPath, ":") {
		if !p.mayHave(dir, name) {
			continue
		}
		f, err := p.open(dir + "/" + name)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			failed = err
		}
	}
	if failed == nil {
		failed = fmt.Errorf("it is not on the sandbox's PATH (%s): install it, or give its absolute path", policy.SearchPath)
	}
	return found{}, failed
}

// smallDir is how many bytes of directory entries make looking for a name in a list cheaper than trying to open it.
const smallDir = 8 << 10

// fewNames is how many names are looked for without listing a directory.
const fewNames = 30

// usualDir is where most programs are: it is not listed.
const usualDir = "/usr/bin"

// mayHave reports whether a directory can have an entry. Most names are in the fourth directory of PATH, and those
// before it are small.
func (p *programs) mayHave(dir, name string) bool {
	if !p.many || dir == usualDir {
		return true
	}
	names, known := p.listed[dir]
	if !known {
		names = p.names(dir)
		p.listed[dir] = names
	}
	if names == nil {
		return true
	}
	_, ok := names[name]
	return ok
}

// names lists a directory; nil when it is large or can't be read.
func (p *programs) names(dir string) map[string]struct{} {
	fd, err := openIn(p.root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return map[string]struct{}{}
	}
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Getdents(fd, p.buf[:smallDir])
	if err != nil {
		return nil
	}
	_, count, names := unix.ParseDirent(p.buf[:n], -1, nil)
	if n, err = unix.Getdents(fd, p.buf[:smallDir]); n != 0 || err != nil {
		return nil
	}
	set := make(map[string]struct{}, count)
	for _, name := range names {
		set[name] = struct{}{}
	}
	return set
}

// open opens an executable regular file of the view, to read: what it is shows in its first bytes.
func (p *programs) open(name string) (found, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err := openStrict(p.root, name, flags)
	real := err == nil
	if errors.Is(err, unix.ELOOP) {
		fd, err = openIn(p.root, name, flags)
	}
	if errors.Is(err, unix.ENXIO) {
		return found{}, fmt.Errorf("%s is not a regular file", name) // a socket, or a device without a driver
	}
	if err != nil {
		return found{}, fmt.Errorf("%s can't be opened in the sandbox's view: %w", name, err)
	}
	var at unix.Stat_t
	err = unix.Fstat(fd, &at)
	switch {
	case err != nil:
	case at.Mode&unix.S_IFMT != unix.S_IFREG:
		err = fmt.Errorf("%s is not a regular file", name)
	case at.Mode&0o111 == 0:
		err = fmt.Errorf("%s is not executable", name)
	}
	if err != nil {
		unix.Close(fd)
		return found{}, err
	}
	return found{fd, inode{at.Dev, at.Ino}, name, real}, nil
}

// real is the path of an open file inside, symbolic links followed.
func (p *programs) real(f found) (string, error) {
	if f.real {
		return path.Clean(f.name), nil
	}
	n, err := unix.Readlink("/proc/thread-self/fd/"+strconv.Itoa(f.fd), p.buf)
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(string(p.buf[:n]), p.prefix), nil
}

// expand lists what a helper means: a pattern's matches, or the name itself.
func (p *programs) expand(helper string) []string {
	if !strings.ContainsAny(helper, "*?[") || helper == "[" {
		return []string{helper}
	}
	dir, last := path.Split(helper)
	fd, err := openIn(p.root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	entries, _ := d.ReadDir(-1)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var found []string
	targets := map[string]bool{}
	for _, e := range entries {
		if ok, _ := path.Match(last, e.Name()); !ok {
			continue
		}
		// Most of git's helpers are links to one file: another one to it allows nothing more.
		if e.Type() == fs.ModeSymlink {
			n, err := unix.Readlinkat(fd, e.Name(), p.buf[:unix.PathMax])
			if target := string(p.buf[:max(n, 0)]); err == nil && targets[target] {
				continue
			} else if err == nil {
				targets[target] = true
			}
		}
		found = append(found, dir+e.Name())
	}
	return found
}

// head reads the start of a file. It is valid until the next use of p.buf.
func (p *programs) head(fd int) ([]byte, error) {
	n, err := unix.Pread(fd, p.buf[:headSize], 0)
	return p.buf[:max(n, 0)], err
}
