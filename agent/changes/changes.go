// Package changes looks for what was changed in a tree that somebody hostile may be changing all the time: names, sizes and times, no
// contents.
//
// It never opens anything but directories, never follows a symbolic link, never leaves the mount that it begins in, never changes
// anything, and never takes more time and memory than its limits say; where it ends early it says so.
package changes

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// The limits of one look.
const (
	maxTime  = 5 * time.Second
	maxLook  = 500_000 // files and directories
	maxDepth = 128     // directories below each other; each has a descriptor
	maxShown = 500     // changes that are listed
	maxPath  = 1 << 10 // bytes of a path that are kept
	perRead  = 512     // names of a directory at a time
	maxTries = 64      // to open one name
)

// A Place is a directory, or a file, to look into.
type Place struct {
	Path string // how it is named in what is found
	Dir  int    // a descriptor of the directory below which it is
	At   string // its path from there, for which Dir is the root
}

// Look looks for what was changed from a time on and before another; the zero time is no bound. A place that is not there is left out. An
// error says that ctx ended.
func Look(ctx context.Context, places []Place, from, until time.Time) (api.Changes, error) {
	l := &look{ctx: ctx, from: from, until: until, end: time.Now().Add(maxTime), most: maxLook, seen: map[id]bool{}}
	l.all(places)
	return l.found(), ctx.Err()
}

type id struct {
	major, minor uint32
	ino          uint64
}

// look is one look.
type look struct {
	api.Changes
	ctx         context.Context
	from, until time.Time
	end         time.Time
	most        uint64
	steps       uint64      // also those that found nothing: names can come and go for ever
	seen        map[id]bool // directories that were read: a place may lie in another, or be mounted twice
	list        latest
}

func (l *look) all(places []Place) {
	l.Places, l.Missed = []string{}, []string{}
	for _, p := range places {
		if l.Cut != "" {
			l.Missed = append(l.Missed, p.Path+": the look had ended before")
			continue
		}
		if err := l.place(p); errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		} else if err != nil {
			l.Missed = append(l.Missed, p.Path+": "+err.Error())
			continue
		}
		l.Places = append(l.Places, p.Path)
	}
}

func (l *look) found() api.Changes {
	l.Files = l.list
	slices.SortFunc(l.Files, func(a, b api.Changed) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Path, b.Path))
	})
	if l.Files == nil {
		l.Files = []api.Changed{}
	}
	return l.Changes
}

// place looks at one place. It is found as whoever has Dir for root finds it, so that no link in it leads out.
func (l *look) place(p Place) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	at, err := openat2(p.Dir, p.At, &how)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	st, err := stat(at, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	if kind(st.Mode) != "directory" {
		l.note(p.Path, st)
		return nil
	}
	dir, err := openat2(at, ".", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath})
	if err != nil {
		return err
	}
	l.dir(dir, p.Path, st, 0)
	return nil
}

// beneath is how every name below a place is opened: in the same mount, and by no link.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

func openat2(dir int, name string, how *unix.OpenHow) (int, error) {
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(dir, name, how)
		// EAGAIN: something was renamed meanwhile, and the kernel could not tell that it stayed inside. Whoever does that all the time is not
		// waited for.
		if err != unix.EINTR && (err != unix.EAGAIN || tries == maxTries) {
			return fd, err
		}
	}
}

func stat(dir int, name string, flags int) (*unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	return &st, err
}

// dir looks into a directory, and closes it.
func (l *look) dir(fd int, path string, st *unix.Statx_t, depth int) {
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	is := id{st.Dev_major, st.Dev_minor, st.Ino}
	if l.seen[is] {
		return
	}
	l.seen[is] = true
	inside := false // something that is in it was changed, which says why it was itself
	for l.goesOn() {
		names, err := f.Readdirnames(perRead)
		for _, name := range names {
			if !l.goesOn() {
				return
			}
			changed := l.entry(fd, name, path, depth)
			inside = inside || changed
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			l.Unread++
			return
		}
	}
	// A directory is changed by what is made, renamed or removed in it. What was made or renamed is there, and says so.
	if !inside && l.in(when(st.Ctime)) && !l.in(born(st)) {
		l.Removed++
		l.add(path, "directory", api.Removals, st)
	}
}

