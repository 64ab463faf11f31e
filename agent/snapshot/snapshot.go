// Package snapshot keeps copies of a directory, the workspace of a sandbox, with a few bytes beside each, and brings one back. It
// owns the directories of its Store, and what it makes in or beside a workspace while it restores.
//
// What a workspace holds was made by hostile hands and may change meanwhile: no symbolic link is followed, no fifo, socket or
// device opened, no mount crossed, and every number has a bound. Whoever wants a copy of one moment freezes the sandbox; whoever
// restores stops it first, since a running one goes on in the old directory.
//
// Files keep content, names, modes, owners, times, holes, hard links among themselves and user.* attributes. They lose set-uid
// and set-gid bits, access lists and other attributes; sockets and devices are left out.
package snapshot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Store keeps snapshots in a directory that is its alone.
type Store struct {
	Dir string // absolute
}

// Snapshot is one copy.
type Snapshot struct {
	ID      string    `json:"id"`
	Label   string    `json:"label,omitempty"`
	Created time.Time `json:"created"`
	Report
}

// Report says what was copied.
type Report struct {
	Files   int   `json:"files"` // and directories, links and fifos
	Bytes   int64 `json:"bytes"` // of files, without holes
	Skipped int   `json:"skipped,omitempty"`
	Changed int   `json:"changed,omitempty"` // files that were written to while they were copied
}

var (
	// ErrNone says that a store does not have a snapshot.
	ErrNone = errors.New("snapshot: there is none with this id")
	// ErrBusy says that something else is done with the store.
	ErrBusy = errors.New("snapshot: another one is being made, restored or deleted; try again when that is done")
)

const (
	part      = ".part" // ends the name of what is not finished, or not wanted any more
	metaFile  = "snapshot.json"
	extraFile = "extra"
	treeDir   = "tree"
	maxExtra  = 16 << 20
)

// Create copies a workspace. extra is kept beside it.
func (s *Store) Create(ctx context.Context, workspace, label string, extra []byte) (Snapshot, error) {
	snap, err := s.create(ctx, workspace, label, extra)
	if err != nil {
		return Snapshot{}, fmt.Errorf("snapshot of %s: %w", workspace, err)
	}
	return snap, nil
}

func (s *Store) create(ctx context.Context, workspace, label string, extra []byte) (snap Snapshot, err error) {
	if len(extra) > maxExtra {
		return snap, fmt.Errorf("%d bytes are to be kept beside it, at most %d can be", len(extra), maxExtra)
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return snap, err
	}
	lock, err := s.lock()
	if err != nil {
		return snap, err
	}
	defer lock.Close()
	if err := s.settle(); err != nil {
		return snap, err
	}
	snap = Snapshot{ID: newID(), Label: label, Created: time.Now().UTC().Truncate(time.Second)}
	at := filepath.Join(s.Dir, snap.ID)
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(at+part))
		}
	}()
	if err := os.Mkdir(at+part, 0o700); err != nil {
		return snap, err
	}
	from, err := openWorkspace(workspace)
	if err != nil {
		return snap, err
	}
	defer unix.Close(from)
	if snap.Report, err = copyTo(ctx, from, filepath.Join(at+part, treeDir)); err != nil {
		return snap, err
	}
	meta, err := json.Marshal(snap)
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(at+part, extraFile), extra, 0o600), os.WriteFile(filepath.Join(at+part, metaFile), meta, 0o600))
	}
	if err == nil {
		err = unix.Syncfs(int(lock.Fd()))
	}
	if err == nil {
		err = os.Rename(at+part, at)
	}
	return snap, err
}

// newID sorts by time.
func newID() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails
	return time.Now().UTC().Format("20060102-150405-") + hex.EncodeToString(b)
}

// lock makes the caller the only one who changes the store, until the file is closed, and removes what one who was killed left.
func (s *Store) lock() (*os.File, error) {
	dir, err := os.Open(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err == nil {
		err = s.sweep()
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.Dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), part) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.Dir, e.Name())))
		}
	}
	return err
}

// at is where a snapshot is. An id comes from a person.
func (s *Store) at(id string) (string, error) {
	if id == "" || strings.HasSuffix(id, part) || strings.Trim(id, "0123456789abcdef-") != "" {
		return "", fmt.Errorf("%w: %q", ErrNone, id)
	}
	return filepath.Join(s.Dir, id), nil
}

// Get returns a snapshot and what is kept beside it.
func (s *Store) Get(id string) (snap Snapshot, extra []byte, err error) {
	at, err := s.at(id)
	if err != nil {
		return snap, nil, err
	}
	meta, err := os.ReadFile(filepath.Join(at, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return snap, nil, fmt.Errorf("%w: %q", ErrNone, id)
	}
	if err == nil {
		err = json.Unmarshal(meta, &snap)
	}
	if err == nil {
		extra, err = os.ReadFile(filepath.Join(at, extraFile))
	}
	if err != nil {
		return snap, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return snap, extra, nil
}

// List returns all snapshots, the oldest first.
func (s *Store) List() ([]Snapshot, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	var list []Snapshot
	for _, e := range entries {
		if _, err := s.at(e.Name()); err != nil {
			continue // not finished
		}
		snap, _, err := s.Get(e.Name())
		if errors.Is(err, ErrNone) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, snap)
	}
	slices.SortStableFunc(list, func(a, b Snapshot) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// Delete removes a snapshot.
func (s *Store) Delete(id string) error {
	at, err := s.at(id)
	if err != nil {
		return err
	}
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	err = os.Rename(at, at+part)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %q", ErrNone, id)
	}
	if err == nil {
		err = s.sweep()
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", id, err)
	}
	return nil
}

// openWorkspace opens a directory whose path is the caller's to trust, but for its last element.
func openWorkspace(at string) (int, error) {
	if !filepath.IsAbs(at) {
		return -1, fmt.Errorf("%q is not an absolute path", at)
	}
	fd, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: at, Err: err}
	}
	return fd, nil
}
