// Package image keeps unpacked container images: it takes an OCI layout, a tarball or a registry's image, checks every
// digest, and unpacks the layers into a directory that a sandbox's root can be (sandbox.Spec.Root). It owns the directories
// of its Store.
//
// It never runs anything of an image, never asks a container engine, and trusts neither an image nor a registry: nothing
// is written outside of the image's own directory, no device, set-uid bit, extended attribute or owner comes out of it, and
// every size and number has a bound.
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// Store keeps images in a directory that is its alone. Several processes may use one.
type Store struct {
	Dir string // absolute
}

// Image is an unpacked image.
type Image struct {
	Digest  string `json:"digest"`  // of its config, which names its content: what other tools call the image's id
	Root    string `json:"-"`       // directory of its files
	Config  Config `json:"config"`  // what it says about itself
	Bytes   int64  `json:"bytes"`   // of its files
	Files   int    `json:"files"`   // and directories and links
	Skipped int    `json:"skipped"` // devices and fifos, which no sandbox needs from an image
}

// Config is what an image asks for. Nobody has to follow it.
type Config struct {
	Env        []string `json:"env,omitempty"`
	WorkDir    string   `json:"workdir,omitempty"`
	User       string   `json:"user,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
}

// Progress is how far an unpacking is.
type Progress struct {
	Layer, Layers int   // of Layers, Layer is being unpacked, from 1
	Bytes         int64 // unpacked until now, of all layers
}

// ErrNone says that a store does not have an image.
var ErrNone = errors.New("image: it is not in the store")

const (
	part     = ".part"      // ends the name of a directory that is being made
	metaFile = "image.json" // beside root: written last
	rootDir  = "root"
)

// Unpack returns the image that a reference means, and unpacks it first where the store does not have it. A reference is an
// absolute path of an OCI layout (a directory) or of a tarball (of `docker save`, or an OCI layout in one), else a
// registry's: [HOST[:PORT]/]NAME[:TAG|@DIGEST]. progress may be nil.
func (s *Store) Unpack(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	img, err := s.unpack(ctx, ref, progress)
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", ref, err)
	}
	return img, nil
}

func (s *Store) unpack(ctx context.Context, ref string, progress func(Progress)) (Image, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return Image{}, err
	}
	if err := s.sweep(); err != nil {
		return Image{}, err
	}
	from, err := s.open(ctx, ref)
	if err != nil {
		return Image{}, err
	}
	defer from.close()
	made, err := s.reserve(ctx, from.digest)
	if err != nil {
		return Image{}, err
	}
	if made == nil {
		return s.Get(from.digest.String()) // meanwhile, or long ago
	}
	defer made.Close()
	img, err := unpackInto(ctx, made.Name(), from, progress)
	if err == nil {
		err = s.publish(made, img, from.digest)
	}
	if err != nil {
		return Image{}, errors.Join(err, os.RemoveAll(made.Name()))
	}
	img.Root = filepath.Join(s.at(from.digest), rootDir)
	return img, nil
}

// Get returns an image that was unpacked, by its digest.
func (s *Store) Get(digest string) (Image, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return Image{}, fmt.Errorf("image: %q is no digest: %w", digest, err)
	}
	text, err := os.ReadFile(filepath.Join(s.at(h), metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, fmt.Errorf("%w: %s", ErrNone, digest)
	}
	var img Image
	if err == nil {
		err = json.Unmarshal(text, &img)
	}
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", digest, err)
	}
	img.Root = filepath.Join(s.at(h), rootDir)
	return img, nil
}

// List returns the digests of the images that the store has.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("image: %w", err)
	}
	var list []string
	for _, e := range entries {
		if algorithm, hex, ok := strings.Cut(e.Name(), "-"); ok && !strings.HasSuffix(hex, part) {
			list = append(list, algorithm+":"+hex)
		}
	}
	return list, nil
}

// Remove takes an image out of the store. No sandbox may use it: the caller knows.
func (s *Store) Remove(digest string) error {
	img, err := s.Get(digest)
	if err != nil {
		return err
	}
	at := filepath.Dir(img.Root)
	if err := os.Rename(at, at+part); err != nil {
		return fmt.Errorf("image %s: %w", digest, err)
	}
	return s.sweep()
}

// at is where an image is. A path with a colon could not be given to overlayfs.
func (s *Store) at(h v1.Hash) string { return filepath.Join(s.Dir, h.Algorithm+"-"+h.Hex) }

// reserve makes the directory that an image is unpacked in, locked and empty; nil when the store has the image. Whoever
// unpacks the same image meanwhile is waited for. The lock goes with its owner, and with the directory's new name.
func (s *Store) reserve(ctx context.Context, h v1.Hash) (*os.File, error) {
	at := s.at(h)
	for {
		if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		dir, err := lockDir(at + part)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("waiting for another unpacking of it: %w", context.Cause(ctx))
			case <-time.After(20 * time.Millisecond):
			}
		case err != nil:
			return nil, err
		case dir == nil:
		default:
			// Whoever had the lock before may have finished: nobody can now.
			if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
				err = errors.Join(err, os.Remove(at+part), dir.Close())
				return nil, err
			}
			return dir, nil
		}
	}
}

// lockDir makes and locks a directory. Nil: it was renamed or removed before it was locked.
func lockDir(name string) (*os.File, error) {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	dir, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var mine, there unix.Stat_t
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = unix.Fstat(int(dir.Fd()), &mine)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	if err := unix.Lstat(name, &there); err != nil || mine.Ino != there.Ino || mine.Dev != there.Dev {
		dir.Close()
		return nil, nil
	}
	left, err := os.ReadDir(name) // of an owner that was killed
	for _, e := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(name, e.Name())))
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// publish gives a finished directory its name. What it holds is on disk before that.
func (s *Store) publish(made *os.File, img Image, h v1.Hash) error {
	text, err := json.Marshal(img)
	if err == nil {
		err = os.WriteFile(filepath.Join(made.Name(), metaFile), text, 0o600)
	}
	if err == nil {
		err = unix.Syncfs(int(made.Fd()))
	}
	if err == nil {
		err = os.Rename(made.Name(), s.at(h))
	}
	return err
}

// sweep removes what an owner that was killed left: a directory with a lock has an owner.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !strings.HasSuffix(e.Name(), part) }) {
		name := filepath.Join(s.Dir, e.Name())
		dir, err := lockDir(name)
		if dir != nil {
			err = os.Remove(name)
			dir.Close()
		}
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			failed = append(failed, fmt.Errorf("sweeping what was left: %w", err))
		}
	}
	return errors.Join(failed...)
}
