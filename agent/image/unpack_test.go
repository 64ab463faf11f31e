package image

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/tarname/tartest"
)

// apply unpacks archives, in order, below a new directory that lies in a directory with a victim.
func apply(t testing.TB, layers ...[]byte) (string, error) {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "root")
	for p, text := range map[string]string{"victim/secret": "secret", "secret": "secret"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := tartest.Show(t, dir)
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	u := newUnpacker(root, 1<<20, 1000)
	for _, l := range layers {
		if err = u.apply(bytes.NewReader(l), func() {}); err != nil {
			break
		}
	}
	if err == nil {
		err = u.finish()
	}
	after := slices.DeleteFunc(tartest.Show(t, dir), func(line string) bool { return strings.HasPrefix(line, "root") })
	for _, p := range []string{"victim/secret", "secret"} {
		if text, err := os.ReadFile(filepath.Join(dir, p)); string(text) != "secret" {
			t.Errorf("%s was changed: %q, %v", p, text, err)
		}
	}
	if !slices.Equal(before, after) {
		t.Errorf("outside of the image: %q, before %q", after, before)
	}
	return at, err
}

func TestLayers(t *testing.T) {
	for name, test := range map[string]struct {
		layers [][]string
		want   []string
	}{
		"whiteouts": {[][]string{{"a", "b", "d/x", "d/y/z"}, {".wh.a", "d/.wh.y", ".wh.none", "none/.wh.x"}}, []string{"b", "d/", "d/x"}},
		"a whiteout keeps what its own layer has": {[][]string{{"a"}, {"a", ".wh.a"}}, []string{"a"}},
		"opaque":                                   {[][]string{{"d/x", "d/e/y", "d/f/z"}, {"d/", "d/e/new", "d/.wh..wh..opq", "d/late"}}, []string{"d/", "d/e/", "d/e/new", "d/late"}},
		"a file instead of a directory":            {[][]string{{"d/x"}, {"d"}}, []string{"d"}},
		"a directory instead of a file":            {[][]string{{"d"}, {"d/", "d/x"}}, []string{"d/", "d/x"}},
		"a directory instead of a link":            {[][]string{{"e/", "d -> e"}, {"d/", "d/x"}}, []string{"d/", "d/x", "e/"}},
		"through a link":                           {[][]string{{"usr/lib/", "lib -> usr/lib"}, {"lib/x"}}, []string{"lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/x"}},
		"through an absolute link":                 {[][]string{{"usr/lib/", "lib -> /usr/lib"}, {"lib/x"}}, []string{"lib -> /usr/lib", "usr/", "usr/lib/", "usr/lib/x"}},
		"through a link whose target is not there": {[][]string{{"lib -> usr/lib"}, {"lib/x"}}, []string{"lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/x"}},
		"hard links":                               {[][]string{{"a", "d/b = a", "l -> a"}, {"d/c = d/b", "m = l", "/e = /a"}}, []string{"a", "d/", "d/b", "d/c", "e", "l -> a", "m -> a"}},
		"the root itself":                          {[][]string{{"./", "./a"}}, []string{"a"}},
		"AUFS's own":                               {[][]string{{".wh..wh.plnk/", ".wh..wh.aufs", "a"}}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			var layers [][]byte
			for _, l := range test.layers {
				layers = append(layers, archive(t, entries(l...)))
			}
			at, err := apply(t, layers...)
			if err != nil {
				t.Fatal(err)
			}
			if got := tartest.Show(t, at); !slices.Equal(got, test.want) {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestAttributes: what an image may say about its files, and what not.
func TestAttributes(t *testing.T) {
	at, err := apply(t, archive(t, []entry{
		{Name: "setuid", Typeflag: tar.TypeReg, Mode: 0o6755, Size: 6, Uid: 12345, Gid: 12345, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.x": "y"}},
		{Name: "closed/", Typeflag: tar.TypeDir, Mode: 0o1000},
		{Name: "closed/in", Typeflag: tar.TypeReg, Mode: 0o400, Size: 9},
		{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "sda", Typeflag: tar.TypeBlock, Mode: 0o666, Devmajor: 8},
		{Name: "fifo", Typeflag: tar.TypeFifo, Mode: 0o666},
	}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"setuid": 0o755, "closed": fs.ModeDir} {
		info, err := os.Lstat(filepath.Join(at, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := os.Chmod(filepath.Join(at, "closed"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := tartest.Show(t, at); !slices.Equal(got, []string{"closed/", "closed/in", "setuid"}) {
		t.Errorf("%q", got)
	}
}

func manyFiles() []string {
	var list []string
	for range 1001 {
		list = append(list, "d/")
	}
	return list
}

var hostile = map[string][]string{
	"a name that leads up":                 {"../secret"},
	"a name that leads up later":           {"a/../../secret"},
	"a link that leads up":                 {"l -> ..", "l/secret"},
	"an absolute link":                     {"l -> /etc", "l/secret"},
	"a link to a link":                     {"l -> m", "m -> ../victim", "l/secret"},
	"a hard link that leads up":            {"x = ../secret"},
	"a hard link through a link":           {"l -> ..", "x = l/secret"},
	"a hard link to a link, and a file":    {"l -> ../secret", "x = l", "x"},
	"a whiteout that leads up":             {"../.wh.secret"},
	"a whiteout through a link":            {"l -> ..", "l/.wh.secret", "l/.wh.victim"},
	"an opaque directory through a link":   {"l -> ../victim", "l/.wh..wh..opq"},
	"a whiteout of the directory above":    {".wh..."},
	"a whiteout of the directory":          {"d/x", "d/.wh.."},
	"a whiteout of nothing":                {".wh."},
	"a file through a link to a file":      {"l -> ../secret", "l/x"},
	"a file over a link":                   {"l -> ../secret", "l"},
	"a directory over a link":              {"l -> ../victim", "l/", "l/secret"},
	"a loop of links":                      {"a -> b", "b -> a", "a/x"},
	"a hard link to itself":                {"a = a"},
	"a hard link to a directory":           {"d/", "x = d"},
	"too deep":                             {strings.Repeat("d/", 200) + "x"},
	"too deep through links":               {strings.Repeat("d/", 100) + "x", "l -> " + strings.Repeat("d/", 99), "l/" + strings.Repeat("e/", 100) + "x"},
	"too many":                             manyFiles(),
	"a link in the place of an opened one": {"d/", "d/x", "d -> ../victim", "d/secret"},
}

// TestHostileArchives: none of them reaches what is outside of the image; apply looks. Those that a trusting unpacker, which
// joins names, would follow out of it are seen to lead there.
func TestHostileArchives(t *testing.T) {
	for name, lines := range hostile {
		t.Run(name, func(t *testing.T) {
			_, err := apply(t, archive(t, entries(lines...)))
			t.Log(err)
		})
	}
	for name, want := range map[string]string{"a name that leads up": ".. in it", "too many": "more than 1000", "too deep": "128 directories", "a loop of links": "40 symbolic links",
		"a hard link to itself": "no such file", "a hard link to a directory": "the directory", "too deep through links": "128 directories"} {
		if _, err := apply(t, archive(t, entries(hostile[name]...))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	big := archive(t, []entry{{Name: "big", Typeflag: tar.TypeReg, Mode: 0o644, Size: 2 << 20}})
	if _, err := apply(t, big); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Error(err)
	}
}

// TestNaive shows that the hostile archives are: a program that trusts names writes to the victim.
func TestNaive(t *testing.T) {
	for _, name := range []string{"a name that leads up", "a link that leads up", "a link to a link", "a file over a link"} {
		dir := t.TempDir()
		at := filepath.Join(dir, "root")
		for _, d := range []string{at, filepath.Join(dir, "victim")} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range entries(hostile[name]...) {
			to := at + "/" + e.Name
			if e.Typeflag == tar.TypeSymlink {
				_ = os.Symlink(e.Linkname, to)
			} else {
				_ = os.WriteFile(to, []byte("reached"), 0o644)
			}
		}
		above, _ := os.ReadFile(filepath.Join(dir, "secret"))
		in, _ := os.ReadFile(filepath.Join(dir, "victim/secret"))
		if string(above)+string(in) != "reached" {
			t.Errorf("%s: reaches nothing", name)
		}
	}
}

func FuzzApply(f *testing.F) {
	for _, lines := range hostile {
		f.Add(archive(f, entries(lines...)))
	}
	f.Add(archive(f, entries("a", "d/", "d/b", "l -> d", "l/c", "h = a", "d/.wh.b", ".wh..wh..opq")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, layer []byte) {
		if at, err := apply(t, layer, layer); err == nil {
			_ = filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 {
					t.Errorf("%s is %s", p, d.Type())
				}
				return err
			})
		}
	})
}
