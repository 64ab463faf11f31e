package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/nemoclaw/nemoclaw/agent/image"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/agent/transfer"
	"github.com/nemoclaw/nemoclaw/api"
)

// images keeps what sandboxes are made from.
func (d *Daemon) images() *image.Store {
	return &image.Store{Dir: filepath.Join(d.c.StateDir, imagesDir)}
}

// root is the directory that the sandbox's files come from; "" for the host's. An image is what it was at the first start:
// what a tag means tomorrow is another image.
func (b *box) root(ctx context.Context) (string, error) {
	if b.spec.Image == "" {
		return "", nil
	}
	if b.spec.Digest != "" {
		img, err := b.d.images().Get(b.spec.Digest)
		if !errors.Is(err, image.ErrNone) {
			return img.Root, err
		}
	}
	img, err := b.d.images().Unpack(ctx, b.spec.Image, nil)
	if err != nil {
		return "", err
	}
	if was := b.spec.Digest; was != "" && was != img.Digest {
		return "", fmt.Errorf("image %s: it was %s when %s was made and is %s now; make a new sandbox of it", b.spec.Image, was, b.name, img.Digest)
	}
	return img.Root, b.change(func(s *spec) { s.Digest = img.Digest })
}

// environment is a command's: an image has its say, where there is one.
func (b *box) environment(e api.Exec, terminal bool) ([]string, error) {
	b.mu.Lock()
	set, digest := append(append([]string(nil), b.spec.Env...), e.Set...), b.spec.Digest
	if b.instance != nil {
		set = append(b.instance.Environment(), set...)
	}
	b.mu.Unlock()
	if digest == "" {
		return sandbox.Environment(e.Env, terminal, set), nil
	}
	img, err := b.d.images().Get(digest)
	return sandbox.ImageEnvironment(e.Env, img.Config.Env, terminal, set), err
}

// inside calls f with the files of a sandbox that runs.
func (d *Daemon) inside(name string, f func(*box, transfer.Sandbox) error) error {
	b, err := d.find(name)
	if err != nil {
		return err
	}
	i, err := b.running()
	if err != nil {
		return err
	}
	root, err := i.Box().OpenRoot()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := f(b, transfer.Sandbox{Root: root, UID: i.Box().HostID(), GID: i.Box().HostGID()}); err != nil {
		return &api.Error{Code: api.Invalid, Message: err.Error()}
	}
	return nil
}

// Upload unpacks a tar stream below a path of a sandbox that runs.
func (d *Daemon) Upload(ctx context.Context, who server.Caller, name, path string, tar io.Reader) error {
	return d.inside(name, func(b *box, s transfer.Sandbox) error {
		r, err := transfer.Upload(ctx, s, path, tar)
		b.note("upload", path, carried(r)+" by "+who.Name)
		return err
	})
}

// Download packs a path of a sandbox that runs.
func (d *Daemon) Download(ctx context.Context, who server.Caller, name, path string, tar io.Writer) error {
	return d.inside(name, func(b *box, s transfer.Sandbox) error {
		r, err := transfer.Download(ctx, s, path, tar)
		b.note("download", path, carried(r)+" by "+who.Name)
		return err
	})
}

func carried(r transfer.Report) string {
	s := strconv.Itoa(r.Files) + " files, " + strconv.FormatInt(r.Bytes, 10) + " bytes"
	if r.Skipped > 0 {
		s += ", " + strconv.Itoa(r.Skipped) + " that can't be carried left out"
	}
	return s
}
