//go:build e2e

package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/fakenvml"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// gpuDaemon starts a daemon on a machine with a driver.
func gpuDaemon(t *testing.T) (*harness.Daemon, *harness.GPUHost) {
	t.Helper()
	d, host := harness.W.PrepareDaemon(t), harness.W.GPUHost(t)
	d.On = host
	d.Start(t)
	return d, host
}

// TestGPUProof: a daemon that starts has each GPU compute something, and says where that can't be; sandboxes start all the same.
func TestGPUProof(t *testing.T) {
	t.Parallel()
	d, host := gpuDaemon(t)
	until(t, "each GPU computes", func() bool { return strings.Count(d.Log(), `msg="CUDA computes on a GPU"`) == 3 })
	create(t, d, "box", shell)
	d.End(syscall.SIGTERM)
	host.Lose(t, "nvidia-uvm")
	d.Start(t)
	const why = "it does not compute: cuInit: CUDA_ERROR_NO_DEVICE (100); nemoclaw doctor --gpu looks closer"
	until(t, "the log says that none does", func() bool {
		return strings.Contains(d.Do(t, "audit", "search", "--plane", "system", "--text", "CUDA_ERROR", "-o", "json", d.AuditDir()), why)
	})
	if !strings.Contains(d.Log(), "CUDA does not compute on this host's GPUs") {
		t.Errorf("the journal does not say so:\n%s", d.Log())
	}
	c, _ := dial(t, d)
	if s := get(t, c, "box"); s.State != api.Running {
		t.Errorf("the sandbox is %s", s.State)
	}
}

// TestGPUInventory lists what the driver says, over its crash as well: the daemon goes on, and so does the next helper.
func TestGPUInventory(t *testing.T) {
	t.Parallel()
	d, host := gpuDaemon(t)
	create(t, d, "box", shell)
	c, ctx := dial(t, d)
	g, err := c.GPUs(ctx)
	if err != nil || g.State != api.GPUsReady || len(g.GPUs) != 3 || g.Driver != fakenvml.Version {
		t.Fatalf("%+v, %v\n%s", g, err, d.Log())
	}
	out := d.Do(t, "gpus")
	for _, want := range []string{"driver " + fakenvml.Version + ", CUDA 12.8", "NVIDIA H200", fakenvml.First, "instance 7/0", fakenvml.Part, "37%", "1.0 GiB of 140.4 GiB", "120 W of 700 W", "GPU 1: 2 errors of its memory, all corrected"} {
		if !strings.Contains(out, want) {
			t.Errorf("gpus does not say %q:\n%s", want, out)
		}
	}
	host.Say(t, slices.Insert(slices.Clone(fakenvml.Devices), 1, "xid code=79 times=2")...)
	until(t, "the errors that the driver reports are shown", func() bool {
		return strings.Contains(d.Do(t, "gpus"), "GPU 0: the driver reported XID 79 2 times\n")
	})
	for deadline := 0; ; deadline++ {
		host.Say(t, "count crash")
		status, _, stderr := d.Call(t, "gpus")
		if status == 1 && strings.Contains(stderr, "nemoclaw-gpu crashed (exit status 2): SIGABRT: abort; nemoclaw doctor --gpu looks closer") {
			break
		}
		if status != 0 || deadline > 5000 { // what was said a moment ago is still good
			t.Fatalf("after a crash: %d, %s", status, stderr)
		}
	}
	host.Say(t, fakenvml.Devices...)
	until(t, "the next helper answers", func() bool {
		g, err := c.GPUs(ctx)
		return err == nil && g.State == api.GPUsReady
	})
	if s := get(t, c, "box"); s.State != api.Running {
		t.Errorf("the sandbox is %s", s.State)
	}
}

