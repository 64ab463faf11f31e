// Package daemon owns the sandboxes of a host: it makes, starts, stops and destroys them, keeps what they are on disk, takes
// them over from a daemon that was killed, changes their policies while they run, and answers package server.
//
// It enforces nothing itself (package agent's instances do), never parses what a policy means, and knows nothing of HTTP.
//
// What is on disk, below the state directory:
//
//	sandboxes/NAME/spec.json      what it is made of, and whether it should run
//	sandboxes/NAME/policy/        its policies, one file for each revision
//	sandboxes/NAME/names          the addresses that its names have, for its whole life
//	sandboxes/NAME/approvals.json what was asked for and nobody answered, and the answers in force
//	sandboxes/NAME/key            its inference key; nothing ever gives it back
//	sandboxes/NAME/ca.pem         the certificate authority of its router
//	sandboxes/NAME/spent.json     what its models took today
//	workspaces/NAME/              its files, when nobody named a directory
//	images/, snapshots/
//	forward/RECEIVER              the last audit record that a receiver has
//
// Each file is replaced in one step. A sandbox that is half made or half destroyed has a name that begins with a dot, and
// is removed by the next start.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/forward"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/snapshot"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// chain is the audit log's name; the daemon is its one writer.
const chain = "agent"

// Daemon is all of the sandboxes of one state directory. Its methods may be called from any goroutine.
type Daemon struct {
	c       config.Config
	version string
	log     *slog.Logger

	locks    []*os.File // of the state and the run directory: there is one daemon for each
	audit    *audit.Writer
	forward  forward.Streams
	hub      *hub.Hub
	queue    *approvals.Queue
	own      *hub.Recorder // of what is about no sandbox
	records  chan struct{} // closed when own is there
	loader   *loader.Loader
	parent   string // directory of the cgroup that all sandboxes' are in
	refusals *refusals
	gpus     gpu.Helper
	tracer   *trace.Tracer // nil: nothing is traced

	life   context.Context // ends with Close
	cancel context.CancelFunc
	starts sync.WaitGroup // of sandboxes that come back, and of the hooks

	mu     sync.Mutex
	boxes  map[string]*box
	making map[string]chan struct{} // boxes that are not made yet; closed when they are
}

// Open takes the state directory, and every sandbox that a daemon before left running in it. Sandboxes that should run and
// do not are started in the background.
func Open(c config.Config, version string, log *slog.Logger) (_ *Daemon, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the daemon needs root, because the sandboxes' rules are put into the kernel from outside of them: start it with systemctl start nemoclaw-agent, or with sudo")
	}
	d := &Daemon{c: c, version: version, log: log, queue: approvals.New(), boxes: map[string]*box{}, making: map[string]chan struct{}{}, records: make(chan struct{})}
	d.life, d.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := d.openState(); err != nil {
		return nil, err
	}
	if err := d.openAudit(); err != nil {
		return nil, err
	}
	d.hub = hub.New(d.audit)
	d.own = d.hub.Sandbox("")
	close(d.records)
	hooks, err := d.openHooks()
	if err != nil {
		return nil, err
	}
	if d.tracer, err = trace.Open(c.Traces, d.tellOfReceiver); err != nil {
		return nil, err
	}
	if err := d.openLoader(); err != nil {
		return nil, err
	}
	if d.refusals, err = d.followRefusals(); err != nil {
		return nil, err
	}
	if err := d.load(); err != nil {
		return nil, err
	}
	d.note("daemon", "start", "version "+version)
	d.adoptAll()
	d.loader.Deliver() // what happened while nobody was there is known to the adopted
	d.renewAll()
	if err := d.loader.Sweep(); err != nil {
		return nil, err
	}
	d.startWanted()
	d.tellHooks(hooks)
	d.starts.Go(func() { d.forward.Run(d.life, d.audit) })
	d.starts.Go(d.proveGPUs)
	return d, nil
}

// The directories below the state directory.
const (
	sandboxesDir  = "sandboxes"
	workspacesDir = "workspaces"
	imagesDir     = "images"
	snapshotsDir  = "snapshots"
	forwardDir    = "forward"
)

// openAudit opens the audit log, and makes the key that it is signed with where there is none.
func (d *Daemon) openAudit() error {
	key, err := audit.OpenSigner(d.c.AuditKey())
	if err != nil {
		return err
	}
	o := audit.Options{Rotate: d.c.AuditMaxSize, Keep: d.c.AuditKeep, MaxTotal: d.c.AuditMaxTotal, MaxAge: d.c.AuditMaxAge, Drop: d.c.AuditFull == "drop", Signer: key, Warn: func(err error) { d.log.Warn("audit log", "error", err) }}
	if o.Anchor, err = audit.OpenAnchor(d.c.AuditAnchor); err != nil {
		return err
	}
	if d.forward, err = forward.Open(d.c.Forward, filepath.Join(d.c.StateDir, forwardDir), d.tellOfReceiver); err != nil {
		return err
	}
	if d.forward != nil {
		o.Forwarded, o.Unforwarded = d.forward.Forwarded, d.forward.Removed
	}
	d.audit, err = audit.OpenChain(d.c.AuditDir, chain, "", o)
	return err
}

