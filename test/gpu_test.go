//go:build e2e

package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/test/fakenvml"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// A machine of harness.GPUHost has two whole GPUs and one in two parts, whose device nodes give ENXIO to who may open them: no driver is
// behind them. EPERM is the kernel's refusal.
const mayOpen = "ENXIO"

// gpus is a policy that gives GPUs, to the probe and to a program that computes.
func gpus(list string) string {
	return harness.Files + "process:\n  allow:\n    - {command: /workspace/probe}\n    - {command: /workspace/cuda}\ndevices: {gpus: [" + list + "]}\n"
}

// gpuBox is a box on a machine with a driver, with nemoclaw-gpu as the program that computes.
func gpuBox(t *testing.T, host *harness.GPUHost, policy string) harness.Box {
	t.Helper()
	ws := harness.W.NewWorkspace(t, t.TempDir())
	for dir := ws; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(filepath.Join(filepath.Dir(harness.W.Bin), "nemoclaw-gpu"))
	if err == nil {
		err = os.WriteFile(filepath.Join(ws, "cuda"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return harness.Box{Policy: policy, Workspace: ws, On: host}
}

// TestGPUGiven: a sandbox has the nodes of its GPU, what the driver needs beside it, and no other.
func TestGPUGiven(t *testing.T) {
	t.Parallel()
	host := harness.W.GPUHost(t)
	for _, c := range []struct {
		name, gives string
		nodes       []string // beside the controls
		uuids       string
		devices     []string // that CUDA finds
	}{
		{"by number", "1", []string{"nvidia1"}, fakenvml.Second, []string{"fake device of /dev/nvidia1"}},
		{"by UUID", fakenvml.First, []string{"nvidia0"}, fakenvml.First, []string{"fake device of /dev/nvidia0"}},
		{"two", "1, 0", []string{"nvidia0", "nvidia1"}, fakenvml.First + "," + fakenvml.Second, []string{"fake device of /dev/nvidia0", "fake device of /dev/nvidia1"}},
		{"a part", fakenvml.Part, []string{"nvidia2", "nvidia-caps/nvidia-cap66", "nvidia-caps/nvidia-cap67"}, fakenvml.Part, []string{"fake device of /dev/nvidia2"}},
		{"all", "all", []string{"nvidia0", "nvidia1", "nvidia2", "nvidia-caps/nvidia-cap66", "nvidia-caps/nvidia-cap67", "nvidia-caps/nvidia-cap75", "nvidia-caps/nvidia-cap76"},
			strings.Join([]string{fakenvml.First, fakenvml.Second, fakenvml.Part, fakenvml.Other}, ","), []string{"fake device of /dev/nvidia0", "fake device of /dev/nvidia1", "fake device of /dev/nvidia2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			box := gpuBox(t, host, gpus(c.gives))
			want := append([]string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"}, c.nodes...)
			attempts := []string{"ls /dev", "ls /dev/nvidia-caps", "env"}
			for _, n := range want {
				attempts = append(attempts, "open rw /dev/"+n)
			}
			r, out := harness.W.Probe(t, box, attempts...)
			names := strings.Fields(out[0].Out)
			for _, n := range strings.Fields(out[1].Out) {
				names = append(names, "nvidia-caps/"+n)
			}
			names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, "nvidia") || n == "nvidia-caps" })
			if slices.Sort(names); !slices.Equal(names, slices.Sorted(slices.Values(want))) {
				t.Errorf("the nodes are %q, want %q", names, want)
			}
			for _, o := range out[3:] {
				check(t, o, mayOpen)
			}
			for _, variable := range []string{"CUDA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES="} {
				if !slices.Contains(strings.Split(out[2].Out, "\n"), variable+c.uuids) {
					t.Errorf("the environment has no %s%s:\n%s", variable, c.uuids, out[2].Out)
				}
			}
			if found := r.Find("device", "deny", ""); len(found) > 0 {
				t.Errorf("refused: %+v", found)
			}
			r = harness.W.Run(t, box, "/workspace/cuda", "cuda")
			var computed []string
			for line := range strings.Lines(r.Out) {
				var p struct {
					Name  string `json:"name"`
					Bytes int64  `json:"bytes"`
				}
				if err := json.Unmarshal([]byte(line), &p); err != nil || p.Bytes != 1<<20 {
					t.Errorf("%q: %v", line, err)
				}
				computed = append(computed, p.Name)
			}
			if r.Code != 0 || !slices.Equal(computed, c.devices) {
				t.Errorf("CUDA computes on %q, want %q\n%s", computed, c.devices, r.Dump())
			}
			if r := harness.W.Run(t, box, "nvidia-smi", "-L"); r.Code != 0 || r.Out != "-L\n" { // it is echo here
				t.Errorf("nvidia-smi: %s", r.Dump())
			}
		})
	}
}

// TestNoGPUGiven: without the section there is nothing of the driver's in /dev, on a machine that has it all.
func TestNoGPUGiven(t *testing.T) {
	t.Parallel()
	box := gpuBox(t, harness.W.GPUHost(t), strings.Split(gpus("0"), "devices:")[0])
	_, out := harness.W.Probe(t, box, "ls /dev", "open rw /dev/nvidiactl", "open rw /dev/nvidia0", "env")
	if strings.Contains(out[0].Out, "nvidia") || strings.Contains(out[3].Out, "VISIBLE_DEVICES") {
		t.Errorf("%q\n%s", out[0].Out, out[3].Out)
	}
	check(t, out[1], "ENOENT")
	check(t, out[2], "ENOENT")
	r := harness.W.Run(t, box, "/workspace/cuda", "cuda")
	if r.Code == 0 || !strings.Contains(r.Err, "cuInit: CUDA_ERROR_OPERATING_SYSTEM (304)") {
		t.Errorf("CUDA: %s", r.Dump())
	}
	if r := harness.W.Run(t, box, "nvidia-smi"); r.Code != 126 {
		t.Errorf("nvidia-smi: %s", r.Dump())
	}
}

// TestGPUAttacks tries to get at a GPU that is another's. Natively each of these gets through.
func TestGPUAttacks(t *testing.T) {
	t.Parallel()
	host := harness.W.GPUHost(t)
	box := gpuBox(t, host, gpus("0"))
	// A node where the sandbox may write, as somebody on the host might leave one; and a server on the host that passes one as a descriptor.
	node := filepath.Join(box.Workspace, "node")
	if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(harness.GPUMajor, 1))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(node, 0o666); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(filepath.Dir(box.Workspace), "passing")
	passing(t, socket, node)
	box.Policy += "network: {unix: [" + socket + "]}\n"
	outside := fmt.Sprintf("/proc/%d/root", os.Getpid())
	attempts := []string{
		fmt.Sprintf("mknod-of /tmp/nvidia1 %d 1", harness.GPUMajor), fmt.Sprintf("mknod-of /workspace/nvidia1 %d 1", harness.GPUMajor),
		fmt.Sprintf("mknod-of /dev/nvidia1 %d 1", harness.GPUMajor),
		"open rw /workspace/node", "open rw " + outside + node, "passed " + socket, "open rw /dev/nvidia0",
	}
	t.Run("natively", func(t *testing.T) {
		native := t.TempDir()
		for i, do := range []string{
			fmt.Sprintf("mknod-of %s/nvidia1 %d 1", native, harness.GPUMajor), "open rw " + native + "/nvidia1", "open rw " + node, "open rw /dev/nvidia1", "open rw " + outside + node, "passed " + socket,
		} {
			want := mayOpen
			if i == 0 {
				want = ""
			}
			if o := host.Probe(t, do); o.Errno != want {
				t.Errorf("%q gave %q natively, want %q", do, o.Errno, want)
			}
		}
	})
	r, out := harness.W.Probe(t, box, attempts...)
	for i, want := range []string{"EACCES", "EACCES", "EROFS", "EACCES", "ENOENT", "EPERM", mayOpen} {
		check(t, out[i], want)
	}
	// What the mounts do not refuse the kernel's program does: it names the node and the rule.
	found := r.Find("device", "deny", "")
	if len(found) != 1 || found[0].Object != fmt.Sprintf("/dev/nvidia1 (c %d:1 rw)", harness.GPUMajor) || !strings.HasPrefix(found[0].Rule, r.PolicyFile()+":") ||
		found[0].Reason != "the policy gives GPU 0, and this is another's device node" {
		t.Errorf("%+v\n%s", found, r.Dump())
	}
}

