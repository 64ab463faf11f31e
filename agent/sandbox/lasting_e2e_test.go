//go:build e2e

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const lastingPolicy = tools + `filesystem:
  allow: [{path: /workspace, permissions: [read, write]}]
  deny: [{path: /workspace/private, permissions: [read, write]}]
`

// killedOwner starts a process that has a lasting sandbox with three commands at work, and kills it once it is as far as it
// says, or after a while.
func killedOwner(t *testing.T, name, dir string, says int, after time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "owner", name, testRun, testParent, dir, "lasting")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for range says {
		line, _ := lines.ReadString('\n')
		if !strings.Contains("prepared started running", strings.TrimSpace(line)) {
			t.Fatal(line)
		}
	}
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func lastingSpec(t *testing.T, name string) Spec {
	return Spec{Name: name, Policy: compileYAML(t, lastingPolicy), RunDir: testRun, CgroupParent: testParent, Nameserver: "198.18.0.2", Lasting: true}
}

// TestAdopt kills the owner of a lasting sandbox: everybody inside goes on, and the next owner has all of it.
func TestAdopt(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	fill(t, dir, "private/key")
	killedOwner(t, "adopt", dir, 3, 0)
	if swept, err := Sweep(testRun, "", testParent); err != nil || len(swept) > 0 {
		t.Errorf("swept %v, %v", swept, err)
	}
	for range 3 { // one owner after the other
		s, err := Adopt(lastingSpec(t, "adopt"))
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Commands(); n != 3 {
			t.Errorf("%d commands run, want the three of the first owner", n)
		}
		if _, err := Adopt(lastingSpec(t, "adopt")); err == nil || !strings.Contains(err.Error(), "another daemon has it") {
			t.Errorf("a second adoption: %v", err)
		}
		b := &box{s, t}
		if out, status := b.run("sh", "-c", "cat /workspace/private/key; pwd; id -u; cat /etc/shadow >&-; ls /dev/pts/ptmx"); status != 0 || !strings.Contains(out, "/workspace\n1000\n") || strings.Contains(out, "content") {
			t.Errorf("%d %q", status, out)
		}
		if out, status := b.run("sh", "-c", "kill -9 $$"); status != 137 {
			t.Errorf("%d %q", status, out)
		}
		if err := s.Open(func(lc *net.ListenConfig) error { return nil }); err != nil {
			t.Error(err)
		}
		s.Detach()
	}
	s, err := Adopt(lastingSpec(t, "adopt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	waitNone(t, "processes after Close", func() []string { return processesOfName(t, "adopt") })
	if left := leftoversOf("adopt"); len(left) > 0 {
		t.Error(left)
	}
}

// TestAdoptEndedMeanwhile: what ended while nobody was there is told to the next owner once, and its place is free again.
func TestAdoptEndedMeanwhile(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	fill(t, dir, "private/")
	killedOwner(t, "ended", dir, 3, 0)
	s, err := Adopt(lastingSpec(t, "ended"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := s.Exec(ExecRequest{Args: []string{"sleep", fmt.Sprint(float64(i) / 50)}}); err != nil {
			t.Fatal(err)
		}
	}
	s.Detach()
	time.Sleep(400 * time.Millisecond)
	if s, err = Adopt(lastingSpec(t, "ended")); err != nil {
		t.Fatal(err)
	}
	if n := s.Commands(); n != 3 {
		t.Errorf("%d commands run, want 3", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestAdoptUnmasked: a mask that was taken away while nobody watched is found by the next owner.
func TestAdoptUnmasked(t *testing.T) {
	for _, how := range []string{"rename", "replace"} {
		t.Run(how, func(t *testing.T) {
			dir, name := workspaceOf(t, 0, 0), "unmasked-"+how
			fill(t, dir, "private/key")
			killedOwner(t, name, dir, 3, 0)
			if err := os.Rename(filepath.Join(dir, "private"), filepath.Join(dir, "public")); err != nil {
				t.Fatal(err)
			}
			if how == "replace" {
				fill(t, dir, "private/key")
			}
			spec := lastingSpec(t, name)
			seen := make(chan Unmasked, 1)
			spec.Unmasked = func(u Unmasked) { seen <- u }
			s, err := Adopt(spec)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case u := <-seen:
				if u.Path != "/workspace/private" || !strings.HasPrefix(u.Rule, "test.yaml:") || u.Err != nil {
					t.Errorf("%+v", u)
				}
			case <-time.After(5 * time.Second):
				t.Error("nobody noticed")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAdoptFrozen: an owner that was killed while the sandbox stood still leaves one that goes on, unless a mask is gone.
func TestAdoptFrozen(t *testing.T) {
	h, err := hostHierarchies("")
	if err != nil {
		t.Fatal(err)
	}
	for _, masked := range []bool{true, false} {
		dir, name := workspaceOf(t, 0, 0), fmt.Sprintf("frozen-%v", masked)
		fill(t, dir, "private/key")
		killedOwner(t, name, dir, 3, 0)
		if err := writeFile(filepath.Join(h.v2, testParent, name, "cgroup.freeze"), "1"); err != nil {
			t.Fatal(err)
		}
		if !masked {
			if err := os.Rename(filepath.Join(dir, "private"), filepath.Join(dir, "public")); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Adopt(lastingSpec(t, name))
		if !masked {
			if err == nil || !strings.Contains(err.Error(), "the mask of /workspace/private") {
				t.Errorf("a mask is gone: %v", err)
			}
			if err := Discard(testRun, "", name); err != nil {
				t.Error(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if out, status := (&box{s, t}).run("id", "-u"); out != "1000\n" || status != 0 || s.Commands() != 3 {
			t.Errorf("%q %d, %d commands", out, status, s.Commands())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAdoptKilledAnywhere kills the owner at any moment: the next one can take the sandbox, or there is nothing to take and
// Sweep and Discard leave nothing.
func TestAdoptKilledAnywhere(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	fill(t, dir, "private/")
	taken := 0
	for round := range 40 {
		name := fmt.Sprintf("anywhere%d", round)
		killedOwner(t, name, dir, round%4, time.Duration(rand.IntN(12_000))*time.Microsecond)
		if _, err := Sweep(testRun, "", testParent); err != nil { // what is no lasting sandbox yet
			t.Error(err)
		}
		s, err := Adopt(lastingSpec(t, name))
		switch {
		case err == nil:
			taken++
			if out, status := (&box{s, t}).run("id", "-u"); out != "1000\n" || status != 0 {
				t.Errorf("%q %d", out, status)
			}
			err = s.Close()
		case errors.Is(err, ErrNotWhole), errors.Is(err, os.ErrNotExist):
			err = Discard(testRun, "", name)
		}
		if err != nil {
			t.Error(err)
		}
		waitNone(t, "processes", func() []string { return processesOfName(t, name) })
		waitNone(t, "groups and directories", func() []string { return leftoversOf(name) })
	}
	if taken == 0 || taken == 40 {
		t.Errorf("%d of 40 could be taken: the moments are not spread", taken)
	}
}

// TestGone: that the init was killed is told, and that it was ended by Close is not.
func TestGone(t *testing.T) {
	for _, kill := range []bool{true, false} {
		spec := lastingSpec(t, fmt.Sprint("gone-", kill))
		spec.Workspace = workspaceOf(t, 0, 0)
		fill(t, spec.Workspace, "private/")
		gone := make(chan struct{}, 1)
		spec.Gone = func() { gone <- struct{}{} }
		b := startSpec(t, spec)
		if kill {
			if err := unix.Kill(b.InitPID(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			select {
			case <-gone:
			case <-time.After(5 * time.Second):
				t.Error("nobody was told")
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		select {
		case <-gone:
			t.Error("told of a Close")
		default:
		}
	}
}

func processesOfName(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, p := range processesOf(t) {
		dir, _, _ := strings.Cut(p, " ")
		if groups, _ := os.ReadFile(dir + "/cgroup"); strings.Contains(string(groups), "/"+name+"\n") {
			found = append(found, p)
		}
	}
	return found
}
