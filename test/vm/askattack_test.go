//go:build vm

package vm

import (
	"strings"
	"testing"
)

// askAttacks: an answer, or a rule for something else, lets nothing through that the question did not say.
func askAttacks(t *testing.T, m *Machine) {
	m.Must(`mkdir -p /srv/hostile/tools && cd /srv/hostile && echo secret | tee both >/dev/null && cp /bin/echo tools/asked && cp /bin/echo tools/denied && cp /bin/echo tools/filedeny && cp /bin/echo tools/both
		printf '#!/bin/sh\necho a script\n' | tee tools/ask.sh tools/deny.sh >tools/free.sh && chmod 755 tools/*
		mkdir long && for n in 1 2; do echo $n >long/$(printf %0127d 7)$n; done
		cat >/srv/hostile.yaml <<'EOF'
enforcement: full
hold: 5s
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: /workspace/tools/denied, permissions: [read, execute]}
    - {path: /workspace/tools/both, permissions: [read, execute]}
    - {path: /workspace/tools/ask.sh, permissions: [read]}
    - {path: /workspace/tools/deny.sh, permissions: [read]}
  ask:
    - {path: /workspace/tools/asked, permissions: [execute]}
    - {path: /workspace/both, permissions: [read, write]}
    - {path: /workspace/long, permissions: [read]}
  deny: [{path: /workspace/tools/filedeny, permissions: [execute]}]
process:
  allow: [{command: bash}, {command: sh}, {command: cat}, {command: python3}, {command: truncate}, {command: sleep}, {command: /workspace/tools/filedeny}]
  ask: [{command: /workspace/tools/both}, {command: /workspace/tools/ask.sh}]
  deny: [{command: /workspace/tools/denied}, {command: /workspace/tools/deny.sh}]
EOF`)
	open := func(flags ...string) string {
		script := "import os\n"
		for _, f := range flags {
			script += "try:\n  os.open(\"/workspace/both\", os." + f + "); print(\"" + f + " done\")\nexcept OSError:\n  print(\"" + f + " refused\")\n"
		}
		return "python3 -c '" + script + "'"
	}
	for _, test := range []struct{ name, keys, command, want string }{
		{"a file that is asked about", "\n", "tools/asked yes", "refused"},
		{"a file that a file rule allows and a program rule asks about", "\n", "tools/both yes", "refused"},
		{"a file that a file rule allows and a program rule denies", "", "tools/denied yes", "refused"},
		{"a program that a file rule denies", "", "tools/filedeny yes", "refused"},
		{"a script that is asked about", "\n\n", "tools/ask.sh", "refused"}, // bash looks into it to say why
		{"a script that is asked about, by its interpreter", "\n", "sh tools/ask.sh", "refused"},
		{"a script that is allowed", "oo", "tools/ask.sh", "a script"},
		{"a script that is denied", "", "tools/deny.sh", "refused"},
		{"another script", "", "tools/free.sh", "a script"},
		{"writing and reading", "r\n", open("O_WRONLY", "O_RDWR"), "O_WRONLY done\nO_RDWR refused"},
		{"names that begin alike", "or\n", "cat long/*", "1\nrefused"},
		{"the end does not wait for an answer", "-", "truncate -s 0 both", "refused"},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) {
			printed, questions := ask(t, m, "/srv/hostile", "hostile.yaml", test.keys, test.command+" 2>/dev/null || echo refused")
			if printed != test.want || questions != len(test.keys) {
				t.Errorf("%d questions; it printed %q, want %q", questions, printed, test.want)
			}
		})
	}
}
