//go:build e2e

package sandbox

import (
	"bytes"
	"os"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

func testPolicy(commands ...string) *policy.Compiled {
	c := &policy.Compiled{Rules: []policy.RuleRef{{Pos: "default"}}}
	rule := func(pos string) policy.RuleID {
		c.Rules = append(c.Rules, policy.RuleRef{Pos: pos, Text: pos})
		return policy.RuleID(len(c.Rules) - 1)
	}
	c.Files.Baseline = true
	c.Files.Rules = []policy.FileRule{{ID: rule("test:1"), Path: "/workspace", Access: policy.Read | policy.Write}}
	for _, name := range commands {
		c.Exec.Allow = append(c.Exec.Allow, policy.Command{ID: rule("test:2"), Name: name})
	}
	return c
}

func TestSmoke(t *testing.T) {
	s, err := Prepare(Spec{Name: "smoke", Policy: testPolicy("true", "sh", "ls", "cat", "id", "mount"), Workspace: t.TempDir(), RunDir: t.TempDir(), CgroupParent: "nctest", Nameserver: "198.18.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	t.Log(s.Warnings())
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	r, w, _ := os.Pipe()
	p, err := s.Exec(ExecRequest{Args: []string{"sh", "-c", "id; ls -la / /dev /home /tmp /workspace; cat /proc/self/status /proc/self/mountinfo /etc/passwd; echo hi > /workspace/x; ls -la /workspace"}, Env: Environment(nil, false, nil), Stdout: w, Stderr: w})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	var b bytes.Buffer
	b.ReadFrom(r)
	t.Log(b.String())
	t.Log(p.Wait())
}
