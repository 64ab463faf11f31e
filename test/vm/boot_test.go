//go:build vm

package vm

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// nemoclaw is the static binary that is tested; `make test-vm` names it.
func nemoclaw(t testing.TB) string {
	t.Helper()
	path := os.Getenv("NEMOCLAW")
	if path == "" {
		t.Fatal("NEMOCLAW must name the binary to test: use `make test-vm`")
	}
	return path
}

// usual is the kernel that tests run with for which any will do.
const usual = "6.12"

// TestBoot: a machine is what other tests take it for, with each kernel, and `nemoclaw run` does there what it does here. That it is the
// same one after a reboot and after a power cut is TestInstall's.
func TestBoot(t *testing.T) {
	t.Parallel()
	for _, kernel := range Kernels(t, "amd64") {
		t.Run(kernel, func(t *testing.T) {
			turn(t, 30)
			m := Start(t, Options{Kernel: kernel})
			if kernel != "newest" && !strings.HasPrefix(m.Kernel, kernel+".") {
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

			if kernel != "newest" { // TestFull runs it there
				t.Run("Run", func(t *testing.T) { runs(t, m, "full") })
			}
		})
	}
}

// light starts a light machine, and wants it to be what tests take it for.
func light(t testing.TB, o Options) *Machine {
	t.Helper()
	o.Light = true
	m := Start(t, o)
	if machine := m.Must("uname -m"); machine != map[string]string{"amd64": "x86_64\n", "arm64": "aarch64\n"}[o.Arch] {
		t.Errorf("its machine is %q", machine)
	}
	if modules := m.Must("cat /sys/kernel/security/lsm"); !slices.Contains(strings.Split(modules, ","), "bpf") {
		t.Errorf("the security modules are %q", modules)
	}
	m.Must("test -s /sys/kernel/btf/vmlinux")
	m.Must("grep -qw memory /sys/fs/cgroup/cgroup.subtree_control")
	m.Must("python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 8080))'")
	m.Must("test $(node -p 6*7) = 42")
	m.Must("git init -q /srv/repo && git -C /srv/repo status")
	// An orphan is buried.
	m.Must("sh -c 'sleep 0.1 & true'; for i in $(seq 100); do sleep 0.1; grep -l '^State:.*zombie' /proc/[0-9]*/status || exit 0; done; exit 1")
	if o.Kernel == usual {
		m.Must("echo kept >/srv/kept")
		m.Reboot()
		m.Must("test $(cat /srv/kept) = kept")
	}
	return m
}

// TestCountInstructions: the time that something takes is that of its instructions.
func TestCountInstructions(t *testing.T) {
	turn(t, 20)
	m := Start(t, Options{Light: true, CountInstructions: true})
	// The machine has just started and does other things, too: the least of several is the loop alone.
	stdout := m.Must(`for n in 20000 40000; do
		least=; for batch in {1..5}; do
			start=${EPOCHREALTIME/.}; for ((i = 0; i < n; i++)); do :; done; took=$((${EPOCHREALTIME/.} - start))
			((least && least < took)) || least=$took
		done; echo $least
	done`)
	var once, twice float64
	if _, err := fmt.Sscan(stdout, &once, &twice); err != nil {
		t.Fatalf("%q: %v", stdout, err)
	}
	t.Logf("a loop: %v µs; twice as long: %v µs", once, twice)
	if ratio := twice / once; ratio < 1.9 || ratio > 2.1 {
		t.Errorf("twice as many instructions took %.2f times as long", ratio)
	}
}

// TestRun: `nemoclaw run` does at level static what it does at level full, and says so where the kernel is too old.
func TestRun(t *testing.T) {
	t.Parallel()
	t.Run("6.12 static", func(t *testing.T) {
		turn(t, 15)
		runs(t, Start(t, Options{Kernel: usual, Light: true, NoBPFLSM: true}), "static")
	})
	t.Run("6.1 static", func(t *testing.T) {
		turn(t, 10)
		m := Start(t, Options{Kernel: "6.1", Light: true, NoBPFLSM: true})
		m.furnish(t)
		stdout, stderr, status := m.Run(run)
		if want := "has Landlock ABI 2; ABI 3 is needed"; status == 0 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("status %d, stdout %q, no %q in what was said:\n%s", status, stdout, want, stderr)
		}
	})
}

const run = `cd /srv/work && nemoclaw run --policy ../policy.yaml -- bash -c '
		echo hello >hello
		cat /etc/shadow
		exec 3<>/dev/tcp/203.0.113.80/8080 && printf "GET /greeting HTTP/1.0\r\nHost: 203.0.113.80:8080\r\n\r\n" >&3 && cat <&3
		echo >/dev/tcp/203.0.113.80/8081
	'`

// runs runs something that is allowed and something that is not.
func runs(t *testing.T, m *Machine, level string) {
	t.Helper()
	m.furnish(t)
	stdout, stderr, _ := m.Run(run)
	if !strings.HasSuffix(stdout, "\n\r\ngood day\n") {
		t.Errorf("the server's answer did not come: %q", stdout)
	}
	for _, want := range []string{
		"cat: /etc/shadow: No such file or directory",
		"/dev/tcp/203.0.113.80/8081: Operation not permitted",
		"1x connect 203.0.113.80:8081 by /usr/bin/bash",
		"could not be seen (level " + level + ")",
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
}

// furnish puts nemoclaw into a machine, a workspace, a policy, and a web server on an address that is nobody's.
func (m *Machine) furnish(t *testing.T) {
	t.Helper()
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
	python3 -m http.server --directory /srv/www --bind 203.0.113.80 8080 </dev/null >/srv/said 2>&1 &
	for i in $(seq 300); do (: </dev/tcp/203.0.113.80/8080) 2>/dev/null && exit; sleep 0.1; done; cat /srv/said >&2; exit 1`)
}
