// Package tartest shows what was unpacked, to the tests of what unpacks.
package tartest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Show lists what is below a directory: "file", "directory/", "link -> target".
func Show(t testing.TB, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		line := strings.TrimPrefix(p, root+"/")
		switch {
		case d.IsDir():
			line += "/"
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(p)
			line += " -> " + target
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
