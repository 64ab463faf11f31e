package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// journal says, in the store, where a restore is under way. In a workspace nothing could say so: what is inside could make it
// up, and have a file moved to where it may not write.
type journal struct {
	Workspace string `json:"workspace"`
	Stage     string `json:"stage"`  // name of the directory with the new content
	Beside    bool   `json:"beside"` // it lies beside the workspace, else in it
	Complete  bool   `json:"complete"`
	Inode     uint64 `json:"inode"` // of a stage in the workspace, once it is there
}

const journalFile = "restore.json"

// In a stage that lies in a workspace: the new and the old content.
const (
	stageNew = "new"
	stageOld = "old"
)

// Restore gives a workspace the content of a snapshot; nothing of what it had stays, but its own owner and mode. The sandbox must
// not run. Until all is copied the workspace is as it was, whatever fails. Then the two directories change places at once, or,
// where the workspace is a mount point or lies in a directory that is not root's alone, the content does, name by name: an
// interruption of that is completed or undone by Recover.
func (s *Store) Restore(ctx context.Context, id, workspace string) error {
	if _, _, err := s.Get(id); err != nil {
		return err
	}
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	err = s.settle()
	if err == nil {
		err = s.restore(ctx, id, filepath.Clean(workspace))
	}
	if err != nil {
		return fmt.Errorf("restoring snapshot %s to %s: %w", id, workspace, err)
	}
	return nil
}

// Recover ends a Restore that was killed: the workspace is as before then, or as the snapshot. Call it before a sandbox of the
// workspace is started.
func (s *Store) Recover() error {
	lock, err := s.lock()
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.settle()
}

func (s *Store) restore(ctx context.Context, id, workspace string) error {
	at, err := s.at(id)
	if err != nil {
		return err
	}
	from, err := openWorkspace(filepath.Join(at, treeDir))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := openWorkspace(workspace)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	above, err := openWorkspace(filepath.Dir(workspace))
	if err != nil {
		return err
	}
	defer unix.Close(above)
	j := journal{Workspace: workspace, Stage: ".nemoclaw-" + newID()}
	if exchangeable(above, to) {
		j.Beside = true
		if err := s.exchange(ctx, from, above, to, j); !errors.Is(err, errNoExchange) {
			return err
		}
		j.Beside = false
	}
	err = s.replace(ctx, from, to, j)
	return errors.Join(err, s.settle()) // forward, or back
}

// exchangeable reports whether a workspace can change its place with another directory: it is no mount point, and nobody but root
// can interfere in the directory that it lies in.
func exchangeable(above, to int) bool {
	var dir unix.Stat_t
	var a, b unix.Statx_t
	err := errors.Join(unix.Fstat(above, &dir), unix.Statx(above, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &a), unix.Statx(to, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &b))
	return err == nil && a.Mnt_id == b.Mnt_id && dir.Uid == 0 && dir.Mode&0o022 == 0
}

// errNoExchange says that a file system can't let two names change places.
var errNoExchange = errors.New("no RENAME_EXCHANGE")

// exchange prepares a directory beside the workspace and lets the two change places.
func (s *Store) exchange(ctx context.Context, from, above, to int, j journal) (err error) {
	if err := s.note(j); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.settle()) }() // removes the new one, or the old
	made, err := makeDir(above, j.Stage)
	if err != nil {
		return err
	}
	defer unix.Close(made)
	if _, err := copyInto(ctx, from, made); err != nil {
		return err
	}
	if err := errors.Join(sameOwner(to, made), unix.Syncfs(made)); err != nil {
		return err
	}
	err = unix.Renameat2(above, j.Stage, above, filepath.Base(j.Workspace), unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) {
		return errNoExchange
	}
	return err
}

// sameOwner keeps the workspace's own owner and mode: the sandbox's user is made after them.
func sameOwner(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	return errors.Join(unix.Fchown(to, int(st.Uid), int(st.Gid)), unix.Fchmod(to, st.Mode&0o7777))
}

// replace prepares the new content in the workspace itself, and moves the old out. Settling moves the new in.
func (s *Store) replace(ctx context.Context, from, to int, j journal) error {
	if err := s.note(j); err != nil {
		return err
	}
	stage, err := makeDir(to, j.Stage)
	if err != nil {
		return err
	}
	defer unix.Close(stage)
	var st unix.Stat_t
	if err := unix.Fstat(stage, &st); err != nil {
		return err
	}
	j.Inode = st.Ino
	if err := s.note(j); err != nil {
		return err
	}
	made, err := makeDir(stage, stageNew)
	if err != nil {
		return err
	}
	defer unix.Close(made)
	if _, err := copyInto(ctx, from, made); err != nil {
		return err
	}
	old, err := makeDir(stage, stageOld)
	if err != nil {
		return err
	}
	defer unix.Close(old)
	if err := errors.Join(unix.Syncfs(made), moveAll(to, old, j.Stage)); err != nil {
		return err
	}
	j.Complete = true
	return s.note(j)
}

// note writes the journal.
func (s *Store) note(j journal) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	at := filepath.Join(s.Dir, journalFile)
	f, err := os.OpenFile(at+part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(at+part, at)
}

// settle does what the journal leaves to be done: with all of the new content there, and the old moved out, it moves the new in,
// else the old back.
func (s *Store) settle() error {
	at := filepath.Join(s.Dir, journalFile)
	text, err := os.ReadFile(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var j journal
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err == nil && (!filepath.IsAbs(j.Workspace) || j.Stage == "" || strings.Contains(j.Stage, "/")) {
		err = errors.New("it is damaged")
	}
	if err != nil {
		return fmt.Errorf("the journal of a restore, %s: %w", at, err)
	}
	if err := j.settle(); err != nil {
		return fmt.Errorf("ending an interrupted restore of %s: %w", j.Workspace, err)
	}
	return os.Remove(at)
}

func (j *journal) settle() error {
	dir := j.Workspace
	if j.Beside {
		dir = filepath.Dir(dir)
	}
	to, err := openWorkspace(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it was removed, and the stage with it
	}
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if j.Beside {
		return removeAt(to, j.Stage)
	}
	stage, err := openDir(to, j.Stage)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(stage)
	var st unix.Stat_t
	if err := unix.Fstat(stage, &st); err != nil {
		return err
	}
	if j.Inode == 0 { // killed before anything was in it
		return unix.Unlinkat(to, j.Stage, unix.AT_REMOVEDIR)
	}
	if st.Ino != j.Inode {
		return fmt.Errorf("%s/%s is not the directory that was made for it", j.Workspace, j.Stage)
	}
	content := stageOld
	if j.Complete {
		content = stageNew
	}
	moved, err := openDir(stage, content)
	if err == nil {
		err = moveAll(moved, to, j.Stage)
		unix.Close(moved)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return removeAt(to, j.Stage)
}
