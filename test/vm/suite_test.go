//go:build vm

package vm

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The tests of LSM programs: for every kernel, and for one. In an emulated machine a million operations take a minute or two: without
// -test.short they are made.
const (
	lsm     = "ProbeLSM|FileHooks|FileExec|FileSockets|FileKept|GuardHooks|GuardFailsClosed|Hold"
	moreLSM = "FileRulesChange|FileSwap|FileFlood|GuardWithoutLoader|GuardHookMissing|HoldMany"
)

// TestSuites runs the end-to-end tests of packages inside a machine: other kernels judge there than on the machine that builds, and BPF
// LSM programs fire.
func TestSuites(t *testing.T) {
	t.Parallel()
	static := Options{Arch: "amd64", Kernel: usual, Light: true, NoBPFLSM: true}
	most := Options{Arch: "amd64", Kernel: usual, Light: true}
	var others []Options
	for _, arch := range []string{"amd64", "arm64"} {
		for _, kernel := range Kernels(t, arch) {
			if o := (Options{Arch: arch, Kernel: kernel, Light: true}); o != most {
				others = append(others, o)
			}
		}
	}
	suites := []struct {
		pkg, run, skip string
		seconds        int // of a processor, for each
		on             []Options
	}{
		// Two need the sources and the compiler; the million decisions of one are made where there is a real processor. LSM programs take
		// seconds to load here, for each test, so those that do not need them have none.
		{pkg: "./loader", run: ".", skip: "^Test(NumbersMatchTheHeaders|Exec|FileCore|" + lsm + "|" + moreLSM + ")$", seconds: 120, on: []Options{static}},
		{pkg: "./loader", run: "^Test(" + lsm + "|" + moreLSM + "|ExecOfStray)$", skip: "^$", seconds: 100, on: []Options{most}},
		// What differs between kernels: which hooks there are, what they are given, and what the verifier takes.
		{pkg: "./loader", run: "^Test(" + lsm + ")$", skip: "^$", seconds: 60, on: others},
		// Where kernels differ most: mounts, ids, Landlock, and limits on cgroup v2 alone. All of it would take minutes.
		{pkg: "./agent/sandbox", run: "^Test(Identity|Files|ReadOnly|Exec|Init|Status|ForeignCalls|Escapes|NoExecInShm|Image|Adopt|AdoptUnmasked|" +
			"LimitPIDs|LimitMemory|LimitFiles|LimitDisk|ForkBomb|AirGap|Sweep.*|Terminal|NoLeaks|Denies|Unmasked|EtcHolds|UnixSocket|NotIdmapped)$", skip: "^$",
			seconds: 50, on: []Options{{Arch: "amd64", Kernel: usual}}},
	}
	for _, s := range suites {
		for _, o := range s.on {
			name := o.Kernel + "/" + filepath.Base(s.pkg)
			if o.Arch == "arm64" {
				name = "arm64-" + name
			}
			if o.NoBPFLSM {
				name = "static-" + name
			}
			t.Run(name, func(t *testing.T) {
				turn(t, s.seconds)
				start := Start
				if o.Arch == "arm64" { // TestFull looks at those of the others
					start = light
				}
				start(t, o).Test(compile(t, s.pkg, o.Arch), "-test.short", "-test.run="+s.run, "-test.skip="+s.skip)
			})
		}
	}
}

// build makes a program of ours.
func build(t testing.TB, pkg string) string {
	t.Helper()
	top, err := repo()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, pkg)
	build.Dir = top
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", pkg, err, out)
	}
	return program
}

// compile makes the test program of a package, for an architecture.
func compile(t *testing.T, pkg, arch string) string {
	t.Helper()
	top, err := repo()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "test")
	build := exec.Command("go", "test", "-c", "-tags", "e2e,lsm", "-o", program, pkg)
	build.Dir = top
	build.Env = append(build.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	return program
}
