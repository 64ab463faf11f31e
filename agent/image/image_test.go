package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nemoclaw/nemoclaw/agent/tarname/tartest"
)

// entry is one of a layer: "name" a file with its name as content, "name/" a directory, "name -> target" a symbolic link,
// "name = target" a hard link.
type entry = tar.Header

func entries(lines ...string) []entry {
	var list []entry
	for _, line := range lines {
		h := tar.Header{Name: line, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(line)), ModTime: time.Unix(1_000_000_000, 0)}
		if name, target, ok := strings.Cut(line, " -> "); ok {
			h.Name, h.Linkname, h.Typeflag, h.Size = name, target, tar.TypeSymlink, 0
		} else if name, target, ok := strings.Cut(line, " = "); ok {
			h.Name, h.Linkname, h.Typeflag, h.Size = name, target, tar.TypeLink, 0
		} else if strings.HasSuffix(line, "/") {
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		}
		list = append(list, h)
	}
	return list
}

func archive(t testing.TB, list []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range list {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name + strings.Repeat(".", int(h.Size)-len(h.Name)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// imageOf builds an image of layers.
func imageOf(t testing.TB, layers ...[]entry) v1.Image {
	t.Helper()
	img := empty.Image
	for _, list := range layers {
		content := archive(t, list)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err == nil {
			img, err = mutate.AppendLayers(img, l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return withConfig(t, img, "linux", runtime.GOARCH)
}

func withConfig(t testing.TB, img v1.Image, system, architecture string) v1.Image {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = system, architecture
	c.Config.Env, c.Config.WorkingDir, c.Config.User = []string{"A=b"}, "/app", "nobody"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

// layoutOf writes an image as an OCI layout.
func layoutOf(t testing.TB, img v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	at, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = at.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func newStore(t testing.TB) *Store { return &Store{Dir: filepath.Join(t.TempDir(), "images")} }

func TestSources(t *testing.T) {
	img := imageOf(t, entries("usr/", "usr/bin/", "usr/bin/sh", "bin -> usr/bin", "etc/passwd"), entries("usr/.wh.none", "bin/more", "etc/.wh.passwd"))
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"bin -> usr/bin", "etc/", "usr/", "usr/bin/", "usr/bin/more", "usr/bin/sh"}

	dir := layoutOf(t, img)
	saved := filepath.Join(t.TempDir(), "saved.tar")
	tag, _ := name.NewTag("example/app:1")
	if err := tarball.WriteToFile(saved, tag, img); err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(t.TempDir(), "layout.tar")
	if out, err := exec.Command("tar", "-cf", packed, "-C", dir, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	pushed := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	ref, err := name.ParseReference(pushed)
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	digest, _ := img.Digest()

	for from, ref := range map[string]string{"layout": dir, "docker save": saved, "layout in a tarball": packed, "registry": pushed,
		"registry, by digest": strings.TrimSuffix(pushed, ":1") + "@" + digest.String()} {
		t.Run(from, func(t *testing.T) {
			s := newStore(t)
			var seen []Progress
			got, err := s.Unpack(t.Context(), ref, func(p Progress) { seen = append(seen, p) })
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest != id.String() || got.Config.WorkDir != "/app" || got.Config.User != "nobody" || !slices.Equal(got.Config.Env, []string{"A=b"}) {
				t.Errorf("%+v", got)
			}
			if files := tartest.Show(t, got.Root); !slices.Equal(files, want) {
				t.Errorf("%q", files)
			}
			if len(seen) != 2 || seen[1].Layer != 2 || seen[1].Layers != 2 || seen[1].Bytes == 0 {
				t.Errorf("progress %+v", seen)
			}
			again, err := s.Unpack(t.Context(), ref, func(Progress) { t.Error("it was unpacked again") })
			if err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
				t.Errorf("%+v, %v", again, err)
			}
			if list, err := s.List(); err != nil || !slices.Equal(list, []string{got.Digest}) {
				t.Errorf("%q, %v", list, err)
			}
			if err := s.Remove(got.Digest); err != nil {
				t.Error(err)
			}
			if _, err := s.Get(got.Digest); !errors.Is(err, ErrNone) {
				t.Error(err)
			}
			if left := tartest.Show(t, s.Dir); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestRefusedSources(t *testing.T) {
	img := imageOf(t, entries("a"))
	break1 := func(pattern string, change func([]byte) []byte) string {
		dir := layoutOf(t, img)
		m, _ := img.Manifest()
		at := map[string]string{"index": "index.json", "config": "blobs/sha256/" + m.Config.Digest.Hex, "layer": "blobs/sha256/" + m.Layers[0].Digest.Hex}[pattern]
		text, err := os.ReadFile(filepath.Join(dir, at))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, at), change(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	other := archive(t, entries("b"))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(strings.Repeat("no tar\n", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	foreign, err := mutate.Append(img, mutate.Addendum{Layer: func() v1.Layer { l, _ := imageOf(t, entries("c")).Layers(); return l[0] }(),
		URLs: []string{"http://169.254.169.254/latest"}})
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct{ ref, want string }{
		"no file":               {file + ".none", "no such file"},
		"no archive":            {file, "no tarball"},
		"no layout":             {t.TempDir(), "no OCI layout"},
		"a device":              {"/dev/zero", "neither a directory"},
		"no reference":          {"UPPER case", "absolute path"},
		"a changed config":      {break1("config", func(b []byte) []byte { return bytes.Replace(b, []byte("/app"), []byte("/opt"), 1) }), "it was changed"},
		"a changed layer":       {break1("layer", func([]byte) []byte { return other }), "it was changed"},
		"a large index":         {break1("index", func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), maxJSON)...) }), "at most"},
		"a layer elsewhere":     {layoutOf(t, foreign), "fetched from elsewhere"},
		"another machine":       {layoutOf(t, withConfig(t, img, "linux", "s390x")), "made for linux/s390x"},
		"another system":        {layoutOf(t, withConfig(t, img, "windows", runtime.GOARCH)), "made for windows"},
		"a registry that isn't": {"127.0.0.1:1/none:1", "refused"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStore(t)
			_, err := s.Unpack(t.Context(), test.ref, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
			if left := tartest.Show(t, s.Dir); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// TestAtOnce: an image that many ask for is fetched once.
func TestAtOnce(t *testing.T) {
	img := imageOf(t, entries("a", "b", "c"))
	m, _ := img.Manifest()
	var fetched atomic.Int32
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
			fetched.Add(1)
		}
		images.ServeHTTP(w, r)
	}))
	defer server.Close()
	at := strings.TrimPrefix(server.URL, "http://") + "/app:1"
	ref, _ := name.ParseReference(at)
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	dir := newStore(t).Dir
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got, err := (&Store{dir}).Unpack(t.Context(), at, nil); err != nil || len(tartest.Show(t, got.Root)) != 3 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	all.Wait()
	if fetched.Load() != 1 {
		t.Errorf("the layer was fetched %d times", fetched.Load())
	}
}

// TestKilled kills a process that unpacks, with SIGKILL, while its registry is silent.
func TestKilled(t *testing.T) {
	const dirVar, refVar = "IMAGE_TEST_DIR", "IMAGE_TEST_REF"
	if dir := os.Getenv(dirVar); dir != "" {
		_, err := (&Store{dir}).Unpack(t.Context(), os.Getenv(refVar), nil)
		t.Fatal("it ended", err)
	}
	img := imageOf(t, entries("a"), entries("b"))
	m, _ := img.Manifest()
	var silent atomic.Bool
	silent.Store(true)
	asked, release := make(chan struct{}, 8), make(chan struct{})
	images := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if silent.Load() && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, m.Layers[1].Digest.String()) {
			asked <- struct{}{}
			<-release
			return
		}
		images.ServeHTTP(w, r)
	}))
	defer server.Close()
	defer close(release)
	at := strings.TrimPrefix(server.URL, "http://") + "/app:1"
	ref, _ := name.ParseReference(at)
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), dirVar+"="+s.Dir, refVar+"="+at)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Unpack(ctx, at, nil); err == nil || !strings.Contains(err.Error(), "another unpacking") {
		t.Errorf("while another unpacks it: %v", err)
	}
	err := child.Process.Kill()
	_ = child.Wait()
	if err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(s.Dir)
	if len(left) != 1 || !strings.HasSuffix(left[0].Name(), part) {
		t.Fatalf("left: %v", left)
	}
	if list, err := s.List(); err != nil || len(list) > 0 {
		t.Errorf("%q, %v", list, err)
	}
	if _, err := s.Unpack(t.Context(), layoutOf(t, imageOf(t, entries("other"))), nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(s.Dir + "/*" + part); len(left) > 0 {
		t.Errorf("left after the next call: %q", left)
	}
	silent.Store(false)
	if got, err := s.Unpack(t.Context(), at, nil); err != nil || !slices.Equal(tartest.Show(t, got.Root), []string{"a", "b"}) {
		t.Errorf("%+v, %v", got, err)
	}
}
