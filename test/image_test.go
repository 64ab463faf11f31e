//go:build e2e

package test

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// probeImage is an image of the probe and a few files.
func probeImage(t *testing.T) v1.Image {
	t.Helper()
	probe, err := os.ReadFile(harness.W.ProbeBin)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		h       tar.Header
		content []byte
	}{
		{tar.Header{Name: "usr/bin/probe", Typeflag: tar.TypeReg, Mode: 0o4755}, probe},
		{tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"}, nil},
		{tar.Header{Name: "etc/motd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("of the image\n")},
		{tar.Header{Name: "etc/shadow", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("of the image\n")},
		{tar.Header{Name: "app/data", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("of the app\n")},
		{tar.Header{Name: "srv/data", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("without a rule\n")},
	} {
		f.h.Size = int64(len(f.content))
		if err := w.WriteHeader(&f.h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Env = []string{"PATH=/nowhere", "HOME=/nowhere", "GREETING=hello"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// TestRunFromImage runs a registry's image: its files are the system, the policy holds, and nothing of the host shows.
func TestRunFromImage(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	at := strings.TrimPrefix(server.URL, "http://") + "/team/probe:1"
	ref, err := name.ParseReference(at)
	if err == nil {
		err = remote.Write(ref, probeImage(t))
	}
	if err != nil {
		t.Fatal(err)
	}
	images := t.TempDir()
	box := harness.Box{
		Policy: "filesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write]}\n    - {path: /app, permissions: [read]}\nprocess:\n  allow:\n    - {command: probe}\ninference:\n  local: {model: ollama/x}\n",
		Flags:  []string{"--image", at, "--images", images},
	}
	attempts := []struct{ op, errno, out string }{
		{"read /etc/motd", "", "of the image"}, {"read /app/data", "", "of the app"}, {"write /workspace/new text", "", ""}, {"read /etc/resolv.conf", "", "nameserver"},
		{"env GREETING", "", "hello"}, {"read /etc/shadow", "ENOENT", ""}, {"read /srv/data", "ENOENT", ""}, {"read /etc/os-release", "ENOENT", ""}, {"ls /usr/lib", "ENOENT", ""}, {"ls /root", "ENOENT", ""},
		{"read /etc/nemoclaw-ca.pem", "", "BEGIN CERTIFICATE"}, {"env CURL_CA_BUNDLE", "", "/etc/nemoclaw-ca.pem"},
		{"say inference.local 80 " + b64("GET /v1/models HTTP/1.1\r\nHost: inference.local\r\nConnection: close\r\n\r\n"), "", "ollama/x"},
		{"write /app/new x", "EROFS", ""}, {"write /usr/bin/new x", "EROFS", ""},
	}
	var ops []string
	for _, a := range attempts {
		ops = append(ops, a.op)
	}
	for _, again := range []bool{false, true} {
		r := harness.W.Run(t, box, append([]string{"probe"}, ops...)...)
		if r.Code != 0 {
			t.Fatalf("%d\n%s\n%s", r.Code, r.Out, r.Err)
		}
		if unpacked := strings.Contains(r.Err, "unpacking layer 1 of 1"); unpacked == again {
			t.Errorf("again %t, unpacked %t: %s", again, unpacked, r.Err)
		}
		for i, o := range r.Outcomes(t) {
			check(t, o, attempts[i].errno)
			if !strings.Contains(o.Out, attempts[i].out) {
				t.Errorf("%q gave %q", o.Op, o.Out)
			}
		}
	}
	if names, err := filepath.Glob(images + "/*"); err != nil || len(names) != 1 {
		t.Errorf("%q, %v", names, err)
	}
	box.Flags[1] = "/no/such/image"
	if r := harness.W.Run(t, box, "probe"); r.Code != 125 || !strings.Contains(r.Err, "image /no/such/image: stat /no/such/image: no such file or directory") {
		t.Errorf("%d, %s", r.Code, r.Err)
	}
}
