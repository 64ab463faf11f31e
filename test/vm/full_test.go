//go:build vm

package vm

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestFull: where BPF LSM programs fire, the level is full, and rules hold that no mount could express. What a person is asked, and rules
// that change while an agent runs, are tried in the same machine: loading the programs takes most of a machine's time.
func TestFull(t *testing.T) {
	t.Parallel()
	for _, kernel := range Kernels(t, "amd64") {
		t.Run(kernel, func(t *testing.T) {
			turn(t, map[bool]int{true: 190, false: 50}[kernel == usual])
			m := light(t, Options{Arch: "amd64", Kernel: kernel})
			m.Copy(nemoclaw(t), "/usr/local/bin/nemoclaw")
			m.Must(`mkdir -p /srv/work/.git /srv/work/sub && cd /srv/work && echo key >.env && echo '[core]' >.git/config && echo text >file && cp /bin/true prog
				cat >/srv/policy.yaml <<'EOF'
enforcement: full
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
  deny:
    - {path: /workspace/.env, permissions: [read, write]}
    - {path: /workspace/.env.local, permissions: [read, write]}
    - {path: /workspace/.git/config, permissions: [write]}
process:
  allow: [{command: bash}, {command: cat}, {command: mv}, {command: ln}, {command: rm}, {command: ls}, {command: touch}, {command: cp}, {command: python3}, {command: git}, {command: node}, {command: timeout, helpers: [head]}]
EOF`)
			stdout, stderr, status := m.Run(`cd /srv/work && nemoclaw run --policy ../policy.yaml -- bash -c '
				cat file; cat .git/config; echo more >>file; ls >/dev/null; python3 -c "print(1)"; cp file copy; mv copy sub/copy; rm sub/copy; touch new; echo t >/tmp/t; cat </tmp/t; timeout 9 head -n1 file
				git init -q repo 2>/dev/null && cp file repo && git -C repo add file && git -C repo -c user.name=a -c user.email=b commit -q -m committed && git -C repo log --format=%s; node -p 6*7
				tried() { if "$@" >/dev/null 2>&1; then echo "done: $*"; else echo "refused: $*"; fi; }
				tried cat .env; tried cp .env x; tried ln .env x; tried mv .env x; tried rm .env; tried mv file .env; tried touch .env.local; tried mv file .env.local
				tried mv .git git; tried rm .git/config; tried touch .git/config; tried ./prog; tried head file; tried touch /usr/x; echo end
			'`)
			want := "text\n[core]\n1\nt\ntext\ncommitted\n42\n"
			for _, try := range []string{
				"cat .env", "cp .env x", "ln .env x", "mv .env x", "rm .env", "mv file .env", "touch .env.local", "mv file .env.local",
				"mv .git git", "rm .git/config", "touch .git/config", "./prog", "head file", "touch /usr/x",
			} {
				want += "refused: " + try + "\n"
			}
			if want += "end\n"; status != 0 || stdout != want {
				t.Errorf("status %d\n%s\nwant\n%s\n%s", status, stdout, want, stderr)
			}
			records := m.Must("cat /var/log/nemoclaw/audit/run.jsonl")
			for _, want := range []string{`"action":"open","object":"/workspace/.env"`, `"action":"create","object":"/workspace/.env.local"`, `"plane":"exec","action":"exec","object":"/workspace/prog"`} {
				if !strings.Contains(records, want) {
					t.Errorf("no record with %s", want)
				}
			}
			t.Log(stderr)
			m.Must("test $(cat /srv/work/.env) = key && test ! -e /srv/work/.env.local && nemoclaw audit verify /var/log/nemoclaw/audit/run.jsonl")
			listed(t, m)
			if kernel == usual {
				m.Copy(filepath.Join(filepath.Dir(nemoclaw(t)), "nemoclaw-agent"), "/usr/local/bin/nemoclaw-agent")
				t.Run("Ask", func(t *testing.T) { asks(t, m.afresh(t)) })
				t.Run("LiveFiles", func(t *testing.T) { liveFiles(t, m.afresh(t)) })
				t.Run("Approvals", func(t *testing.T) { approvals(t, m.afresh(t)) })
				t.Run("LearnApproved", func(t *testing.T) { learnApproved(t, m.afresh(t)) })
				t.Run("Metrics", func(t *testing.T) { metrics(t, m.afresh(t)) })
				t.Run("GPU", func(t *testing.T) { gpus(t, m.afresh(t)) })
			}
		})
	}
}

// afresh is the machine without what tests before have left, but for the programs in its kernel.
func (m *Machine) afresh(t *testing.T) *Machine {
	t.Helper()
	m.Must("rm -rf /srv/* /var/log/nemoclaw /var/lib/nemoclaw/audit && ! find /sys/fs/cgroup/nemoclaw /run/nemoclaw -mindepth 1 -type d | grep .")
	return m
}

// listed: with `map: listed` a program loads the system's libraries and those below a path with execute, and no others.
func listed(t *testing.T, m *Machine) {
	t.Helper()
	m.Must(`cd /srv/work && mkdir lib && cp $(ls /usr/lib/*/libz.so.1 | head -n1) mine.so && cp mine.so lib/ours.so
		cat >/srv/listed.yaml <<'EOF'
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: /workspace/lib, permissions: [read, execute]}
process:
  allow: [{command: python3}]
  map: listed
EOF
		cat >load.py <<'EOF'
import ctypes, mmap, os, zlib
def load(path):
    try:
        ctypes.CDLL(path)
        print('loaded', path)
    except OSError:
        print('refused', path)
os.link('/workspace/mine.so', '/workspace/linked.so')
for path in 'libz.so.1', '/workspace/lib/ours.so', '/workspace/mine.so', '/workspace/linked.so':
    load(path)
try:
    fd = os.memfd_create('mine')
    os.write(fd, open('/workspace/mine.so', 'rb').read())
    load('/proc/self/fd/%d' % fd)
except OSError: # Linux 6.1 can't keep them from being executed, so there are none
    print('refused /proc/self/fd/')
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
print('end')
EOF`)
	stdout, stderr, status := m.Run("cd /srv/work && nemoclaw run --policy ../listed.yaml -- python3 load.py | sed s,fd/.*,fd/N,")
	if want := "loaded libz.so.1\nloaded /workspace/lib/ours.so\nrefused /workspace/mine.so\nrefused /workspace/linked.so\nrefused /proc/self/fd/N\nend\n"; status != 0 || stdout != want {
		t.Errorf("status %d\n%s\nwant\n%s\n%s", status, stdout, want, stderr)
	}
	records := m.Must(`grep '"action":"map"' /var/log/nemoclaw/audit/run.jsonl`)
	for _, want := range []string{`"object":"/workspace/mine.so"`, `"object":"/workspace/linked.so"`} {
		if !strings.Contains(records, want) || !strings.Contains(records, `listed.yaml:7"`) {
			t.Errorf("no record with %s:\n%s", want, records)
		}
	}
}

// TestAttacks: what level static stops, level full does too, and more.
func TestAttacks(t *testing.T) {
	turn(t, 310)
	m := Start(t, Options{Light: true})
	m.Copy(nemoclaw(t), "/srv/nemoclaw")
	m.Copy(build(t, "./test/probe"), "/srv/probe")
	m.Must("touch /etc/resolv.conf; modprobe tun")
	m.Env = []string{"NEMOCLAW=/srv/nemoclaw", "NEMOCLAW_PROBE=/srv/probe", "NEMOCLAW_LEVEL=full"}
	m.Test(compile(t, "./test/attacks", "amd64"), "-test.parallel=2")
}
