package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// lookTime is how long a start waits for the driver, which may have to wake its devices.
const lookTime = 30 * time.Second

// driverLibs is where a sandbox has the driver's libraries that its view has nowhere else: those of the host in an image's view, and those
// outside of the baseline.
const driverLibs = "/run/nvidia/lib"

// takeGPUs finds what the policy's GPUs are on this host. What they are stays as long as the sandbox runs.
func (i *Instance) takeGPUs() error {
	d := &i.policy.Devices
	if len(d.GPUs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	given, err := gpu.Give(d.GPUs, i.c.GPUs(ctx))
	if err != nil {
		ref := i.policy.Rule(d.ID)
		return fmt.Errorf("%s: %s: this rule can't be enforced here: %w; take `devices` out of the policy to start without a GPU, nemoclaw doctor --gpu says more", ref.Pos, ref.Text, err)
	}
	i.gpus = given
	return nil
}

// GPUs is what the sandbox was given; nil: nothing.
func (i *Instance) GPUs() *gpu.Given { return i.gpus }

// deviceNodes are the nodes that the sandbox has beside the basic ones.
func (i *Instance) deviceNodes() (list []sandbox.Device) {
	if i.gpus != nil {
		for _, n := range i.gpus.Nodes {
			list = append(list, sandbox.Device{Path: n.Path, Major: n.Major, Minor: n.Minor})
		}
	}
	return list
}

// libraries are the driver's that the view does not have.
func (i *Instance) libraries() (list []sandbox.Library) {
	if i.gpus == nil {
		return nil
	}
	for _, lib := range i.gpus.Libraries {
		inView := i.c.Root == "" && slices.ContainsFunc(policy.BaselineRead, func(dir string) bool { return strings.HasPrefix(lib.Path, dir+"/") })
		if !inView {
			list = append(list, sandbox.Library{Path: driverLibs + "/" + lib.Name, Source: lib.Path})
		}
	}
	return list
}

// gpuEnvironment tells programs inside which GPUs there are.
func (i *Instance) gpuEnvironment() []string {
	if i.gpus == nil {
		return nil
	}
	env := i.gpus.Environment()
	if len(i.libraries()) > 0 {
		env = append(env, "LD_LIBRARY_PATH="+driverLibs)
	}
	return env
}

// allowDevices lets the sandbox open its nodes, in the kernel.
func (i *Instance) allowDevices() error {
	if i.gpus == nil {
		return nil
	}
	list := loader.DefaultDevices()
	for _, n := range i.gpus.Nodes {
		list = append(list, loader.Device{Type: loader.CharDevice, Major: n.Major, Minor: n.Minor, Access: loader.DeviceRead | loader.DeviceWrite})
	}
	return i.guard.Devices(list)
}

// refusedGPU says of a refused device node of the driver's what the policy says; "" for another's node.
func refusedGPU(p *policy.Compiled, d loader.Device) (node, rule, reason string) {
	if d.Type != loader.CharDevice {
		return "", "", ""
	}
	if node = gpu.NodeOf(d.Major, d.Minor); node == "" {
		return "", "", ""
	}
	if len(p.Devices.GPUs) == 0 {
		return node, position(p, 0), "no rule gives a GPU: devices.gpus does"
	}
	return node, position(p, p.Devices.ID), "the policy gives GPU " + strings.Join(p.Devices.GPUs, ", ") + ", and this is another's device node"
}
