//go:build cgo

package main

import (
	"bufio"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/nemoclaw/nemoclaw/api"
)

// lately is how far back the load of a process is looked at. The driver takes a sample about once a second.
const lately = 3 * time.Second

// readProcesses lists who uses a device, with what the driver knows of their share.
func (g *device) readProcesses() {
	busy := g.loads()
	for _, of := range []struct {
		list     func() ([]nvml.ProcessInfo, nvml.Return)
		graphics bool
	}{{g.GetComputeRunningProcesses, false}, {g.GetGraphicsRunningProcesses, true}} {
		list, r := of.list()
		if r != nvml.SUCCESS {
			continue
		}
		for _, info := range list {
			p := api.GPUProcess{PID: int(info.Pid), Graphics: of.graphics, Instance: g.instance(info)}
			if info.UsedGpuMemory <= math.MaxInt64 { // NVML_VALUE_NOT_AVAILABLE is all ones
				p.Memory = pointer(int64(info.UsedGpuMemory))
			}
			if busy != nil {
				p.Busy = pointer(busy[info.Pid])
			}
			g.Processes = append(g.Processes, p)
		}
	}
}

// instance is the UUID of the part of a device that a process uses; "" when it is the whole.
func (g *device) instance(info nvml.ProcessInfo) string {
	for _, in := range g.Instances {
		if uint32(in.GPUInstance) == info.GpuInstanceId && uint32(in.ComputeInstance) == info.ComputeInstanceId {
			return in.UUID
		}
	}
	return ""
}

// loads is how busy each process has kept the device lately, in percent; nil when the driver can't say. A process without a sample
// did nothing.
func (g *device) loads() map[uint32]int {
	samples, r := g.GetProcessUtilization(uint64(time.Now().Add(-lately).UnixMicro()))
	if r != nvml.SUCCESS && r != nvml.ERROR_NOT_FOUND {
		return nil
	}
	latest, busy := map[uint32]uint64{}, map[uint32]int{}
	for _, s := range samples {
		if s.TimeStamp >= latest[s.Pid] && s.SmUtil <= 100 {
			latest[s.Pid], busy[s.Pid] = s.TimeStamp, int(s.SmUtil)
		}
	}
	return busy
}

// hostMemory is what the host has, for a device that shares it.
func hostMemory() (m api.GPUMemory) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return m
	}
	defer f.Close()
	m.Unified = true
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "MemTotal":
			m.Total = kib << 10
		case "MemAvailable":
			m.Used = m.Total - kib<<10
		}
	}
	return m
}
