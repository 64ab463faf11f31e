package agent

import (
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
	dir, err := filepath.EvalSymlinks(filepath.Dir(absolute(r.o.Learn)))
	if err != nil {
		return bad("%w; name a file in a directory that exists", err)
	}
	file := filepath.Join(dir, filepath.Base(r.o.Learn))
	if within(file, r.workspace) {
		return bad("this is in the workspace, where the command could write a policy of its own; name a file elsewhere")
	}
	if access, rule, found := r.policy.Files.Access(file); found && access&policy.Write != 0 && !slices.ContainsFunc(policy.PrivateDirs, func(d string) bool { return within(file, d) }) {
		return bad("the sandbox may write there (%s), so the command could write a policy of its own; name a file elsewhere", r.policy.Rule(rule.RuleFor(policy.Write)).Pos)
	}
	if _, err := os.Lstat(file); err == nil {
		return bad("it is there already, and may have been edited; name another file, or move it away")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return bad("%w", err)
	}
	r.learner, r.learnt = learn.New(r.policy), file
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
			"under " + r.policyName + " (revision " + r.policy.Revision + "), at level " + r.loader.Level().String(),
		},
		Programs: programs, Finished: status == 0,
		Unseen: unseenRefusals(r.policy, r.refusals.reader != nil, r.refusedExecs != nil), Lost: lost,
		Dirs: slices.Contains(r.o.Generalise, GeneraliseDirs), Subdomains: slices.Contains(r.o.Generalise, GeneraliseSubdomains),
	}
	res, err := r.learner.Policy(o)
	if err != nil {
		return err
	}
	if err := writeAtomically(r.learnt, res.YAML); err != nil {
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

// writeAtomically writes a new file, whole or not at all. A file of that name that has come meanwhile is not replaced.
func writeAtomically(file string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), file); errors.Is(err, fs.ErrExist) {
		return err
	} else if err != nil { // a file system without links
		err = unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, file, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