// goesOn reports whether the limits are not reached.
func (l *look) goesOn() bool {
	switch {
	case l.Cut != "":
	case l.ctx.Err() != nil:
		l.Cut = "nobody waits for it any more"
	case l.Looked >= l.most:
		l.Cut = fmt.Sprintf("there are more than %d files and directories", l.most)
	case l.steps%64 == 0 && time.Now().After(l.end):
		l.Cut = fmt.Sprintf("it took longer than %s", maxTime)
	}
	l.steps++
	return l.Cut == ""
}

// entry looks at a name in a directory, and reports whether what has it was changed.
func (l *look) entry(dir int, name, above string, depth int) (changed bool) {
	l.Looked++
	st, err := stat(dir, name, 0)
	if err != nil {
		return false // removed meanwhile
	}
	path := above + "/" + name
	if above == "/" {
		path = above + name
	}
	changed = l.note(path, st)
	if kind(st.Mode) != "directory" {
		return changed
	}
	if depth+1 >= maxDepth {
		l.Unread++
		return changed
	}
	fd, err := openat2(dir, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: beneath})
	switch {
	case errors.Is(err, unix.EXDEV): // another mount, which is a place of its own where it may be written
		return changed
	case err != nil:
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			l.Unread++
		}
		return changed
	}
	l.dir(fd, path, st, depth+1)
	return changed
}

// note notes a file whose times say that it was changed, and reports whether they do.
func (l *look) note(path string, st *unix.Statx_t) bool {
	changed, made, wrote := when(st.Ctime), born(st), when(st.Mtime)
	k := kind(st.Mode)
	switch {
	case l.in(made):
		l.Added++
		l.Bytes += taken(k, st)
		l.add(path, k, api.Added, st)
	case changed.Before(l.from):
		return false
	case !l.in(changed):
		if k != "directory" && (made.IsZero() || made.Before(l.until)) {
			l.Later++
		}
	case k == "directory": // what is in it tells
	case l.in(wrote):
		l.Undated = l.Undated || made.IsZero()
		l.Changed++
		l.Bytes += taken(k, st)
		l.add(path, k, api.Modified, st)
	default:
		l.Undated = l.Undated || made.IsZero()
		l.Touched++
		l.add(path, k, api.Touched, st)
	}
	return true
}

// in reports whether a time is between the two.
func (l *look) in(t time.Time) bool {
	return !t.IsZero() && !t.Before(l.from) && (l.until.IsZero() || t.Before(l.until))
}

func (l *look) add(path, kind string, what api.ChangeKind, st *unix.Statx_t) {
	c := api.Changed{Kind: kind, What: what, Time: when(st.Ctime), Size: int64(min(st.Size, math.MaxInt64))}
	if len(l.list) == maxShown {
		if !l.list[0].Time.Before(c.Time) {
			return
		}
		heap.Pop(&l.list)
	}
	c.Path = text.Clip(path, maxPath)
	heap.Push(&l.list, c)
}

func when(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// born is when a file was made; zero when the file system does not tell.
func born(st *unix.Statx_t) time.Time {
	if st.Mask&unix.STATX_BTIME == 0 || st.Btime == (unix.StatxTimestamp{}) {
		return time.Time{}
	}
	return when(st.Btime)
}

// taken is how many bytes a file takes: of its size its owner can say what they like.
func taken(kind string, st *unix.Statx_t) int64 {
	const block, most = 512, 1 << 50
	if kind != "file" {
		return 0
	}
	return int64(min(st.Blocks, most/block)) * block
}

func kind(mode uint16) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "link"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

// latest is a heap of changes, the earliest first.
type latest []api.Changed

func (l latest) Len() int           { return len(l) }
func (l latest) Less(i, j int) bool { return l[i].Time.Before(l[j].Time) }
func (l latest) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *latest) Push(c any)        { *l = append(*l, c.(api.Changed)) }
func (l *latest) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}
