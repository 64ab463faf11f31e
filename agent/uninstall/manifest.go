package uninstall

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Manifest is what scripts/install wrote about what it put where. A line is `KIND VALUE PATH`: a file or configuration with
// its SHA-256, a link with its target, a directory or group that was not there before.
type Manifest struct {
	path  string
	lines []line
}

type line struct{ kind, value, path string }

// Find reads the manifest that belongs to a program: PREFIX/share/nemoclaw/manifest of PREFIX/bin/nemoclaw.
func Find(program string) (*Manifest, error) {
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		return nil, err
	}
	m := &Manifest{path: filepath.Join(filepath.Dir(filepath.Dir(program)), "share/nemoclaw/manifest")}
	text, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("uninstall: %s was not put there by `make install`: there is no %s; run the one that was, or use the package manager that brought it", program, m.path)
	}
	if err != nil {
		return nil, fmt.Errorf("uninstall: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		f := strings.SplitN(lines.Text(), " ", 3)
		if len(f) != 3 || f[0] != "group" && (!filepath.IsAbs(f[2]) || filepath.Clean(f[2]) != f[2]) {
			return nil, fmt.Errorf("uninstall: %s:%d: want KIND VALUE PATH, found %q", m.path, n, lines.Text())
		}
		m.lines = append(m.lines, line{f[0], f[1], f[2]})
	}
	return m, lines.Err()
}

// has reports whether a file of that name was installed.
func (m *Manifest) has(name string) bool {
	for _, l := range m.lines {
		if l.kind == "file" && filepath.Base(l.path) == name {
			return true
		}
	}
	return false
}

// remove removes what is as the install left it, the manifest last: a run that was cut short can be made again.
func (m *Manifest) remove(say func(string, ...any)) error {
	var failed []error
	removed := 0
	fail := func(err error) {
		if err == nil {
			removed++
		} else if !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	for _, l := range m.lines {
		switch l.kind {
		case "file", "config":
			sum, err := sumOf(l.path)
			switch {
			case err != nil:
				fail(err)
			case sum == l.value:
				fail(os.Remove(l.path))
			default:
				say("kept %s, which was changed after it was installed", l.path)
			}
		case "link":
			target, err := os.Readlink(l.path)
			switch {
			case err == nil && target == l.value:
				fail(os.Remove(l.path))
			case err == nil || !errors.Is(err, fs.ErrNotExist):
				say("kept %s, which is not the link that was installed", l.path)
			}
		case "group":
			fail(removeGroup(l.path, say))
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	fail(os.Remove(m.path))
	// Deepest first: they were written down in order.
	for i := len(m.lines) - 1; i >= 0; i-- {
		if m.lines[i].kind == "dir" {
			_ = os.Remove(m.lines[i].path) // what is not empty holds something else
		}
	}
	say("removed %d things that were installed (%s)", removed, m.path)
	return errors.Join(failed...)
}

func sumOf(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "not a file", nil
	}
	b, err := os.ReadFile(path)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// removeGroup removes a group that the install made, as long as nobody is in it.
func removeGroup(name string, say func(string, ...any)) error {
	b, err := os.ReadFile("/etc/group")
	if err != nil {
		return err
	}
	for l := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(l), ":")
		if len(f) != 4 || f[0] != name {
			continue
		}
		if f[3] != "" {
			say("kept the group %s, which has members: %s", name, f[3])
			return fs.ErrNotExist
		}
		if out, err := exec.Command("groupdel", name).CombinedOutput(); err != nil {
			return fmt.Errorf("groupdel %s: %w: %s", name, err, bytes.TrimSpace(out))
		}
		return nil
	}
	return fs.ErrNotExist
}

func systemctl(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
