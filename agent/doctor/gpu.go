package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// gpuChecks are what is looked at with Options.GPU instead. Without a driver all of them are fine, since there is nothing to be wrong.
var gpuChecks = []check{
	{name: "root", look: (*examiner).root},
	{name: "driver", look: (*examiner).gpuDriver},
	{name: "inventory", look: (*examiner).gpuInventory},
	{name: "health", look: (*examiner).gpuHealth},
	{name: "nodes", look: (*examiner).gpuNodes},
	{name: "libraries", look: (*examiner).gpuLibraries},
	{name: "tool", look: (*examiner).gpuTool},
	{name: "memfd", look: (*examiner).gpuMemory},
	{name: "cuda", look: (*examiner).gpuCUDA},
}

const (
	noGPU      = "not looked at: there are no GPUs"
	whyGPU     = "sandboxes whose policy gives a GPU can't start"
	whyHelper  = "no GPU is known, so " + whyGPU
	makesNodes = "nvidia-modprobe -c 0 -u, or start nvidia-persistenced"
)

// driverVersion is what the kernel says of NVIDIA's driver; "" when it is not loaded.
func driverVersion() string {
	text, err := os.ReadFile("/proc/driver/nvidia/version")
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.Join(strings.Fields(strings.TrimPrefix(line, "NVRM version:")), " ")
}

func (e *examiner) gpuDriver() Finding {
	switch version := driverVersion(); {
	case version != "":
		return ok(version)
	case present("/sys/bus/pci/drivers/nvidia"):
		return warning("the module is there, and /proc/driver/nvidia is not", whyGPU, "modprobe nvidia nvidia-uvm, or look at dmesg")
	}
	if found := nvidiaDevices("/sys/bus/pci/devices"); len(found) > 0 {
		return warning("none: NVIDIA's driver is not loaded, and the PCI bus has a GPU of NVIDIA's: "+strings.Join(found, ", "), whyGPU,
			"install NVIDIA's driver, then modprobe nvidia nvidia-uvm; where nouveau has the GPU, reboot. dmesg | grep -i nvrm says why it does not load")
	}
	return ok("none: NVIDIA's driver is not loaded, and the PCI bus has no GPU of NVIDIA's")
}

// nvidiaDevices lists the addresses of NVIDIA's display controllers among the PCI devices in a directory of sysfs.
func nvidiaDevices(dir string) []string {
	vendors, _ := filepath.Glob(filepath.Join(dir, "*", "vendor")) // the pattern is well formed
	var found []string
	for _, file := range vendors {
		device := filepath.Dir(file)
		vendor, _ := os.ReadFile(file) // what can't be read is of another vendor
		class, _ := os.ReadFile(filepath.Join(device, "class"))
		if strings.TrimSpace(string(vendor)) == "0x10de" && strings.HasPrefix(string(class), "0x03") {
			found = append(found, filepath.Base(device))
		}
	}
	return found
}

