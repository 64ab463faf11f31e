// Package man writes a command's manual pages from what its help says. It is for `make man` only, and never part of a
// command that is installed.
package man

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Write writes the pages of root and of the commands below it into the directory that args name.
func Write(root *cobra.Command, section string, args []string) error {
	if len(args) != 1 {
		return errors.New("want one argument: the directory for the manual pages")
	}
	if err := os.MkdirAll(args[0], 0o755); err != nil {
		return fmt.Errorf("write the manual pages: %w", err)
	}
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: section, Source: "NemoClaw", Manual: "NemoClaw"}
	// The same sources give the same bytes, whenever they are built.
	if epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		date := time.Unix(epoch, 0).UTC()
		header.Date = &date
	}
	if err := doc.GenManTree(root, header, args[0]); err != nil {
		return fmt.Errorf("write the manual pages: %w", err)
	}
	return nil
}
