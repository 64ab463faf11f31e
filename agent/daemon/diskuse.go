package daemon

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What is inside makes the tree that is counted: as large, deep and short-lived as it likes.
const (
	countTime  = 2 * time.Second
	countDepth = 256 // directories; each has a descriptor
	countNames = 512 // of a directory at a time
)

// countShare is how much of a processor counting may take when somebody asks all the time: one part in so many.
const countShare = 20

// diskUsage is what a directory took when it was last counted.
type diskUsage struct {
	mu    sync.Mutex
	bytes int64
	until time.Time // it need not be counted again
}

// use is diskUse, or what it said a moment ago.
func (u *diskUsage) use(dir string) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if begin := time.Now(); begin.After(u.until) {
		u.bytes = diskUse(dir)
		u.until = time.Now().Add(countShare * time.Since(begin))
	}
	return u.bytes
}

// diskUse is how many bytes a directory takes; -1 when counting takes too long or it can't be read.
func diskUse(dir string) int64 {
	top, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	c := counter{until: time.Now().Add(countTime)}
	if err := c.dir(top, 0); err != nil {
		return -1
	}
	return c.bytes
}

// counter adds up what files take, by descriptors: no name in there leads out.
type counter struct {
	bytes int64
	until time.Time
}

var errTooMuch = errors.New("too much to count")

// dir counts a directory, and closes it.
func (c *counter) dir(fd, depth int) error {
	f := os.NewFile(uintptr(fd), "workspace")
	defer f.Close()
	for {
		names, err := f.Readdirnames(countNames)
		for _, name := range names {
			if err := c.entry(fd, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *counter) entry(dir int, name string, depth int) error {
	if depth > countDepth || time.Now().After(c.until) {
		return errTooMuch
	}
	var at unix.Stat_t
	if unix.Fstatat(dir, name, &at, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return nil // removed meanwhile
	}
	c.bytes += at.Blocks * 512
	if at.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	below, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // the same
	}
	return c.dir(below, depth+1)
}