// tellOfReceiver says what becomes of a receiver of records or traces, in the journal and in the log, which may be about to be opened.
func (d *Daemon) tellOfReceiver(action, object, reason string) {
	d.log.Warn(reason, action, object)
	select {
	case <-d.records:
		d.note(action, object, reason)
	case <-d.life.Done():
	}
}

// openState makes and locks the state and the run directory.
func (d *Daemon) openState() error {
	for _, dir := range []string{sandboxesDir, workspacesDir, imagesDir, snapshotsDir, forwardDir} {
		if err := os.MkdirAll(filepath.Join(d.c.StateDir, dir), 0o700); err != nil {
			return fmt.Errorf("state directory: %w; name another with --state-dir", err)
		}
	}
	if err := makeRunDir(d.c.RunDir); err != nil {
		return fmt.Errorf("run directory: %w; name another with --run-dir", err)
	}
	for _, dir := range []string{d.c.StateDir, d.c.RunDir} {
		lock, err := lockDir(dir)
		if err != nil {
			return err
		}
		d.locks = append(d.locks, lock)
	}
	return nil
}

// lockFile is locked in the directories that are one daemon's. Whoever may look into one could lock the directory itself.
const lockFile = ".daemon"

// lockDir makes a directory this daemon's, as long as it lives.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = sandbox.TakeLock(lock); err == nil {
		return lock, nil
	}
	lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s: another daemon has it; end that one, or name other directories with --state-dir, --run-dir, --audit and --cgroup-parent", dir)
	}
	return nil, fmt.Errorf("locking %s: %w", dir, err)
}

// makeRunDir makes the run directory, and lets everybody through it: who may connect to the socket has to get there. `nemoclaw
// run` may have made it for itself. Everything in it has its own mode.
func makeRunDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	is, err := os.Stat(dir)
	if err != nil || is.Mode()&0o111 == 0o111 {
		return err
	}
	return os.Chmod(dir, is.Mode().Perm()|0o111)
}

// ringFile has the number of the event ring in it, for the next daemon.
const ringFile = ".ring"

func (d *Daemon) openLoader() error {
	c := loader.Config{BPFFS: d.c.BPFFS, Cgroup2: d.c.Cgroup2, Parent: d.c.CgroupParent, Hold: true}
	file := filepath.Join(d.c.RunDir, ringFile)
	if text, err := os.ReadFile(file); err == nil {
		c.Ring, _ = strconv.Atoi(string(text)) // any ring will do when it is not to be read
	}
	var err error
	if d.loader, err = loader.Open(c); err != nil {
		return err
	}
	d.parent = d.loader.CgroupParent()
	return atomicfile.Write(file, []byte(strconv.Itoa(d.loader.Ring())))
}

// load reads what is on disk, and removes what is half made.
func (d *Daemon) load() error {
	dir := filepath.Join(d.c.StateDir, sandboxesDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading the state directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			if err := d.clear(e.Name()); err != nil {
				d.log.Warn("what is left of a sandbox can't be removed", "error", err)
			}
			continue
		}
		b, err := d.open(e.Name())
		if err != nil {
			// The others are none the worse for it.
			d.log.Error("a sandbox can't be read", "sandbox", e.Name(), "error", err)
			d.note("sandbox", e.Name(), "its state can't be read: "+err.Error())
			continue
		}
		d.boxes[e.Name()] = b
	}
	return nil
}

