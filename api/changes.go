package api

import (
	"context"
	"time"
)

// Changes is what was changed in a time in the places that a sandbox may write, as far as the files that are there now tell.
type Changes struct {
	Files   []Changed `json:"files"` // those of the latest changes, the latest first
	Added   uint64    `json:"added"`
	Changed uint64    `json:"changed"`
	Touched uint64    `json:"touched"`
	Removed uint64    `json:"directories_with_removals"`
	Bytes   int64     `json:"bytes"` // that the files which were added or changed take, each as a whole

	Later   uint64   `json:"changed_later"`     // after the time, so that nobody knows whether in it too
	Looked  uint64   `json:"looked_at"`         // files and directories
	Unread  uint64   `json:"unread"`            // directories that could not be read
	Undated bool     `json:"undated,omitempty"` // of some files the file system does not tell when they were made, so that added ones are among the changed
	Cut     string   `json:"cut,omitempty"`     // why the look ended before the end
	Places  []string `json:"places"`            // where was looked, as the sandbox names them
	Missed  []string `json:"not_looked_at"`     // where was not, and why
}

// Changed is one file that was changed.
type Changed struct {
	Path string     `json:"path"` // as the sandbox names it; from inside, so escape it before it is shown
	Kind string     `json:"kind"` // file, directory, link, fifo, socket or device
	What ChangeKind `json:"what"`
	Time time.Time  `json:"time"` // of the last change, which the kernel sets: nothing inside can
	Size int64      `json:"size"` // bytes
}

// ChangeKind is how a file was changed.
type ChangeKind string

// The kinds.
const (
	Added    ChangeKind = "added"    // it was made in the time, or put in the place of another
	Modified ChangeKind = "changed"  // what is in it
	Touched  ChangeKind = "touched"  // its name, owner or rights, or what is in it with the time set back
	Removals ChangeKind = "removals" // of a directory: something that was in it is no more, or its own rights or times were changed
)

// Changes returns what was changed in a sandbox from a time on, until another; the zero time is no bound.
func (c *Client) Changes(ctx context.Context, name string, from, until time.Time) (Changes, error) {
	q := Events{From: from, To: until}.Query().Encode()
	return get[Changes](ctx, c, of(name, "changes")+"?"+q)
}
