package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type entry struct {
	name, link, content string
	kind                byte
	mode                int64
}

func stream(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if entries[0] == here && e != here && !strings.HasPrefix(e.name, "/") && !strings.HasPrefix(e.name, "..") {
			e.name = here.name + e.name // as the daemon names them
		}
		if e.mode == 0 {
			e.mode = 0o644
		}
		h := &tar.Header{Name: e.name, Linkname: e.link, Typeflag: e.kind, Mode: e.mode, Size: int64(len(e.content)), ModTime: time.Unix(1e9, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

var here = entry{name: "in/", kind: tar.TypeDir, mode: 0o755}

func TestUnpackStaysInside(t *testing.T) {
	for name, hostile := range map[string][]entry{
		"parent":              {{name: "../out", kind: tar.TypeReg, content: "x"}},
		"absolute":            {{name: "/tmp/nemoclaw-out", kind: tar.TypeReg, content: "x"}},
		"inner parent":        {{name: "a/../../out", kind: tar.TypeReg, content: "x"}},
		"link":                {{name: "l", kind: tar.TypeSymlink, link: "../out"}},
		"absolute link":       {{name: "l", kind: tar.TypeSymlink, link: "/etc/passwd"}},
		"through a link":      {{name: "d/", kind: tar.TypeDir, mode: 0o755}, {name: "l", kind: tar.TypeSymlink, link: "d"}, {name: "l/f", kind: tar.TypeReg, content: "x"}},
		"link behind up":      {{name: "p/d", kind: tar.TypeSymlink, link: ".."}, {name: "p/l", kind: tar.TypeSymlink, link: "d/../../out"}},
		"deep link moved":     {{name: "deep", kind: tar.TypeSymlink, link: "."}, {name: "deep/l", kind: tar.TypeSymlink, link: "../out"}},
		"hard link":           {{name: "h", kind: tar.TypeLink, link: "../out"}},
		"hard link to a link": {{name: "a/b/l", kind: tar.TypeSymlink, link: "../../f"}, {name: "h", kind: tar.TypeLink, link: "in/a/b/l"}},
		"device":              {{name: "n", kind: tar.TypeChar}},
		"pipe":                {{name: "n", kind: tar.TypeFifo}},
	} {
		base := t.TempDir()
		dst := filepath.Join(base, "dst")
		left, err := unpack(stream(t, append([]entry{here}, hostile...)...), dst)
		if err != nil || len(left) != 1 {
			t.Errorf("%s: left %q, %v", name, left, err)
		}
		found, err := os.ReadDir(base)
		if err != nil || len(found) != 1 {
			t.Errorf("%s: there is %v beside dst, %v", name, found, err)
		}
		err = filepath.WalkDir(dst, func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.Type() != fs.ModeSymlink {
				return err
			}
			to, err := filepath.EvalSymlinks(p)
			if err == nil && to != dst && !strings.HasPrefix(to, dst+"/") {
				t.Errorf("%s: %s leads to %s", name, p, to)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestUnpack(t *testing.T) {
	dst := filepath.Join(t.TempDir(), "new", "dst")
	left, err := unpack(stream(t, here,
		entry{name: "locked/", kind: tar.TypeDir, mode: 0o500}, entry{name: "locked/f", kind: tar.TypeReg, content: "one"},
		entry{name: "bin/run", kind: tar.TypeReg, content: "#!", mode: 0o4755}, entry{name: "link", kind: tar.TypeSymlink, link: "bin/run"}, entry{name: "same", kind: tar.TypeLink, link: "in/locked/f"}), dst)
	if err != nil || left != nil {
		t.Fatal(left, err)
	}
	for name, want := range map[string]fs.FileMode{"locked": fs.ModeDir | 0o500, "locked/f": 0o644, "bin/run": 0o755, "link": fs.ModeSymlink | 0o777, "same": 0o644} {
		info, err := os.Lstat(filepath.Join(dst, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info, err, want)
		}
	}
	// What is in the way is replaced, and not written through.
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "mine")
	if err := os.Remove(filepath.Join(dst, "locked/f")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dst, "locked/f")); err != nil {
		t.Fatal(err)
	}
	if left, err := unpack(stream(t, here, entry{name: "locked/f", kind: tar.TypeReg, content: "two"}), dst); err != nil || left != nil {
		t.Fatal(left, err)
	}
	for file, want := range map[string]string{outside: "mine", filepath.Join(dst, "locked/f"): "two"} {
		if b, err := os.ReadFile(file); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", file, b, err)
		}
	}
}

func TestUnpackFile(t *testing.T) {
	one := entry{name: "report.txt", kind: tar.TypeReg, content: "text"}
	base := t.TempDir()
	if err := os.Mkdir(base+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	for dst, want := range map[string]string{base + "/dir": "dir/report.txt", base + "/new.txt": "new.txt", base + "/dir/": "dir/report.txt"} {
		if left, err := unpack(stream(t, one), dst); err != nil || left != nil {
			t.Errorf("%s: %v, %v", dst, left, err)
		}
		if b, err := os.ReadFile(filepath.Join(base, want)); err != nil || string(b) != "text" {
			t.Errorf("%s: %q, %v", dst, b, err)
		}
	}
	if _, err := unpack(stream(t, one), base+"/no/such/"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into nothing: %v", err)
	}
	if _, err := unpack(new(bytes.Buffer), base+"/x"); err == nil {
		t.Error("an empty stream is no file")
	}
	cut := stream(t, here, one)
	cut.Truncate(cut.Len() - 1700)
	if _, err := unpack(cut, base+"/cut"); err == nil {
		t.Error("half a stream was taken for a whole one")
	}
}

func TestPack(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/f", "text")
	for _, err := range []error{os.Mkdir(src+"/d", 0o750), os.Symlink("/etc/passwd", src+"/d/l"), unix.Mkfifo(src+"/pipe", 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	left, err := pack(&b, src, "in/x", true)
	if err != nil || len(left) != 1 || !strings.HasPrefix(left[0], "pipe, which is a named pipe") {
		t.Fatal(left, err)
	}
	var got []string
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		got = append(got, string(h.Typeflag)+" "+h.Name+" "+h.Linkname)
		if h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s tells its owner", h.Name)
		}
	}
	if want := "5 in/x/ |5 in/x/d/ |2 in/x/d/l /etc/passwd|0 in/x/f "; strings.Join(got, "|") != want {
		t.Errorf("packed %q, want %q", got, want)
	}
	b.Reset()
	if _, err := pack(&b, src+"/f", "g", false); err != nil {
		t.Fatal(err)
	}
	if h, err := tar.NewReader(&b).Next(); err != nil || h.Name != "g" || h.Size != 4 {
		t.Errorf("a file: %v, %v", h, err)
	}
}

func TestSplitDestination(t *testing.T) {
	for _, c := range []struct {
		dst      string
		dir      bool
		into, as string
	}{
		{".", true, "/workspace", "."}, {"in", true, "/workspace", "in"}, {"a/b", true, "/workspace", "a/b"}, {"/tmp/x/", true, "/tmp", "x"},
		{"/tmp", true, "/", "tmp"}, {"/", true, "/", "."},
		{".", false, "/workspace", "f"}, {"/workspace", false, "/workspace", "f"}, {"in/", false, "/workspace", "in/f"},
		{"g", false, "/workspace", "g"}, {"in/g", false, "/workspace", "in/g"}, {"../g", false, "/", "g"}, {"/tmp/", false, "/tmp", "f"},
	} {
		if into, as := splitDestination(c.dst, "f", c.dir); into != c.into || as != c.as {
			t.Errorf("%q (directory: %t): %s below %s, want %s below %s", c.dst, c.dir, as, into, c.as, c.into)
		}
	}
}

func TestUnpackSecondNames(t *testing.T) {
	dst := t.TempDir()
	if err := os.WriteFile(filepath.Join(dst, "mine"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	left, err := unpack(stream(t, here, entry{name: "a", kind: tar.TypeReg, content: "content"}, entry{name: "d/b", kind: tar.TypeLink, link: "in/a"}, entry{name: "a", kind: tar.TypeLink, link: "in/a"},
		entry{name: "h", kind: tar.TypeLink, link: "in/mine"}, entry{name: "h", kind: tar.TypeReg, content: "hostile"}, entry{name: "n", kind: tar.TypeLink, link: "in/d"}), dst)
	if err != nil || len(left) != 1 {
		t.Errorf("%q, %v", left, err)
	}
	for name, want := range map[string]string{"a": "content", "d/b": "content", "mine": "mine", "h": "hostile"} {
		if text, err := os.ReadFile(filepath.Join(dst, name)); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

// TestUnpackToOutput: a file goes to standard output, and nothing else does.
func TestUnpackToOutput(t *testing.T) {
	var out strings.Builder
	if err := unpackFile(stream(t, entry{name: "f", kind: tar.TypeReg, content: "text"}), &out); err != nil || out.String() != "text" {
		t.Errorf("%q, %v", out.String(), err)
	}
	for _, e := range []entry{here, {name: "l", kind: tar.TypeSymlink, link: "/etc/passwd"}} {
		out.Reset()
		if err := unpackFile(stream(t, e), &out); err == nil || !strings.Contains(err.Error(), "only a file") || out.Len() != 0 {
			t.Errorf("%s: %q, %v", e.name, out.String(), err)
		}
	}
}
