package gpu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
)

// Given is what a sandbox is given: its GPUs and nothing else of the driver's.
type Given struct {
	GPUs      []GivenGPU `json:"gpus"`
	Nodes     []Node     `json:"nodes"`
	Libraries []Library  `json:"libraries"`
}

// GivenGPU is a GPU, or an instance of one.
type GivenGPU struct {
	Index int    `json:"index"` // of the GPU
	GPU   string `json:"gpu"`   // its UUID
	UUID  string `json:"uuid"`  // the instance's, or the GPU's
	Name  string `json:"name"`
}

// Node is a device node of the driver's.
type Node struct {
	Path  string `json:"path"` // below /dev
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// String is how a message names a node.
func (n Node) String() string { return filepath.Join("/dev", n.Path) }

// Environment tells the driver's libraries inside which devices are there. They would find out by trying; but programs look at it.
func (g *Given) Environment() []string {
	var uuids []string
	for _, d := range g.GPUs {
		uuids = append(uuids, d.UUID)
	}
	list := strings.Join(uuids, ",")
	return []string{"NVIDIA_VISIBLE_DEVICES=" + list, "CUDA_VISIBLE_DEVICES=" + list}
}

// Has reports whether a device of the host is among them, and by which instance it is when not as a whole.
func (g *Given) Has(uuid string) bool {
	return slices.ContainsFunc(g.GPUs, func(d GivenGPU) bool { return d.UUID == uuid || d.GPU == uuid })
}

// Names lists them for a person.
func (g *Given) Names() string {
	var names []string
	for _, d := range g.GPUs {
		names = append(names, fmt.Sprintf("%d (%s)", d.Index, d.UUID))
	}
	return strings.Join(names, ", ")
}

// all stands for every device, as in a policy.
const all = "all"

// The nodes that every use of a device takes, and those that are there for tools.
var (
	controlNodes = []string{"nvidiactl", "nvidia-uvm"}
	toolNodes    = []string{"nvidia-uvm-tools"}
)

// Nodes are the device nodes of all devices, and those that every use of one takes.
func Nodes(host api.GPUs) ([]Node, error) {
	g := &giving{root: "/", host: host}
	err := g.add(all)
	if err == nil {
		err = g.controls()
	}
	return g.Nodes, err
}

// Libraries are the driver's libraries of a version.
func Libraries(version string) ([]Library, error) { return libraries("/", version) }

// Give finds what devices stand for, by their names in a policy: numbers, UUIDs, or all. What is not there is an error: a sandbox gets
// what its policy says or does not start.
func Give(wanted []string, host api.GPUs) (*Given, error) { return give(wanted, host, "/") }

// give is Give on a host whose files are below root.
func give(wanted []string, host api.GPUs, root string) (*Given, error) {
	switch {
	case host.State == api.GPUsAbsent:
		return nil, fmt.Errorf("there are no GPUs here: %s", host.Reason)
	case host.State != api.GPUsReady:
		return nil, fmt.Errorf("the GPUs can't be looked at: %s", host.Reason)
	case len(host.GPUs) == 0:
		return nil, errors.New("the driver knows no GPU here")
	}
	g := &giving{root: root, host: host}
	for _, name := range wanted {
		if err := g.add(name); err != nil {
			return nil, err
		}
	}
	if err := g.controls(); err != nil {
		return nil, err
	}
	slices.SortFunc(g.GPUs, func(a, b GivenGPU) int { return strings.Compare(a.UUID, b.UUID) })
	slices.SortStableFunc(g.GPUs, func(a, b GivenGPU) int { return a.Index - b.Index })
	var err error
	g.Libraries, err = libraries(root, host.Driver)
	return &g.Given, err
}

// giving is a Given under construction.
type giving struct {
	Given
	root string
	host api.GPUs
}

// controls adds the nodes that every use of a device takes.
func (g *giving) controls() error {
	for _, n := range controlNodes {
		if err := g.node(n); err != nil {
			return err
		}
	}
	for _, n := range toolNodes {
		if err := g.node(n); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// add adds what one name stands for.
func (g *giving) add(name string) error {
	found := false
	for _, d := range g.host.GPUs {
		whole := name == all || name == strconv.Itoa(d.Index) || name == d.UUID
		for _, in := range d.Instances {
			if whole || name == in.UUID {
				found = true
				if err := g.instance(d, in); err != nil {
					return err
				}
			}
		}
		if !whole {
			continue
		}
		found = true
		switch {
		case d.MIG && len(d.Instances) == 0 && name == all:
		case d.MIG && len(d.Instances) == 0:
			return fmt.Errorf("GPU %s is parted (MIG) and has no instance that could be used: make one (nvidia-smi mig -cgi ... -C), or end MIG", name)
		case !d.MIG:
			if err := g.device(d); err != nil {
				return err
			}
			g.take(GivenGPU{d.Index, d.UUID, d.UUID, d.Name})
		}
	}
	if found {
		return nil
	}
	var there []string
	for _, d := range g.host.GPUs {
		there = append(there, fmt.Sprintf("%d (%s)", d.Index, d.UUID))
		for _, in := range d.Instances {
			there = append(there, in.UUID)
		}
	}
	return fmt.Errorf("there is no GPU %s on this host, which has %s", name, strings.Join(there, ", "))
}

func (g *giving) take(d GivenGPU) {
	if !slices.ContainsFunc(g.GPUs, func(x GivenGPU) bool { return x.UUID == d.UUID }) {
		g.GPUs = append(g.GPUs, d)
	}
}

// device adds a device's own node.
func (g *giving) device(d api.GPU) error {
	if d.Minor < 0 {
		return fmt.Errorf("GPU %d does not say which device node is its: %s", d.Index, strings.Join(append(d.Problems, "it has none"), "; "))
	}
	return g.node("nvidia" + strconv.Itoa(d.Minor))
}

// instance adds a part of a device: the device's node, and the nodes whose openness is the right to use the part.
func (g *giving) instance(d api.GPU, in api.GPUInstance) error {
	if err := g.device(d); err != nil {
		return err
	}
	dir := fmt.Sprintf("proc/driver/nvidia/capabilities/gpu%d/mig/gi%d", d.Minor, in.GPUInstance)
	for _, file := range []string{dir + "/access", fmt.Sprintf("%s/ci%d/access", dir, in.ComputeInstance)} {
		text, err := os.ReadFile(filepath.Join(g.root, file))
		if err != nil {
			return fmt.Errorf("what gives the right to use %s: %w", in.UUID, err)
		}
		minor := ""
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "DeviceFileMinor:"); ok {
				minor = strings.TrimSpace(value)
			}
		}
		if _, err := strconv.ParseUint(minor, 10, 32); err != nil {
			return fmt.Errorf("what gives the right to use %s: /%s names no device node", in.UUID, file)
		}
		if err := g.node("nvidia-caps/nvidia-cap" + minor); err != nil {
			return err
		}
	}
	g.take(GivenGPU{d.Index, d.UUID, in.UUID, in.Name})
	return nil
}

// node adds a device node, as it is in /dev.
func (g *giving) node(name string) error {
	at := filepath.Join(g.root, "dev", name)
	var is unix.Stat_t
	if err := unix.Lstat(at, &is); err != nil {
		return fmt.Errorf("the device node /dev/%s: %w; nvidia-modprobe -c 0 -u makes the driver's nodes, and so does nvidia-persistenced", name, err)
	}
	if is.Mode&unix.S_IFMT != unix.S_IFCHR {
		return fmt.Errorf("/dev/%s is no device node", name)
	}
	n := Node{name, unix.Major(is.Rdev), unix.Minor(is.Rdev)}
	if !slices.Contains(g.Nodes, n) {
		g.Nodes = append(g.Nodes, n)
	}
	return nil
}

// NodeOf is the path of the driver's device node with these numbers on this host; "" when there is none.
func NodeOf(major, minor uint32) string {
	for _, pattern := range []string{"/dev/nvidia*", "/dev/nvidia-caps/*"} {
		nodes, _ := filepath.Glob(pattern) // only a bad pattern is an error
		for _, n := range nodes {
			var is unix.Stat_t
			if unix.Lstat(n, &is) == nil && is.Mode&unix.S_IFMT == unix.S_IFCHR && is.Rdev == unix.Mkdev(major, minor) {
				return n
			}
		}
	}
	return ""
}