// present reports whether there is something at a path.
func present(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// look asks the driver, once.
func (e *examiner) look() api.GPUs {
	if e.gpus.State == "" {
		e.gpus = e.helper.Look(e.ctx)
	}
	return e.gpus
}

func (e *examiner) gpuInventory() Finding {
	g := e.look()
	switch {
	case g.State == api.GPUsBroken:
		return failed(g.Reason, whyGPU, "nvidia-smi says whether the driver works at all; dmesg | grep -i -e nvrm -e xid; a driver that was upgraded takes a reboot")
	case g.State == api.GPUsAbsent && driverVersion() != "":
		return warning(g.Reason, whyHelper, "install nemoclaw-gpu beside nemoclaw (make build makes it where there is a C compiler), and the driver's libraries")
	case g.State == api.GPUsAbsent:
		return ok("none: " + g.Reason)
	}
	var list []string
	for _, d := range g.GPUs {
		s := fmt.Sprintf("%d %s %s", d.Index, d.Name, d.UUID)
		if d.Memory.Total > 0 {
			s += " " + size(d.Memory.Total)
		}
		if d.MIG {
			s += fmt.Sprintf(" in %d instances", len(d.Instances))
		}
		list = append(list, s)
	}
	return ok(fmt.Sprintf("driver %s, CUDA %s: %s", g.Driver, g.CUDA, strings.Join(list, "; ")))
}

func (e *examiner) gpuHealth() Finding {
	var problems []string
	worst := OK
	for _, d := range e.look().GPUs {
		for _, p := range d.Problems {
			problems = append(problems, fmt.Sprintf("%d: %s", d.Index, p))
		}
		switch {
		case d.Health == "failed":
			worst = Failed
		case d.Health == "warning" && worst == OK:
			worst = Warning
		}
	}
	switch {
	case len(e.look().GPUs) == 0:
		return ok(noGPU)
	case worst == OK:
		return ok("nothing is wrong with any")
	}
	return Finding{State: worst, Found: strings.Join(problems, "; "), Why: "what is computed there may be wrong, slow or lost", Remedy: "nvidia-smi -q, dmesg | grep -i xid; a reset (nvidia-smi -r) or another card"}
}

func (e *examiner) gpuNodes() Finding {
	if len(e.look().GPUs) == 0 {
		return ok(noGPU)
	}
	nodes, err := gpu.Nodes(e.look())
	if err != nil {
		return failed(err.Error(), whyGPU, makesNodes)
	}
	var list []string
	for _, n := range nodes {
		var at unix.Stat_t
		if err := unix.Lstat(n.String(), &at); err != nil {
			return failed(n.String()+": "+err.Error(), whyGPU, makesNodes)
		}
		list = append(list, fmt.Sprintf("%s %d:%d %04o", n, n.Major, n.Minor, at.Mode&0o7777))
	}
	return ok(strings.Join(list, ", "))
}

func (e *examiner) gpuLibraries() Finding {
	if len(e.look().GPUs) == 0 {
		return ok(noGPU)
	}
	list, err := gpu.Libraries(e.look().Driver)
	if err != nil {
		return failed(err.Error(), whyGPU, "install the libraries of the driver that is loaded (Debian: libcuda1, Ubuntu: libnvidia-compute-...), then ldconfig")
	}
	var names []string
	for _, lib := range list {
		names = append(names, lib.Name)
	}
	return ok(fmt.Sprintf("%s, in %s", strings.Join(names, ", "), filepath.Dir(list[0].Path)))
}

func (e *examiner) gpuTool() Finding {
	if len(e.look().GPUs) == 0 {
		return ok(noGPU)
	}
	for _, dir := range filepath.SplitList(policy.SearchPath) {
		if at := filepath.Join(dir, "nvidia-smi"); present(at) {
			return ok(at)
		}
	}
	return warning("there is no nvidia-smi", "who has a GPU may run it, and programs look for it", "install it with the driver (Debian: nvidia-smi, Ubuntu: nvidia-utils-...)")
}

func (e *examiner) gpuMemory() Finding {
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); errors.Is(err, os.ErrNotExist) && len(e.look().GPUs) > 0 {
		return failed("this kernel can't keep files in memory from being executed, so sandboxes have none", "the driver needs them: "+whyGPU, "boot Linux 6.6 or newer")
	}
	return ok("files in memory can be had inside")
}

// gpuCUDA computes on every GPU, as nobody.
func (e *examiner) gpuCUDA() Finding {
	if len(e.look().GPUs) == 0 {
		return ok(noGPU)
	}
	proofs, err := e.helper.Prove(context.Background())
	if err != nil {
		return failed(err.Error(), "programs can't compute on a GPU here, in a sandbox or out of it", makesNodes+"; with NVSwitch start nvidia-fabricmanager; dmesg | grep -i -e nvrm -e xid")
	}
	var list, wrong []string
	for _, p := range proofs {
		if p.Error != "" {
			wrong = append(wrong, fmt.Sprintf("%d %s: %s", p.Index, p.Name, p.Error))
		}
		list = append(list, fmt.Sprintf("%d %s: %s filled by it and read back in %s", p.Index, p.Name, size(p.Bytes), time.Duration(p.Duration).Round(time.Millisecond)))
	}
	if len(wrong) > 0 {
		return failed(strings.Join(wrong, "; "), "programs can't compute there", "nvidia-smi -q; who has all of its memory: nemoclaw gpus")
	}
	return ok(strings.Join(list, "; "))
}
