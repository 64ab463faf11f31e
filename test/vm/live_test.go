//go:build vm

package vm

import (
	"strings"
	"testing"
)

// liveAgent is a program inside that goes on for the whole test: it tries what it is told to, and says what came of it.
const liveAgent = `
import os, subprocess, sys
held = open('/workspace/held')
def attempt(do, at):
    if do == 'read': return open(at).read().strip() or 'empty'
    if do == 'write': open(at, 'a').close(); return 'done'
    if do == 'run': return subprocess.run([at], capture_output=True, text=True).stdout.strip() and 'done'
    if do == 'link': os.symlink('.', at); return 'done'
    if do == 'held': held.seek(0); return held.read().strip()
    if do == 'twin': os.link('/workspace/secret', at); return 'done'
    if do == 'pid': return str(os.getpid())
while True:
    with open('/workspace/in') as f: line = f.readline().split()
    try: said = attempt(*line)
    except OSError as e: said = e.strerror
    with open('/workspace/out', 'w') as f: f.write(said + '\n')
`

// agentCommand starts the daemon, whose pid is in /srv/pid, and waits until it answers.
const agentCommand = "nemoclaw-agent --steer-group '' --watch-group '' --hosts-file /srv/hosts --resolver 203.0.113.53:53 </dev/null >>/srv/daemon 2>&1 & echo $! >/srv/pid; for i in $(seq 600); do nemoclaw list >/dev/null 2>&1 && exit; kill -0 $(cat /srv/pid) || break; sleep 0.2; done; cat /srv/daemon >&2; exit 1"

// liveRacer moves a directory to and fro, so that a rule for a file in it meets another directory each time.
const liveRacer = `
import os
os.makedirs('/workspace/race', exist_ok=True)
while True:
    try:
        os.rename('/workspace/race', '/workspace/race.old')
        os.mkdir('/workspace/race')
        open('/workspace/race/key', 'w').write('key')
        os.unlink('/workspace/race.old/key')
        os.rmdir('/workspace/race.old')
    except OSError:
        for at in ('/workspace/race', ):
            try:
                os.makedirs(at, exist_ok=True)
                open(at + '/key', 'a').close()
            except OSError: pass
`

