//go:build vm

package vm

import (
	"cmp"
	"regexp"
	"strings"
	"testing"
)

// answerer runs a command at a terminal of its own and answers the questions that appear there, each with the next of the keys; - is none.
const answerer = `
import os, pty, re, select, sys, time
keys = sys.argv[1]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
said, seen = b"", 0
while True:
    try:
        ready, _, _ = select.select([terminal], [], [], 240)
        if not ready:
            sys.exit("nothing happens:\n" + said.decode(errors="replace"))
        said += os.read(terminal, 65536)
    except OSError:
        break
    asked = said.count(b"all questions: ")
    if asked > seen:
        seen = asked
        time.sleep(1.5) # a person reads
        if keys[:1] not in ("", "-"):
            os.write(terminal, keys[0].encode())
        keys = keys[1:]
_, status = os.waitpid(pid, 0)
text = re.sub(rb"\x1b[^\x1b]*?[a-zA-Z\\]|\x18|\x0f", b"", said).decode(errors="replace")
print(text.replace("\r", ""))
sys.exit(os.waitstatus_to_exitcode(status))
`

// asks: what file and exec rules ask about waits for the person at the terminal, and goes on, or fails, by the answer.
func asks(t *testing.T, m *Machine) {
	m.Must("cat >/srv/answer.py <<'EOF'" + answerer + "EOF")
	t.Run("Answers", func(t *testing.T) { askAnswers(t, m) })
	t.Run("Attacks", func(t *testing.T) { askAttacks(t, m) })
}

// ask runs a command of bash under a policy in a directory, answers its questions with the keys, and returns what it printed beside them
// and how many there were.
func ask(t *testing.T, m *Machine, dir, policy, keys, command string) (printed string, questions int) {
	t.Helper()
	m.Must("cat >/srv/command <<'EOF'\n" + command + "\nEOF")
	keys = strings.ReplaceAll(keys, "\n", "'$'\\n''")
	stdout, stderr, _ := m.Run("cd " + dir + " && python3 /srv/answer.py '" + keys + "' nemoclaw run --quiet --policy ../" + policy + ` -- bash -c "$(cat /srv/command)"`)
	t.Log(stdout, stderr)
	var lines []string
	for line := range strings.Lines(stdout) {
		if line = strings.TrimRight(line, "\n"); line != "" && !strings.HasPrefix(line, "nemoclaw: ") && !strings.HasPrefix(line, "  ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n"), strings.Count(stdout, "a program in the sandbox asks")
}

func askAnswers(t *testing.T, m *Machine) {
	m.Must(`mkdir -p /srv/work && cd /srv/work && echo the secret >secret && echo text | tee file >marked
		cat >/srv/policy.yaml <<'EOF'
enforcement: full
hold: 5s
filesystem:
  allow: [{path: /workspace, permissions: [read, write]}]
  ask: [{path: /workspace/secret, permissions: [read]}, {path: /workspace/marked, permissions: [write]}]
process:
  allow: [{command: bash}, {command: cat}, {command: chmod}, {command: sleep}]
  ask: [{command: id}, {command: seq}]
EOF
		mkdir tools && cp /bin/echo tools/good && cp /bin/echo tools/bad
		cat >/srv/defaults.yaml <<'EOF'
enforcement: full
hold: 5s
filesystem:
  default: ask
  allow: [{path: /workspace, permissions: [read]}, {path: /workspace/tools, permissions: [read, execute]}]
process:
  default: ask
  allow: [{command: bash}, {command: cat}]
  deny: [{command: /workspace/tools/bad}, {command: seq}]
EOF`)
	for _, test := range []struct {
		name, keys, command, want string // want: what the command prints, without the questions
		policy                    string // "": policy.yaml
	}{
		{"allow once", "o\n", "cat secret; cat secret; cat file", "the secret\ncat: secret: Permission denied\ntext", ""},
		{"allow for the run", "r", "for i in 1 2 3; do cat secret; done", "the secret\nthe secret\nthe secret", ""},
		{"deny for the run", "d", "cat secret; cat secret", "cat: secret: Permission denied\ncat: secret: Permission denied", ""},
		{"nobody answers", "-", "cat secret", "cat: secret: Permission denied", ""},
		{"programs", "o\n", "seq 2; id", "1\n2\nbash: line 1: /usr/bin/id: Permission denied", ""},
		// Refused at once, since such a call can't wait; the answer is for the next try. chmod writes its line in two parts, and the
		// question may come between.
		{"what can't wait", "r", "chmod 600 marked 2>/tmp/said || { cat /tmp/said; sleep 6; chmod 600 marked && echo done; }", "chmod: changing permissions of 'marked': Permission denied\ndone", ""},
		{"what no rule says", "o\n", "id -un; touch new; cat file", "agent\nbash: line 1: /usr/bin/touch: Permission denied\ntext", "defaults.yaml"},
		{"what no rule lets be written", "o", "echo more >>file; cat file", "text\nmore", "defaults.yaml"},
		{"the dynamic loader", "", "/lib64/ld-linux-x86-64.so.2 /bin/echo hi", "bash: line 1: /lib64/ld-linux-x86-64.so.2: Permission denied", "defaults.yaml"},
		{"a program that is denied among others", "", "tools/good yes; tools/bad no; seq 1", "yes\nbash: line 1: tools/bad: Permission denied\nbash: line 1: /usr/bin/seq: Permission denied", "defaults.yaml"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			printed, questions := ask(t, m, "/srv/work", cmp.Or(test.policy, "policy.yaml"), test.keys, test.command)
			if printed != test.want || questions != len(test.keys) {
				t.Errorf("%d questions; it printed %q, want %q", questions, printed, test.want)
			}
		})
	}
	records := m.Must("nemoclaw audit verify /var/log/nemoclaw/audit/run.jsonl >&2; cat /var/log/nemoclaw/audit/run.jsonl")
	for _, want := range []string{
		`"action":"open","object":"/workspace/secret","subject":{"pid":`, `"verdict":"ask","rule":"../policy.yaml:5","reason":"held until a person answers"`,
		`"reason":"approved by a person after `, `"reason":"it was asked about, and nobody answered in `, `"reason":"it was asked about, and was denied after `, `"reason":"a person denied it for this run"`,
		`"object":"/usr/bin/seq","subject":{"pid":`, `such a call can't wait: another try goes by the answer`,
	} {
		if !strings.Contains(records, want) {
			t.Errorf("no record with %s", want)
		}
	}
	// An execution that a person allowed names the rule that asked.
	if !regexp.MustCompile(`"object":"/usr/bin/seq","subject":\{"pid":\d+,"exe":"/usr/bin/seq",[^}]*\},"verdict":"allow","rule":"../policy.yaml:8"`).MatchString(records) {
		t.Error("no record of the execution of seq with its rule")
	}
}
