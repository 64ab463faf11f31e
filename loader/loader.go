// Package loader puts the BPF programs of package bpf into the kernel and fills their maps. It owns the pins, the
// parent cgroup that the programs are attached to, every map entry of every sandbox, and the events that come back.
//
// The programs are loaded once and stay: attached by pinned links to one parent cgroup, so they are in force when the
// agent is killed, and the next start only opens pins. Everything of one sandbox is entries keyed by its cgroup id.
// A process below the parent whose cgroup has no entry may do nothing. While loaded they take about 30 MiB of kernel
// memory, most of it hash tables sized for the worst case, and cost every exec on the host two look-ups.
//
// Where LSM programs judge files, a call that a rule asks about can wait in the kernel: its event names it, Guard.Resume answers it, and
// Guard.GrantFile enters what is to be remembered. While a Loader is open it keeps a lease that says that somebody answers; without
// one the programs refuse instead of waiting.
//
// Package loader never decides anything, never writes a log, and knows nothing of names: it turns rules that were
// already compiled into entries. Beside package bpf it is the only one that imports cilium/ebpf.
package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Config says where the loader keeps things. The zero value is what a host has.
type Config struct {
	BPFFS   string // where the pins are, a BPF file system or a place to mount one; "": /sys/fs/bpf
	Cgroup2 string // the cgroup v2 hierarchy; "": found
	Parent  string // name of the parent cgroup, to which the version of the programs is added; "": nemoclaw
	Ring    int    // from 1: the event ring of a killed agent whose sandboxes are to be adopted; 0: any
	Hold    bool   // no event is delivered before Deliver, so that none of an adopted sandbox is lost
}

func (c Config) withDefaults() Config {
	if c.BPFFS == "" {
		c.BPFFS = "/sys/fs/bpf"
	}
	if c.Parent == "" {
		c.Parent = "nemoclaw"
	}
	return c
}

// Loader is the loaded programs and their maps, as one process has them open.
type Loader struct {
	pins   string   // directory of the pins
	lock   *os.File // pins, locked shared: nobody unloads what is open
	parent cgroup
	maps   mapSet
	ident  *ebpf.Program
	ring   *ring
	lease  *lease         // nil where nothing is held: no LSM programs are loaded
	waking sync.WaitGroup // of calls that were answered
	cpus   int

	identMu   sync.Mutex              // one run of the program at a time: its answer has one place
	identArgs [1 + identifyMax]uint64 // the kernel is given its address as a number, so it must not be on a stack, which may move

	reasonOnce sync.Once
	reason     string // see LevelReason

	deliver sync.Once
	begin   chan struct{} // closed when events may be delivered

	adoptMu   sync.Mutex
	inherited map[uint64]*inherited // of killed agents

	mu         sync.Mutex
	guards     map[uint64]*Guard
	steers     []*steer // those that no network namespace has
	steerCount int      // of all that this process has open
}

// Open makes the programs ready and claims an event ring: it opens the pins of an earlier start, or loads, attaches
// and pins the programs when there are none of this version. Two processes that start at once load once. Programs of
// other versions that guard no sandbox any more are removed when this version is loaded.
//
// It fails without root, without cgroup v2, on a kernel that refuses the programs, and when as many agents as there
// are event rings (64) are running.
func Open(cfg Config) (*Loader, error) {
	cfg = cfg.withDefaults()
	for try := 1; ; try++ {
		parent, err := openParent(cfg)
		if err != nil {
			return nil, err
		}
		l, err := open(cfg, parent)
		if err == nil {
			return l, nil
		}
		parent.dir.Close()
		// An agent of another version, or an uninstall, may have removed the idle parent under our feet.
		if try == 3 || cgroupIs(parent.path, parent.id) {
			return nil, err
		}
	}
}

