//go:build e2e

package daemon

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestChildOfAKilledDaemon: what a daemon forks has its sockets until it executes, and lives on when it is killed. The next daemon waits
// for them, and the sandbox lives on; after a while it is started again, and a record says why.
func TestChildOfAKilledDaemon(t *testing.T) {
	t.Parallel()
	for lives, same := range map[time.Duration]bool{time.Second: true, 6 * time.Second: false} {
		t.Run(lives.String(), func(t *testing.T) {
			t.Parallel()
			d := harness.W.StartDaemon(t)
			c, _ := dial(t, d)
			before := create(t, d, "box", shell)
			d.Kill()
			free, err := takeSockets(before.PID)
			if err != nil {
				t.Fatal(err)
			}
			d.Launch(t)
			time.Sleep(lives)
			free()
			d.Ready(t)
			until(t, "it runs", func() bool { return get(t, c, "box").State == api.Running })
			records := d.Do(t, "audit", "search", "--sandbox", "box", "--plane", "system", d.AuditDir())
			if s := get(t, c, "box"); (s.PID == before.PID) != same || strings.Contains(records, "address already in use") == same {
				t.Errorf("%+v\n%s", s, records)
			}
			d.Do(t, "box", "exec", "--", "sh", "-c", "true")
		})
	}
}

// takeSockets opens two of the sockets that a sandbox's daemon has in its network namespace.
func takeSockets(pid int) (free func(), err error) {
	netns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer netns.Close()
	var open []io.Closer
	free = func() {
		for _, c := range open {
			c.Close()
		}
	}
	err = harness.InNetns(netns, func() error {
		stream, err := net.Listen("tcp4", "198.18.0.2:53")
		if err != nil {
			return err
		}
		open = append(open, stream)
		packet, err := net.ListenPacket("udp4", "198.18.0.2:53")
		if err != nil {
			return err
		}
		open = append(open, packet)
		return nil
	})
	if err != nil {
		free()
	}
	return free, err
}

// TestReboot takes away what a reboot does: what should run is back, what was stopped is not, and policies, proposals and files are
// what they were.
func TestReboot(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	yes, _ := name(t, "yes.reboot.test")
	asked, server := name(t, "asked.reboot.test")
	ws := probeBox(t, d, "runs", "hold: 1s\n"+harness.Base+"network:\n  ask:\n    - "+rule(asked)+"\n")
	own := create(t, d, "own", shell)
	create(t, d, "stopped", shell)
	if _, err := c.Create(ctx, api.Create{Name: "never", Policy: shell}); err != nil {
		t.Fatal(err)
	}
	d.Do(t, "stopped", "stop")
	d.Do(t, "own", "exec", "--", "sh", "-c", "echo kept > file")
	d.Do(t, "own", "exec", "--detach", "--", "sleep", "1h")
	d.Do(t, "runs", "policy", "add", "--domain", yes, "--port", "7000", "--protocol", "tcp")
	if reaches(t, d, "runs", asked) {
		t.Error("what nobody was there to answer was allowed")
	}
	d.Do(t, "runs", "config", "set", "model", "ollama/x")
	until(t, "the proposal is on the disk", func() bool {
		text, _ := os.ReadFile(filepath.Join(d.StateDir(), "sandboxes/runs/approvals.json"))
		return strings.Contains(string(text), asked)
	})
	d.Reboot(t)
	until(t, "nothing of before runs", func() bool { return len(harness.W.Processes(d.Parent+"-")) == 0 })
	d.Start(t)
	for name, want := range map[string]api.State{"runs": api.Running, "own": api.Running, "stopped": api.Stopped, "never": api.Stopped} {
		until(t, name+" is "+string(want), func() bool { return get(t, c, name).State != api.Starting })
		if s := get(t, c, name); s.State != want || s.Wanted != want || s.Commands != 0 || s.PID == own.PID {
			t.Errorf("%+v, want it %s", s, want)
		}
	}
	if out := d.Do(t, "own", "exec", "--", "cat", "file"); out != "kept\n" {
		t.Errorf("%q", out)
	}
	if s := get(t, c, "runs"); s.Workspace != ws || s.Policy.Revision != 2 || s.Policy.Running != 2 || s.Config["model"] != "ollama/x" || s.Requests != 1 {
		t.Errorf("%+v", s)
	}
	list, err := c.Requests(ctx, "runs")
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Object, asked) || list[0].State != api.Refused || !strings.Contains(list[0].Offers[0].Deny, asked) {
		t.Errorf("%+v, %v", list, err)
	}
	if !reaches(t, d, "runs", yes) || reaches(t, d, "runs", asked) {
		t.Error("another policy is in force after the reboot")
	}
	if n := server.Conns(); n > 0 {
		t.Errorf("%d connections that nobody was there to allow", n)
	}
	d.Verify(t)
}

