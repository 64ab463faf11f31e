//go:build vm

package vm

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/fakenvml"
)

// gpus gives a GPU at level full, of a driver that package fakenvml plays: CUDA finds what it needs, no other GPU, and a rule for one
// command holds all the same, since no process gets at the memory of another.
func gpus(t *testing.T, m *Machine) {
	dir := t.TempDir()
	if err := fakenvml.Build(dir, "/srv/gpu"); err != nil {
		t.Fatal(err)
	}
	m.Must("mkdir -p /srv/work /srv/gpu/driver/nvidia /srv/gpu/module/nvidia; touch /etc/resolv.conf")
	for _, lib := range []string{"libcuda.so", "libnvidia-ml.so"} {
		m.Copy(filepath.Join(dir, lib+"."+fakenvml.Version), "/usr/lib/x86_64-linux-gnu/"+lib+"."+fakenvml.Version)
		m.Must("ln -sf " + lib + "." + fakenvml.Version + " /usr/lib/x86_64-linux-gnu/" + lib + ".1")
	}
	m.Copy(filepath.Join(filepath.Dir(nemoclaw(t)), "nemoclaw-gpu"), "/usr/local/bin/nemoclaw-gpu")
	m.Must(`cat >/srv/gpu/fake.conf <<'EOF'
` + strings.Join(fakenvml.Devices, "\n") + `
EOF
		echo live >/srv/gpu/module/nvidia/initstate; echo "NVRM version: ` + fakenvml.Version + `" >/srv/gpu/driver/nvidia/version
		mount --bind /srv/gpu/driver /proc/driver; mount --bind /srv/gpu/module /sys/module
		umask 0; for n in "0 240 0" "1 240 1" "2 240 2" "ctl 240 255" "-uvm 241 0" "-uvm-tools 241 1"; do set -- $n; mknod /dev/nvidia$1 c $2 $3; done; umask 022
		cp /usr/local/bin/nemoclaw-gpu /srv/work/cuda
		cat >/srv/gpu.yaml <<'EOF'
enforcement: full
devices: {gpus: [0]}
network:
  allow:
    - {domain: one.test, ports: [443], protocol: tcp, commands: [cat]}
filesystem:
  allow: [{path: /workspace, permissions: [read, write]}]
process:
  allow: [{command: python3}, {command: cat}, {command: /workspace/cuda}]
EOF
		cat >/srv/work/try.py <<'EOF'
import os, subprocess
other = subprocess.Popen(['cat'], stdin=subprocess.PIPE)
for at in '/dev/nvidia0', '/dev/nvidia1', '/proc/self/comm', '/proc/%d/mem' % other.pid, '/proc/1/mem', '/proc/sys/kernel/hostname', '/proc/sys/vm/memfd_noexec', '/sys/module/nvidia/initstate':
    try:
        os.close(os.open(at, os.O_RDWR))
        said = 'done'
    except OSError as e:
        said = e.strerror
    print(at.replace(str(other.pid), 'OTHER'), said, flush=True)
print(sorted(n for n in os.listdir('/dev') if 'nvidia' in n), open('/sys/module/nvidia/initstate').read().strip())
other.communicate()
EOF`)
	defer m.Must("umount /proc/driver /sys/module; rm -f /dev/nvidia* /usr/lib/x86_64-linux-gnu/libcuda.so* /usr/lib/x86_64-linux-gnu/libnvidia-ml.so*")
	run := "cd /srv/work && nemoclaw run --policy ../gpu.yaml -- "
	if stdout, stderr, status := m.Run(run + "/workspace/cuda cuda </dev/null"); status != 0 || strings.Count(stdout, "\n") != 1 || !strings.Contains(stdout, `"name":"fake device of /dev/nvidia0","bytes":1048576`) {
		t.Errorf("CUDA: status %d\n%s\n%s", status, stdout, stderr)
	}
	stdout, stderr, status := m.Run(run + "python3 try.py")
	want := `/dev/nvidia0 No such device or address
/dev/nvidia1 No such file or directory
/proc/self/comm done
/proc/OTHER/mem Permission denied
/proc/1/mem Permission denied
/proc/sys/kernel/hostname Permission denied
/proc/sys/vm/memfd_noexec Permission denied
/sys/module/nvidia/initstate Permission denied
['nvidia-uvm', 'nvidia-uvm-tools', 'nvidia0', 'nvidiactl'] live
`
	if status != 0 || stdout != want {
		t.Errorf("status %d\n%s\nwant\n%s\n%s", status, stdout, want, stderr)
	}
}
