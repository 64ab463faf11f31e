// Package secret reads keys and tokens from files, and from the credentials that systemd gives. A file that another account could read
// or change is refused. No error has anything of what is in one, and the package keeps nothing and never writes.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The bounds of a file and of a line, in bytes.
const (
	maxFile = 64 << 10
	maxLine = 4096
)

// File reads a file that belongs to root or to this process's account, and that no other may read or write. A link is followed when it
// belongs to one of the two: certbot and Kubernetes make such.
func File(name string) ([]byte, error) { return read(name, 0o077, "600") }

// SharedFile is File, but members of the file's group may read it, too.
func SharedFile(name string) ([]byte, error) { return read(name, 0o027, "640") }

// Credential reads a credential of systemd (LoadCredential= of the unit), which says itself who may read it.
func Credential(name string) ([]byte, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, fmt.Errorf("it is the credential %s, and systemd gave this process none; add LoadCredential=%[1]s:FILE to its unit", name)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return all(f)
}

// Line is the one line of a text, as a key or a token is: visible ASCII without blanks, so that it can be nothing but a word of a header.
func Line(text []byte) (string, error) {
	line := strings.TrimSpace(string(text))
	if line == "" || len(line) > maxLine || strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("want one line of visible characters without blanks")
	}
	return line, nil
}

// read reads a file whose mode has none of the bits of others.
func read(name string, others fs.FileMode, mode string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would hold who asks for ever
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	link, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	switch {
	case stranger(st) >= 0:
		return nil, fmt.Errorf("%s belongs to another account (uid %d), which could change it: chown root %s", name, stranger(st), name)
	case stranger(link) >= 0:
		return nil, fmt.Errorf("%s is a link of another account (uid %d), which could change it: chown -h root %s", name, stranger(link), name)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	case st.Mode().Perm()&others != 0:
		return nil, fmt.Errorf("%s can be read or changed by others (mode %04o): chmod %s %s", name, st.Mode().Perm(), mode, name)
	}
	return all(f)
}

// stranger is the account that a file belongs to, unless that is root or this process's: then it is -1.
func stranger(st fs.FileInfo) int {
	if uid := int(st.Sys().(*syscall.Stat_t).Uid); uid != 0 && uid != os.Geteuid() {
		return uid
	}
	return -1
}

func all(f *os.File) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		return nil, fmt.Errorf("%s is too long: it has more than %d bytes", f.Name(), maxFile)
	}
	return text, err
}
