// Package fakenvml builds what stands for NVIDIA's libraries in tests: a libnvidia-ml.so.1 that says what a file says, and a
// libcuda.so.1 that computes on the host with the device nodes that it can open. A C compiler is needed.
package fakenvml

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Version is the driver's.
const Version = "570.124.06"

// The UUIDs of the devices and the part in Devices.
const (
	First  = "GPU-10101010-1010-1010-1010-101010101010"
	Second = "GPU-20202020-2020-2020-2020-202020202020"
	Third  = "GPU-30303030-3030-3030-3030-303030303030"
	Part   = "MIG-31313131-3131-3131-3131-313131313131"
	Other  = "MIG-32323232-3232-3232-3232-323232323232"
)

// Devices is a host of two whole devices and one in two parts, for Say. A line `process` belongs to the device before it.
var Devices = []string{
	"gpu uuid=" + First + " name=NVIDIA_H200 minor=0 total=150754820096 used=1073741824 busy=37 membusy=12 power=120500 limit=700000 temp=41 ecc=1 corrected=0 uncorrected=0 remapfail=0 hot=0 mig=0 events=1",
	"gpu uuid=" + Second + " name=NVIDIA_H200 minor=1 total=150754820096 used=0 busy=0 membusy=0 power=75000 limit=700000 temp=33 ecc=1 corrected=2 uncorrected=0 remapfail=0 hot=0 mig=0 events=1",
	"gpu uuid=" + Third + " name=NVIDIA_H200 minor=2 total=150754820096 used=0 power=80000 limit=700000 temp=35 ecc=1 corrected=0 uncorrected=0 remapfail=0 hot=0 mig=1 maxmig=7",
	"mig uuid=" + Part + " name=NVIDIA_H200_MIG_1g.18gb gi=7 ci=0 total=18790481920 used=0",
	"mig uuid=" + Other + " name=NVIDIA_H200_MIG_1g.18gb gi=8 ci=0 total=18790481920 used=0",
}

// Build compiles the libraries into a directory. What they say is in the directory conf: Say.
func Build(dir, conf string) error {
	_, here, _, _ := runtime.Caller(0)
	header := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml")
	header.Dir = filepath.Dir(here)
	module, err := header.Output()
	if err != nil {
		return fmt.Errorf("finding nvml.h: %w", err)
	}
	for source, library := range map[string]string{"nvml.c": "libnvidia-ml.so", "cuda.c": "libcuda.so"} {
		cc := exec.Command("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-DNVML_NO_UNVERSIONED_FUNC_DEFS", `-DFAKE_VERSION="`+Version+`"`, `-DFAKE_CONF="`+filepath.Join(conf, file)+`"`,
			"-I", filepath.Join(strings.TrimSpace(string(module)), "pkg", "nvml"), "-o", filepath.Join(dir, library+"."+Version), filepath.Join(filepath.Dir(here), "src", source))
		if out, err := cc.CombinedOutput(); err != nil {
			return fmt.Errorf("compiling %s: %w\n%s", source, err, out)
		}
		if err := os.Symlink(library+"."+Version, filepath.Join(dir, library+".1")); err != nil {
			return err
		}
	}
	return nil
}

const file = "fake.conf"

// Say makes the library whose conf is a directory say these lines from its next answer on: nvml.c says what they are.
func Say(conf string, lines ...string) error {
	at := filepath.Join(conf, file)
	if err := os.WriteFile(at+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(at+".new", at)
}
