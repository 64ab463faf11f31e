//go:build e2e

package attacks

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// A victim is a process of the host, of the attacker's user: it holds the token in memory, in its environment, in its command line
// and as descriptor 3.
type victim struct{ ended chan struct{} }

// process starts a victim: {pid}, and {address} of the token in its memory.
func process(s *scene) {
	secret, err := os.Open(filepath.Join(s.out(), "secret"))
	if err != nil {
		s.Fatal(err)
	}
	defer secret.Close()
	cmd := exec.Command(harness.W.ProbeBin, "holder "+s.token)
	cmd.Env = []string{"TOKEN=" + s.token}
	cmd.Dir = s.out()
	cmd.ExtraFiles = []*os.File{secret}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}, Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		s.Fatal(err)
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	var pid int
	var address string
	if _, err := fmt.Fscan(said, &pid, &address); err != nil {
		s.Fatal(err)
	}
	s.set("pid", strconv.Itoa(pid))
	s.set("address", address)
	s.victim = &victim{ended: make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, said)
		_ = cmd.Wait()
		close(s.victim.ended)
	}()
	s.Cleanup(func() { in.Close(); <-s.victim.ended })
}

// dead: the victim was ended.
func dead(s *scene, _ string) bool {
	select {
	case <-s.victim.ended:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}

// initOrVictim is who is the first process: inside the sandbox's, natively a victim.
func initOrVictim(s *scene) {
	process(s)
	s.set("first", s.vars["{pid}"])
	if s.inside {
		s.set("first", "1")
	}
}

// ticks: what the attempt left behind still writes.
func ticks(s *scene, _ string) bool {
	size := func() int64 {
		fi, err := os.Stat(filepath.Join(s.ws, "ticks"))
		if err != nil {
			return 0
		}
		return fi.Size()
	}
	before := size()
	time.Sleep(200 * time.Millisecond)
	return size() > before
}
