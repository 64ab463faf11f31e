package harness

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/test/fakenvml"
)

// GPUHost is a machine with NVIDIA's driver, as far as programs see it that are started by Wrap: package fakenvml's libraries where the
// driver's are, and device nodes in /dev. The nodes are of numbers that no driver has, so whoever the kernel lets through gets ENXIO, and
// whoever it does not EPERM.
type GPUHost struct {
	dir  string
	wrap []string
}

// The major numbers of the nodes: for local use, by Documentation/admin-guide/devices.txt.
const (
	GPUMajor  = 240
	UVMMajor  = 241
	CapsMajor = 242
)

// GPUHost makes one with the devices of fakenvml.Devices.
func (w *World) GPUHost(t T) *GPUHost {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "gpuhost-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &GPUHost{dir: dir}
	for _, d := range []string{"dev/pts", "dev/shm", "dev/nvidia-caps", "driver/nvidia", "module/nvidia", "lib", "sbin"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, number := range map[string]uint64{
		"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "full": unix.Mkdev(1, 7), "random": unix.Mkdev(1, 8), "urandom": unix.Mkdev(1, 9),
		"tty": unix.Mkdev(5, 0), "ptmx": unix.Mkdev(5, 2),
		"nvidia0": unix.Mkdev(GPUMajor, 0), "nvidia1": unix.Mkdev(GPUMajor, 1), "nvidia2": unix.Mkdev(GPUMajor, 2), "nvidiactl": unix.Mkdev(GPUMajor, 255), "nvidia-modeset": unix.Mkdev(GPUMajor, 254),
		"nvidia-uvm": unix.Mkdev(UVMMajor, 0), "nvidia-uvm-tools": unix.Mkdev(UVMMajor, 1),
		"nvidia-caps/nvidia-cap1": unix.Mkdev(CapsMajor, 1), "nvidia-caps/nvidia-cap66": unix.Mkdev(CapsMajor, 66), "nvidia-caps/nvidia-cap67": unix.Mkdev(CapsMajor, 67),
		"nvidia-caps/nvidia-cap75": unix.Mkdev(CapsMajor, 75), "nvidia-caps/nvidia-cap76": unix.Mkdev(CapsMajor, 76),
	} {
		at := filepath.Join(dir, "dev", name)
		if err := unix.Mknod(at, unix.S_IFCHR|0o666, int(number)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(at, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"version":                              "NVRM version: NVIDIA UNIX x86_64 Kernel Module  " + fakenvml.Version + "\n",
		"capabilities/gpu2/mig/gi7/access":     "DeviceFileMinor: 66\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
		"capabilities/gpu2/mig/gi7/ci0/access": "DeviceFileMinor: 67\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
		"capabilities/gpu2/mig/gi8/access":     "DeviceFileMinor: 75\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
		"capabilities/gpu2/mig/gi8/ci0/access": "DeviceFileMinor: 76\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
	} {
		at := filepath.Join(dir, "driver/nvidia", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "module/nvidia/initstate"), []byte("live\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := fakenvml.Build(filepath.Join(dir, "lib"), dir); err != nil {
		t.Fatal(err)
	}
	echo, err := os.ReadFile("/bin/echo")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "sbin/nvidia-smi"), echo, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	triplet, err := exec.Command("cc", "-print-multiarch").Output()
	if err != nil {
		t.Fatal(err)
	}
	libs := "/usr/lib/" + strings.TrimSpace(string(triplet))
	script := `set -e
mount --rbind /dev/pts "$0/dev/pts"
mount --rbind /dev/shm "$0/dev/shm"
mount --rbind "$0/dev" /dev
mount --bind "$0/driver" /proc/driver
mount --bind "$0/sbin" /usr/local/sbin
mount --bind "$0/module" /sys/module
mount -t overlay -o "ro,lowerdir=$0/lib:` + libs + `" none ` + libs + `
exec "$@"`
	h.wrap = []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, dir}
	h.Say(t, fakenvml.Devices...)
	return h
}

// Say makes the driver say these lines from its next answer on.
func (h *GPUHost) Say(t T, lines ...string) {
	t.Helper()
	if err := fakenvml.Say(h.dir, lines...); err != nil {
		t.Fatal(err)
	}
}

// Lose takes a node out of its /dev.
func (h *GPUHost) Lose(t T, node string) {
	t.Helper()
	if err := os.Remove(filepath.Join(h.dir, "dev", node)); err != nil {
		t.Fatal(err)
	}
}

// Wrap makes a command, which has not been started, one of this machine.
func (h *GPUHost) Wrap(t T, cmd *exec.Cmd) {
	t.Helper()
	path, err := exec.LookPath(h.wrap[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(append(h.wrap[:len(h.wrap):len(h.wrap)], cmd.Path), cmd.Args[1:]...)
	cmd.Path = path
}

// Probe makes an attempt natively on this machine, as root.
func (h *GPUHost) Probe(t T, attempt string) Outcome {
	t.Helper()
	cmd := exec.Command(W.ProbeBin, attempt)
	h.Wrap(t, cmd)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the probe: %v", err)
	}
	var o Outcome
	if err := json.Unmarshal(out, &o); err != nil {
		t.Fatalf("the probe printed %q: %v", out, err)
	}
	return o
}
