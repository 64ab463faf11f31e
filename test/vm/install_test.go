//go:build vm

package vm

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestInstall: what a host goes through. It is installed, a sandbox is made without a question, its policy is changed and something is
// asked for; then the daemon is killed, the machine is rebooted, and loses its power: the sandbox, its policy, its files and its
// proposals are there each time. After the uninstall there is nothing.
func TestInstall(t *testing.T) {
	turn(t, 250)
	m := Start(t, Options{})
	// What systemd keeps for itself on the way is not ours.
	m.Must("systemctl daemon-reload")
	m.Must("echo nameserver 203.0.113.53 >/etc/resolv.conf && echo 203.0.113.80 asked.example.test >>/etc/hosts")
	before := m.tree()
	groups := m.Must("cat /etc/group /etc/gshadow")

	m.install(t)
	m.Must("systemctl enable --quiet --now nemoclaw-agent")
	t.Log(m.Must("nemoclaw version; nemoclaw onboard --yes --name first --skip-key")) // which does what doctor does
	m.Must("nemoclaw create second --no-start")

	m.Must("nemoclaw first policy add --domain api.example.test --port 443")
	m.Must("nemoclaw first policy add --domain asked.example.test --port 443 --ask")
	m.Must("nemoclaw first exec -- sh -c 'echo kept >kept'")
	if _, _, status := m.Run("nemoclaw first exec -- python3 -c 'import urllib.request; urllib.request.urlopen(\"https://asked.example.test/\", timeout=2)'"); status == 0 {
		t.Error("what has to be asked about was let through")
	}
	want := m.first(t)
	if want.State != "running" || len(want.Asked) != 1 {
		t.Fatalf("it should run, with a proposal for asked.example.test: %+v", want)
	}

	back := func(what string, same bool) {
		t.Helper()
		m.Must("systemctl is-active nemoclaw-agent || { journalctl -u nemoclaw-agent >&2; exit 1; }")
		m.await("nemoclaw first status -o json | grep -q '\"state\": *\"running\"'")
		got := m.first(t)
		if same && got.PID != want.PID {
			t.Errorf("%s: the sandbox is another one: PID %d, not %d", what, got.PID, want.PID)
		}
		want.PID = got.PID
		if !got.equal(want) {
			t.Errorf("%s: the sandbox is not what it was\nbefore: %+v\nafter:  %+v", what, want, got)
		}
		m.Must("test $(nemoclaw first exec -- cat kept) = kept")
		m.Must("nemoclaw second status -o json | grep -q '\"state\": *\"stopped\"'")
		m.refused(t, what)
	}
	m.refused(t, "at first")
	m.Must("systemctl show -P MainPID nemoclaw-agent >/tmp/killed && systemctl kill --signal KILL nemoclaw-agent")
	m.await("test $(systemctl show -P MainPID nemoclaw-agent) != $(cat /tmp/killed) && systemctl is-active nemoclaw-agent")
	back("after kill -9 of the daemon", true)
	m.Must("systemctl restart nemoclaw-agent")
	back("after a restart of the daemon", true)
	m.Reboot()
	back("after a reboot", false)
	if strings.Contains(m.Log(), "systemd-shutdown[1]: Sending SIGKILL to PID") {
		t.Error("the machine waited in vain for a process to end, and killed it, before it went down")
	}
	m.Must("sync")
	m.PowerCut()
	back("after a power cut", false)
	m.Must("nemoclaw audit verify /var/log/nemoclaw/audit/agent.jsonl")

	t.Log(m.Must("nemoclaw uninstall --purge --purge-audit --yes"))
	if after := m.tree(); after != before {
		t.Errorf("the uninstall left or took something:\n%s", difference(before, after))
	}
	if after := m.Must("cat /etc/group /etc/gshadow"); after != groups {
		t.Errorf("the uninstall left the groups\n%s\nbefore the install\n%s", after, groups)
	}
	if left := m.Must("ps -eo pid,args | grep '[n]emoclaw' | grep -v nemoclaw-vm || true"); left != "" {
		t.Errorf("the uninstall left processes:\n%s", left)
	}
	if failed := m.Must("systemctl --failed --plain --no-legend"); failed != "" {
		t.Errorf("units that have failed:\n%s", failed)
	}
}

