package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"
)

// Bounds on what describes an image.
const (
	maxJSON       = 4 << 20 // a manifest, an index, a config
	maxLayers     = 512
	maxIndexDepth = 4
	maxArchive    = 100_000 // files in a tarball
)

// source is an image that can be unpacked, its config checked.
type source struct {
	digest  v1.Hash // of the config
	config  *v1.ConfigFile
	layers  []v1.Layer
	cleanup []func() error
}

func (s *source) close() {
	for _, f := range s.cleanup {
		_ = f() // a temporary directory, which the next call sweeps otherwise
	}
}

// open finds an image.
func (s *Store) open(ctx context.Context, ref string) (*source, error) {
	var from source
	img, err := s.find(ctx, ref, &from)
	if err == nil {
		err = from.check(img)
	}
	if err != nil {
		from.close()
		return nil, err
	}
	return &from, nil
}

func (s *Store) find(ctx context.Context, ref string, from *source) (v1.Image, error) {
	if !filepath.IsAbs(ref) {
		at, err := name.ParseReference(ref)
		if err != nil {
			return nil, fmt.Errorf("%w; give an absolute path of an OCI layout or a tarball, or a reference of a registry", err)
		}
		return remote.Image(at, remote.WithContext(ctx), remote.WithPlatform(platform()))
	}
	info, err := os.Stat(ref)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return fromLayout(ref)
	case !info.Mode().IsRegular():
		return nil, errors.New("it is neither a directory with an OCI layout nor a tarball")
	}
	sizes, err := listTarball(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("it is no tarball of an image: %w; one that is compressed as a whole has to be decompressed first", err)
	}
	if _, ok := sizes["manifest.json"]; ok {
		return fromDocker(ref, sizes)
	}
	if _, ok := sizes["index.json"]; !ok {
		return nil, errors.New("the tarball has neither a manifest.json, as `docker save` writes it, nor the index.json of an OCI layout")
	}
	dir, err := s.temporary(from)
	if err != nil {
		return nil, err
	}
	if err := extractLayout(ctx, ref, dir); err != nil {
		return nil, fmt.Errorf("reading the OCI layout in the tarball: %w", err)
	}
	return fromLayout(dir)
}

// temporary makes a directory that goes with the source, or with the sweep after its owner was killed.
func (s *Store) temporary(from *source) (string, error) {
	for {
		dir, err := os.MkdirTemp(s.Dir, "layout-*"+part)
		if err != nil {
			return "", err
		}
		lock, err := lockDir(dir)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK) || err == nil && lock == nil: // a sweep was faster
			continue
		case err != nil:
			return "", err
		}
		from.cleanup = append(from.cleanup, func() error { return os.RemoveAll(dir) }, lock.Close)
		return dir, nil
	}
}

// platform is what an image has to be made for.
func platform() v1.Platform { return v1.Platform{OS: "linux", Architecture: runtime.GOARCH} }

// check reads an image's config, and refuses what can't be unpacked.
func (s *source) check(img v1.Image) error {
	manifest, err := img.Manifest()
	if err != nil {
		return fmt.Errorf("its manifest: %w", err)
	}
	if manifest.Config.Size > maxJSON {
		return fmt.Errorf("its config has %d bytes; at most %d are read", manifest.Config.Size, maxJSON)
	}
	for _, l := range manifest.Layers {
		if len(l.URLs) > 0 || !l.MediaType.IsDistributable() {
			return fmt.Errorf("its layer %s has to be fetched from elsewhere, wherever it says; that is not done", l.Digest)
		}
	}
	text, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("its config: %w", err)
	}
	if s.digest, _, err = v1.SHA256(bytes.NewReader(text)); err != nil {
		return err
	}
	if s.digest != manifest.Config.Digest {
		return fmt.Errorf("its config is %s, and the manifest says %s: it was changed", s.digest, manifest.Config.Digest)
	}
	if s.config, err = v1.ParseConfigFile(bytes.NewReader(text)); err != nil {
		return fmt.Errorf("its config: %w", err)
	}
	if want := platform(); s.config.OS != want.OS || s.config.Architecture != want.Architecture {
		return fmt.Errorf("it is made for %s/%s, and this machine is %s/%s", s.config.OS, s.config.Architecture, want.OS, want.Architecture)
	}
	if s.layers, err = img.Layers(); err != nil {
		return fmt.Errorf("its layers: %w", err)
	}
	if n := len(s.layers); n > maxLayers || n != len(s.config.RootFS.DiffIDs) {
		return fmt.Errorf("its manifest has %d layers and its config %d; both must be the same, and at most %d", n, len(s.config.RootFS.DiffIDs), maxLayers)
	}
	return nil
}

// fromLayout opens the one image of an OCI layout that is made for this machine.
func fromLayout(dir string) (v1.Image, error) {
	if err := smallFile(filepath.Join(dir, "index.json"), -1); err != nil {
		return nil, fmt.Errorf("it is no OCI layout: %w", err)
	}
	at, err := layout.FromPath(dir)
	if err != nil {
		return nil, err
	}
	index, err := at.ImageIndex()
	if err != nil {
		return nil, err
	}
	found, err := inIndex(dir, index, nil, maxIndexDepth)
	switch {
	case err != nil:
		return nil, err
	case len(found) != 1:
		return nil, fmt.Errorf("the OCI layout has %d images for %s/%s; one is needed", len(found), platform().OS, platform().Architecture)
	}
	return found[0], nil
}

