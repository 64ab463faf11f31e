//go:build man

package main

import (
	"fmt"
	"os"

	"github.com/nemoclaw/nemoclaw/cmd/internal/man"
)

// With the tag `man` this is no command but the writer of its manual pages (`make man`), so that what formats them is not
// in what is installed.
func init() {
	if err := man.Write(newRoot("NAME"), "1", os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
