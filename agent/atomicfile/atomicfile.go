// Package atomicfile replaces files in one step: whoever looks finds the old file whole or the new one, never a part.
//
// The new file is written beside the old one, as NAME.new, and renamed. It is its owner's only (0600), whatever the old one
// was, and no link is followed to write it. A kill leaves NAME.new at most, which the next write takes over; an error leaves
// the old file as it is. Write holds against a power cut too: the file is forced to the disk before it is renamed, and the
// directory after. Swap spares that where nothing outlives a power cut anyway.
//
// The package never makes a directory, and never writes for two: one process at a time writes a file, one goroutine in it.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Suffix ends the name of a file that is not in its place yet.
const Suffix = ".new"

// ErrInPlace says that the new file is in its place, and that a power cut may bring the old one back.
var ErrInPlace = errors.New("the file is in its place, and may not be on the disk")

// Write replaces a file; it is on the disk when Write returns.
func Write(name string, data []byte) error {
	if err := replace(name, data, (*os.File).Sync); err != nil {
		return err
	}
	if err := SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("%w: %w", ErrInPlace, err)
	}
	return nil
}

// Swap replaces a file where nothing outlives a power cut, such as in /run.
func Swap(name string, data []byte) error {
	return replace(name, data, func(*os.File) error { return nil })
}

func replace(name string, data []byte, sync func(*os.File) error) (err error) {
	temp := name + Suffix
	defer func() {
		if err != nil {
			_ = os.Remove(temp) // the old one is whole
		}
	}()
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = sync(f)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, name)
	}
	return err
}

// SyncDir makes what was made, renamed or removed in a directory outlive a power cut.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
