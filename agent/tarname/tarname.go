// Package tarname says which names may stand in an archive that somebody else made: an image's layer, or what is copied into a
// sandbox. It reads no archive, and never touches a file: what unpacks still follows no link on the way to a name.
package tarname

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// What is longer or deeper is refused.
const (
	MaxLength = 4096 // bytes, with a zero at the end, as for the kernel
	MaxDepth  = 128  // directories
)

// Clean makes a name of an archive relative; "" is the directory that is unpacked to. One that leads out of it is an attack
// or a mistake.
func Clean(name string) (string, error) {
	switch {
	case len(name) >= MaxLength:
		return "", fmt.Errorf("a name of %d bytes", len(name))
	case strings.IndexByte(name, 0) >= 0:
		return "", errors.New("a name with a NUL byte")
	case slices.Contains(strings.Split(name, "/"), ".."):
		return "", errors.New("a name with .. in it")
	}
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if strings.Count(name, "/") >= MaxDepth {
		return "", fmt.Errorf("more than %d directories deep", MaxDepth)
	}
	return name, nil
}