// liveFiles: rules for files and programs change under an agent that runs, at level full. What can't change says so, and
// nothing of it is in force. The rules outlive the daemon, and the next one changes them too.
func liveFiles(t *testing.T, m *Machine) {
	m.Must(`mkdir -p /srv/work/masked /srv/work/race /srv/data /srv/other && touch /etc/resolv.conf /srv/hosts && cd /srv/work && mkfifo in out && echo fine >held && echo secret >secret && echo data >/srv/data/x && echo other >/srv/other/x && echo masked >masked/x
		cat >agent.py <<'EOF'` + liveAgent + `EOF
		cat >racer.py <<'EOF'` + liveRacer + `EOF
		cat >/srv/box.yaml <<'EOF'
enforcement: full
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: /srv/data, permissions: [read]}
  deny:
    - {path: /workspace/masked, permissions: [read, write]}
process:
  allow: [{command: python3}]
EOF
		chown -R 4242:4242 /srv/work`)
	m.Must(agentCommand)
	m.Must("nemoclaw create box --policy /srv/box.yaml --workspace /srv/work && nemoclaw box exec --detach -- python3 agent.py")

	// try tells the program inside what to do.
	try := func(what, want string) {
		t.Helper()
		if got := strings.TrimSpace(m.Must("cd /srv/work && echo " + what + " >in && cat out")); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	// change changes the policy, and wants to be told so.
	change := func(line, want string) {
		t.Helper()
		stdout, stderr, status := m.Run("nemoclaw box policy " + line)
		if want == "" && (status != 0 || !strings.Contains(stderr, "is in force\n")) || want != "" && (status != 1 || !strings.Contains(stderr, want)) {
			t.Errorf("policy %s: status %d\n%s%s\nwant %q", line, status, stdout, stderr, want)
		}
	}
	const refused = "Permission denied"
	pid := strings.TrimSpace(m.Must("cd /srv/work && echo pid x >in && cat out"))
	init := m.Must("nemoclaw box status -o json | grep '\"pid\"'")

	// Less can always be allowed, and more where the mounts let it through.
	try("read /srv/data/x", "data")
	change("remove --path /srv/data", "")
	try("read /srv/data/x", refused)
	change("add --path /srv/data --permissions read", "")
	try("read /srv/data/x", "data")
	try("read /workspace/secret", "secret")
	try("twin /workspace/twin", "done")
	change("add --deny --path /workspace/secret --permissions read,write", "")
	change("add --deny --path /workspace/held --permissions read,write", "")
	change("add --deny --path /workspace/later --permissions write", "")
	for _, what := range []string{"read /workspace/secret", "read /workspace/twin", "write /workspace/secret", "read /workspace/held", "write /workspace/later"} {
		try(what, refused)
	}
	try("held x", "fine") // what is open stays open
	change("remove --path /workspace/secret", "")
	try("read /workspace/secret", "secret")
	try("run /usr/bin/id", refused)
	change("add --exec id", "")
	try("run /usr/bin/id", "done")
	change("remove --exec id", "")
	try("run /usr/bin/id", refused)

	if _, stderr, status := m.Run("nemoclaw box policy add --exec nosuch"); status != 0 || !strings.Contains(stderr, "warning: box.yaml:") || !strings.Contains(stderr, "nosuch is not allowed to run") {
		t.Errorf("a program that is not there: status %d\n%s", status, stderr)
	}

	// What can't be live says why, and changes nothing, not even the part that could be.
	m.Must("sed 's/read\\]}$/read, write]}/; s/enforcement: full/&\\nname: box/; s/{command: python3}/&, {command: id}/' /srv/box.yaml >/srv/more.yaml")
	before := m.Must("nemoclaw box policy get")
	for line, why := range map[string]string{
		"add --path /srv/data --permissions write":           "mounted read-only since the sandbox started",
		"add --path /srv/other --permissions read":           "it is not in the view",
		"remove --path /workspace/masked":                    "is hidden by a mount since",
		"add --deny --path /etc/hostname --permissions read": "put together when the sandbox starts",
		"set /srv/more.yaml":                                 "mounted read-only since the sandbox started",
	} {
		change(line, why)
	}
	if after := m.Must("nemoclaw box policy get"); after != before {
		t.Errorf("the policy was changed:\n%s\nwas\n%s", after, before)
	}
	try("run /usr/bin/id", refused)
	try("write /srv/data/x", "Read-only file system")

	// Links that were made inside lead no rule elsewhere.
	try("link /workspace/link", "done")
	try("link /tmp/link", "done")
	change("add --deny --path /workspace/link/secret --permissions read", "is a symbolic link in a tree that the sandbox may write")
	change("add --deny --path /tmp/link/secret --permissions read", "(a symbolic link is none)")
	try("read /workspace/secret", "secret")

	// Nor does a directory that is moved at full speed while a rule for a file in it comes.
	m.Must("nemoclaw box exec --detach -- python3 racer.py")
	for n := range 3 {
		// It may not be there at the very moment, which is said, and then there is no rule.
		m.Must("for i in $(seq 20); do nemoclaw box policy add --deny --path /workspace/race/key --permissions read >/srv/said 2>&1 && exit; grep -q 'there is nothing to anchor' /srv/said || break; done; cat /srv/said >&2; exit 1")
		for range 2 { // the rule may have come when there was a directory and no file in it yet
			if got := strings.TrimSpace(m.Must("cd /srv/work && echo read /workspace/race/key >in && cat out")); got != refused && got != "No such file or directory" {
				t.Errorf("read /workspace/race/key: %s, want %s", got, refused)
			}
		}
		if n < 2 {
			change("remove --path /workspace/race/key", "")
		}
	}
	m.Must("pkill -f [r]acer.py || true")

	// What ends does so by itself: more is allowed then where a deny ended, less where an allow did, also while there is no daemon.
	ends := func(what, want string) {
		t.Helper()
		m.Must("cd /srv/work; for i in $(seq 150); do echo " + what + " >in; said=$(cat out); [ \"$said\" = '" + want + "' ] && exit; sleep 0.2; done; echo \"$said\" >&2; exit 1")
	}
	change("add --deny --path /workspace/secret --permissions read,write --expires 6s", "")
	try("read /workspace/secret", refused)
	ends("read /workspace/secret", "secret")
	change("add --exec id --expires 12s", "")
	try("run /usr/bin/id", "done")
	change("add --path /usr/bin/nproc --permissions read,execute --expires 12s", "")
	try("run /usr/bin/nproc", "done")
	change("add --deny --path /workspace/secret --permissions read,write --expires 1h", "")
	m.Must("kill -9 $(cat /srv/pid)")
	try("read /workspace/held", refused)
	ends("run /usr/bin/id", refused)
	ends("run /usr/bin/nproc", refused)

	// The rules outlive the daemon, and the next one changes them.
	m.Must(agentCommand)
	try("read /workspace/held", refused)
	try("run /usr/bin/id", refused)
	try("read /workspace/secret", refused)
	change("add --domain example.test --port 443", "") // the numbers of rules are others now
	try("read /workspace/held", refused)
	change("remove --path /workspace/secret", "")
	try("read /workspace/secret", "secret")
	change("remove --path /workspace/held", "")
	change("add --exec uname", "")
	try("read /workspace/held", "fine")
	try("run /usr/bin/uname", "done")
	if list := m.Must("nemoclaw box policy list"); strings.Count(list, "expired") != 2 || !strings.Contains(list, "command: id") {
		t.Errorf("the list does not say that the rule for id has ended:\n%s", list)
	}

	if now := m.Must("nemoclaw box status -o json | grep '\"pid\"'"); now != init {
		t.Errorf("it is another sandbox: %s, was %s", now, init)
	}
	try("pid x", pid)
	for _, at := range []string{"secret", "held", "race/key"} {
		named := `grep '"object":"/workspace/` + at + `"' /var/log/nemoclaw/audit/agent.jsonl | grep '"verdict":"deny"' | grep -c '"rule":"box.yaml:[0-9]'`
		if stdout, _, _ := m.Run(named); strings.TrimSpace(stdout) == "0" {
			t.Errorf("no record names the rule that refused /workspace/%s", at)
		}
	}
	m.Must("nemoclaw destroy box --yes && kill $(cat /srv/pid) && tail --pid $(cat /srv/pid) -f /dev/null && nemoclaw audit verify /var/log/nemoclaw/audit/agent.jsonl")
}
