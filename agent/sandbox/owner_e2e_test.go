//go:build e2e

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ownerMain is a process of its own that has a sandbox, and says how far it is: test binary, "owner", name, run
// directory, parent group, workspace, and "lasting" when it is to be.
func ownerMain() {
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	lasting := len(os.Args) > 6
	text := workspaceRule + tools
	if lasting {
		text = lastingPolicy
	}
	c, err := parsePolicy(text)
	must(err)
	s, err := Prepare(Spec{Name: os.Args[2], Policy: c, RunDir: os.Args[3], CgroupParent: os.Args[4], Workspace: os.Args[5], Nameserver: "198.18.0.2", Lasting: lasting})
	must(err)
	fmt.Println("prepared")
	must(s.Start())
	fmt.Println("started")
	for range 3 {
		_, err := s.Exec(ExecRequest{Args: []string{"sh", "-c", "trap '' HUP TERM INT; (sleep 997 &); while :; do sleep 998; done"}})
		must(err)
	}
	fmt.Println("running")
	select {}
}

// processesOf lists processes in a group of this test's. What is dead and not yet reaped is not one: after its owner's
// death that is up to the host's init.
func processesOf(t *testing.T) []string {
	t.Helper()
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		groups, _ := os.ReadFile(dir + "/cgroup")
		stat, _ := os.ReadFile(dir + "/stat")
		if strings.Contains(string(groups), testParent) && !strings.Contains(string(stat), ") Z ") {
			found = append(found, dir+" "+string(stat))
		}
	}
	return found
}

// waitNone waits until list is empty, for five seconds.
func waitNone(t *testing.T, what string, list func() []string) {
	t.Helper()
	var left []string
	for range 100 {
		if left = list(); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s: %v", what, left)
}

// TestOwnerKilled kills the owner with SIGKILL at some moment, from its first instructions to a sandbox at work: every
// process is gone by the kernel's doing alone, and the next sweep removes the rest.
func TestOwnerKilled(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	for round := range 40 {
		name := fmt.Sprintf("owner%d", round)
		cmd := exec.Command("/proc/self/exe", "owner", name, testRun, testParent, dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		switch round % 4 {
		case 0: // somewhere in the making
			time.Sleep(time.Duration(rand.IntN(12_000)) * time.Microsecond)
		case 1:
			_, _ = lines.ReadString('\n') // prepared
			time.Sleep(time.Duration(rand.IntN(1_000)) * time.Microsecond)
		case 2:
			_, _ = lines.ReadString('\n')
			_, _ = lines.ReadString('\n') // started
			time.Sleep(time.Duration(rand.IntN(2_000)) * time.Microsecond)
		case 3:
			for range 3 {
				line, _ := lines.ReadString('\n')
				if !strings.Contains("prepared started running", strings.TrimSpace(line)) {
					t.Fatal(line)
				}
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		waitNone(t, "processes before the sweep", func() []string { return processesOf(t) })
		if _, err := Sweep(testRun, "", testParent); err != nil {
			t.Error(err)
		}
		waitNone(t, "groups and directories after the sweep", func() []string { return leftoversOf(name) })
	}
}

// TestChroot starts a sandbox in a chroot, where the kernel by itself makes no user namespace, and in one whose files
// are on an overlayfs, as a container's are.
func TestChroot(t *testing.T) {
	bind := func(from, to string) error {
		return errors.Join(unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""), unix.Mount("", to, "", unix.MS_PRIVATE|unix.MS_REC, ""))
	}
	for name, mount := range map[string]func(root string) error{
		"plain": func(root string) error { return bind("/", root) },
		"overlay": func(root string) error {
			layers := root + ".layers"
			t.Cleanup(func() { os.RemoveAll(layers); unix.Unmount(layers, unix.MNT_DETACH); os.Remove(layers) })
			if err := errors.Join(os.Mkdir(layers, 0o755), unix.Mount("none", layers, "tmpfs", 0, "")); err != nil {
				return err
			}
			err := errors.Join(os.Mkdir(layers+"/upper", 0o755), os.Mkdir(layers+"/work", 0o755),
				unix.Mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+layers+"/upper,workdir="+layers+"/work"))
			for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp"} {
				err = errors.Join(err, bind(dir, root+dir))
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			root, dir := hostDir(t), workspaceOf(t, 0, 0)
			t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
			if err := mount(root); err != nil {
				t.Fatal(err)
			}
			inChroot(t, root, dir)
		})
	}
}

func inChroot(t *testing.T, root, workspace string) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "owner", "chroot", testRun, testParent, workspace)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	cmd.Dir = "/"
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "running" {
		if !strings.Contains("prepared started", lines.Text()) {
			t.Error(lines.Text())
		}
	}
	if lines.Text() != "running" {
		t.Error("nothing runs in a chroot")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	waitNone(t, "processes", func() []string { return processesOf(t) })
	if _, err := Sweep(testRun, "", testParent); err != nil {
		t.Error(err)
	}
}

// leftoversOf lists groups and directories of one sandbox.
func leftoversOf(name string) []string {
	h, err := hostHierarchies("")
	if err != nil {
		return []string{err.Error()}
	}
	dirs := []string{filepath.Join(testRun, name), filepath.Join(h.v2, testParent, name)}
	for _, point := range h.v1 {
		dirs = append(dirs, filepath.Join(point, testParent, name))
	}
	var left []string
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			left = append(left, dir)
		}
	}
	return left
}

// TestSweepSparesTheLiving sweeps around sandboxes that run.
func TestSweepSparesTheLiving(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	swept, err := Sweep(testRun, "", testParent)
	if err != nil || len(swept) > 0 {
		t.Error(swept, err)
	}
	b.want("echo alive", "alive", 0)
}

// TestSweepKills leaves processes behind as a killed owner can't: the lock is gone and the group is full.
func TestSweepKills(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	p, err := b.Exec(ExecRequest{Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(b.Sandbox.run.lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	swept, err := Sweep(testRun, "", testParent)
	if err != nil || len(swept) != 1 || swept[0].Name != b.spec.Name || !swept[0].Killed {
		t.Error(swept, err)
	}
	if _, err := p.Wait(); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	if left := leftoversOf(b.spec.Name); len(left) > 0 {
		t.Error(left)
	}
}