// TestGPUOwners: a process that the driver names is looked for in its cgroup, and nowhere else.
func TestGPUOwners(t *testing.T) {
	t.Parallel()
	d, host := gpuDaemon(t)
	create(t, d, "box", shell)
	c, ctx := dial(t, d)
	s := get(t, c, "box")
	host.Say(t, fakenvml.Devices[0], fmt.Sprintf("process pid=%d used=1048576 sm=9", s.PID), fmt.Sprintf("process pid=%d used=2097152 sm=1", os.Getpid()))
	until(t, "the driver names both processes", func() bool {
		g, err := c.GPUs(ctx)
		return err == nil && len(g.GPUs) == 1 && len(g.GPUs[0].Processes) == 2
	})
	g, err := c.GPUs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if p := g.GPUs[0].Processes; p[0].Sandbox != "box" || p[1].Sandbox != "" {
		at, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.PID))
		t.Errorf("%+v, and the first is in\n%s", p, at)
	}
}

// TestNoGPUs is a machine without a driver, as this one: nothing is started, nothing is wrong.
func TestNoGPUs(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	status, stdout, stderr := d.Call(t, "gpus")
	if status != 0 || stdout != "" || !strings.Contains(stderr, "no GPUs: NVIDIA's driver is not loaded") {
		t.Errorf("%d, %q, %q", status, stdout, stderr)
	}
	if out := d.Do(t, "gpus", "-o", "json"); !strings.Contains(out, `"state": "absent"`) || !strings.Contains(out, `"gpus": []`) {
		t.Errorf("%s", out)
	}
}

// gpuPolicy is shell with GPUs.
func gpuPolicy(list string) string {
	return harness.Base + "devices: {gpus: [" + list + "]}\n"
}

// TestGPUNodesPlanted puts the nodes of every GPU into the views of two sandboxes, as if the mounts did not hold: the kernel's program lets
// each open what its policy gives and nothing else, also when another daemon has taken over.
func TestGPUNodesPlanted(t *testing.T) {
	t.Parallel()
	d, _ := gpuDaemon(t)
	probeBox(t, d, "first", gpuPolicy("0"))
	probeBox(t, d, "none", harness.Base)
	c, _ := dial(t, d)
	for _, name := range []string{"first", "none"} {
		script := "set -e; umask 0; mount -o remount,rw,bind /dev; mknod /dev/planted0 c $0 0; mknod /dev/planted1 c $0 1; mknod /dev/plantedctl c $0 255"
		enter := exec.Command("nsenter", "-t", fmt.Sprint(get(t, c, name).PID), "-m", "sh", "-c", script, fmt.Sprint(harness.GPUMajor))
		if out, err := enter.CombinedOutput(); err != nil {
			t.Fatalf("planting nodes in %s: %v\n%s", name, err, out)
		}
	}
	look := func(when string) {
		t.Helper()
		for name, want := range map[string][]string{"first": {"ENXIO", "EPERM", "ENXIO"}, "none": {"EPERM", "EPERM", "EPERM"}} {
			for i, o := range probe(t, d, name, "open rw /dev/planted0", "open rw /dev/planted1", "open rw /dev/plantedctl") {
				if o.Errno != want[i] {
					t.Errorf("%s: %s: %q gave %q, want %q", when, name, o.Op, o.Errno, want[i])
				}
			}
		}
	}
	look("at first")
	d.Kill()
	d.Start(t)
	look("after another daemon took over")
	if out := d.Do(t, "first", "exec", "--", "/workspace/probe", "env"); !strings.Contains(out, "CUDA_VISIBLE_DEVICES="+fakenvml.First) {
		t.Errorf("the environment after another daemon took over:\n%s", out)
	}
	for name, want := range map[string]string{"first": "the policy gives GPU 0, and this is another's device node", "none": "no rule gives a GPU: devices.gpus does"} {
		if log := d.Do(t, name, "logs", "--plane", "device"); !strings.Contains(log, fmt.Sprintf("/dev/nvidia1 (c %d:1 rw)", harness.GPUMajor)) || !strings.Contains(log, want) {
			t.Errorf("the records of %s:\n%s", name, log)
		}
	}
}

