package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/agent/revisions"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/agent/snapshot"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

var _ server.Backend = (*Daemon)(nil)

// Info is what the daemon says of itself.
func (d *Daemon) Info() api.Info {
	var name unix.Utsname
	_ = unix.Uname(&name) // fails for a bad address only
	return api.Info{
		Version: d.version, API: "v1", Level: d.loader.Level().String(), Reason: d.loader.LevelReason(),
		Kernel: unix.ByteSliceToString(name.Release[:]), Sandboxes: len(d.all()), Seq: d.audit.Head().Seq,
		AuditLog: d.audit.Path(), StateDir: d.c.StateDir, RunDir: d.c.RunDir, Forward: d.receivers(),
	}
}

// receivers are those of the audit log's records.
func (d *Daemon) receivers() (list []api.Forward) {
	last := d.audit.Head().Seq
	for _, s := range d.forward.States() {
		list = append(list, api.Forward{
			Name: s.Name, Kind: s.Kind, Seq: s.Seq, Lag: last - min(s.Seq, last), Behind: s.Behind.Seconds(), Refused: s.Refused, Removed: s.Removed, Error: s.Error,
		})
	}
	return list
}

// List lists the sandboxes by name.
func (d *Daemon) List() []api.Sandbox {
	list := []api.Sandbox{}
	for _, b := range d.all() {
		list = append(list, b.describe())
	}
	d.showUse(list)
	return list
}

// Get describes one sandbox.
func (d *Daemon) Get(name string) (api.Sandbox, error) {
	b, err := d.find(name)
	if err != nil {
		return api.Sandbox{}, err
	}
	list := []api.Sandbox{b.describe()}
	d.showUse(list)
	return list[0], nil
}

func (b *box) describe() api.Sandbox {
	requests := b.desk.Len() // its lock is taken before mu
	models, off := b.modelRules()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := api.Sandbox{
		Name: b.name, State: b.state, Reason: b.reason, Wanted: b.spec.Wanted, Created: b.spec.Created,
		Policy: api.PolicyState{Running: b.inForce}, Workspace: b.workspace(), Image: b.spec.Image,
		Env: b.spec.Env, Publish: b.spec.Publish, Warnings: slices.Clone(b.warnings), Requests: requests,
	}
	s.Config, s.Inference = b.shownConfig(models, off)
	latest := b.revisions.Latest()
	s.Policy.Name, s.Policy.Revision, s.Policy.Hash = latest.Name, latest.Number, latest.Hash
	if i := b.instance; i != nil {
		started := i.Started()
		s.Started, s.Level, s.Warnings = &started, i.Level().String(), append(s.Warnings, i.Warnings()...)
		s.PID, s.UserID, s.Commands = i.Box().InitPID(), i.Box().HostID(), i.Box().Commands()
		if c, err := i.Counters(); err == nil {
			s.Refused = c.Denied()
		}
		s.GPUs = givenGPUs(i)
		b.meters.show(s.GPUs)
	}
	return s
}

// Create makes a sandbox, and starts it when that is asked for. One that can't be started exists, and says why not.
func (d *Daemon) Create(ctx context.Context, who server.Caller, c api.Create) (api.Sandbox, error) {
	text, compiled, err := d.checkCreate(&c)
	if err != nil {
		return api.Sandbox{}, err
	}
	b, err := d.make(c, text, compiled, who)
	if err != nil {
		return api.Sandbox{}, err
	}
	b.note("create", c.Name, "by "+who.Name)
	if ctx.Err() != nil { // whoever asked has gone, and may have looked in vain for something to destroy
		return api.Sandbox{}, errors.Join(&api.Error{Code: api.Conflict, Message: "nobody waits for " + c.Name + " any more: it was not made"}, d.Destroy(d.life, who, c.Name))
	}
	if c.Start {
		if _, err := d.Start(ctx, who, c.Name); err != nil {
			var known *api.Error
			code := api.Conflict
			if errors.As(err, &known) {
				code = known.Code
			}
			return b.describe(), &api.Error{Code: code, Message: fmt.Sprintf("%s is made, and can't be started: %v; see `nemoclaw %s status`", c.Name, err, c.Name)}
		}
	}
	return b.describe(), nil
}

