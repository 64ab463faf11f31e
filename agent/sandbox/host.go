package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// fileKind is what a path is on the host.
type fileKind uint8

const (
	kindMissing fileKind = iota
	kindDir
	kindFile
	kindSocket
	kindOther
)

// link is a symbolic link: where it is, and what it says.
type link struct{ path, target string }

// resolved is where a path leads to.
type resolved struct {
	real  string // no symbolic links in it; what does not exist is kept as it is
	kind  fileKind
	links []link // met on the way, in order
}

// host is what planning asks of the machine.
type host interface {
	resolve(p string) (resolved, error)
	lstat(p string) (target string, kind fileKind, err error) // target: of a symbolic link
	glob(pattern string) []string                             // * in the last element only
}

// maxLinks is how many symbolic links one path may go through, as the kernel has it.
const maxLinks = 40

// realHost asks the real file system, each directory once.
type realHost struct {
	known map[string]known
	dirs  map[string][]string
}

type known struct {
	target string
	kind   fileKind
}

func newRealHost() *realHost {
	return &realHost{known: map[string]known{}, dirs: map[string][]string{}}
}

func (h *realHost) lstat(p string) (string, fileKind, error) {
	if k, ok := h.known[p]; ok {
		return k.target, k.kind, nil
	}
	var k known
	switch info, err := os.Lstat(p); {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
	case err != nil:
		return "", 0, fmt.Errorf("looking at %s, which a rule needs: %w", p, err)
	case info.Mode()&fs.ModeSymlink != 0:
		if k.target, err = os.Readlink(p); err != nil {
			return "", 0, fmt.Errorf("reading the symbolic link %s, which a rule needs: %w", p, err)
		}
	case info.IsDir():
		k.kind = kindDir
	case info.Mode().IsRegular():
		k.kind = kindFile
	case info.Mode()&fs.ModeSocket != 0:
		k.kind = kindSocket
	default:
		k.kind = kindOther
	}
	h.known[p] = k
	return k.target, k.kind, nil
}

func (h *realHost) resolve(p string) (resolved, error) { return resolveWith(h.lstat, p) }

func (h *realHost) glob(pattern string) []string {
	dir, last := path.Split(pattern)
	dir = path.Clean(dir)
	if !strings.ContainsAny(last, "*?[") {
		if _, kind, err := h.lstat(pattern); err != nil || kind == kindMissing {
			return nil
		}
		return []string{pattern}
	}
	names, ok := h.dirs[dir]
	if !ok {
		if f, err := os.Open(dir); err == nil {
			names, _ = f.Readdirnames(-1)
			f.Close()
		}
		h.dirs[dir] = names
	}
	var found []string
	for _, name := range names {
		if match, _ := filepath.Match(last, name); match {
			found = append(found, path.Join(dir, name))
		}
	}
	return found
}

// resolveWith follows the symbolic links of a clean absolute path, element by element.
func resolveWith(lstat func(string) (string, fileKind, error), p string) (resolved, error) {
	if p == "" || p[0] != '/' {
		return resolved{}, fmt.Errorf("%q is not an absolute path", p)
	}
	r := resolved{real: "/", kind: kindDir}
	rest := strings.Split(p[1:], "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			r.real = path.Dir(r.real)
			r.kind = kindDir
			continue
		}
		at := path.Join(r.real, name)
		if r.kind == kindMissing {
			r.real = at
			continue
		}
		target, kind, err := lstat(at)
		if err != nil {
			return resolved{}, err
		}
		if target == "" {
			r.real, r.kind = at, kind
			continue
		}
		if r.links = append(r.links, link{at, target}); len(r.links) > maxLinks {
			return resolved{}, fmt.Errorf("%s goes through more than %d symbolic links", p, maxLinks)
		}
		rest = append(strings.Split(target, "/"), rest...)
		if target[0] == '/' {
			r.real, r.kind = "/", kindDir
		}
	}
	return r, nil
}