// TestGPUPolicyChange: what a sandbox is given changes with a restart, and says so.
func TestGPUPolicyChange(t *testing.T) {
	t.Parallel()
	d, _ := gpuDaemon(t)
	create(t, d, "box", shell)
	c, ctx := dial(t, d)
	_, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: shell + "devices: {gpus: [0]}\n"})
	refused(t, err, api.NeedsRestart, "devices: added: GPU 0")
	res, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: shell + "devices: {gpus: [0]}\n", Restart: true})
	if err != nil || !res.Live {
		t.Fatalf("%+v, %v", res, err)
	}
	if a := d.Do(t, "box", "policy", "explain", "--gpu", "0", "--expect", "allow"); !strings.Contains(a, "gpus: [0]") {
		t.Errorf("%s", a)
	}
	// One that can't be given leaves the sandbox under the policy that it had.
	if _, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: shell + "devices: {gpus: [9]}\n", Restart: true}); err == nil || !strings.Contains(err.Error(), "there is no GPU 9 on this host") {
		t.Errorf("%v", err)
	}
	if out := d.Do(t, "box", "exec", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"); out != fakenvml.First+"\n" {
		t.Errorf("it has %q", out)
	}
}

// TestGPUUse: what a sandbox's processes take of its GPUs is in its status, its usage and the list; "-" where there is nothing to say.
func TestGPUUse(t *testing.T) {
	t.Parallel()
	d, host := gpuDaemon(t)
	create(t, d, "box", shell+"devices: {gpus: [0, 1]}\n")
	create(t, d, "part", shell+"devices: {gpus: ["+fakenvml.Part+"]}\n")
	create(t, d, "none", shell)
	c, ctx := dial(t, d)
	if u, err := c.Usage(ctx, "none"); err != nil || u.GPU != nil {
		t.Errorf("%+v, %v", u, err)
	}
	if s := get(t, c, "box"); len(s.GPUs) != 2 || s.GPUs[0].UUID != fakenvml.First || *s.GPUs[0].Memory != 0 || *s.GPUs[0].Busy != 0 {
		t.Errorf("of nothing that runs on it: %+v", s.GPUs)
	}
	process := func(box string, use string) string { return fmt.Sprintf("process pid=%d %s", get(t, c, box).PID, use) }
	host.Say(t, fakenvml.Devices[0], process("box", "used=1073741824 sm=60"), process("none", "used=5368709120 sm=30"), fakenvml.Devices[1], process("box", "used=536870912 sm=20"),
		fakenvml.Devices[2], fakenvml.Devices[3], fakenvml.Devices[4], process("part", "used=268435456 gi=7 ci=0"), process("part", "used=1 gi=8 ci=0"))
	until(t, "the daemon has asked again", func() bool {
		u, err := c.Usage(ctx, "box")
		return err == nil && u.GPU != nil && u.GPU.Memory != nil && *u.GPU.Memory == 3<<29 && *u.GPU.Busy == 80
	})
	if s := get(t, c, "part"); len(s.GPUs) != 1 || *s.GPUs[0].Memory != 1<<28 || s.GPUs[0].Busy != nil {
		t.Errorf("of an instance: %+v", s.GPUs)
	}
	if out := d.Do(t, "box", "status"); !strings.Contains(out, "gpu        0: NVIDIA H200 ("+fakenvml.First+"), 1.0 GiB of its memory, 60% busy with it") || !strings.Contains(out, "1.5 GiB of GPU memory, 80% of a GPU") {
		t.Errorf("%s", out)
	}
	if out := d.Do(t, "part", "usage"); !strings.Contains(out, "256.0 MiB of GPU memory, - of a GPU") {
		t.Errorf("%s", out)
	}
	if out := d.Do(t, "list", "-o", "json"); !strings.Contains(out, `"utilisation_percent": 60`) {
		t.Errorf("%s", out)
	}
	// A driver that hangs holds nobody up.
	host.Say(t, "count hang")
	until(t, "the figures are gone", func() bool {
		s := get(t, c, "box")
		return len(s.GPUs) == 2 && s.GPUs[0].Memory == nil
	})
}
