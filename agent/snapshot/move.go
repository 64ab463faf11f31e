package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

func openDir(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func makeDir(dir int, name string) (int, error) {
	if err := unix.Mkdirat(dir, name, 0o700); err != nil {
		return -1, err
	}
	return openDir(dir, name)
}

// eachName calls f for what a directory holds, until it holds nothing but what f leaves there. A directory may be too large to
// be listed at once, and f takes names out of it.
func eachName(dir int, f func(name string) (left bool, err error)) error {
	buf := make([]byte, 64<<10)
	for took := true; took; {
		took = false
		if _, err := unix.Seek(dir, 0, 0); err != nil {
			return err
		}
		for {
			n, err := unix.Getdents(dir, buf)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			_, _, names := unix.ParseDirent(buf[:n], -1, nil)
			for _, name := range names {
				left, err := f(name)
				if err != nil {
					return fmt.Errorf("%q: %w", name, err)
				}
				took = took || !left
			}
		}
	}
	return nil
}

// moveAll moves what a directory holds to another, but for one name. It takes the place of what is there.
func moveAll(from, to int, but string) error {
	return eachName(from, func(name string) (bool, error) {
		if name == but {
			return true, nil
		}
		for {
			err := unix.Renameat2(from, name, to, name, unix.RENAME_NOREPLACE)
			if errors.Is(err, unix.EEXIST) {
				if err := removeAt(to, name); err != nil {
					return false, err
				}
				continue
			}
			if errors.Is(err, unix.ENOENT) {
				err = nil // it was moved in the pass before
			}
			return false, err
		}
	})
}

// removeAt removes a file, or a directory with all in it, however deep: directories are moved up before they are emptied, so
// that two descriptors are enough. What is not there is no error.
func removeAt(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	top, err := openDir(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	number := 0
	err = eachName(top, func(name string) (bool, error) {
		err := unix.Unlinkat(top, name, 0)
		if errors.Is(err, unix.ENOENT) {
			return true, nil
		}
		if !errors.Is(err, unix.EISDIR) {
			return false, err
		}
		below, err := openDir(top, name)
		if err != nil {
			return false, err
		}
		defer unix.Close(below)
		if err := flatten(below, top, &number); err != nil {
			return false, err
		}
		return false, unix.Unlinkat(top, name, unix.AT_REMOVEDIR)
	})
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// flatten empties a directory: its directories are moved up, the rest is removed.
func flatten(dir, up int, number *int) error {
	return eachName(dir, func(name string) (bool, error) {
		err := unix.Unlinkat(dir, name, 0)
		for errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) {
			*number++
			err = unix.Renameat2(dir, name, up, "nemoclaw-"+strconv.Itoa(*number), unix.RENAME_NOREPLACE)
		}
		if errors.Is(err, unix.ENOENT) {
			return true, nil
		}
		return false, err
	})
}

// RemoveAll removes a directory with all in it. What runs in a sandbox can make its workspace so deep that os.RemoveAll, which
// has a descriptor and a buffer open for each level, takes all that its process has of both.
func RemoveAll(at string) error {
	above, err := unix.Open(filepath.Dir(at), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = removeAt(above, filepath.Base(at))
		unix.Close(above)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing %s: %w", at, err)
	}
	return nil
}
