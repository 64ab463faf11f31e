//go:build e2e

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// BenchmarkStart is a sandbox's whole life around /bin/true; BenchmarkBubblewrap is what it is compared with.
func BenchmarkStart(b *testing.B) {
	workspace, run := b.TempDir(), b.TempDir()
	c := compileYAML(b, workspaceRule+tools)
	for i := range b.N {
		s, err := Prepare(Spec{Name: fmt.Sprintf("bench-%d", i), Policy: c, Workspace: workspace, RunDir: run, CgroupParent: "nctest", Nameserver: "198.18.0.2"})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Start(); err != nil {
			b.Fatal(err)
		}
		p, err := s.Exec(ExecRequest{Args: []string{"true"}})
		if err != nil {
			b.Fatal(err)
		}
		if status, err := p.Wait(); status != 0 || err != nil {
			b.Fatal(status, err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBubblewrap(b *testing.B) {
	for range b.N {
		cmd := exec.Command("bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin",
			"--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
			"--bind", os.TempDir(), "/workspace", "/bin/true")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatal(err, string(out))
		}
	}
}
