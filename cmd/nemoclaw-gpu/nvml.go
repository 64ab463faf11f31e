//go:build cgo

package main

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
)

// driver is NVIDIA's management library. Its zero value is not loaded yet.
type driver struct {
	lib      nvml.Interface
	listener listener
}

// open loads the library, once. Where it can't, the answer says why.
func (d *driver) open() (a gpu.Answer, ok bool) {
	if d.lib != nil {
		return a, true
	}
	lib := nvml.New()
	switch r := lib.Init(); r {
	case nvml.SUCCESS:
		d.lib = lib
		return a, true
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return gpu.Answer{Absent: "the driver's library, libnvidia-ml.so.1, is not installed"}, false
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return gpu.Answer{Absent: "NVIDIA's driver is not loaded"}, false
	default:
		return gpu.Answer{Error: failure("nvmlInit", r)}, false
	}
}

// failure says what failed, and how.
func failure(what string, r nvml.Return) string {
	return fmt.Sprintf("%s: %s (%d)", what, r.Error(), int(r))
}

// has reports whether the driver's library has a function: calling one that it does not have would end this process.
func (d *driver) has(symbol string) bool { return d.lib.Extensions().LookupSymbol(symbol) == nil }

// look says what devices there are and what they do.
func (d *driver) look() gpu.Answer {
	a, ok := d.open()
	if !ok {
		return a
	}
	n, r := d.lib.DeviceGetCount()
	if r != nvml.SUCCESS {
		return gpu.Answer{Error: failure("nvmlDeviceGetCount", r)}
	}
	g := &api.GPUs{State: api.GPUsReady, GPUs: []api.GPU{}}
	g.Driver, _ = d.lib.SystemGetDriverVersion()
	if v, r := d.lib.SystemGetCudaDriverVersion(); r == nvml.SUCCESS {
		g.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	for i := range n {
		g.GPUs = append(g.GPUs, d.device(i))
	}
	return gpu.Answer{GPUs: g, XIDs: d.hear()}
}

// A device is one GPU and what is said of it.
type device struct {
	nvml.Device
	driver *driver
	api.GPU
}

// device describes one device. One that does not answer is in the list all the same, so that it is missed.
func (d *driver) device(index int) api.GPU {
	g := device{driver: d, GPU: api.GPU{Index: index, Minor: -1, Health: "ok"}}
	var r nvml.Return
	if g.Device, r = d.lib.DeviceGetHandleByIndex(index); r == nvml.SUCCESS {
		g.UUID, r = g.GetUUID()
	}
	if r != nvml.SUCCESS {
		g.problem("failed", failure("it does not answer", r))
		return g.GPU
	}
	g.identify()
	g.readMemory()
	g.readLoad()
	g.readHealth()
	g.readInstances()
	g.readProcesses()
	d.listen(&g)
	return g.GPU
}

// problem notes what is not as it should be. The worst that is found is the device's health.
func (g *device) problem(health, what string) {
	if g.Health != "failed" {
		g.Health = health
	}
	g.Problems = append(g.Problems, what)
}

// identify fills in what does not change. What the device does not know stays empty.
func (g *device) identify() {
	g.Name, _ = g.GetName()
	if minor, r := g.GetMinorNumber(); r == nvml.SUCCESS {
		g.Minor = minor
	}
	if pci, r := g.GetPciInfo(); r == nvml.SUCCESS {
		g.Bus = fmt.Sprintf("%08x:%02x:%02x.0", pci.Domain, pci.Bus, pci.Device)
	}
	if major, minor, r := g.GetCudaComputeCapability(); r == nvml.SUCCESS {
		g.Capability = fmt.Sprintf("%d.%d", major, minor)
	}
}

// readMemory reads how much memory there is and is used. A device that has none of its own (GB10 and others that share the host's)
// does not support the question; what the host has is the answer then.
func (g *device) readMemory() {
	switch m, r := g.GetMemoryInfo(); r {
	case nvml.SUCCESS:
		g.Memory = api.GPUMemory{Total: int64(m.Total), Used: int64(m.Used)}
	case nvml.ERROR_NOT_SUPPORTED:
		g.Memory = hostMemory()
	}
}

// readLoad reads what it does at the moment.
func (g *device) readLoad() {
	if u, r := g.GetUtilizationRates(); r == nvml.SUCCESS {
		g.Busy, g.MemoryBusy = pointer(int(u.Gpu)), pointer(int(u.Memory))
	}
	if mw, r := g.GetPowerUsage(); r == nvml.SUCCESS {
		g.Power = pointer(int64(mw))
	}
	if mw, r := g.GetEnforcedPowerLimit(); r == nvml.SUCCESS {
		g.PowerLimit = pointer(int64(mw))
	}
	if celsius, r := g.GetTemperature(nvml.TEMPERATURE_GPU); r == nvml.SUCCESS {
		g.Temperature = pointer(int(celsius))
	}
}

func pointer[T any](v T) *T { return &v }

// slowdowns are what a device clocks down for that a person should know of, by bits of nvmlClocksEventReasons.
var slowdowns = []struct {
	bit uint64
	why string
}{
	{nvml.ClocksThrottleReasonHwThermalSlowdown | nvml.ClocksThrottleReasonSwThermalSlowdown, "it is slowed down because it is too hot"},
	{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "it is slowed down by the power supply"},
}

// readHealth reads what is wrong with it.
func (g *device) readHealth() {
	if now, _, r := g.GetEccMode(); r == nvml.SUCCESS {
		g.ECC = &api.GPUECC{Enabled: now == nvml.FEATURE_ENABLED}
		corrected, _ := g.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
		uncorrected, _ := g.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
		g.ECC.Corrected, g.ECC.Uncorrected = int64(corrected), int64(uncorrected)
		if uncorrected > 0 {
			g.problem("failed", fmt.Sprintf("%d errors of its memory could not be corrected since the driver was loaded", uncorrected))
		}
	}
	if g.driver.has("nvmlDeviceGetRemappedRows") {
		if _, _, pending, failed, r := g.GetRemappedRows(); r == nvml.SUCCESS && failed {
			g.problem("failed", "a bad row of its memory could not be replaced")
		} else if r == nvml.SUCCESS && pending {
			g.problem("warning", "a bad row of its memory is replaced when it is reset")
		}
	}
	if pending, r := g.GetRetiredPagesPendingStatus(); r == nvml.SUCCESS && pending == nvml.FEATURE_ENABLED {
		g.problem("warning", "bad pages of its memory are retired when it is reset")
	}
	if reasons, r := g.GetCurrentClocksThrottleReasons(); r == nvml.SUCCESS {
		for _, s := range slowdowns {
			if reasons&s.bit != 0 {
				g.problem("warning", s.why)
			}
		}
	}
}

// readInstances lists the parts of a device that is parted.
func (g *device) readInstances() {
	if !g.driver.has("nvmlDeviceGetMigMode") {
		return
	}
	mode, _, r := g.GetMigMode()
	if g.MIG = r == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE; !g.MIG {
		return
	}
	most, r := g.GetMaxMigDeviceCount()
	if r != nvml.SUCCESS {
		g.problem("warning", failure("its instances can't be listed", r))
		return
	}
	for i := range most {
		part, r := g.GetMigDeviceHandleByIndex(i)
		if r != nvml.SUCCESS {
			continue // there is none of this number
		}
		var in api.GPUInstance
		if in.UUID, r = part.GetUUID(); r == nvml.SUCCESS {
			in.GPUInstance, r = part.GetGpuInstanceId()
		}
		if r == nvml.SUCCESS {
			in.ComputeInstance, r = part.GetComputeInstanceId()
		}
		if r != nvml.SUCCESS {
			g.problem("warning", failure(fmt.Sprintf("its instance %d does not answer", i), r))
			continue
		}
		in.Name, _ = part.GetName()
		if m, r := part.GetMemoryInfo(); r == nvml.SUCCESS {
			in.Memory = api.GPUMemory{Total: int64(m.Total), Used: int64(m.Used)}
		}
		g.Instances = append(g.Instances, in)
	}
}
