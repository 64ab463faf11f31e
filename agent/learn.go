package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/policy/learn"
)

// What a learnt policy may be made wider by, as --generalise says it.
const (
	GeneraliseDirs       = "dirs"
	GeneraliseSubdomains = "subdomains"
)

// checkLearn refuses places for the learnt policy where it can't be written, or where what runs inside could write it.
func (r *run) checkLearn() error {
	if r.o.Learn == "" {
		return nil
	}
	bad := func(why string, args ...any) error {
		return fmt.Errorf("--learn %s: "+why, append([]any{r.o.Learn}, args...)...)
	}
	dir, err := os.OpenFile(filepath.Dir(absolute(r.o.Learn)), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return bad("%w; name a file in a directory that exists", err)
	}
	r.learnt = &newFile{dir: dir, name: filepath.Base(r.o.Learn)}
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
	if err != nil {
		return bad("%w", err)
	}
	file := filepath.Join(at, r.learnt.name)
	if within(file, r.workspace) {
		return bad("this is in the workspace, where the command could write a policy of its own; name a file elsewhere")
	}
	for _, e := range r.policy.Expiring() {
		if e.Local {
			return bad("%s has `expires`, and what is learnt of rules for files and programs would last; take it out for this run", r.policy.Rule(e.ID).Pos)
		}
	}
	for _, g := range r.policy.Files.Written() {
		private := slices.ContainsFunc(policy.PrivateDirs, func(d string) bool { return within(g.Path, d) }) // not the host's
		if g.Verdict == policy.Allow && g.Access&policy.Write != 0 && !private && within(file, resolved(g.Path)) {
			return bad("the sandbox may write there (%s), so the command could write a policy of its own; name a file elsewhere", r.policy.Rule(g.RuleFor(policy.Write)).Pos)
		}
	}
	if _, err := os.Lstat(file); err == nil {
		return bad("it is there already, and may have been edited; name another file, or move it away")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return bad("%w", err)
	}
	r.learner = learn.New(r.policy)
	return nil
}

// learnPrograms is what could run, for the learner; the sandbox forgets it when it closes.
func (r *run) learnPrograms() []learn.Program {
	if r.learner == nil || r.box == nil {
		return nil
	}
	var list []learn.Program
	for _, p := range r.box.Programs() {
		list = append(list, learn.Program{Command: p.Command, Path: p.Path, Rule: p.Rule, Helper: p.Kind == sandbox.KindHelper, Script: p.Script})
	}
	return list
}

// writeLearnt writes what was learnt, and says what to do with it.
func (r *run) writeLearnt(status int, programs []learn.Program, lost uint64) error {
	if r.learner == nil || r.process == nil {
		return nil
	}
	o := learn.Options{
		Title: []string{
			"Learnt by `nemoclaw run --learn` on " + r.started.UTC().Format(time.DateTime) + " UTC, from: " + strings.Join(r.o.Command, " "),
			"under " + r.policyName + " (revision " + r.policy.Revision + "), at level " + r.Level().String(),
		},
		Programs: programs, Finished: status == 0,
		Unseen: unseenRefusals(r.policy, r.Level(), r.refusals.reader != nil, r.refusedExecs != nil), Lost: lost,
		Dirs: slices.Contains(r.o.Generalise, GeneraliseDirs), Subdomains: slices.Contains(r.o.Generalise, GeneraliseSubdomains),
	}
	res, err := r.learner.Policy(o)
	if err != nil {
		return err
	}
	if err := r.learnt.write(res.YAML); err != nil {
		return fmt.Errorf("--learn: %w", err)
	}
	if !r.o.Quiet {
		_, _ = r.o.Stderr.WriteString(learntSummary(r.o.Learn, res, o.Finished, o.Unseen))
	}
	return nil
}

// learntSummary tells what was learnt, what could not be seen, and what to do next.
func learntSummary(file string, res *learn.Result, finished bool, unseen []string) string {
	var b strings.Builder
	file = text.Escape(file)
	fmt.Fprintf(&b, "nemoclaw: learnt %s, %s and %s; wrote %s\n", count(res.Hosts, "host"), count(res.Programs, "program"), count(res.Paths, "path"), file)
	if !finished {
		fmt.Fprintf(&b, "  the command failed, so every rule of the policy was kept, used or not\n")
	}
	if res.Refused > 0 {
		fmt.Fprintf(&b, "  %d of the rules are for what was refused in this run, marked REFUSED: read them\n", res.Refused)
	}
	if res.Refused > 0 || !finished {
		fmt.Fprintf(&b, "  learn on, to another file, with --policy %s, until the command ends well and nothing is refused\n", file)
	}
	if res.Withheld > 0 {
		fmt.Fprintf(&b, "  %s proposed as a comment only\n", count(res.Withheld, "secret"))
	}
	if res.Missed > 0 {
		fmt.Fprintf(&b, "  %d records were too many to be looked at: rules may be missing\n", res.Missed)
	}
	b.WriteString("  seen: connections, names and programs; not seen:\n")
	for _, u := range unseen {
		fmt.Fprintf(&b, "    %s\n", text.Escape(u))
	}
	return b.String()
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// newFile is a place for a file in a directory that is held open: whoever may rename directories above it does not choose
// where the file comes to.
type newFile struct {
	dir  *os.File
	name string
}

func (f *newFile) close() {
	if f != nil {
		f.dir.Close()
	}
}

// write writes the file, whole or not at all. One of that name that has come meanwhile is not replaced.
func (f *newFile) write(data []byte) error {
	dir, part := int(f.dir.Fd()), "."+f.name+"."+rand.Text()
	fd, err := unix.Openat(dir, part, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: filepath.Join(f.dir.Name(), part), Err: err}
	}
	defer func() { _ = unix.Unlinkat(dir, part, 0) }()
	out := os.NewFile(uintptr(fd), part)
	_, err = out.Write(data)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	if err = unix.Linkat(dir, part, dir, f.name, 0); err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		err = unix.Renameat2(dir, part, dir, f.name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: filepath.Join(f.dir.Name(), f.name), Err: err}
	}
	return nil
}
