//go:build e2e

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// install runs scripts/install, which `make install` calls after it has built, into a directory.
func install(t *testing.T, dest string, env ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("../scripts/install")
	cmd.Env = append(append(os.Environ(), "DESTDIR="+dest), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// tree lists the files and links below a directory, without the mounts that a chroot needs.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.Command("find", dir, "-xdev", "(", "-type", "f", "-o", "-type", "l", ")", "-printf", "/%P\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(out))
	slices.Sort(files)
	return files
}

// guest is a directory that an install and its uninstall take for the whole host.
func guest(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"proc", "sys", "dev", "etc", "bpf"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(dir, "etc/group"), "root:x:0:\n")
	return dir
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// inGuest runs a program that was installed there.
func inGuest(t *testing.T, dir string, argv ...string) (string, error) {
	t.Helper()
	script := `for d in proc sys dev; do mount --rbind "/$d" "$0/$d"; done; mount --bind ` + harness.W.BPFFS + ` "$0/bpf"; exec chroot "$0" "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, dir}, argv...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestInstallAndUninstallLeaveNothing(t *testing.T) {
	t.Parallel()
	dir := guest(t)
	parent := harness.W.Parent + "-uninstall"
	if out, err := install(t, dir, "WITH_OPENSHELL=1"); err != nil {
		t.Fatal(out)
	}
	for _, want := range []string{"bin/nemoclaw", "bin/nemoclaw-agent", "bin/nemoclaw-gpu", "bin/openshell", "lib/systemd/system/nemoclaw-agent.service", "share/man/man1/nemoclaw-run.1",
		"share/man/man8/nemoclaw-agent.8", "share/bash-completion/completions/nemoclaw", "share/zsh/site-functions/_nemoclaw", "share/fish/vendor_completions.d/nemoclaw.fish",
		"share/nemoclaw/deploy/prometheus-rules.yml", "share/nemoclaw/deploy/prometheus-rules-test.yml", "share/nemoclaw/deploy/grafana-dashboard.json"} {
		if _, err := os.Stat(filepath.Join(dir, "usr/local", want)); err != nil {
			t.Error(err)
		}
	}
	unit, err := os.ReadFile(filepath.Join(dir, "usr/local/lib/systemd/system/nemoclaw-agent.service"))
	if err != nil || !strings.Contains(string(unit), "ExecStart=/usr/local/bin/nemoclaw-agent --config /etc/nemoclaw/agent.yaml\n") || strings.Contains(string(unit), "@") {
		t.Errorf("%v: %s", err, unit)
	}
	// The second name is the same command.
	one, _ := inGuest(t, dir, "/usr/local/bin/nemoclaw", "version")
	two, err := inGuest(t, dir, "/usr/local/bin/openshell", "version")
	if err != nil || one != two {
		t.Errorf("%s, %s, %v", one, two, err)
	}

	// What runs leave in the kernel and on the disk, under a configuration that was edited, and what is not ours.
	put(t, filepath.Join(dir, "etc/nemoclaw/agent.yaml"), "cgroup_parent: "+parent+"\nbpffs: /bpf\n")
	put(t, filepath.Join(dir, "etc/nemoclaw/mine.yaml"), "{}")
	put(t, filepath.Join(dir, "var/lib/nemoclaw/box/spec.json"), "{}")
	leaveSandbox(t, dir, parent)
	if len(groups(parent)) == 0 {
		t.Fatal("the daemon left no cgroup, so that this would show nothing")
	}
	out, err := inGuest(t, dir, "/usr/local/bin/nemoclaw", "uninstall")
	if err == nil || !strings.Contains(out, "there is no terminal to ask on: say --yes") {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = inGuest(t, dir, "/usr/local/bin/nemoclaw", "uninstall", "--yes", "--purge")
	if err != nil {
		t.Fatal(out)
	}
	if !strings.Contains(out, "ended the sandbox box, whose daemon was gone") {
		t.Error(out)
	}
	want := []string{"/etc/group", "/etc/nemoclaw/mine.yaml", "/var/log/nemoclaw/audit/agent.jsonl", "/var/log/nemoclaw/audit/agent.jsonl.head", "/var/log/nemoclaw/audit/agent.jsonl.sig", "/var/log/nemoclaw/audit/key.pub"}
	if left := tree(t, dir); !slices.Equal(left, want) {
		t.Errorf("left: %v\nwant: %v\n%s", left, want, out)
	}
	// The key went with the state; what it signed can be verified all the same.
	logs := filepath.Join(dir, "var/log/nemoclaw/audit")
	key, err := os.ReadFile(filepath.Join(logs, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if verified, err := exec.Command(harness.W.Bin, "audit", "verify", "--key", strings.TrimSpace(string(key)), logs).CombinedOutput(); err != nil || !strings.Contains(out, strings.TrimSpace(string(key))) {
		t.Errorf("%v: %s\n%s", err, verified, out)
	}
	if left := groups(parent); len(left) > 0 {
		t.Errorf("cgroups are left: %v\n%s", left, out)
	}
	if left, _ := filepath.Glob(filepath.Join(harness.W.BPFFS, "nemoclaw", parent+"*")); len(left) > 0 {
		t.Errorf("pins are left: %v\n%s", left, out)
	}
}

// leaveSandbox has a daemon start a sandbox in a guest, and kills the daemon.
func leaveSandbox(t *testing.T, dir, parent string) {
	t.Helper()
	run := filepath.Join(dir, "run/nemoclaw")
	daemon := exec.Command(filepath.Join(filepath.Dir(harness.W.Bin), "nemoclaw-agent"), "--config", "../dist/agent.yaml", "--steer-group", "", "--watch-group", "",
		"--state-dir", filepath.Join(dir, "var/lib/nemoclaw"), "--run-dir", run, "--audit", filepath.Join(dir, "var/log/nemoclaw/audit"),
		"--bpffs", harness.W.BPFFS, "--cgroup-parent", parent)
	out := &strings.Builder{}
	daemon.Stdout, daemon.Stderr = out, out
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	}()
	socket := filepath.Join(run, "agent.sock")
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		said, err := exec.Command(harness.W.Bin, "create", "box", "--socket", socket).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s\n%s", said, out)
		}
	}
}

// groups are the cgroups of a parent, of every version and in every hierarchy.
func groups(parent string) (found []string) {
	for _, root := range harness.CgroupRoots() {
		dirs, _ := filepath.Glob(filepath.Join(root, parent+"-*"))
		found = append(found, dirs...)
	}
	return found
}

func TestUninstallRemovesNothingThatIsNotOurs(t *testing.T) {
	t.Parallel()
	dir := guest(t)
	if out, err := install(t, dir, "WITH_OPENSHELL=1"); err != nil {
		t.Fatal(out)
	}
	put(t, filepath.Join(dir, "etc/nemoclaw/agent.yaml"), "cgroup_parent: nemoclaw-none\nbpffs: /bpf\n")
	changed := []string{"/etc/nemoclaw/agent.yaml", "/usr/local/lib/systemd/system/nemoclaw-agent.service", "/usr/local/share/man/man1/nemoclaw.1"}
	for _, f := range changed[1:] {
		put(t, filepath.Join(dir, f), "changed by a person")
	}
	link := filepath.Join(dir, "usr/local/bin/openshell")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	put(t, link, "another's")
	out, err := inGuest(t, dir, "/usr/local/bin/nemoclaw", "uninstall", "--yes")
	if err != nil {
		t.Fatal(out)
	}
	want := append([]string{"/etc/group", "/usr/local/bin/openshell"}, changed...)
	slices.Sort(want)
	if left := tree(t, dir); !slices.Equal(left, want) {
		t.Errorf("left: %v\nwant: %v", left, want)
	}
	for _, f := range append(changed, "/usr/local/bin/openshell") {
		if !strings.Contains(out, "kept "+f) {
			t.Errorf("it does not say that it kept %s: %s", f, out)
		}
	}
}

// TestUninstallOfWhatWasNotInstalled: a program from elsewhere has no manifest, and removes nothing.
func TestUninstallOfWhatWasNotInstalled(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(harness.W.Bin, "uninstall", "--yes").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "was not put there by `make install`") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestInstallRefusesWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"bin/nemoclaw": nil, "bin/openshell": {"WITH_OPENSHELL=1"}, "lib/systemd/system/nemoclaw-agent.service": nil} {
		dir := guest(t)
		put(t, filepath.Join(dir, "usr/local", name), "another's")
		before := tree(t, dir)
		out, err := install(t, dir, flags...)
		if err == nil || !strings.Contains(out, "Nothing was copied") || !strings.Contains(out, filepath.Join(dir, "usr/local", name)) {
			t.Errorf("%v: %s", err, out)
		}
		if after := tree(t, dir); !slices.Equal(before, after) {
			t.Errorf("%s was in the way, and this came: %v", name, after)
		}
	}
}

// TestInstallAgain is an upgrade: ours are replaced, a configuration that a person edited is not.
func TestInstallAgain(t *testing.T) {
	t.Parallel()
	dir := guest(t)
	for range 2 {
		if out, err := install(t, dir, "WITH_OPENSHELL=1"); err != nil || out != "" {
			t.Fatal(err, out)
		}
	}
	config := filepath.Join(dir, "etc/nemoclaw/agent.yaml")
	put(t, config, "cgroup_parent: mine\n")
	out, err := install(t, dir)
	if err != nil || !strings.Contains(out, "was edited and stays as it is") {
		t.Error(err, out)
	}
	if text, err := os.ReadFile(config); err != nil || string(text) != "cgroup_parent: mine\n" {
		t.Errorf("%v: %s", err, text)
	}
	if _, err := os.Lstat(filepath.Join(dir, "usr/local/bin/openshell")); err == nil {
		t.Error("the second name is there, and was not asked for again")
	}
}
