package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Devices is the section `devices`.
type Devices struct {
	GPUs []string // numbers, GPU-..., MIG-..., each once; or AllGPUs alone; empty: none
	ID   RuleID   // where `gpus` stands
}

// AllGPUs stands for every GPU that the host has.
const AllGPUs = "all"

// Has reports whether the section gives a GPU, by the name that it is written with.
func (d *Devices) Has(gpu string) bool {
	return slices.Contains(d.GPUs, gpu) || slices.Contains(d.GPUs, AllGPUs)
}

// HasGPUs reports whether the policy gives GPUs.
func (c *Compiled) HasGPUs() bool { return len(c.Devices.GPUs) > 0 }

// GPUTool is the driver's own program, which who has a GPU may run.
const GPUTool = "nvidia-smi"

const (
	maxGPU  = 255
	gpuHint = "write a number as nvidia-smi counts, a UUID (nvidia-smi -L shows them: GPU-..., MIG-...), or all"
)

var gpuForm = lazily(`^(all|(GPU|MIG)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)

func (v *GPUName) read(n *yaml.Node, _ *field) *problem {
	if n.ShortTag() == "!!int" || wholeNumber.MatchString(n.Value) {
		var number Number
		if p := number.read(n, &field{max: strconv.Itoa(maxGPU)}); p != nil {
			return p
		}
		*v = GPUName(n.Value)
		return nil
	}
	s, p := text(n)
	if p != nil {
		return &problem{p.msg, gpuHint}
	}
	if !gpuForm.MatchString(s) {
		return &problem{"unknown GPU " + cut(s), gpuHint}
	}
	*v = GPUName(s)
	return nil
}

func (s *DevicesSection) check(d *decoder, key string) {
	for i, g := range s.GPUs {
		if g.V == AllGPUs && len(s.GPUs) > 1 {
			d.add(g.At, fmt.Sprintf("%s.gpus[%d]", key, i), "all stands for every GPU, and others are named beside it", "write [all], or name those that are needed")
		}
	}
}

// devices enters the section: what several files give adds up. Who has a GPU may run the driver's own program.
func (m *merge) devices(s *DevicesSection) {
	var names []string
	for _, g := range s.GPUs {
		names = append(names, string(g.V))
	}
	d := &m.out.Devices
	d.ID = m.ref(s.At, "gpus", "["+strings.Join(names, ", ")+"]")
	d.GPUs = append(d.GPUs, names...)
	if slices.Sort(d.GPUs); slices.Contains(d.GPUs, AllGPUs) {
		d.GPUs = []string{AllGPUs}
	}
	d.GPUs = slices.Compact(d.GPUs)
	if key := (commandKey{name: GPUTool}); !m.tool(key) {
		m.commands[key] = len(m.out.Exec.Allow)
		m.out.Exec.Allow = append(m.out.Exec.Allow, Command{ID: d.ID, Name: GPUTool})
	}
}

// tool reports whether a rule for a command is there already.
func (m *merge) tool(key commandKey) bool {
	_, there := m.commands[key]
	return there
}

func (c *Compiled) saysDevices() map[string]said {
	m := map[string]said{}
	for _, g := range c.Devices.GPUs {
		m["GPU "+g] = said{"", c.pos(c.Devices.ID)}
	}
	return m
}

// explainGPU answers whether a GPU is given. Which number and which UUID are the same GPU only the host knows.
func (c *Compiled) explainGPU(a *Answer) {
	switch d := &c.Devices; {
	case d.Has(a.Query.Path):
		a.set(Allow, c.Rule(d.ID), "its device nodes are there from the start, and the driver's libraries")
	case len(d.GPUs) > 0:
		a.set(Deny, c.Rule(0), "devices.gpus gives %s; that this is one of them by another name only the host could tell", strings.Join(d.GPUs, ", "))
	default:
		a.set(Deny, c.Rule(0), "no rule gives a GPU")
	}
}

// gpuNodes are what the driver's device nodes begin with; gpuControls those of them that everybody with a GPU has.
const gpuNodes = "/dev/nvidia"

var gpuControls = []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}

// explainGPUNode answers whether a device node is there.
func (c *Compiled) explainGPUNode(a *Answer) {
	switch d := &c.Devices; {
	case len(d.GPUs) == 0:
		a.set(Deny, c.Rule(0), "no rule gives a GPU: devices.gpus does")
	case d.Has(AllGPUs) || slices.Contains(gpuControls, a.Query.Path):
		a.set(Allow, c.Rule(d.ID), "a device node that every sandbox with this GPU has")
	default:
		a.set(Deny, c.Rule(0), "devices.gpus gives %s; whose node this is only the host could tell", strings.Join(d.GPUs, ", "))
	}
}
