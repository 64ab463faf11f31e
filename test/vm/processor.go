package vm

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/test/vm/wire"
	"golang.org/x/sys/unix"
)

var underKVM = []string{"-accel", "kvm", "-cpu", "host", "-smp", "2"}

// processor is what runs the machine's instructions, as QEMU's arguments.
func (o Options) processor() []string {
	cpu, thread := boards[o.Arch].cpu, "multi"
	if o.Arch == "amd64" {
		// A kernel patches its code while BPF programs come and go. With a thread for each processor, QEMU has run a breakpoint that
		// another processor had already taken away ("Oops: int3").
		thread = "single"
		if o.Kernel != "newest" { // whose allocations for BPF need cmpxchg16b (kmalloc_nolock)
			// QEMU's cmpxchg16b can leave the flags register in disorder, which has crashed guests in the kernel's allocator.
			cpu += ",-cx16"
		}
	}
	switch {
	case o.CountInstructions:
		// Each instruction takes a nanosecond, and time in which nothing runs is not waited for.
		return []string{"-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", cpu, "-smp", "1"}
	case o.Arch == runtime.GOARCH && kvmWorks():
		return underKVM
	}
	return []string{"-accel", "tcg,thread=" + thread, "-cpu", cpu, "-smp", "2"}
}

// probeLimit is how long the first machine under KVM may take; one that works is up in a second or two.
const probeLimit = 5 * time.Second

// kvmWorks says whether a machine has come up under KVM. That there is a device says little: under another hypervisor a machine may
// hang. One that has failed is not tried again until the host has been booted.
var kvmWorks = sync.OnceValue(func() bool {
	if unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) != nil {
		return false
	}
	dir, err := images()
	if err != nil {
		return false
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false
	}
	failed := filepath.Join(dir, "kvm-failed")
	if last, err := os.ReadFile(failed); err == nil && bytes.Equal(last, boot) {
		return false
	}
	if err := bootUnderKVM(); err != nil {
		fmt.Fprintln(os.Stderr, "machines run without KVM:", err)
		_ = os.WriteFile(failed, boot, 0o644) // or the next process tries again
		return false
	}
	return true
})

func bootUnderKVM() error {
	var m Machine
	if err := m.prepare(Options{Arch: runtime.GOARCH, Light: true}); err != nil {
		return err
	}
	defer m.disk.Close()
	defer m.initrd.Close()
	q, err := startQEMU(m.opts, underKVM, m.images, m.disk, m.initrd, &m.log)
	if err != nil {
		return err
	}
	defer q.stop()
	if err := q.port.SetDeadline(time.Now().Add(probeLimit)); err != nil {
		return err
	}
	var hello wire.Hello
	if err := gob.NewDecoder(q.port).Decode(&hello); err != nil {
		return fmt.Errorf("one did not come up within %s: %w %s", probeLimit, err, q.stderr.String())
	}
	return nil
}
