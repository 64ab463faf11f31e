package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/api"
)

// GPUs says which GPUs the host has, and who uses them.
func (d *Daemon) GPUs(ctx context.Context) api.GPUs {
	g := d.gpus.Look(ctx)
	// What was said is shared by all who asked at the time.
	list := make([]api.GPU, len(g.GPUs))
	for i, dev := range g.GPUs {
		used := make([]api.GPUProcess, len(dev.Processes))
		for j, p := range dev.Processes {
			p.Sandbox = d.owner(p.PID)
			used[j] = p
		}
		dev.Processes = used
		list[i] = dev
	}
	g.GPUs = list
	return g
}

// proveGPUs has each GPU compute something when the daemon starts, and says which one does not. Sandboxes don't wait for it, and start
// all the same: a GPU whose memory somebody else has now may be one that computes when it is needed.
func (d *Daemon) proveGPUs() {
	proofs, err := d.gpus.Prove(d.life)
	if errors.Is(err, gpu.ErrNotLoaded) || d.life.Err() != nil {
		return
	}
	const hint = "; nemoclaw doctor --gpu looks closer"
	if err != nil {
		d.log.Warn("CUDA does not compute on this host's GPUs"+hint, "error", err)
		d.note(gpu.Action, "cuda", "it does not compute: "+err.Error()+hint)
	}
	for _, p := range proofs {
		if p.Error != "" {
			d.log.Warn("CUDA does not compute on a GPU"+hint, "gpu", p.Index, "name", p.Name, "error", p.Error)
			d.note(gpu.Action, "cuda", fmt.Sprintf("it does not compute on GPU %d %s: %s%s", p.Index, p.Name, p.Error, hint))
		} else {
			d.log.Info("CUDA computes on a GPU", "gpu", p.Index, "name", p.Name, "took", time.Duration(p.Duration).Round(time.Millisecond))
		}
	}
}

// owner is the sandbox that a process is in; "" for one of the host's.
func (d *Daemon) owner(pid int) string {
	name, in := strings.CutPrefix(sandbox.Group(pid), "/"+filepath.Base(d.parent)+"/")
	if !in || strings.Contains(name, "/") {
		return ""
	}
	return name
}

// useTime is how long who asks for a sandbox's figures waits for the driver's.
const useTime = time.Second

// showUse adds what each sandbox takes of its GPUs. Where none has any the driver is not asked.
func (d *Daemon) showUse(list []api.Sandbox) {
	if !slices.ContainsFunc(list, func(s api.Sandbox) bool { return len(s.GPUs) > 0 }) {
		return
	}
	ctx, cancel := context.WithTimeout(d.life, useTime)
	defer cancel()
	host := d.GPUs(ctx)
	for i := range list {
		useGPUs(host, list[i].Name, list[i].GPUs)
	}
}

// givenGPUs are those that a sandbox was given, without what it takes of them.
func givenGPUs(i *agent.Instance) (list []api.SandboxGPU) {
	given := i.GPUs()
	if given == nil {
		return nil
	}
	for _, g := range given.GPUs {
		list = append(list, api.SandboxGPU{Index: g.Index, UUID: g.UUID, Name: g.Name})
	}
	return list
}

// useGPUs adds what a sandbox takes of the GPUs that it was given.
func useGPUs(host api.GPUs, name string, list []api.SandboxGPU) {
	for i := range list {
		list[i].GPUUse = useOf(host, name, list[i].UUID)
	}
}

// useOf is what a sandbox takes of a GPU or an instance, by what the driver says of the processes on it.
func useOf(host api.GPUs, name, uuid string) (u api.GPUUse) {
	for _, dev := range host.GPUs {
		part := slices.ContainsFunc(dev.Instances, func(in api.GPUInstance) bool { return in.UUID == uuid })
		if dev.UUID != uuid && !part {
			continue
		}
		own := slices.DeleteFunc(slices.Clone(dev.Processes), func(p api.GPUProcess) bool { return p.Sandbox != name || part && p.Instance != uuid })
		if len(own) == 0 {
			return api.GPUUse{Memory: new(int64), Busy: new(int)}
		}
		for _, p := range own {
			u.Memory, u.Busy = plus(u.Memory, p.Memory), plus(u.Busy, p.Busy)
		}
	}
	return u
}

// plus adds what is known.
func plus[N int | int64](sum, more *N) *N {
	if more == nil {
		return sum
	}
	total := *more
	if sum != nil {
		total += *sum
	}
	return &total
}

// gpuUse is what a sandbox takes of all its GPUs; nil when it has none.
func (b *box) gpuUse() *api.GPUUse {
	s := []api.Sandbox{b.describe()}
	b.d.showUse(s)
	if len(s[0].GPUs) == 0 {
		return nil
	}
	u := &api.GPUUse{}
	for _, g := range s[0].GPUs {
		u.Memory, u.Busy = plus(u.Memory, g.Memory), plus(u.Busy, g.Busy)
	}
	return u
}
