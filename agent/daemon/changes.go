package daemon

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/changes"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

const workspaceDir = "/workspace"

// Changes says which files of a sandbox were changed from a time on and before another, in what it may write. One that runs is looked at as
// it sees itself; of one that does not there is the workspace.
func (d *Daemon) Changes(ctx context.Context, name string, from, until time.Time) (api.Changes, error) {
	b, err := d.find(name)
	if err != nil {
		return api.Changes{}, err
	}
	if !b.looking.TryLock() {
		return api.Changes{}, &api.Error{Code: api.Busy, Message: "somebody else has the files of " + name + " looked at; try again in some seconds"}
	}
	defer b.looking.Unlock()
	i, notRunning := b.running()
	if notRunning != nil {
		return b.workspaceChanges(ctx, from, until)
	}
	root, err := i.Box().OpenRoot()
	if err != nil {
		return api.Changes{}, err
	}
	defer root.Close()
	var places []changes.Place
	for _, path := range writablePlaces(i.Base()) {
		places = append(places, changes.Place{Path: path, Dir: int(root.Fd()), At: path})
	}
	return changes.Look(ctx, places, from, until)
}

// workspaceChanges are those of a sandbox that does not run. What else its policy lets it write is found by names that only its view makes
// sure of, so nobody looks there.
func (b *box) workspaceChanges(ctx context.Context, from, until time.Time) (api.Changes, error) {
	compiled, _, err := b.compile(0)
	if err != nil {
		return api.Changes{}, err
	}
	var places []changes.Place
	var missed []string
	for _, path := range writablePlaces(compiled) {
		switch {
		case slices.Contains(policy.PrivateDirs, path):
			missed = append(missed, path+": it goes with the run")
		case path == workspaceDir || strings.HasPrefix(path, workspaceDir+"/"):
			if len(places) > 0 {
				continue
			}
			dir, err := unix.Open(b.workspace(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				missed = append(missed, workspaceDir+": "+err.Error())
				continue
			}
			defer unix.Close(dir)
			places = append(places, changes.Place{Path: workspaceDir, Dir: dir, At: "."})
		default:
			missed = append(missed, path+": it is looked at while the sandbox runs")
		}
	}
	found, err := changes.Look(ctx, places, from, until)
	found.Missed = append(found.Missed, missed...)
	return found, err
}

// writablePlaces are the paths that a policy lets be written, as the sandbox names them: shorter ones first, so that each is shown by the
// name of the place that it lies in.
func writablePlaces(c *policy.Compiled) []string {
	list := slices.Clone(policy.PrivateDirs)
	for _, r := range c.Files.Rules {
		if (r.Access|r.Asked)&policy.Write != 0 {
			list = append(list, r.Path)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
