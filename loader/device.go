package loader

import (
	"fmt"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// DeviceType is block or character.
type DeviceType uint32

// The types of devices, as the kernel numbers them for BPF.
const (
	BlockDevice DeviceType = 1
	CharDevice  DeviceType = 2
)

// DeviceAccess is a set of what may be done to a device.
type DeviceAccess uint32

// The accesses, as the kernel numbers them for BPF.
const (
	DeviceMknod DeviceAccess = 1 << iota
	DeviceRead
	DeviceWrite
)

// AnyMinor as a minor number stands for all devices of the major number.
const AnyMinor = 0xffffffff

// Device is a device, and what may be done to it or was tried.
type Device struct {
	Type         DeviceType
	Major, Minor uint32
	Access       DeviceAccess
}

// String returns the device as `c 1:3 rw` would be written for a device cgroup.
func (d Device) String() string {
	s := "c"
	if d.Type == BlockDevice {
		s = "b"
	}
	s += fmt.Sprintf(" %d:", d.Major)
	if d.Minor == AnyMinor {
		s += "* "
	} else {
		s += fmt.Sprintf("%d ", d.Minor)
	}
	for _, a := range []struct {
		bit  DeviceAccess
		name string
	}{{DeviceRead, "r"}, {DeviceWrite, "w"}, {DeviceMknod, "m"}} {
		if d.Access&a.bit != 0 {
			s += a.name
		}
	}
	return s
}

// DefaultDevices returns what every sandbox may open: null, zero, full, random, urandom, tty, ptmx and all
// pseudo-terminals.
func DefaultDevices() []Device {
	const rw = DeviceRead | DeviceWrite
	devices := []Device{{CharDevice, 5, 0, rw}, {CharDevice, 5, 2, rw}}
	for _, minor := range []uint32{3, 5, 7, 8, 9} {
		devices = append(devices, Device{CharDevice, 1, minor, rw})
	}
	for major := uint32(136); major <= 143; major++ {
		devices = append(devices, Device{CharDevice, major, AnyMinor, rw})
	}
	return devices
}

// Devices replaces what devices the sandbox may open. Descriptors that are open stay so.
func (g *Guard) Devices(allow []Device) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	return g.setDevices(allow)
}

func (g *Guard) setDevices(allow []Device) error {
	wanted := make(map[bpf.GateDeviceKey]uint32, len(allow))
	for _, d := range allow {
		key := bpf.GateDeviceKey{Cgid: g.cgid, Type: uint32(d.Type), Major: d.Major, Minor: d.Minor}
		wanted[key] |= uint32(d.Access)
	}
	for key := range g.devices {
		if _, ok := wanted[key]; !ok {
			if err := remove(g.l.maps.devices, key); err != nil {
				return err
			}
			delete(g.devices, key)
		}
	}
	for key := range wanted {
		g.devices[key] = struct{}{}
	}
	if err := putAll(g.l.maps.devices, wanted); err != nil {
		return putError("the devices that may be opened", err)
	}
	return nil
}
