//go:build vm

package vm

import (
	"strings"
	"testing"
)

// learnApproved: what was approved about files and programs, held in the kernel, becomes rules that are in force at once; what was
// denied last does not.
func learnApproved(t *testing.T, m *Machine) {
	askingBox(m)
	// answered runs a command inside that has to wait, answers the request about an object, and wants to hear something.
	answered := func(command, object, answer, want string) {
		t.Helper()
		m.Must("nemoclaw approvals " + answer + " " + m.begin(t, command, object).ID)
		if said := strings.TrimSpace(m.Must("tail --pid $(cat /srv/waits) -f /dev/null; cat /srv/said")); said != want {
			t.Errorf("%s said %q, want %q", command, said, want)
		}
	}
	answered("cat other", "/workspace/other", "approve --yes", "other")
	answered("cat secret", "/workspace/secret", "approve --yes", "the secret")
	answered("cat secret", "/workspace/secret", "reject", "cat: secret: Permission denied")
	answered("/usr/bin/seq 1", "/usr/bin/seq", "approve --yes --scope session", "1")

	m.Must("nemoclaw box policy learn --yes")
	rules := m.Must("nemoclaw box policy list")
	for _, want := range []string{"{path: /workspace/other, permissions: [read, write]}", "{command: seq}", "{path: /workspace/secret, permissions: [read]}"} {
		if !strings.Contains(rules, want) {
			t.Errorf("%s is not among the rules:\n%s\n%s", want, rules, m.Must("nemoclaw box logs -o json"))
		}
	}
	m.Must("nemoclaw box stop && nemoclaw box start") // and so the end of what was answered for the session
	if said := m.Must("nemoclaw box exec -- sh -c 'cat other; /usr/bin/seq 1' </dev/null 2>&1"); strings.TrimSpace(said) != "other\n1" {
		t.Errorf("%q", said)
	}
	answered("cat secret", "/workspace/secret", "reject", "cat: secret: Permission denied")
	m.Must("nemoclaw destroy --yes box && kill $(cat /srv/pid) && tail --pid $(cat /srv/pid) -f /dev/null && nemoclaw audit verify /var/log/nemoclaw/audit/agent.jsonl")
}
