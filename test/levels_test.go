//go:build e2e

package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"golang.org/x/sys/unix"
)

// A guarantee is a kind of rule, with what shows how well it holds here. Exactly one of refused and holds is given.
type guarantee struct {
	rule    string
	by      string   // what enforces it
	policy  string   // one that uses it
	refused string   // the start must fail and say this: the rule is not enforced here, so it is not accepted
	holds   []string // attempts that must fail, or the rule is not kept at all
	escapes []string // attempts that show what is missing to a full guarantee: one that works makes it partial
	setup   func(t *testing.T, workspace string)
	on      *harness.GPUHost // where; nil: on this machine
}

func guarantees(t *testing.T) []guarantee {
	t.Helper()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("level.test", a4)
	harness.W.TCP(t, a4, 7000)
	rule := func(verb, rest string) string {
		return harness.Base + fmt.Sprintf("network:\n  %s:\n    - {domain: level.test, ports: [7000], protocol: tcp%s}\n", verb, rest)
	}
	files := func(section string) string { return harness.Exec + "filesystem:\n" + section }
	process := func(section string) string { return harness.Files + "process:\n" + section }
	reach := "reach level.test 7000 " + b64("x")
	mkdir := func(t *testing.T, ws string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(ws, "private"), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(ws, "private/key"), []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A host's socket that lies in a tree that is shown anyway.
	listenIn := func(t *testing.T, ws string) {
		t.Helper()
		l, err := net.Listen("unix", filepath.Join(ws, "host.sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				c.Close()
			}
		}()
	}
	return []guarantee{
		{rule: "`network.default: deny`", by: "empty network namespace, cgroup BPF, proxy", policy: harness.Base,
			holds: []string{"tcp-to level.test 7000", "tcp " + a4.String() + " 7000", "udp " + a4.String() + " 9"}},
		{rule: "`network.allow` by name, port, protocol", by: "cgroup BPF at connect, proxy", policy: rule("allow", ""),
			holds: []string{"tcp-to level.test 7001", "tcp-to other.level.test 7000", "tcp " + a4.String() + " 7000"}},
		{rule: "`network.allow` by `cidr`", by: "cgroup BPF at connect, proxy", policy: harness.Base + "network:\n  allow:\n    - {cidr: 203.0.113.0/30, ports: [7000], protocol: tcp}\n",
			holds: []string{"tcp " + a4.String() + " 7000"}},
		{rule: "`network.deny`", by: "DNS server, cgroup BPF", policy: rule("allow", "") + "  deny:\n    - {domain: level.test}\n", holds: []string{reach}},
		{rule: "`network.ask`", by: "proxy holds the data", policy: rule("ask", ""), holds: []string{reach}},
		{rule: "`network` rules with `commands`", by: "cgroup BPF: the executable's inode", policy: process("  allow:\n    - {command: /workspace/probe}\n    - {command: python3}\n") +
			"network:\n  allow:\n    - {domain: level.test, ports: [7000], protocol: tcp, commands: [python3]}\n", holds: []string{reach}},
		{rule: "`network` rules with `expires`", by: "cgroup BPF, by the kernel's clock", policy: rule("allow", ", expires: 1s"), holds: []string{"sleep-then 1500ms " + reach}},
		{rule: "`network.unix`", by: "mount view", policy: harness.Base, setup: listenIn,
			holds: []string{"unix /run/dbus/system_bus_socket", "unix /run/docker.sock"}, escapes: []string{"unix /workspace/host.sock"}},
		{rule: "`filesystem.allow`", by: "mount view, Landlock", policy: files("  allow:\n    - {path: /workspace, permissions: [read]}\n"),
			holds: []string{"write /workspace/x y", "read /etc/shadow", "ls /root", "write /usr/x y", "chmod 777 /workspace/probe", "truncate /workspace/probe"}},
		{rule: "`filesystem.deny` below a read-only tree", by: "a mount over it", policy: files("  allow:\n    - {path: /workspace, permissions: [read]}\n  deny:\n    - {path: /etc/passwd, permissions: [read]}\n    - {path: /usr/share/doc, permissions: [read]}\n"),
			holds: []string{"read-some /etc/passwd", "ls-some /usr/share/doc"}},
		{rule: "`filesystem.deny` of a directory in a writable tree", by: "a mount over it, watched", setup: mkdir,
			policy: files("  allow:\n    - {path: /workspace, permissions: [read, write]}\n  deny:\n    - {path: /workspace/private, permissions: [read, write]}\n"),
			holds:  []string{"read /workspace/private/key", "write /workspace/private/new x", "rename /workspace/private /workspace/other", "rmdir /workspace/private"}},
		{rule: "`filesystem.deny` of a file in a writable tree", by: "needs level full", refused: "full",
			policy: files("  allow:\n    - {path: /workspace, permissions: [read, write]}\n  deny:\n    - {path: /workspace/.env, permissions: [read]}\n")},
		{rule: "`filesystem` rules with `expires`", by: "needs level full", refused: "full",
			policy: files("  allow:\n    - {path: /workspace, permissions: [read], expires: 1h}\n")},
		{rule: "`process` rules with `expires`", by: "needs level full", refused: "full", policy: process("  allow:\n    - {command: id, expires: 1h}\n")},
		{rule: "`filesystem.ask`", by: "needs level full", refused: "needs enforcement level full", policy: files("  ask:\n    - {path: /workspace, permissions: [read]}\n")},
		{rule: "`process.allow`", by: "Landlock; BPF at exec", policy: harness.Base,
			holds: []string{"run /usr/bin/id", "run-copy /usr/bin/id /tmp/id", "run-copy /usr/bin/id /workspace/id", "run-memory /usr/bin/id", "run " + loader(t) + " /usr/bin/id"}},
		{rule: "`process.deny`", by: "Landlock; BPF at exec", policy: process("  allow:\n    - {command: /workspace/probe}\n    - {command: id}\n  deny:\n    - {command: id}\n"), holds: []string{"run /usr/bin/id"}},
		{rule: "`process.allow` with `helpers`", by: "Landlock; BPF at exec", policy: process("  allow:\n    - {command: /workspace/probe}\n    - {command: git, helpers: [id]}\n"),
			holds: []string{"run /usr/bin/env true"}, escapes: []string{"run /usr/bin/id"}},
		{rule: "`process.ask`", by: "needs level full", refused: "needs enforcement level full", policy: process("  ask:\n    - {command: id}\n")},
		{rule: "`process.map: listed`", by: "needs level full", refused: "full", policy: process("  map: listed\n")},
		{rule: "`process.limits`", by: "cgroup v2 or v1, rlimits, tmpfs sizes", policy: process("  allow:\n    - {command: /workspace/probe}\n  limits: {memory: 256MiB, pids: 64, files: 64, cpus: 1, disk: 8MiB}\n"),
			holds: []string{"fill /tmp/big 32", "forks 200", "files"}},
		{rule: "`enforcement: full`", by: "needs BPF LSM", refused: "the level here is static", policy: "enforcement: full\n" + harness.Base},
		{rule: "`devices.gpus`", by: "mount view, cgroup BPF", policy: gpus("0"), on: harness.W.GPUHost(t), holds: []string{"open rw /dev/nvidia1", "mknod-of /tmp/nvidia1 240 1"}},
		{rule: "`tools`", by: "nothing: [the privacy router records](routing.md#records) the tool calls that it sees, and judges none", refused: "not supported by this version", policy: "tools: {default: allow}\n" + harness.Base},
	}
}

const (
	beginTable = "<!-- The table is written by `UPDATE=1 go test -tags e2e -run TestLevels ./test` (as root) from what the probes gave. -->\n"
	endTable   = "<!-- end of the table -->\n"
)

// TestLevels runs the probes and wants docs/levels.md to say what they gave.
func TestLevels(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	table.WriteString("| rule | at level static | enforced by |\n|---|---|---|\n")
	for _, g := range guarantees(t) {
		fmt.Fprintf(&table, "| %s | %s | %s |\n", g.rule, measure(t, g), g.by)
	}
	const doc = "../docs/levels.md"
	b, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), beginTable)
	old, tail, ok2 := strings.Cut(rest, endTable)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost the marks of its table", doc)
	}
	if old == table.String() {
		return
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(doc, []byte(head+beginTable+table.String()+endTable+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s does not say what the probes gave (write it with UPDATE=1):\n%s", doc, table.String())
}

func measure(t *testing.T, g guarantee) string {
	t.Helper()
	s := harness.W.Prepare(t, harness.Box{})
	if g.setup != nil {
		g.setup(t, s.Workspace)
	}
	b := harness.Box{Policy: g.policy, Workspace: s.Workspace, On: g.on}
	if g.refused != "" {
		r := harness.W.Run(t, b, "/workspace/probe", "sys getpid")
		if r.Code == 0 || !strings.Contains(r.Err, g.refused) {
			t.Errorf("%s: the start was not refused with %q\n%s", g.rule, g.refused, r.Dump())
		}
		return "refused"
	}
	_, out := harness.W.Probe(t, b, append(append([]string{}, g.holds...), g.escapes...)...)
	for _, o := range out[:len(g.holds)] {
		if o.Errno == "" {
			t.Errorf("%s: %q worked: %q", g.rule, o.Op, o.Out)
		}
	}
	for _, o := range out[len(g.holds):] {
		if o.Errno == "" {
			return "partial"
		}
	}
	return "guaranteed"
}

// TestLevelIsStatic: this kernel's Landlock is what the table was measured with, or newer.
func TestLevelIsStatic(t *testing.T) {
	t.Parallel()
	const versionFlag = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, versionFlag)
	if errno != 0 || abi < 3 {
		t.Errorf("Landlock's ABI is %d (%v): level static needs 3", abi, errno)
	}
}