// passing serves descriptors of a file that were opened for nothing (O_PATH).
func passing(t *testing.T, socket, file string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if fd, err := unix.Open(file, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
				_, _, _ = c.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil)
				unix.Close(fd)
			}
			c.Close()
		}
	}()
}

// TestGPURefused: a sandbox whose GPUs can't be given does not start, and it says which rule, why and what to do.
func TestGPURefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, policy string
		say          []string // by the driver; nil: what it is
		nowhere      bool     // no driver
		want         string
	}{
		{name: "no such number", policy: gpus("7"), want: "there is no GPU 7 on this host, which has 0 (" + fakenvml.First + "), 1 ("},
		{name: "no such UUID", policy: gpus("GPU-99999999-9999-9999-9999-999999999999"), want: "there is no GPU GPU-99999999-9999-9999-9999-999999999999 on this host"},
		{name: "no driver", policy: gpus("0"), nowhere: true, want: "there are no GPUs here: NVIDIA's driver is not loaded"},
		{name: "a driver that crashes", policy: gpus("0"), say: []string{"count crash"}, want: "the GPUs can't be looked at: the helper nemoclaw-gpu crashed"},
		{name: "a GPU without a node", policy: gpus("0"), say: []string{"gpu uuid=" + fakenvml.First + " minor=5"}, want: "the device node /dev/nvidia5: no such file or directory; nvidia-modprobe -c 0 -u makes the driver's nodes"},
		{name: "a lost GPU", policy: gpus("0"), say: []string{"gpu minor=0"}, want: "it does not answer: GPU is lost (15)"},
		{name: "no instance", policy: gpus("0"), say: []string{"gpu uuid=" + fakenvml.First + " minor=0 mig=1 maxmig=7"}, want: "GPU 0 is parted (MIG) and has no instance that could be used"},
		{name: "a rule for one command", policy: gpus("0") + "network:\n  allow:\n    - {domain: a.test, ports: [443], protocol: tcp, commands: [node]}\n", want: "one program could then change another, which this rule is for; take `commands` out"},
		{name: "no baseline", policy: strings.Replace(gpus("0"), "filesystem:\n", "filesystem:\n  baseline: none\n", 1), want: "without `baseline: system` there is no /dev for its nodes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			box := harness.Box{Policy: c.policy}
			if !c.nowhere {
				box.On = harness.W.GPUHost(t)
			}
			if c.say != nil {
				box.On.Say(t, c.say...)
			}
			r := harness.W.Run(t, box, "/workspace/probe", "env")
			if r.Code != 125 || !strings.Contains(r.Err, c.want) || !strings.Contains(r.Err, r.PolicyFile()+":") || c.name != "a rule for one command" && !strings.Contains(r.Err, "gpus: [") {
				t.Errorf("want %q with the rule\n%s", c.want, r.Dump())
			}
		})
	}
}

