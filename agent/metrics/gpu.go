package metrics

import (
	"strconv"

	"github.com/nemoclaw/nemoclaw/api"
)

// healths are all that a GPU can be.
var healths = []string{"ok", "warning", "failed"}

// gpu sends what the driver says of a GPU. What it does not know has no series, rather than a 0 that would be taken for a figure.
func (o output) gpu(g *api.GPU, driver string) {
	index := strconv.Itoa(g.Index)
	o.send(gpuInfo, 1, index, g.UUID, g.Name, driver)
	for _, h := range healths {
		o.send(gpuHealth, truth(g.Health == h), index, g.UUID, h)
	}
	if g.Memory.Total > 0 {
		o.send(gpuMemory, float64(g.Memory.Used), index, g.UUID)
		o.send(gpuMemorySize, float64(g.Memory.Total), index, g.UUID)
	}
	known(o, gpuBusy, g.Busy, percent, index, g.UUID)
	known(o, gpuMemoryBusy, g.MemoryBusy, percent, index, g.UUID)
	known(o, gpuPower, g.Power, milliwatts, index, g.UUID)
	known(o, gpuPowerLimit, g.PowerLimit, milliwatts, index, g.UUID)
	known(o, gpuTemperature, g.Temperature, 1, index, g.UUID)
	if g.ECC != nil && g.ECC.Enabled {
		o.send(gpuECC, float64(g.ECC.Corrected), index, g.UUID, "corrected")
		o.send(gpuECC, float64(g.ECC.Uncorrected), index, g.UUID, "uncorrected")
	}
	for _, x := range g.XIDs {
		code := "other"
		if x.Code >= 0 {
			code = strconv.Itoa(x.Code)
		}
		o.send(gpuXIDs, float64(x.Times), index, g.UUID, code)
	}
}

// gpuUses sends what a sandbox takes of the GPUs that it was given.
func (o output) gpuUses(sandbox string, list []api.SandboxGPU) {
	for _, g := range list {
		index := strconv.Itoa(g.Index)
		known(o, boxGPUMemory, g.Memory, 1, sandbox, index, g.UUID)
		known(o, boxGPUBusy, g.Busy, percent, sandbox, index, g.UUID)
	}
}

// What the driver counts in, of what the metrics are in.
const (
	percent    = 100
	milliwatts = 1000
)

// known sends a figure that there is.
func known[N int | int64](o output, m *Metric, n *N, in float64, labels ...string) {
	if n != nil {
		o.send(m, float64(*n)/in, labels...)
	}
}
