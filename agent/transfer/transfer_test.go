package transfer

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/tarname/tartest"
)

// lines writes a tar stream of "name" (a file), "name/", "name -> target" and "name = target" (a hard link).
func lines(t testing.TB, list ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range list {
		h := tar.Header{Name: line, Typeflag: tar.TypeReg, Mode: 0o6644, Size: int64(len(line)), ModTime: time.Unix(1_000_000_000, 0)}
		if name, target, ok := strings.Cut(line, " -> "); ok {
			h.Name, h.Linkname, h.Typeflag, h.Size = name, target, tar.TypeSymlink, 0
		} else if name, target, ok := strings.Cut(line, " = "); ok {
			h.Name, h.Linkname, h.Typeflag, h.Size = name, target, tar.TypeLink, 0
		} else if strings.HasSuffix(line, "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o555, 0
		}
		err := w.WriteHeader(&h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = w.Write([]byte(h.Name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openPath(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// put uploads into a directory beside a victim, with bounds that a test reaches, and checks that the victim is as it was.
func put(t testing.TB, dir string, stream []byte) (Report, error) {
	t.Helper()
	at, victim := filepath.Join(dir, "at"), filepath.Join(dir, "victim")
	if err := errors.Join(os.MkdirAll(at, 0o755), os.MkdirAll(victim, 0o755), os.WriteFile(victim+"/secret", []byte("secret"), 0o644)); err != nil {
		t.Fatal(err)
	}
	u := newUpload(openPath(t, at))
	u.bytes, u.files = 1<<20, 1000
	err := u.run(t.Context(), bytes.NewReader(stream))
	if text, e := os.ReadFile(victim + "/secret"); string(text) != "secret" {
		t.Errorf("the victim was changed: %q, %v", text, e)
	}
	if names, _ := os.ReadDir(victim); len(names) != 1 {
		t.Errorf("beside the victim: %v", names)
	}
	if names, _ := os.ReadDir(dir); len(names) != 2 {
		t.Errorf("beside the directory: %v", names)
	}
	_ = filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error { // so that anybody can remove it
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o755)
		}
		return err
	})
	return u.Report, err
}

func TestUpload(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/at/there", 0o755), os.Symlink("../victim/secret", dir+"/at/l"), unix.Mkfifo(dir+"/at/fifo", 0o666),
		os.WriteFile(dir+"/at/old", []byte("a longer content"), 0o600)); err != nil {
		t.Fatal(err)
	}
	got, err := put(t, dir, lines(t, "./", "d/", "d/x", "/abs", "there/", "there/y", "l", "fifo", "old", "s -> /etc/passwd", "h = d/x", "old -> x", "deep/er/z"))
	if err != nil || got.Files != 13 {
		t.Errorf("%+v, %v", got, err)
	}
	want := []string{"abs", "d/", "d/x", "deep/", "deep/er/", "deep/er/z", "fifo", "h", "l", "old -> x", "s -> /etc/passwd", "there/", "there/y"}
	if files := tartest.Show(t, dir+"/at"); !slices.Equal(files, want) {
		t.Errorf("%q", files)
	}
	for name, content := range map[string]string{"l": "l", "fifo": "fifo", "h": "d/x"} {
		info, err := os.Lstat(dir + "/at/" + name)
		if text, e := os.ReadFile(dir + "/at/" + name); string(text) != content || e != nil || err != nil || info.Mode() != 0o644 || info.ModTime().Unix() != 1_000_000_000 {
			t.Errorf("%s: %q, %v, %v", name, text, info.Mode(), e)
		}
	}
}

var hostile = map[string]struct {
	stream []string
	want   string // part of the error; "": there may be none, and nothing happens outside
}{
	"a name that leads up":           {[]string{"../victim/secret"}, ".. in it"},
	"a link that leads up":           {[]string{"l -> ../victim", "l/secret"}, "symbolic link"},
	"an absolute link":               {[]string{"l -> /", "l/x"}, "symbolic link"},
	"a link below a link":            {[]string{"d/", "d/l -> ../../victim", "d/l/x/y"}, "symbolic link"},
	"a hard link that leads up":      {[]string{"x = ../victim/secret"}, ".. in it"},
	"a hard link through a link":     {[]string{"l -> ../victim", "x = l/secret"}, "too many levels"},
	"a file over a hard linked link": {[]string{"l -> ../victim/secret", "x = l", "x"}, ""},
	"a directory over a link":        {[]string{"l -> ../victim", "l/", "l/secret"}, "no directory is there"},
	"a file over a directory":        {[]string{"d/", "d"}, "directory"},
	"too deep":                       {[]string{strings.Repeat("d/", 200)}, "128 directories"},
	"too many":                       {slices.Repeat([]string{"d/"}, 1001), "more than 1000"},
	"no target":                      {[]string{"x = "}, "hard link"},
}

func TestHostileStreams(t *testing.T) {
	for name, test := range hostile {
		t.Run(name, func(t *testing.T) {
			_, err := put(t, t.TempDir(), lines(t, test.stream...))
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v", err)
			}
		})
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Size: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := put(t, t.TempDir(), b.Bytes()); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Error(err)
	}
}

func TestDownload(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(dir+"/d/sub", 0o755), os.WriteFile(dir+"/d/a", []byte("content"), 0o640), os.Link(dir+"/d/a", dir+"/d/b"),
		os.Symlink("/etc/passwd", dir+"/d/l"), unix.Mkfifo(dir+"/d/fifo", 0o666), os.WriteFile(dir+"/d/sub/\n\xff", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/d/socket"})
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	var b bytes.Buffer
	d := &download{ctx: t.Context(), out: tar.NewWriter(&b), links: map[inode]string{}, bytes: 1 << 20, files: 100}
	if err := d.run(openPath(t, dir+"/d"), "/x/d"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r)
		got = append(got, string(h.Typeflag)+" "+h.Name+" "+h.Linkname+" "+string(text))
	}
	want := []string{"5 ./  ", "0 a  content", "1 b a ", "2 l /etc/passwd ", "5 sub/  ", "0 sub/\n\xff  "}
	if !slices.Equal(got, want) || d.Skipped != 2 {
		t.Errorf("%q, %+v", got, d.Report)
	}
	for _, test := range []struct {
		bytes int64
		files int
		want  string
	}{{3, 100, "more than 3 bytes"}, {100, 3, "more than 3 files"}} {
		d := &download{ctx: t.Context(), out: tar.NewWriter(io.Discard), links: map[inode]string{}, bytes: test.bytes, files: test.files}
		if err := d.run(openPath(t, dir+"/d"), "/x/d"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Error(err)
		}
	}
}

func FuzzUpload(f *testing.F) {
	for _, test := range hostile {
		f.Add(lines(f, test.stream...))
	}
	f.Add(lines(f, "./", "d/", "d/x", "s -> d", "h = d/x", "d/x"))
	f.Fuzz(func(t *testing.T, stream []byte) { _, _ = put(t, t.TempDir(), stream) })
}
