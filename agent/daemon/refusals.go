package daemon

import (
	"errors"
	"sync"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/refusal"
)

// refusals hands what the kernel reports of Landlock's refusals to the sandbox that it is about.
type refusals struct {
	reader *refusal.Reader // nil: nothing is reported here
	done   chan struct{}

	mu        sync.Mutex
	instances map[string]*agent.Instance
}

// followRefusals starts to read the reports, one reader for all sandboxes.
func (d *Daemon) followRefusals() (*refusals, error) {
	r := &refusals{instances: map[string]*agent.Instance{}, done: make(chan struct{})}
	reader, err := refusal.Open(func(pid int) string { return agent.SandboxOf(pid, d.parent) })
	if err != nil {
		close(r.done)
		if !errors.Is(err, refusal.ErrOff) {
			d.log.Warn("refusals of files can't be seen", "error", err)
		}
		return r, nil
	}
	r.reader = reader
	go func() {
		defer close(r.done)
		err := reader.Run(func(f refusal.Refusal) {
			if i := r.find(f.Owner); i != nil {
				i.FileRefused(f)
			}
		}, func() {
			d.note("lost", "refusals of files", "the kernel's audit stream had more than could be read; what was refused stays refused")
		})
		if err != nil {
			d.log.Warn("refusals of files can't be seen any more", "error", err)
		}
	}()
	return r, nil
}

func (r *refusals) find(name string) *agent.Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.instances[name]
}

func (r *refusals) add(name string, i *agent.Instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[name] = i
}

func (r *refusals) remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.instances, name)
}

func (r *refusals) close() error {
	if r.reader == nil {
		return nil
	}
	err := r.reader.Close()
	<-r.done
	return err
}
