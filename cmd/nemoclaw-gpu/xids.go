//go:build cgo

package main

import (
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
)

// maxHeard is how many errors are taken at one look; the driver keeps the rest for the next.
const maxHeard = 1000

// hearTime is how long one event is waited for, in milliseconds: the driver keeps those that came.
const hearTime = 1

// listener hears of the errors that the driver reports (XID). A library, or a device, that reports none is left alone.
type listener struct {
	set    nvml.EventSet // nil: none was made yet, or none can be
	failed bool
	asked  map[string]bool         // devices, by UUID
	heard  map[nvml.Device]gpu.XID // which device an event is of: one that is lost does not tell any more
}

// listen has the driver tell of a device's errors from now on.
func (d *driver) listen(g *device) {
	l := &d.listener
	if l.failed || l.asked[g.UUID] {
		return
	}
	if l.set == nil {
		if !d.has("nvmlEventSetCreate") || !d.has("nvmlDeviceRegisterEvents") || !d.has("nvmlEventSetWait_v2") {
			l.failed = true
			return
		}
		set, r := d.lib.EventSetCreate()
		if r != nvml.SUCCESS {
			l.failed = true
			return
		}
		l.set, l.asked, l.heard = set, map[string]bool{}, map[nvml.Device]gpu.XID{}
	}
	l.asked[g.UUID] = true
	switch r := g.RegisterEvents(nvml.EventTypeXidCriticalError, l.set); r {
	case nvml.SUCCESS:
		l.heard[g.Device] = gpu.XID{Index: g.Index, UUID: g.UUID}
	case nvml.ERROR_UNKNOWN: // the set can't be used any more
		_ = d.lib.EventSetFree(l.set) // nothing could be done about it
		*l = listener{failed: true}
	}
}

// hear takes the errors that were reported since the last time.
func (d *driver) hear() (list []gpu.XID) {
	l := &d.listener
	if len(l.heard) == 0 {
		return nil
	}
	for range maxHeard {
		e, r := l.set.Wait(hearTime)
		if r != nvml.SUCCESS {
			break // there are no more, or the driver can't tell
		}
		x, known := l.heard[e.Device]
		if !known || e.EventType != nvml.EventTypeXidCriticalError {
			continue
		}
		x.Code = e.EventData
		if i := slices.IndexFunc(list, func(o gpu.XID) bool { return o.UUID == x.UUID && o.Code == x.Code }); i >= 0 {
			list[i].Times++
			continue
		}
		x.Times = 1
		list = append(list, x)
	}
	return list
}
