//go:build vm

package vm

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSuites runs the end-to-end tests of packages inside a machine: another kernel judges there than on the machine that builds,
// and BPF LSM programs fire.
func TestSuites(t *testing.T) {
	t.Parallel()
	suites := []struct{ pkg, run, skip string }{
		// Two need the sources and the compiler.
		{pkg: "./loader", run: ".", skip: "^(TestNumbersMatchTheHeaders|TestExec)$"},
		// Where kernels differ most: mounts, ids, Landlock, and limits on cgroup v2 alone. All of it would take minutes.
		{pkg: "./agent/sandbox", run: "^Test(Identity|Files|ReadOnly|Exec|Init|Status|ForeignCalls|Escapes|NoExecInShm|Image|Adopt|AdoptUnmasked|" +
			"LimitPIDs|LimitMemory|LimitFiles|LimitDisk|ForkBomb|AirGap|Sweep.*|Terminal|NoLeaks|Denies|Unmasked|EtcHolds|UnixSocket|NotIdmapped)$"},
	}
	for _, s := range suites {
		t.Run(filepath.Base(s.pkg), func(t *testing.T) {
			t.Parallel()
			m := Start(t, Options{})
			m.Copy(compile(t, s.pkg), "/srv/test")
			stdout, stderr, status := m.Run("cd /srv && ./test -test.v -test.timeout 8m -test.run '" + s.run + "' -test.skip '" + s.skip + "'")
			if status != 0 {
				t.Errorf("%s in the machine ended with %d\n%s\n%s", s.pkg, status, stderr, tail(stdout, 200))
			}
			if strings.Contains(stdout, "--- SKIP") {
				t.Errorf("%s: tests were skipped\n%s", s.pkg, tail(stdout, 200))
			}
			t.Logf("%s: %d tests passed", s.pkg, strings.Count(stdout, "\n--- PASS"))
		})
	}
}

// compile makes the test program of a package.
func compile(t *testing.T, pkg string) string {
	t.Helper()
	top, err := repo()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "test")
	build := exec.Command("go", "test", "-c", "-tags", "e2e", "-o", program, pkg)
	build.Dir = top
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	return program
}