func open(cfg Config, parent cgroup) (*Loader, error) {
	l := &Loader{parent: parent, guards: make(map[uint64]*Guard), begin: make(chan struct{})}
	if !cfg.Hold {
		l.Deliver()
	}
	var err error
	if l.cpus, err = ebpf.PossibleCPU(); err != nil {
		return nil, fmt.Errorf("count the processors for the counters of the BPF programs: %w", err)
	}
	l.pins, l.lock, err = ensureLoaded(cfg, parent)
	if err != nil {
		return nil, err
	}
	if err := l.openPins(); err != nil {
		l.release()
		return nil, fmt.Errorf("%w; if this stays, remove the directory %s and start again", err, l.pins)
	}
	if l.ring, err = claimRing(l.pins, cfg.Ring, l.begin, l.dispatch); err != nil {
		l.release()
		return nil, err
	}
	if l.maps.leases != nil {
		if err := l.startLease(); err != nil {
			err = errors.Join(err, l.ring.close())
			l.release()
			return nil, err
		}
	}
	return l, nil
}

func (l *Loader) openPins() error {
	if err := l.maps.open(filepath.Join(l.pins, mapsDir)); err != nil {
		return err
	}
	var err error
	path := filepath.Join(l.pins, identifyPin)
	if l.ident, err = ebpf.LoadPinnedProgram(path, nil); err != nil {
		return fmt.Errorf("open pinned BPF program %s: %w", path, err)
	}
	return nil
}

func (l *Loader) release() {
	for _, s := range l.steers {
		_ = s.close()
	}
	l.maps.close()
	if l.ident != nil {
		l.ident.Close()
	}
	l.lock.Close()
}

// Deliver lets events through to the guards, when Config.Hold kept them back.
func (l *Loader) Deliver() { l.deliver.Do(func() { close(l.begin) }) }

// Ring is the number of the claimed event ring, for the Config of the next agent.
func (l *Loader) Ring() int { return int(l.ring.index) + 1 }

// Close gives back the event ring and closes the maps. The programs stay in force. Guards must be closed before: what
// is left of them is denied everything that it has no entry for, and removed by the next Sweep.
func (l *Loader) Close() error {
	l.Deliver()
	err := l.endLease()
	l.waking.Wait()
	err = errors.Join(err, l.ring.close())
	l.release()
	return errors.Join(err, l.parent.dir.Close())
}

// ParentPath returns the directory that CgroupParent will return after Open, so that a sandbox can be prepared meanwhile.
// It need not exist yet.
func ParentPath(cfg Config) (string, error) { return findParent(cfg.withDefaults()) }

// CgroupParent returns the directory below which the cgroup of every sandbox has to be made. Its name holds the
// version of the programs, so that an agent of another version never judges this one's sandboxes.
func (l *Loader) CgroupParent() string { return l.parent.path }

// Level returns how much of a policy the kernel can enforce through this loader: full when LSM programs were loaded, after one
// had been seen to fire.
func (l *Loader) Level() policy.Level {
	if l.maps.nodes != nil {
		return policy.LevelFull
	}
	return policy.LevelStatic
}

// LevelReason says why the level is not full; empty when it is. The first call asks the kernel.
func (l *Loader) LevelReason() string {
	if l.Level() == policy.LevelFull {
		return ""
	}
	l.reasonOnce.Do(func() { l.reason = whyNotFull() })
	return l.reason
}

func whyNotFull() string {
	if err := ProbeLSM(); err != nil {
		return WhyStatic(err)
	}
	if err := tryLSM(); err != nil {
		return WhyStatic(err)
	}
	return "BPF LSM programs fire now, and did not when the programs of this version were loaded: end all sandboxes and the agent, and start again"
}

// WhyStatic says what it means that ProbeLSM failed.
func WhyStatic(err error) string {
	return "files and programs are fixed at start by Landlock and the mount view, because BPF LSM is not to be had: " + Plain(err)
}

// Plain is what an error of loading says, without the library's advice, which names functions of its own.
func Plain(err error) string {
	s, _, _ := strings.Cut(err.Error(), " (MEMLOCK may be too low")
	return s
}

// LoadedLevel is the Level that Open will find, when the programs are loaded already.
func LoadedLevel(cfg Config) (level policy.Level, loaded bool) {
	cfg = cfg.withDefaults()
	parent, err := openParent(cfg)
	if err != nil {
		return policy.LevelStatic, false
	}
	defer parent.dir.Close()
	pins := filepath.Join(cfg.BPFFS, pinsRoot, pinName(parent))
	if _, err := os.Stat(filepath.Join(pins, lsmDir)); err == nil {
		return policy.LevelFull, true
	}
	_, err = os.Stat(filepath.Join(pins, linksDir))
	return policy.LevelStatic, err == nil
}