// small mounts a file system of 1 MiB at a directory of its own. It outlives the daemon, whose test ends first.
func small(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(harness.W.Dir, "small-")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=1m,mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		_ = os.Remove(dir)
	})
	return dir
}

// TestAuditDiskFull: when nothing can be written down any more no sandbox goes on, the reason is said, and all are back once there is
// room.
func TestAuditDiskFull(t *testing.T) {
	t.Parallel()
	disk := small(t)
	audit := filepath.Join(disk, "audit")
	d := harness.W.StartDaemon(t, "--audit", audit)
	c, _ := dial(t, d)
	for _, name := range []string{"a", "b"} {
		create(t, d, name, shell)
		d.Do(t, name, "exec", "--detach", "--", "sleep", "1h")
	}
	create(t, d, "stopped", shell)
	d.Do(t, "stopped", "stop")
	room := harness.Fill(t, disk)
	for range 1000 { // what is written down takes a page now and then
		if status, _, _ := d.Call(t, "a", "exec", "--", "true"); status != 0 {
			break
		}
	}
	if code := d.Wait(t); code != 1 || !strings.Contains(d.Log(), "no space left") || !strings.Contains(d.Log(), "make room for the audit log") {
		t.Errorf("exit %d\n%s", code, d.Log())
	}
	until(t, "nothing that can't be written down goes on", func() bool { return len(harness.W.Processes(d.Parent+"-")) == 0 })
	d.Launch(t)
	if code := d.Wait(t); code != 1 || !strings.Contains(d.Log(), "no space left") {
		t.Errorf("without room: exit %d\n%s", code, d.Log())
	}
	room()
	d.Start(t)
	for _, name := range []string{"a", "b"} {
		until(t, name+" is back", func() bool { return get(t, c, name).State == api.Running })
		if out := d.Do(t, name, "exec", "--", "sh", "-c", "echo works"); out != "works\n" {
			t.Errorf("%q", out)
		}
	}
	if s := get(t, c, "stopped"); s.State != api.Stopped {
		t.Errorf("%+v", s)
	}
	d.Do(t, "audit", "verify", audit)
}

// TestStateDiskFull: what can't be written does not happen, and what is there stays whole. To stop and to destroy needs no room.
func TestStateDiskFull(t *testing.T) {
	t.Parallel()
	disk := small(t)
	state := filepath.Join(disk, "state")
	d := harness.W.StartDaemon(t, "--state-dir", state)
	c, ctx := dial(t, d)
	before := create(t, d, "box", shell)
	create(t, d, "stops", shell)
	create(t, d, "goes", shell)
	room := harness.Fill(t, disk)
	add := api.PolicyChange{Add: &api.PolicyRule{Domain: strings.Repeat("long.", 40) + "test", Ports: []uint16{443}}}
	if _, err := c.ChangePolicy(ctx, "box", add); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("a policy change: %v", err)
	}
	if _, err := c.Create(ctx, api.Create{Name: "other", Policy: shell, Start: true}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("create: %v", err)
	}
	if _, err := c.SetConfig(ctx, "box", map[string]string{api.ConfigModel: "ollama/x"}); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("config set: %v", err)
	}
	now := get(t, c, "box")
	if now.PID != before.PID || now.Policy != before.Policy || len(now.Config) > 0 {
		t.Errorf("%+v, was %+v", now, before)
	}
	if out := d.Do(t, "box", "exec", "--", "sh", "-c", "echo works"); out != "works\n" {
		t.Errorf("%q", out)
	}
	if _, err := c.Stop(ctx, "stops"); err == nil || !strings.Contains(err.Error(), "is stopped now") {
		t.Errorf("stop: %v", err)
	}
	if s := get(t, c, "stops"); s.State != api.Stopped {
		t.Errorf("%+v", s)
	}
	if err := c.Destroy(ctx, "goes"); err != nil {
		t.Errorf("destroy: %v", err)
	}
	d.End(syscall.SIGTERM)
	d.Start(t)
	if list := d.Names(t); len(list) != 2 {
		t.Errorf("%q are there", list)
	}
	if s := get(t, c, "box"); s.PID != before.PID || s.Policy != before.Policy {
		t.Errorf("%+v, was %+v", s, before)
	}
	room()
	if r, err := c.ChangePolicy(ctx, "box", add); err != nil || r.Policy.Revision != 2 || !r.Live {
		t.Errorf("%+v, %v", r, err)
	}
	create(t, d, "other", shell)
}