// install does what `make install` does in a machine that has a compiler.
func (m *Machine) install(t *testing.T) {
	t.Helper()
	top, err := repo()
	if err != nil {
		t.Fatal(err)
	}
	pack := filepath.Join(t.TempDir(), "nemoclaw.tar")
	out, err := exec.Command("tar", "-C", top, "-cf", pack, "bin", "dist", "deploy", "scripts/install").CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	m.Copy(pack, "/tmp/nemoclaw.tar")
	t.Log(m.Must("mkdir /tmp/nemoclaw && tar -C /tmp/nemoclaw -xf /tmp/nemoclaw.tar && /tmp/nemoclaw/scripts/install && rm -r /tmp/nemoclaw /tmp/nemoclaw.tar"))
}

// await waits until a line of bash ends with status 0.
func (m *Machine) await(line string) {
	m.t.Helper()
	m.Must("for i in $(seq 120); do if { " + line + "; } >/dev/null 2>&1; then exit; fi; sleep 0.5; done; " + line)
}

// refused wants that the sandbox can't do what its policy does not allow.
func (m *Machine) refused(t *testing.T, what string) {
	t.Helper()
	const attempts = `for line in "cat /etc/shadow" "touch /usr/x" ": </dev/tcp/203.0.113.1/80"; do
		(eval "$line") && echo "done: $line"
	done
	echo tried`
	if stdout := m.Must("nemoclaw first exec -- bash -c '" + attempts + "' 2>/dev/null"); stdout != "tried\n" {
		t.Errorf("%s: %s", what, stdout)
	}
}

// sandbox is what has to be the same after a reboot.
type sandbox struct {
	State  string `json:"state"`
	PID    int    `json:"pid"`
	Policy struct {
		Revision int    `json:"revision"`
		Hash     string `json:"hash"`
		Running  int    `json:"running"`
	} `json:"policy"`
	Rules string     `json:"-"`
	Asked []proposal `json:"-"` // proposals for asked.example.test; refusals make others
}

type proposal struct {
	ID     string    `json:"id"`
	Object string    `json:"object"`
	First  time.Time `json:"first"`
	Count  int       `json:"count"`
}

func (s sandbox) equal(o sandbox) bool {
	return s.State == o.State && s.Policy == o.Policy && s.Rules == o.Rules && slices.Equal(s.Asked, o.Asked)
}

// first is what the daemon says of the sandbox.
func (m *Machine) first(t *testing.T) sandbox {
	t.Helper()
	var s sandbox
	m.json(t, "nemoclaw first status -o json", &s)
	m.json(t, "nemoclaw approvals list --sandbox first -o json", &s.Asked)
	s.Asked = slices.DeleteFunc(s.Asked, func(p proposal) bool { return p.Object != "asked.example.test:443" })
	s.Rules = m.Must("nemoclaw first policy get")
	return s
}

func (m *Machine) json(t *testing.T, line string, to any) {
	t.Helper()
	text := m.Must(line)
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, text)
	}
}

// tree lists every file of the machine that an install could leave: its kind, its mode, its owner and, for what is small and fixed, what is
// in it. The journal and the state of systemd's own come and go.
func (m *Machine) tree() string {
	m.t.Helper()
	return m.Must(`{ find / -xdev -not -path '/var/log/journal*' -not -path '/var/lib/systemd/*' -not -path '/var/cache/*' -not -path '/tmp/*' -not -path '/var/tmp/*' -printf '%y %m %u %g %p %l\n'
		find /run -not -path '/run/systemd/*' -not -path '/run/credentials*' -not -path '/run/log/*' -printf '%y %m %u %g %p\n'
		find /sys/fs/bpf -printf '%y %p\n'
		find /sys/fs/cgroup -type d -path '*nemoclaw*' -printf '%y %p\n'
		ip -o link; ip netns; ip rule; cut -d ' ' -f 1-3 /proc/mounts; } | grep -v ' /run/nemoclaw-vm' | sort -u`)
}

// difference lists the lines that only one of two texts has.
func difference(a, b string) string {
	var out strings.Builder
	before, after := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, l := range before {
		if !slices.Contains(after, l) {
			out.WriteString("- " + l + "\n")
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			out.WriteString("+ " + l + "\n")
		}
	}
	return out.String()
}