// What the names of directories begin with that are a sandbox's no more, or not yet.
const (
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// clear removes a sandbox that is half made or half destroyed: its own workspace first, so that what is left of it still says
// whose that is.
func (d *Daemon) clear(dir string) error {
	name := strings.TrimPrefix(strings.TrimPrefix(dir, newPrefix), gonePrefix)
	sandboxes := filepath.Join(d.c.StateDir, sandboxesDir)
	if _, err := os.Lstat(filepath.Join(sandboxes, name)); errors.Is(err, fs.ErrNotExist) { // else they are another's of the same name
		err := errors.Join(snapshot.RemoveAll(filepath.Join(d.c.StateDir, workspacesDir, name)), snapshot.RemoveAll(filepath.Join(d.c.StateDir, snapshotsDir, name)))
		if err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(sandboxes, dir))
}

// adoptAll takes over what a daemon before left running, and ends what nobody knows or can take.
func (d *Daemon) adoptAll() {
	// A daemon that was killed early in a start left what is no lasting sandbox yet.
	if _, err := sandbox.Sweep(d.c.RunDir, filepath.Dir(d.parent), filepath.Base(d.parent)); err != nil {
		d.log.Error("what is left of a sandbox can't be removed", "error", err)
	}
	names, err := sandbox.Lasting(d.c.RunDir)
	if err != nil {
		d.log.Error(err.Error())
		return
	}
	var g errgroup.Group
	g.SetLimit(startsAtOnce)
	for _, name := range names {
		g.Go(func() error {
			d.adopt(name)
			return nil
		})
	}
	_ = g.Wait()
}

// adopt takes over one sandbox, or ends it.
func (d *Daemon) adopt(name string) {
	b := d.boxes[name]
	if b != nil && b.spec.Wanted == api.Running {
		err := b.adopt()
		if err == nil {
			return
		}
		b.note("lost", name, "it could not be taken over, and is started again: "+err.Error())
	}
	if err := sandbox.Discard(d.c.RunDir, d.c.Cgroup2, name); err != nil {
		d.log.Error("what is left of a sandbox can't be removed", "sandbox", name, "error", err)
	}
}

// renewAll has the rules of what was adopted looked for anew.
func (d *Daemon) renewAll() {
	var g errgroup.Group
	g.SetLimit(startsAtOnce)
	for _, b := range d.all() {
		g.Go(func() error {
			b.renew()
			return nil
		})
	}
	_ = g.Wait()
}

// startsAtOnce is how many sandboxes come back at a time.
const startsAtOnce = 4

// startWanted starts what should run and does not.
func (d *Daemon) startWanted() {
	var g errgroup.Group
	g.SetLimit(startsAtOnce)
	var wanted []*box
	for _, b := range d.all() {
		if b.wants() {
			b.setState(api.Starting, "")
			wanted = append(wanted, b)
		}
	}
	d.starts.Go(func() {
		for _, b := range wanted {
			g.Go(func() error {
				if d.life.Err() == nil {
					_ = b.comeBack() // it says why in its state
				}
				return nil
			})
		}
		_ = g.Wait()
	})
}

// Failed is closed when nothing can be written down any more, so that nothing may go on.
func (d *Daemon) Failed() <-chan struct{} { return d.audit.Failed() }

// StopAll ends every sandbox because of a cause that holds for all of them. They come back with the next daemon.
func (d *Daemon) StopAll(cause error) {
	var g errgroup.Group
	g.SetLimit(startsAtOnce)
	for _, b := range d.all() {
		g.Go(func() error {
			b.fail(cause)
			return nil
		})
	}
	_ = g.Wait()
}

// Close lets go of all sandboxes and leaves them running, for the next daemon: judged, without a way out.
func (d *Daemon) Close() error {
	d.cancel()
	d.starts.Wait()
	for _, b := range d.all() {
		b.detach()
	}
	d.tracer.Close() // with what the connections that this has ended left
	var errs []error
	if d.refusals != nil {
		errs = append(errs, d.refusals.close())
	}
	d.gpus.Close()
	if d.loader != nil {
		errs = append(errs, d.loader.Close())
	}
	if d.hub != nil {
		d.note("daemon", "stop", "")
		d.hub.Close()
	}
	if d.audit != nil {
		errs = append(errs, d.audit.Close())
	}
	for _, l := range d.locks {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// all are the sandboxes, by name.
func (d *Daemon) all() []*box {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]*box, 0, len(d.boxes))
	for _, b := range d.boxes {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b *box) int { return strings.Compare(a.name, b.name) })
	return list
}

// find returns a sandbox by name. One that is being made is waited for: who gave up waiting for it wants to destroy it.
func (d *Daemon) find(name string) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.making[name] != nil {
		made := d.making[name]
		d.mu.Unlock()
		<-made
		d.mu.Lock()
	}
	if b := d.boxes[name]; b != nil {
		return b, nil
	}
	near := policy.DidYouMean(name, slices.Sorted(maps.Keys(d.boxes)))
	return nil, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("there is no sandbox named %q%s; `nemoclaw list` shows those that there are", name, near)}
}

// note records something about the daemon itself.
func (d *Daemon) note(action, object, reason string) {
	d.own.Record(policy.Decision{Plane: policy.PlaneSystem, Action: action, Object: object, Reason: reason, Verdict: policy.Allow, Rule: "builtin"})
}

// protected are the directories that no sandbox may see.
func (d *Daemon) protected() []string {
	list := []string{config.DefaultDir, d.c.AuditDir, d.c.AuditKey(), d.c.RunDir, d.c.BPFFS}
	for _, dir := range []string{sandboxesDir, imagesDir, snapshotsDir, forwardDir} {
		list = append(list, filepath.Join(d.c.StateDir, dir))
	}
	return list
}

// Healthy says why the daemon does not work, for a watchdog: that its locks are not held for ever, and that it can write
// down what happens.
func (d *Daemon) Healthy() error {
	d.all()
	return d.audit.Err()
}