// checkCreate says what is wrong with a request, and completes it.
func (d *Daemon) checkCreate(c *api.Create) (text string, compiled *policy.Compiled, err error) {
	bad := func(err error) error { return &api.Error{Code: api.Invalid, Message: err.Error()} }
	if err := policy.ValidName(c.Name); err != nil {
		return "", nil, bad(fmt.Errorf("the name %q: %w", c.Name, err))
	}
	if c.PolicyName == "" {
		c.PolicyName = c.Name + ".yaml"
	}
	text = c.Policy
	if text == "" {
		text = string(policy.Initial())
	}
	if compiled, err = compile(c.PolicyName, text); err != nil {
		return "", nil, bad(err)
	}
	if c.Workspace != "" {
		if !filepath.IsAbs(c.Workspace) {
			return "", nil, bad(fmt.Errorf("workspace %s: name it from the root on", c.Workspace))
		}
		if c.Workspace, err = agent.CheckWorkspace(c.Workspace, d.ownDirs()); err != nil {
			return "", nil, bad(err)
		}
	}
	for _, e := range c.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.ContainsRune(e, 0) {
			return "", nil, bad(fmt.Errorf("the variable %q: want NAME=VALUE", e))
		}
	}
	for _, p := range c.Publish {
		if err := checkPublish(p); err != nil {
			return "", nil, bad(err)
		}
	}
	return text, compiled, checkConfig(c.Config, compiled.Inference)
}

// make makes the files of a sandbox. It exists from the rename of its directory on.
func (d *Daemon) make(c api.Create, text string, compiled *policy.Compiled, who server.Caller) (*box, error) {
	if err := d.reserve(c.Name); err != nil {
		return nil, err
	}
	b, err := d.makeFiles(c, text, compiled, who)
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.making[c.Name])
	delete(d.making, c.Name)
	if err != nil {
		return nil, fmt.Errorf("making %s: %w", c.Name, err)
	}
	d.boxes[c.Name] = b
	return b, nil
}

// reserve takes a name that no sandbox has, not even one that can't be read.
func (d *Daemon) reserve(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	conflict := func(what string) error {
		return &api.Error{Code: api.Conflict, Message: fmt.Sprintf("a sandbox named %s %s", name, what)}
	}
	if d.boxes[name] != nil || d.making[name] != nil {
		return conflict("is there already; choose another name, or destroy it: nemoclaw destroy " + name)
	}
	dir := filepath.Join(d.c.StateDir, sandboxesDir, name)
	if _, err := os.Lstat(dir); err == nil {
		return conflict("is there and can't be read (the daemon's journal says why); choose another name, or move " + dir + " away")
	}
	d.making[name] = make(chan struct{})
	return nil
}

// makeFiles makes what is on disk, and the directory of the sandbox last.
func (d *Daemon) makeFiles(c api.Create, text string, compiled *policy.Compiled, who server.Caller) (*box, error) {
	s := spec{
		Created: time.Now().UTC(), Workspace: c.Workspace, Image: c.Image, Env: c.Env, Publish: c.Publish, Wanted: api.Stopped,
	}
	parent := filepath.Join(d.c.StateDir, sandboxesDir)
	temp := filepath.Join(parent, newPrefix+c.Name)
	err := os.RemoveAll(temp)
	if err == nil {
		err = os.Mkdir(temp, 0o700)
	}
	if err == nil {
		err = fill(temp, c.PolicyName, text, compiled.Revision, who)
	}
	if err == nil {
		err = keepConfig(temp, &s, c.Config, compiled.Inference)
	}
	if err == nil {
		err = writeSpec(temp, s)
	}
	b := d.newBox(c.Name)
	b.spec = s
	if err == nil && c.Workspace == "" {
		err = makeWorkspace(b.workspace(), ownerOf())
	}
	if err == nil {
		err = os.Rename(temp, b.dir)
	}
	if err == nil {
		err = atomicfile.SyncDir(parent)
	}
	if err == nil {
		err = b.openFiles()
	}
	if err == nil {
		err = b.redactLatest()
	}
	if err != nil {
		_ = os.RemoveAll(temp) // the next start does it otherwise
	}
	return b, err
}

func fill(dir, name, text, hash string, who server.Caller) error {
	r, err := revisions.Open(filepath.Join(dir, "policy"))
	if err != nil {
		return err
	}
	_, err = r.Append([]byte(text), revisions.Change{Name: name, Hash: hash, Who: who.Name, What: "the first policy"}, 0)
	return err
}