// TestGPUProc: with a GPU /proc can be written, since the driver names its threads there. What is not a process of the sandbox's own stays
// as it is, and so does the init.
func TestGPUProc(t *testing.T) {
	t.Parallel()
	_, out := harness.W.Probe(t, gpuBox(t, harness.W.GPUHost(t), gpus("0")),
		"put /proc/self/comm name", "open rw /proc/1/mem", "put /proc/1/comm x", "put /proc/sys/kernel/hostname x", "put /proc/sys/vm/memfd_noexec 0",
		"put /proc/self/oom_score_adj -1000", "ls-some /proc/pressure", "mkdir /proc/x", "chmod 777 /proc/self/comm", "put /sys/module/nvidia/initstate x")
	for i, want := range []string{"", "EACCES", "EACCES", "EACCES", "EACCES", "EACCES"} {
		check(t, out[i], want)
	}
	for _, o := range out[6:] {
		if o.Errno == "" {
			t.Errorf("%q worked: %q", o.Op, o.Out)
		}
	}
}

// TestDoctorGPU looks at machines with GPUs, and computes on each.
func TestDoctorGPU(t *testing.T) {
	t.Parallel()
	look := func(host *harness.GPUHost) (map[string]finding, error) {
		t.Helper()
		cmd := exec.Command(harness.W.Bin, "doctor", "--gpu", "-o", "json")
		if host != nil {
			host.Wrap(t, cmd)
		}
		out, err := cmd.Output()
		var r struct{ Findings []finding }
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		found := map[string]finding{}
		for _, f := range r.Findings {
			found[f.Check] = f
		}
		return found, err
	}
	wants := func(found map[string]finding, check, state, text string) {
		t.Helper()
		if f := found[check]; f.State != state || !strings.Contains(f.Found, text) || state != "ok" && (f.Why == "" || f.Remedy == "") {
			t.Errorf("%s: %+v, want %s: %s", check, f, state, text)
		}
	}
	t.Run("none", func(t *testing.T) {
		found, err := look(nil)
		if err != nil {
			t.Error(err)
		}
		wants(found, "driver", "ok", "none")
		wants(found, "inventory", "ok", "none: NVIDIA's driver is not loaded")
		wants(found, "cuda", "ok", "there are no GPUs")
	})
	host := harness.W.GPUHost(t)
	t.Run("all well", func(t *testing.T) {
		found, err := look(host)
		if err != nil {
			t.Error(err)
		}
		wants(found, "driver", "ok", fakenvml.Version)
		wants(found, "inventory", "ok", "driver "+fakenvml.Version+", CUDA 12.8: 0 NVIDIA H200 "+fakenvml.First+" 140.4 GiB; 1 ")
		wants(found, "health", "ok", "nothing is wrong")
		wants(found, "nodes", "ok", fmt.Sprintf("/dev/nvidia0 %d:0 0666", harness.GPUMajor))
		wants(found, "libraries", "ok", "libcuda.so.1, libnvidia-ml.so.1, in /usr/lib")
		wants(found, "tool", "ok", "/usr/local/sbin/nvidia-smi")
		wants(found, "cuda", "ok", "1 fake device of /dev/nvidia1: 1.0 MiB filled by it and read back")
	})
	t.Run("ill", func(t *testing.T) {
		host.Say(t, "gpu uuid="+fakenvml.First+" minor=9 ecc=1 uncorrected=2")
		found, err := look(host)
		if err == nil {
			t.Error("it ended with 0")
		}
		wants(found, "health", "failed", "0: 2 errors of its memory could not be corrected")
		wants(found, "nodes", "failed", "/dev/nvidia9")
		host.Say(t, "init 18")
		found, _ = look(host)
		wants(found, "inventory", "failed", "Driver/library version mismatch")
	})
}

// TestScriptTestGPU runs what `make test-gpu` runs on a real machine, so that it is known to work when there is one.
func TestScriptTestGPU(t *testing.T) {
	t.Parallel()
	host := harness.W.GPUHost(t)
	cmd := exec.Command("../scripts/test-gpu")
	host.Wrap(t, cmd)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // the driver knows who uses it; this one has to be told
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if pid := holder(); pid != "" {
				host.Say(t, fakenvml.Devices[0], "process pid="+pid+" used=536870912 sm=3")
				return
			}
		}
	}()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "# all passed") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// holder is the process of the script's sandbox that holds a GPU; "" when there is none.
func holder() string {
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, g := range groups {
		group, _ := os.ReadFile(g)
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(g), "cmdline"))
		if strings.Contains(string(group), "/nemoclaw-test-gpu-daemon") && strings.HasPrefix(string(line), "/workspace/cuda") {
			return filepath.Base(filepath.Dir(g))
		}
	}
	return ""
}
