package agent

import (
	"bytes"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/refusal"
	"github.com/nemoclaw/nemoclaw/policy"
)

// fileRefusals follows what the kernel reports of Landlock's refusals, where the host has its audit on.
type fileRefusals struct {
	reader *refusal.Reader // nil: nothing is reported here
	done   chan struct{}
}

// followRefusals starts to record refusals of files and programs. Without the kernel's reports it does nothing: the
// summary says what can't be seen then.
func (r *run) followRefusals() error {
	reader, err := refusal.Open(func(pid int) string {
		if name := SandboxOf(pid, r.c.Parent); name == r.name {
			return name
		}
		return ""
	})
	if errors.Is(err, refusal.ErrOff) {
		return nil
	}
	if err != nil {
		r.warn(err.Error())
		return nil
	}
	r.refusals = fileRefusals{reader, make(chan struct{})}
	go func() {
		defer close(r.refusals.done)
		err := reader.Run(r.FileRefused, func() {
			r.note("lost", "refusals of files", "the kernel's audit stream had more than could be read; what was refused stays refused")
		})
		if err != nil {
			r.warn(err.Error())
		}
	}()
	return nil
}

// stop ends the reports.
func (f *fileRefusals) stop() error {
	if f.reader == nil {
		return nil
	}
	err := f.reader.Close()
	<-f.done
	return err
}

// SandboxOf returns the name of the sandbox below the cgroup parent that a process is in; "" for none.
func SandboxOf(pid int, parent string) string {
	groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	own := "0::" // cgroup v2
	for line := range bytes.Lines(groups) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), own); ok {
			if dir, name := path.Split(rest); path.Base(dir) == filepath.Base(parent) {
				return name
			}
		}
	}
	return ""
}

// FileRefused records what the kernel reports of Landlock's refusals.
func (i *Instance) FileRefused(f refusal.Refusal) {
	i.c.Record(fileDecision(i.recorder.policies.local(), f))
}

// fileDecision makes the record of one of Landlock's refusals. Landlock says neither which rule nor which system call;
// the rule is the policy's about the path, or the default.
func fileDecision(c *policy.Compiled, f refusal.Refusal) policy.Decision {
	d := policy.Decision{
		Plane: policy.PlaneFile, Action: "write", Object: f.Path, Verdict: policy.Deny, Rule: "default", Revision: c.Revision,
		Subject: policy.Subject{PID: f.PID, Exe: f.Exe, Args: f.Args}, Reason: "Landlock refused " + strings.Join(f.Blockers, ", "),
	}
	want := policy.Write
	has := func(blocker string) bool { return slices.Contains(f.Blockers, blocker) }
	switch {
	case has("fs.execute"):
		d.Plane, d.Action, want = policy.PlaneExec, "exec", policy.Execute
	case slices.ContainsFunc(f.Blockers, func(b string) bool { return strings.HasPrefix(b, "scope.") || strings.HasPrefix(b, "net.") }):
		d.Plane, d.Action, d.Rule = policy.PlaneSystem, strings.Join(f.Blockers, " "), "builtin"
		return d
	case len(f.Blockers) == 1 && has("fs.read_dir"):
		d.Action, want = "readdir", policy.Read
	case len(f.Blockers) == 1 && has("fs.read_file"):
		d.Action, want = "open", policy.Read
	}
	if strings.HasPrefix(f.Path, "/") {
		if _, rule, found := c.Files.Access(f.Path); found && rule.Denied&want != 0 {
			d.Rule = c.Rule(rule.RuleFor(want)).Pos
		}
	}
	return d
}
