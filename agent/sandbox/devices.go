package sandbox

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Device is a character device that a sandbox has a node of. Whether it can be opened another program of the kernel judges.
type Device struct {
	Path         string // below /dev
	Major, Minor uint32
}

// Library is a file of the host that appears in the view, to be read and mapped.
type Library struct {
	Path   string // inside
	Source string // real path on the host
}

// basicDevices are what every sandbox has.
var basicDevices = []Device{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// makeNodes makes device nodes below a /dev. Everybody inside may open them as far as their modes go.
func makeNodes(dev int, devices []Device) error {
	for _, d := range devices {
		if dir := path.Dir(d.Path); dir != "." {
			if err := makeDirs(dev, dir); err != nil {
				return err
			}
		}
		if err := unix.Mknodat(dev, d.Path, unix.S_IFCHR|0o666, int(unix.Mkdev(d.Major, d.Minor))); err != nil {
			return fmt.Errorf("mknod %s: %w", d.Path, err)
		}
	}
	return nil
}

// What CUDA looks at of /sys: whether the driver is there, where devices hang, and how the host's memory and processors are grouped. Without
// it cuInit gives CUDA_ERROR_OPERATING_SYSTEM.
var gpuSysfs = []string{
	"/sys/module/nvidia", "/sys/module/nvidia_uvm", "/sys/bus/pci/devices", "/sys/devices/system/cpu", "/sys/devices/system/node",
}

// addDevices plans what the section `devices` brings into the view.
func (p *planner) addDevices(c *policy.Compiled) error {
	if !c.HasGPUs() {
		return nil
	}
	ref := c.Rule(c.Devices.ID)
	e := entry{access: policy.Read, own: true, rule: c.Devices.ID, text: ref.Pos + ": " + ref.Text}
	e.by[0] = c.Devices.ID
	if !c.Files.Baseline {
		return e.refuse("without `baseline: system` there is no /dev for its nodes, and nothing that the driver's libraries need", "leave `baseline: none` out")
	}
	if _, kind, err := p.host.lstat("/proc/sys/vm/memfd_noexec"); err != nil || kind == kindMissing {
		return e.refuse("CUDA needs files in memory, and this kernel can't keep them from being executed, so a sandbox has none", "use Linux 6.3 or newer")
	}
	if err := p.checkCommands(c); err != nil {
		return err
	}
	for _, lib := range p.libraries {
		if err := p.show(e, lib.Path, lib.Source, kindFile); err != nil {
			return err
		}
	}
	for _, dir := range gpuSysfs {
		at, err := p.host.resolve(dir)
		if err != nil {
			return fmt.Errorf("sandbox: %s: %w", e.text, err)
		}
		if at.kind == kindDir && at.real == dir {
			if err := p.show(e, dir, dir, kindDir); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkCommands refuses rules that are for one command where another could act as it. The driver names its threads by writing below
// /proc/PID, and fails where it can't; who may write there may write into the memory of the sandbox's other processes, unless BPF LSM
// keeps it from that.
func (p *planner) checkCommands(c *policy.Compiled) error {
	if p.full {
		return nil
	}
	for i := range c.Network.Rules {
		if r := &c.Network.Rules[i]; len(r.Commands) > 0 {
			ref := c.Rule(r.ID)
			e := entry{text: ref.Pos + ": " + ref.Text}
			return e.needsFull("CUDA needs to write below /proc, where one program could then change another, which this rule is for", "take `commands` out of the rule, or `devices` out of the policy")
		}
	}
	return nil
}

// show plans a file or directory of the host, to be read.
func (p *planner) show(e entry, place, source string, kind fileKind) error {
	at, err := p.host.resolve(source)
	if err != nil {
		return fmt.Errorf("sandbox: %s: %w", e.text, err)
	}
	if at.kind != kind || at.real != source {
		return errors.New("sandbox: " + e.text + ": " + source + " of the host is not what it was: start the sandbox again")
	}
	e.path, e.source, e.written, e.kind = place, source, place, kind
	p.entries = append(p.entries, e)
	p.addTree(tree{path: place, source: source, kind: treeBind, file: kind == kindFile, readOnly: true, noExec: kind == kindDir, rule: e.rule})
	return nil
}
