package api

import (
	"context"
	"time"
)

// GPUState is how it stands with the GPUs of a host.
type GPUState string

// The states. That there is nothing to use is as good as any: Reason says what is not there.
const (
	GPUsAbsent GPUState = "absent" // no driver, no library of it, or no helper that asks it
	GPUsReady  GPUState = "ready"
	GPUsBroken GPUState = "broken" // there is a driver, and it can't be asked
)

// GPUs is what NVIDIA's driver says of a host. Of what it does not know of a device, a figure is left out.
type GPUs struct {
	State  GPUState `json:"state"`
	Reason string   `json:"reason,omitempty"` // of what is not ready
	Driver string   `json:"driver,omitempty"` // its version
	CUDA   string   `json:"cuda,omitempty"`   // the newest version of CUDA that it knows
	GPUs   []GPU    `json:"gpus"`
}

// GPU is one device.
type GPU struct {
	Index      int       `json:"index"` // as nvidia-smi counts
	UUID       string    `json:"uuid"`
	Name       string    `json:"name"`
	Bus        string    `json:"bus,omitempty"` // its PCI address
	Minor      int       `json:"minor"`         // of /dev/nvidiaN; -1: not known
	Capability string    `json:"compute_capability,omitempty"`
	Memory     GPUMemory `json:"memory"`

	Busy        *int    `json:"utilisation_percent,omitempty"`        // of its processors, lately
	MemoryBusy  *int    `json:"memory_utilisation_percent,omitempty"` // of its memory's bandwidth
	Power       *int64  `json:"power_milliwatts,omitempty"`
	PowerLimit  *int64  `json:"power_limit_milliwatts,omitempty"`
	Temperature *int    `json:"temperature_celsius,omitempty"`
	ECC         *GPUECC `json:"ecc,omitempty"`

	Health   string   `json:"health"`             // "ok", "warning" or "failed"
	Problems []string `json:"problems,omitempty"` // why it is not ok
	XIDs     []GPUXID `json:"xid_errors,omitempty"`

	MIG       bool          `json:"mig"` // it is parted into instances
	Instances []GPUInstance `json:"instances,omitempty"`
	Processes []GPUProcess  `json:"processes,omitempty"`
}

// GPUMemory is a device's memory. Total is 0 where nobody knows it.
type GPUMemory struct {
	Total   int64 `json:"total_bytes"`
	Used    int64 `json:"used_bytes"`
	Unified bool  `json:"unified,omitempty"` // it has none of its own: the figures are those of the host's memory
}

// GPUECC counts the errors of a device's memory since its driver was loaded.
type GPUECC struct {
	Enabled     bool  `json:"enabled"`
	Corrected   int64 `json:"corrected"`
	Uncorrected int64 `json:"uncorrected"`
}

// GPUXID is an error that the driver reported of a device, by NVIDIA's number for its kind. An XID that ended the helper that asks the
// driver, or came while none ran, is not counted.
type GPUXID struct {
	Code  int    `json:"code"`  // -1: kinds beyond the first 32
	Times uint64 `json:"times"` // since the daemon was started
}

// GPUInstance is a part of a device (MIG).
type GPUInstance struct {
	UUID            string    `json:"uuid"`
	Name            string    `json:"name,omitempty"`
	GPUInstance     int       `json:"gpu_instance"`
	ComputeInstance int       `json:"compute_instance"`
	Memory          GPUMemory `json:"memory"`
}

// GPUProcess is a process that uses a device.
type GPUProcess struct {
	PID      int    `json:"pid"`
	Sandbox  string `json:"sandbox,omitempty"`             // "": one of the host's
	Graphics bool   `json:"graphics,omitempty"`            // it draws; else it computes
	Instance string `json:"instance,omitempty"`            // UUID of the part that it uses
	Memory   *int64 `json:"memory_bytes,omitempty"`        // of the device
	Busy     *int   `json:"utilisation_percent,omitempty"` // of its processors, lately
}

// SandboxGPU is a GPU that a sandbox has, or an instance of one.
type SandboxGPU struct {
	Index int    `json:"index"` // of the GPU, when the sandbox was started
	UUID  string `json:"uuid"`
	Name  string `json:"name,omitempty"`
	GPUUse
	Time *GPUTime `json:"time,omitempty"` // what it had of it since the last record of that in the audit log
}

// GPUTime is what a sandbox had of a GPU, or of an instance of one, between two moments. The audit log adds it up, in records that the
// daemon makes each quarter of an hour and when the sandbox ends.
type GPUTime struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Given    int64     `json:"given_ns"`                   // it ran, and had it
	Measured int64     `json:"measured_ns"`                // of that, the driver said how busy it was
	Busy     int64     `json:"busy_ns"`                    // of that, its processes had the processors work: two hours of half of them are one
	Memory   *int64    `json:"max_memory_bytes,omitempty"` // the most that was seen; left out: the driver never said
}

// GPUUse is what a sandbox takes of a GPU now. What the driver does not know is left out.
type GPUUse struct {
	Memory *int64 `json:"memory_bytes,omitempty"`
	Busy   *int   `json:"utilisation_percent,omitempty"` // of a GPU's processors: of two that it uses fully, 200
}

// CUDAProof is what came of a try to compute: memory of a device was taken, filled by the device, and read back.
type CUDAProof struct {
	Index    int    `json:"index"` // as CUDA counts the devices that it sees
	UUID     string `json:"uuid,omitempty"`
	Name     string `json:"name,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"` // that were as they should be
	Duration int64  `json:"duration_ns,omitempty"`
	Error    string `json:"error,omitempty"` // what failed, and how; "": nothing did
}

// GPUs says which GPUs the host has, and who uses them.
func (c *Client) GPUs(ctx context.Context) (GPUs, error) { return get[GPUs](ctx, c, "gpus") }
