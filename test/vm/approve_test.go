//go:build vm

package vm

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// approvable is what the test reads of a request.
type approvable struct {
	ID, State, Plane, Action, Object, Program string
	Held                                      int
}

// keyPresser shows the console on a terminal of its own, waits until a text is there, presses keys as a person does, and ends it.
const keyPresser = `
import fcntl, os, pty, re, select, struct, sys, termios, time
text, keys = sys.argv[1].encode(), sys.argv[2]
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm-256color"
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    os.execvp("nemoclaw", ["nemoclaw", "term"])
shown = b""
def read(seconds):
    global shown
    end = time.time() + seconds
    while time.time() < end and select.select([terminal], [], [], max(end - time.time(), 0))[0]:
        shown += os.read(terminal, 65536)
for _ in range(600):
    if text in shown:
        break
    read(0.2)
else:
    sys.exit("it never showed " + sys.argv[1])
for key in keys:
    read(2) # a person reads
    os.write(terminal, key.encode())
read(2)
os.write(terminal, b"q")
os.waitpid(pid, 0)
`

// askingBox starts a daemon and makes a sandbox whose rules ask about two files, and about programs.
func askingBox(m *Machine) {
	m.Must(`mkdir -p /srv/work && touch /etc/resolv.conf /srv/hosts && cd /srv/work && echo the secret >secret && echo other >other && echo fine >fine && chown -R 4242:4242 .
		cat >/srv/box.yaml <<'EOF'
enforcement: full
hold: 5m
filesystem:
  allow: [{path: /workspace, permissions: [read, write]}]
  ask: [{path: /workspace/secret, permissions: [read]}, {path: /workspace/other, permissions: [read]}]
process:
  default: ask
  allow: [{command: cat}, {command: sh}]
EOF`)
	m.Must(agentCommand)
	m.Must("nemoclaw create box --policy /srv/box.yaml --workspace /srv/work")
}

// approvals: under a daemon what file and exec rules ask about waits in the kernel for whoever answers, from anywhere; an answer for the
// session holds in the kernel, is taken back at once, and ends with the session; one that holds always is a rule, live.
func approvals(t *testing.T, m *Machine) {
	m.Must("cat >/srv/console.py <<'EOF'" + keyPresser + "EOF")
	askingBox(m)

	begin := func(command, object string) approvable { return m.begin(t, command, object) }
	end := func(want string) {
		t.Helper()
		if said := strings.TrimSpace(m.Must("tail --pid $(cat /srv/waits) -f /dev/null; cat /srv/said")); said != want {
			t.Errorf("it said %q, want %q", said, want)
		}
	}
	now := func(command, want string) {
		t.Helper()
		m.Must("nemoclaw box exec -- sh -c '" + command + "' </dev/null >/srv/said 2>&1 & echo $! >/srv/waits")
		end(want)
	}
	now("cat fine", "fine")

	r := begin("cat secret", "/workspace/secret")
	if r.Plane != "file" || r.Action != "open" || r.Held != 1 || !strings.HasSuffix(r.Program, "/cat") {
		t.Errorf("%+v", r)
	}
	m.Must("nemoclaw approvals approve --yes " + r.ID)
	end("the secret")
	m.Must("nemoclaw approvals reject " + begin("cat secret", "/workspace/secret").ID)
	end("cat: secret: Permission denied")

	// The same by the keys of the console.
	for _, press := range []struct{ command, object, keys, want string }{
		{"cat other", "/workspace/other", "a", "other"}, {"cat other", "/workspace/other", "r", "cat: other: Permission denied"},
		{"/usr/bin/seq 2", "/usr/bin/seq", "a", "1\n2"}, {"/usr/bin/seq 2", "/usr/bin/seq", "x", "sh: 1: /usr/bin/seq: Permission denied"},
	} {
		begin(press.command, press.object)
		m.Must("python3 /srv/console.py " + press.object + " " + press.keys)
		end(press.want)
	}

	m.Must("nemoclaw approvals approve --yes --scope session " + begin("cat secret", "/workspace/secret").ID)
	end("the secret")
	now("cat secret; cat secret", "the secret\nthe secret")
	var rules struct {
		Grants []struct{ ID, Object string }
	}
	if err := json.Unmarshal([]byte(m.Must("nemoclaw box policy list -o json")), &rules); err != nil || len(rules.Grants) != 1 || rules.Grants[0].Object != "/workspace/secret" {
		t.Fatalf("%+v, %v", rules, err)
	}
	m.Must("nemoclaw box policy revoke " + rules.Grants[0].ID)
	m.Must("nemoclaw approvals reject --scope session " + begin("cat secret", "/workspace/secret").ID)
	end("cat: secret: Permission denied")
	now("cat secret", "cat: secret: Permission denied")

	m.Must("nemoclaw approvals approve --yes " + begin("id -u", "/usr/bin/id").ID)
	end("1000")
	m.Must("nemoclaw approvals approve --yes --scope always " + begin("id -u", "/usr/bin/id").ID)
	end("1000")
	now("id -u", "1000")
	if text := m.Must("nemoclaw box policy get"); !strings.Contains(text, "command: id") {
		t.Errorf("no rule for id:\n%s", text)
	}

	// A daemon that is killed denies what waits; the next has the requests, and what was answered for the session.
	m.Must("nemoclaw approvals approve --yes --scope session " + begin("cat other", "/workspace/other").ID)
	end("other")
	r = begin("/usr/bin/seq 1; echo $?", "/usr/bin/seq")
	m.Must("sleep 1; kill -9 $(cat /srv/pid); sleep 1")
	m.Must(agentCommand)
	now("cat other", "other")
	if text := m.Must("nemoclaw approvals show -o json " + r.ID); !strings.Contains(text, `"refused"`) || strings.Contains(text, `"count": 2`) {
		t.Errorf("%s", text)
	}
	m.Must("nemoclaw approvals approve --yes " + r.ID) // for the next
	now("/usr/bin/seq 1", "1")

	m.Must("nemoclaw box stop && nemoclaw box start")
	m.Must("nemoclaw approvals reject " + begin("cat other", "/workspace/other").ID)
	end("cat: other: Permission denied")
	m.Must("nemoclaw destroy --yes box && kill $(cat /srv/pid) && tail --pid $(cat /srv/pid) -f /dev/null && nemoclaw audit verify /var/log/nemoclaw/audit/agent.jsonl")
}

// begin runs a command in the sandbox box that has to wait, and returns the request about an object.
func (m *Machine) begin(t *testing.T, command, object string) (r approvable) {
	t.Helper()
	m.Must("nemoclaw box exec -- sh -c '" + command + "' </dev/null >/srv/said 2>&1 & echo $! >/srv/waits")
	for range 100 {
		var list []approvable
		if err := json.Unmarshal([]byte(m.Must("nemoclaw approvals list --sandbox box -o json")), &list); err != nil {
			t.Fatal(err)
		}
		for _, r = range list {
			if r.Object == object && r.State == "held" {
				return r
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("%s: no request about %s: %s\n%s", command, object, m.Must("nemoclaw approvals list -o json; cat /srv/said"), m.Must("nemoclaw box logs"))
	return r
}
