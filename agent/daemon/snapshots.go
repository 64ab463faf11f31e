package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/nemoclaw/nemoclaw/agent/revisions"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/agent/snapshot"
	"github.com/nemoclaw/nemoclaw/api"
)

// beside is what a snapshot has beside the workspace.
type beside struct {
	Who      string `json:"who"`
	Revision int    `json:"policy_revision"`
	Name     string `json:"policy_name"`
	Policy   string `json:"policy"`
}

// snapshots are one sandbox's. They go with it.
func (b *box) snapshots() *snapshot.Store {
	return &snapshot.Store{Dir: filepath.Join(b.d.c.StateDir, snapshotsDir, b.name)}
}

// Snapshots lists a sandbox's snapshots, the newest first.
func (d *Daemon) Snapshots(name string) ([]api.Snapshot, error) {
	b, err := d.find(name)
	if err != nil {
		return nil, err
	}
	list, err := b.snapshots().List()
	if err != nil {
		return nil, err
	}
	out := make([]api.Snapshot, 0, len(list))
	for _, s := range slices.Backward(list) {
		x, err := b.snapshotOf(s)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func (b *box) snapshotOf(s snapshot.Snapshot) (api.Snapshot, error) {
	x, err := b.beside(s.ID)
	return api.Snapshot{ID: s.ID, Name: s.Label, Created: s.Created, Who: x.Who, Revision: x.Revision, Size: s.Bytes}, err
}

func (b *box) beside(id string) (x beside, err error) {
	_, extra, err := b.snapshots().Get(id)
	if err == nil {
		err = json.Unmarshal(extra, &x)
	}
	return x, snapshotError(err)
}

func snapshotError(err error) error {
	switch {
	case errors.Is(err, snapshot.ErrNone):
		return &api.Error{Code: api.NotFound, Message: err.Error() + "; `nemoclaw NAME snapshot list` shows the ids beside the labels"}
	case errors.Is(err, snapshot.ErrBusy):
		return &api.Error{Code: api.Busy, Message: err.Error()}
	}
	return err
}

// Snapshot keeps a sandbox's workspace and policy. While it is copied the sandbox stands still.
func (d *Daemon) Snapshot(ctx context.Context, who server.Caller, name, label string) (out api.Snapshot, err error) {
	_, err = d.operate(name, func(b *box) error {
		r, text, err := b.revision(0)
		if err != nil {
			return err
		}
		extra, err := json.Marshal(beside{Who: who.Name, Revision: r.Number, Name: r.Name, Policy: text})
		if err != nil {
			return err
		}
		if i, notRunning := b.running(); notRunning == nil {
			if err := i.Box().Freeze(); err != nil {
				return err
			}
			defer func() {
				if err := i.Box().Thaw(); err != nil {
					go b.fail(err) // a sandbox that stands still for ever is of no use
				}
			}()
		}
		s, err := b.snapshots().Create(ctx, b.workspace(), label, extra)
		if err != nil {
			return snapshotError(err)
		}
		b.note("snapshot", s.ID, fmt.Sprintf("%d files, %d bytes, by %s", s.Files, s.Bytes, who.Name))
		out, err = b.snapshotOf(s)
		return err
	})
	return out, err
}

// Restore brings a sandbox's workspace and policy back. It is stopped for that, and started again when it ran.
func (d *Daemon) Restore(ctx context.Context, who server.Caller, name, id string) (api.Sandbox, error) {
	return d.operate(name, func(b *box) error {
		x, err := b.beside(id)
		if err != nil {
			return err
		}
		c, err := compile(x.Name, x.Policy)
		if err != nil {
			return fmt.Errorf("the policy of snapshot %s: %w", id, err)
		}
		_, notRunning := b.running()
		if err := b.stop(); err != nil {
			return err
		}
		err = snapshotError(b.snapshots().Restore(ctx, id, b.workspace()))
		if _, text, e := b.revision(0); err == nil && e == nil && text != x.Policy {
			_, err = b.revisions.Append([]byte(x.Policy), revisions.Change{Name: x.Name, Hash: c.Revision, Who: who.Name, What: "that of snapshot " + id}, 0)
			if err == nil {
				err = b.redactLatest()
			}
		} else {
			err = errors.Join(err, e)
		}
		if err == nil {
			b.note("restore", id, "by "+who.Name)
		}
		if notRunning == nil { // whatever came of it, it ran
			err = errors.Join(err, b.start(ctx))
		}
		return err
	})
}

// DeleteSnapshot removes a snapshot.
func (d *Daemon) DeleteSnapshot(_ context.Context, who server.Caller, name, id string) error {
	_, err := d.operate(name, func(b *box) error {
		if err := b.snapshots().Delete(id); err != nil {
			return snapshotError(err)
		}
		b.note("snapshot", id, "deleted by "+who.Name)
		return nil
	})
	return err
}
