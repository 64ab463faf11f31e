package report

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/api"
)

// changeWords are what is said of a change. The file system tells no more.
var changeWords = map[api.ChangeKind]string{
	api.Added: "added", api.Modified: "changed", api.Touched: "touched", api.Removals: "something removed",
}

// changeFigures are what stands on top of the files.
func (a *Activity) changeFigures() []Figure {
	if a.changes == nil {
		return []Figure{{Name: "files added or changed", Value: "not known"}}
	}
	c := a.changes
	f := Figure{Name: "files added or changed", Value: number(c.Added + c.Changed), Note: sized(c.Bytes)}
	if c.Cut != "" || c.Unread > 0 {
		f.Value, f.Note = "at least "+f.Value, f.Note+"; not all was looked at"
	}
	return []Figure{f}
}

// changeSection tells which files are others than they were.
func (a *Activity) changeSection(box *api.Sandbox) Section {
	sec := Section{ID: "changes", Title: "Files that were changed"}
	c := a.changes
	if c == nil {
		sec.Words = []Text{say("Nobody could look at its files: {}", a.unseen)}
		return sec
	}
	sec.Words = []Text{
		say("As the files tell that are there now, in the places that it may write: {}. Its workspace on this host is {}. A change may be somebody else's who can write there. "+
			"What was removed is seen only by its directory, and only where nothing else in that was changed; what was made and removed again is not seen at all.", paths(c.Places), box.Workspace),
		say("{} added or put in the place of another, {} changed ({} together), {} touched: renamed, or with another owner, other rights or their time set back. {}.",
			c.Added, c.Changed, ours(sized(c.Bytes)), c.Touched, many(c.Removed, "directory in which something was removed", "directories in which something was removed")),
	}
	note := func(is bool, words string, args ...any) {
		if is {
			sec.Words = append(sec.Words, say(words, args...))
		}
	}
	note(c.Cut != "", "Not everything was looked at: {}. The numbers are of the {} that were.", c.Cut, many(c.Looked, "file or directory", "files and directories"))
	note(c.Unread > 0, "{} could not be read, or lie too deep.", many(c.Unread, "directory", "directories"))
	note(c.Later > 0, "{} changed after this time: whether in it, too, nobody knows.", many(c.Later, "file was", "files were"))
	note(c.Undated, "Of some of these files the file system does not tell when they were made: those that were added are among the changed.")
	note(len(c.Missed) > 0, "Not looked at: {}.", paths(c.Missed))
	if len(c.Files) == 0 {
		sec.Parts = []Part{{Notes: []Text{say("No file there was changed in this time.")}}}
		return sec
	}
	t := &Table{Title: "The latest changes", Heads: heads("when (UTC)", "what", "kind", "path", "#size")}
	for _, f := range c.Files[:min(len(c.Files), top)] {
		size := ours("-")
		if f.Kind == "file" {
			size = ours(sized(f.Size))
		}
		t.row(f.Time, ours(cmp.Or(changeWords[f.What], "changed in another way")), ours(plainKind(f.Kind)), f.Path, size)
	}
	p := Part{Table: t, Chart: changeChart(c.Files)}
	if n := c.Added + c.Changed + c.Touched + c.Removed; n > uint64(len(t.Rows)) {
		p.Notes = []Text{say("And {} more.", n-uint64(len(t.Rows)))}
	}
	sec.Parts = []Part{p}
	return sec
}

// plainKind is the kind of a file, as the daemon says it.
func plainKind(kind string) string {
	if slices.Contains([]string{"file", "directory", "link", "fifo", "socket", "device"}, kind) {
		return kind
	}
	return "other"
}

// changeChart shows in which directories the latest changes were.
func changeChart(list []api.Changed) *Chart {
	kinds := map[api.ChangeKind]int{api.Added: 0, api.Modified: 1, api.Touched: 2}
	dirs := newTable[string, [3]uint64](maxKinds, 0)
	for _, f := range list {
		if k, ok := kinds[f.What]; ok {
			if v := dirs.at(path.Dir(f.Path), "", 1); v != nil {
				v[k]++
			}
		}
	}
	rows := dirs.sorted(nil, func(a, b row[string, [3]uint64]) int {
		return cmp.Or(cmp.Compare(b.val[0]+b.val[1]+b.val[2], a.val[0]+a.val[1]+a.val[2]), strings.Compare(a.key, b.key))
	})
	var drawn []slice
	for _, r := range rows[:min(len(rows), maxSlices)] {
		drawn = append(drawn, slice{from(r.key), r.val[:]})
	}
	return bars("changes-chart", "The latest changes, by directory", "directory", []Key{{"one", "added"}, {"two", "changed"}, {"idle", "touched"}}, drawn)
}

// paths is a list of paths, of which the first are shown.
func paths(list []string) Text {
	const most = 8
	var t Text
	for i, p := range list[:min(len(list), most)] {
		if i > 0 {
			t = append(t, say(", ")...)
		}
		t = append(t, from(p)...)
	}
	if n := len(list) - most; n > 0 {
		t = append(t, say(" and {} more", n)...)
	}
	if len(t) == 0 {
		return say("none")
	}
	return t
}

// sized is a number of bytes.
func sized(n int64) string {
	unit, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for unit >= 1024 && i < len(units)-1 {
		unit, i = unit/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", unit, units[i])
}
