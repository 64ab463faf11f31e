//go:build vm

package vm

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// nemoclaw is the static binary that is tested; `make test-vm` names it.
func nemoclaw(t *testing.T) string {
	t.Helper()
	path := os.Getenv("NEMOCLAW")
	if path == "" {
		t.Fatal("NEMOCLAW must name the binary to test: use `make test-vm`")
	}
	return path
}

// TestBoot: a machine is what other tests take it for, with each kernel, and is the same one after a reboot and after a power cut.
func TestBoot(t *testing.T) {
	t.Parallel()
	for _, kernel := range Kernels {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			m := Start(t, Options{Kernel: kernel})
			if !strings.HasPrefix(m.Kernel, kernel+".") {
				t.Errorf("kernel %s runs", m.Kernel)
			}
			if pid1 := m.Must("readlink /proc/1/exe"); !strings.HasSuffix(pid1, "/systemd\n") {
				t.Errorf("PID 1 is %s", pid1)
			}
			modules := strings.Split(m.Must("cat /sys/kernel/security/lsm"), ",")
			for _, want := range []string{"landlock", "bpf"} {
				if !slices.Contains(modules, want) {
					t.Errorf("no %s among the security modules %q", want, modules)
				}
			}
			m.Must("test -s /sys/kernel/btf/vmlinux")
			// cgroup v2 alone, with what limits need; systemd turns the controllers on.
			if kind := m.Must("stat -f -c %T /sys/fs/cgroup"); kind != "cgroup2fs\n" {
				t.Errorf("/sys/fs/cgroup is a %s", kind)
			}
			controllers := strings.Fields(m.Must("cat /sys/fs/cgroup/cgroup.controllers"))
			for _, want := range []string{"cpu", "memory", "pids"} {
				if !slices.Contains(controllers, want) {
					t.Errorf("no %s among the cgroup controllers %q", want, controllers)
				}
			}
			if failed := m.Must("systemctl --failed --plain --no-legend"); failed != "" {
				t.Errorf("units that have failed:\n%s", failed)
			}
			if _, stderr, status := m.Run("echo no >&2; kill -9 $$"); stderr != "no\n" || status != 128+9 {
				t.Errorf("a shell that kills itself: stderr %q, status %d", stderr, status)
			}

			m.Must("echo kept >/root/kept && sync")
			m.Reboot()
			m.Must("test $(cat /root/kept) = kept")
			m.PowerCut()
			m.Must("test $(cat /root/kept) = kept")
		})
	}
}

// TestRun: `nemoclaw run` does on a Debian host what it does here, and says so where the kernel is too old.
func TestRun(t *testing.T) {
	t.Parallel()
	const run = `cd /srv/work && nemoclaw run --policy ../policy.yaml -- bash -c '
		echo hello >hello
		cat /etc/shadow
		exec 3<>/dev/tcp/203.0.113.80/8080 && printf "GET /greeting HTTP/1.0\r\nHost: 203.0.113.80:8080\r\n\r\n" >&3 && cat <&3
		echo >/dev/tcp/203.0.113.80/8081
	'`
	t.Run("6.12", func(t *testing.T) {
		t.Parallel()
		m := prepared(t, "6.12")
		stdout, stderr, _ := m.Run(run)
		if !strings.HasSuffix(stdout, "\n\r\ngood day\n") {
			t.Errorf("the server's answer did not come: %q", stdout)
		}
		for _, want := range []string{
			"cat: /etc/shadow: No such file or directory",
			"/dev/tcp/203.0.113.80/8081: Operation not permitted",
			"1x connect 203.0.113.80:8081 by /usr/bin/bash",
		} {
			if !strings.Contains(stderr, want) {
				t.Errorf("no %q in what was said:\n%s", want, stderr)
			}
		}
		if strings.Contains(stderr, "warning") {
			t.Errorf("a warning:\n%s", stderr)
		}
		m.Must("test $(cat /srv/work/hello) = hello")
		m.Must("nemoclaw audit verify /var/log/nemoclaw/audit/run.jsonl")
		// Nothing of it is left.
		m.Must("! find /sys/fs/cgroup/nemoclaw /run/nemoclaw -mindepth 1 -type d | grep .")
	})
	t.Run("6.1", func(t *testing.T) {
		t.Parallel()
		m := prepared(t, "6.1")
		stdout, stderr, status := m.Run(run)
		if want := "has Landlock ABI 2; ABI 3 is needed"; status == 0 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("status %d, stdout %q, no %q in what was said:\n%s", status, stdout, want, stderr)
		}
	})
}

// prepared starts a machine with nemoclaw, a workspace, a policy, and a web server on an address that is nobody's.
func prepared(t *testing.T, kernel string) *Machine {
	t.Helper()
	m := Start(t, Options{Kernel: kernel})
	m.Copy(nemoclaw(t), "/usr/local/bin/nemoclaw")
	m.Must(`mkdir -p /srv/work /srv/www && echo good day >/srv/www/greeting && cat >/srv/policy.yaml <<'EOF'
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
process:
  allow:
    - {command: bash}
    - {command: cat}
network:
  allow:
    - {cidr: 203.0.113.80/32, ports: [8080], protocol: tcp}
EOF
	ip address add 203.0.113.80/32 dev lo
	systemd-run --quiet --unit=www python3 -m http.server --directory /srv/www --bind 203.0.113.80 8080
	for i in $(seq 300); do (: </dev/tcp/203.0.113.80/8080) 2>/dev/null && exit; sleep 0.1; done; systemctl status www; exit 1`)
	return m
}
