package gpu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

// Program is the helper's name. It lies beside the program that starts it.
const Program = "nemoclaw-gpu"

// How a helper is used.
const (
	fresh     = time.Second      // what it said is good for so long
	idleTime  = time.Minute      // then a helper that nobody asks is ended: it keeps the devices awake
	lookTime  = 10 * time.Second // a driver that nobody uses yet wakes its devices first
	proveTime = time.Minute
	firstWait = time.Second // after a failure; each that follows doubles it
	mostWait  = time.Minute
)

// Helper asks the host's driver. The zero value is ready; its methods may be called from any goroutine.
type Helper struct {
	// Path is the helper's program; "": the one beside this program. Env is added to its environment.
	Path string
	Env  []string

	signs []string      // of a driver; nil: the host's
	limit time.Duration // of a look; 0: lookTime

	mu      sync.Mutex
	said    api.GPUs // as it was then
	when    time.Time
	looking chan struct{} // closed when said is new; nil: nobody looks
	asked   *process      // that is waited for; nil: none
	closed  bool

	turn  sync.Mutex // of whoever deals with the process; taken before mu
	runs  *process   // nil: none
	stuck *process   // was killed, and is not gone
	wait  time.Duration
	again time.Time // not before
	why   string    // of the last failure
	idle  *time.Timer
	xids  xids
}

// Look says which GPUs there are and what they do, as it was a second ago at most. It waits no longer than ctx does.
func (h *Helper) Look(ctx context.Context) api.GPUs {
	h.mu.Lock()
	if time.Since(h.when) < fresh || h.closed {
		defer h.mu.Unlock()
		return h.said
	}
	if !h.loaded() { // a host without a GPU pays for no goroutine
		defer h.mu.Unlock()
		return absent("NVIDIA's driver is not loaded")
	}
	looking := h.looking
	if looking == nil {
		looking = make(chan struct{})
		h.looking = looking
		go func() {
			said := h.look()
			h.mu.Lock()
			defer h.mu.Unlock()
			h.said, h.when, h.looking = said, time.Now(), nil
			close(looking)
		}()
	}
	h.mu.Unlock()
	select {
	case <-looking:
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.said
	case <-ctx.Done():
		return broken("NVIDIA's driver has not answered yet")
	}
}

func absent(why string) api.GPUs {
	return api.GPUs{State: api.GPUsAbsent, Reason: why, GPUs: []api.GPU{}}
}

func broken(why string) api.GPUs {
	return api.GPUs{State: api.GPUsBroken, Reason: why, GPUs: []api.GPU{}}
}

// signs are there where NVIDIA's driver is loaded.
var signs = []string{"/proc/driver/nvidia/version", "/dev/nvidiactl"}

// loaded reports whether the host has a driver.
func (h *Helper) loaded() bool {
	list := signs
	if h.signs != nil {
		list = h.signs
	}
	return slices.ContainsFunc(list, func(sign string) bool {
		_, err := os.Stat(sign)
		return err == nil
	})
}

// look asks a helper, and starts one where none runs.
func (h *Helper) look() api.GPUs {
	h.turn.Lock()
	defer h.turn.Unlock()
	if time.Now().Before(h.again) {
		return broken(h.why)
	}
	if h.await(nil) {
		return broken("nobody wants to know any more")
	}
	if err := h.begin(); errors.Is(err, fs.ErrNotExist) {
		return absent(fmt.Sprintf("the helper that asks the driver is not installed (%s)", h.program()))
	} else if err != nil {
		return h.failed(err)
	}
	a, err := h.ask()
	if err != nil {
		h.release()
		return h.failed(err)
	}
	h.wait = 0
	if h.idle == nil {
		h.idle = time.AfterFunc(idleTime, h.rest)
	} else {
		h.idle.Reset(idleTime)
	}
	switch {
	case a.Absent != "":
		return absent(a.Absent)
	case a.Error != "":
		return broken(a.Error)
	case a.GPUs == nil:
		return broken("the helper answered another question")
	}
	h.xids.add(a.XIDs)
	h.xids.fill(a.GPUs.GPUs)
	return *a.GPUs
}

// await says which helper is waited for, and reports whether Close was called.
func (h *Helper) await(p *process) (closed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = p
	return h.closed
}

// ask asks the helper that runs. Close ends the wait.
func (h *Helper) ask() (Answer, error) {
	if h.await(h.runs) {
		return Answer{}, errors.New("nobody wants to know any more")
	}
	defer h.await(nil)
	return h.runs.ask(Question{Look}, cmp.Or(h.limit, lookTime))
}

// begin starts a helper where none runs.
func (h *Helper) begin() (err error) {
	if h.stuck != nil {
		select {
		case <-h.stuck.ended:
			h.stuck = nil
		default:
			return errors.New("NVIDIA's driver holds a helper that was killed in a system call, so no other is started")
		}
	}
	if h.runs == nil {
		h.runs, err = start(h.program(), h.Env)
	}
	return err
}

func (h *Helper) program() string {
	if h.Path != "" {
		return h.Path
	}
	own, err := os.Executable()
	if err == nil {
		if real, err := filepath.EvalSymlinks(own); err == nil {
			own = real
		}
	}
	return filepath.Join(filepath.Dir(own), Program)
}

// failed notes a failure, after which the driver is left alone for a while.
func (h *Helper) failed(err error) api.GPUs {
	h.wait = min(max(2*h.wait, firstWait), mostWait)
	h.again = time.Now().Add(h.wait)
	h.why = err.Error()
	return broken(h.why)
}

// rest ends a helper that nobody has asked for a while.
func (h *Helper) rest() {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.release()
}

// release ends the helper, if one runs.
func (h *Helper) release() {
	if h.runs != nil && !h.runs.end() {
		h.stuck = h.runs
	}
	h.runs = nil
}

// Close ends the helper. Whoever looks later is told what was said last.
func (h *Helper) Close() {
	h.mu.Lock()
	h.closed = true
	if h.asked != nil {
		h.asked.kill()
	}
	h.mu.Unlock()
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.idle != nil {
		h.idle.Stop()
	}
	h.release()
}

// ErrNotLoaded says that there is no driver, and so no GPU: a normal state.
var ErrNotLoaded = errors.New("NVIDIA's driver is not loaded")

// Prove has every device compute something, in a helper of its own, which ends with ctx. It takes a minute at most.
func (h *Helper) Prove(ctx context.Context) ([]api.CUDAProof, error) {
	if !h.loaded() {
		return nil, ErrNotLoaded
	}
	p, err := start(h.program(), h.Env)
	if err != nil {
		return nil, fmt.Errorf("starting the helper: %w", err)
	}
	defer p.end()
	defer context.AfterFunc(ctx, p.kill)()
	a, err := p.ask(Question{Prove}, proveTime)
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a.Proofs, err
}