// inIndex lists the images of an index, and of those in it, that are made for this machine or don't say.
func inIndex(dir string, index v1.ImageIndex, found []v1.Image, depth int) ([]v1.Image, error) {
	if depth == 0 {
		return nil, fmt.Errorf("its index has more than %d levels", maxIndexDepth)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("its index: %w", err)
	}
	for _, m := range manifest.Manifests {
		if m.Platform != nil && !m.Platform.Satisfies(platform()) || !m.MediaType.IsImage() && !m.MediaType.IsIndex() {
			continue
		}
		if err := checkBlob(dir, m); err != nil {
			return nil, err
		}
		if m.MediaType.IsIndex() {
			below, err := index.ImageIndex(m.Digest)
			if err == nil {
				found, err = inIndex(dir, below, found, depth-1)
			}
			if err != nil {
				return nil, err
			}
			continue
		}
		img, err := index.Image(m.Digest)
		if err != nil {
			return nil, err
		}
		parsed, err := img.Manifest()
		if err != nil {
			return nil, fmt.Errorf("the manifest %s: %w", m.Digest, err)
		}
		if err := checkBlob(dir, parsed.Config); err != nil {
			return nil, err
		}
		for _, l := range parsed.Layers {
			if info, err := os.Lstat(blob(dir, l.Digest)); err != nil || !info.Mode().IsRegular() {
				return nil, fmt.Errorf("the layer %s is not a file of the layout", l.Digest)
			}
		}
		found = append(found, img)
	}
	return found, nil
}

func blob(dir string, h v1.Hash) string { return filepath.Join(dir, "blobs", h.Algorithm, h.Hex) }

// checkBlob checks a manifest's, an index's or a config's digest: package layout does not.
func checkBlob(dir string, d v1.Descriptor) error {
	at := blob(dir, d.Digest)
	if err := smallFile(at, d.Size); err != nil {
		return err
	}
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer f.Close()
	got, _, err := v1.SHA256(io.LimitReader(f, maxJSON))
	if err != nil {
		return err
	}
	if got != d.Digest {
		return fmt.Errorf("%s has the digest %s: it was changed", at, got)
	}
	return nil
}

// smallFile checks that a file is one, and not larger than what is read into memory.
func smallFile(name string, size int64) error {
	info, err := os.Lstat(name)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", name)
	case info.Size() > maxJSON:
		return fmt.Errorf("%s has %d bytes; at most %d are read", name, info.Size(), maxJSON)
	case size >= 0 && info.Size() != size:
		return fmt.Errorf("%s has %d bytes, and should have %d", name, info.Size(), size)
	}
	return nil
}

// listTarball returns the sizes of a tarball's files.
func listTarball(ctx context.Context, file string) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := eachFile(ctx, file, func(h *tar.Header, _ io.Reader) error {
		sizes[path.Clean(h.Name)] = h.Size
		return nil
	})
	return sizes, err
}

func eachFile(ctx context.Context, file string, f func(*tar.Header, io.Reader) error) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	r := tar.NewReader(in)
	for n := 0; ; n++ {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == maxArchive:
			return fmt.Errorf("it has more than %d files", maxArchive)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		if err := f(h, r); err != nil {
			return err
		}
	}
}

// fromDocker opens the one image of a tarball of `docker save`.
func fromDocker(file string, sizes map[string]int64) (v1.Image, error) {
	opener := func() (io.ReadCloser, error) { return os.Open(file) }
	if sizes["manifest.json"] > maxJSON {
		return nil, fmt.Errorf("manifest.json has %d bytes; at most %d are read", sizes["manifest.json"], maxJSON)
	}
	manifest, err := tarball.LoadManifest(opener)
	if err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	if len(manifest) != 1 {
		return nil, fmt.Errorf("the tarball has %d images; one is needed: save it alone", len(manifest))
	}
	for _, l := range manifest[0].Layers {
		if _, ok := sizes[path.Clean(l)]; !ok {
			return nil, fmt.Errorf("the layer %s is not in the tarball", l)
		}
	}
	if size, ok := sizes[path.Clean(manifest[0].Config)]; !ok || size > maxJSON {
		return nil, fmt.Errorf("the config %s is not in the tarball, or larger than %d bytes", manifest[0].Config, maxJSON)
	}
	return tarball.Image(opener, nil)
}

// extractLayout writes the files of an OCI layout in a tarball to a directory.
func extractLayout(ctx context.Context, file, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := root.MkdirAll("blobs/sha256", 0o700); err != nil {
		return err
	}
	var total int64
	return eachFile(ctx, file, func(h *tar.Header, r io.Reader) error {
		to := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || to != "index.json" && path.Dir(to) != "blobs/sha256" {
			return nil
		}
		if total += h.Size; total > maxBytes {
			return fmt.Errorf("it has more than %d bytes", int64(maxBytes))
		}
		out, err := root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is in it twice", to)
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(out, reader{ctx, r})
		return errors.Join(err, out.Close())
	})
}