// Owners of workspaces that are a sandbox's own: below the ids of sandboxes, above everybody else's.
const (
	firstOwner = 0x6f000000
	owners     = 0x01000000
)

func ownerOf() int { return firstOwner + rand.IntN(owners) }

// makeWorkspace makes a sandbox's own workspace. One that is there is a destroyed sandbox's that could not be removed.
func makeWorkspace(dir string, owner int) error {
	if err := snapshot.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Chown(dir, owner, owner)
}

// operate runs a change of a sandbox's life, alone.
func (d *Daemon) operate(name string, f func(*box) error) (api.Sandbox, error) {
	b, err := d.find(name)
	if err != nil {
		return api.Sandbox{}, err
	}
	b.ops.Lock()
	defer b.ops.Unlock()
	if b.gone {
		return api.Sandbox{}, &api.Error{Code: api.NotFound, Message: name + " was destroyed meanwhile"}
	}
	if err := f(b); err != nil {
		return api.Sandbox{}, err
	}
	return b.describe(), nil
}

// Start starts a sandbox, and makes it one that should run.
func (d *Daemon) Start(ctx context.Context, who server.Caller, name string) (api.Sandbox, error) {
	return d.operate(name, func(b *box) error {
		if err := b.change(func(s *spec) { s.Wanted = api.Running }); err != nil {
			return err
		}
		if err := b.start(ctx); err != nil {
			return &api.Error{Code: api.Conflict, Message: err.Error()}
		}
		return nil
	})
}

// Stop ends everything in a sandbox, and makes it one that should not run.
func (d *Daemon) Stop(_ context.Context, who server.Caller, name string) (api.Sandbox, error) {
	return d.operate(name, func(b *box) error {
		err := b.change(func(s *spec) { s.Wanted = api.Stopped })
		if err != nil { // a disk that is full keeps nobody from ending what runs
			err = fmt.Errorf("%s is stopped now, and will run again when the daemon starts: %w", name, err)
		}
		return errors.Join(b.stop(), err)
	})
}

// Destroy ends a sandbox and removes everything of it. It needs no room on the disk, which it may be there to make.
func (d *Daemon) Destroy(_ context.Context, who server.Caller, name string) error {
	_, err := d.operate(name, func(b *box) error {
		if err := b.stop(); err != nil {
			return err
		}
		err := b.remove()
		if err != nil && !errors.Is(err, errRemains) {
			return err
		}
		b.mu.Lock()
		b.gone = true
		b.mu.Unlock()
		d.mu.Lock()
		delete(d.boxes, name)
		d.mu.Unlock()
		b.note("destroy", name, "by "+who.Name)
		b.records.Close()
		return err
	})
	return err
}

// Usage is what a sandbox takes now.
func (d *Daemon) Usage(name string) (api.Usage, error) {
	b, err := d.find(name)
	if err != nil {
		return api.Usage{}, err
	}
	i, err := b.running()
	if err != nil {
		return api.Usage{}, err
	}
	u, err := i.Box().Usage()
	if err != nil {
		return api.Usage{}, err
	}
	conns, err := i.Conns()
	sent, received := i.Traffic()
	return api.Usage{
		Memory: u.Memory, CPU: u.CPU, Processes: u.Processes, Disk: b.disk.use(b.workspace()), Conns: conns, Sent: sent, Received: received,
		GPU: b.gpuUse(),
	}, err
}

// Explain says what the policy in force, or the latest when it does not run, says of an action.
func (d *Daemon) Explain(name string, q policy.Query) (policy.Answer, error) {
	b, err := d.find(name)
	if err != nil {
		return policy.Answer{}, err
	}
	c, _, err := b.compile(0)
	if err != nil {
		return policy.Answer{}, err
	}
	return c.ExplainAt(q, time.Since(b.spec.Created)), nil
}

// Events calls f with each record that e selects.
func (d *Daemon) Events(ctx context.Context, e api.Events, f func(seq uint64, line []byte) error) error {
	flt, err := filter(e)
	if err != nil {
		return &api.Error{Code: api.Invalid, Message: err.Error()}
	}
	if e.Follow {
		return d.audit.Follow(ctx, flt, f)
	}
	return d.audit.Query(ctx, flt, f)
}
