//go:build e2e

package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestCommandsOutliveTheDaemon: who reads a command's output goes on reading it while there is no daemon, and the next daemon has the
// command.
func TestCommandsOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	create(t, d, "box", shell)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	file, err := os.Create(filepath.Join(d.Dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	script := "n=0; while :; do n=$((n+1)); echo $n; echo $n >&2; sleep 0.02; done"
	p, err := c.Exec(ctx, "box", api.Exec{Args: []string{"sh", "-c", script}}, [3]*os.File{1: write, 2: file})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	lines := bufio.NewScanner(read)
	next := 0
	hear := func(when string) {
		t.Helper()
		for range 20 {
			if next++; !lines.Scan() || lines.Text() != fmt.Sprint(next) {
				t.Fatalf("%s: %q (%v), want %d", when, lines.Text(), lines.Err(), next)
			}
		}
	}
	hear("with the daemon")
	d.Kill()
	if _, err := p.Wait(); !errors.Is(err, api.ErrLost) {
		t.Errorf("the daemon is gone, and Wait says %v", err)
	}
	hear("without the daemon")
	d.Start(t)
	hear("with the next daemon")
	if s := get(t, c, "box"); s.Commands != 1 {
		t.Errorf("%d commands", s.Commands)
	}
	d.Do(t, "box", "stop")
	if lines.Scan() && lines.Text() != fmt.Sprint(next+1) {
		t.Errorf("a gap: %q after %d", lines.Text(), next)
	}
	text, err := os.ReadFile(file.Name())
	if err != nil || !strings.HasPrefix(string(text), "1\n2\n") || strings.Count(string(text), "\n") < next-1 { // it may be between the two
		t.Errorf("the file has %d bytes, %v", len(text), err)
	}
}

// TestAdoptedRunsCommands: what a sandbox does that was taken over is what it did before.
func TestAdoptedRunsCommands(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", shell)
	d.Kill()
	d.Start(t)
	for _, tt := range []struct {
		script, in, out string
		status          int
	}{
		{script: "echo out; echo err >&2; exit 7", out: "out\n", status: 7},
		{script: "cat; cat >/dev/null", in: strings.Repeat("0123456789abcdef", 1<<16), out: strings.Repeat("0123456789abcdef", 1<<16)},
		{script: "kill -9 $$", status: 137},
		{script: "kill -TERM $$", status: 143},
		{script: "cat /etc/shadow", status: 1},
		{script: "/usr/bin/id", status: 126},
	} {
		cmd := d.Command("box", "exec", "--", "sh", "-c", tt.script)
		cmd.Stdin = strings.NewReader(tt.in)
		if status, out, said := harness.Finish(t, cmd); status != tt.status || out != tt.out {
			t.Errorf("%s: exit %d, %d bytes, %q", tt.script, status, len(out), said)
		}
	}
	master, slave := pty(t)
	cmd := d.Command("box", "exec", "--", "sh", "-c", "test -t 0 && test -t 1 && echo a terminal")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	shown, _ := io.ReadAll(master) // ends with EIO when the last one has let go
	if err := cmd.Wait(); err != nil || !strings.Contains(string(shown), "a terminal") {
		t.Errorf("%v: %q", err, shown)
	}
}

// pty opens the terminal that a person would sit at.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	// No path: a chroot's /dev/pts may not have it.
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY)
	if errno != 0 {
		t.Fatal(errno)
	}
	return master, os.NewFile(fd, "terminal")
}

// TestManyCommands: a sandbox runs 512 commands at once and says so to the next; the next daemon counts the same, and what ends makes
// room.
func TestManyCommands(t *testing.T) {
	t.Parallel()
	const limit = 512
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	create(t, d, "box", shell+"  limits: {pids: 2000}\n")
	begin := func() (*api.Process, error) {
		return c.Exec(ctx, "box", api.Exec{Args: []string{"sleep", "1h"}}, [3]*os.File{})
	}
	var running []*api.Process
	for i := range limit {
		p, err := begin()
		if err != nil {
			t.Fatalf("command %d: %v\n%s", i+1, err, d.Log())
		}
		defer p.Close()
		running = append(running, p)
	}
	_, err := begin()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(limit)) {
		t.Errorf("one more: %v", err)
	}
	for _, p := range running[:3] {
		if err := p.Signal(int(unix.SIGKILL)); err != nil {
			t.Error(err)
		}
		if status, err := p.Wait(); status != 137 || err != nil {
			t.Errorf("%d, %v", status, err)
		}
	}
	until(t, "what has ended is counted no more", func() bool { return get(t, c, "box").Commands == limit-3 })
	for range 3 {
		p, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
	}
	d.Kill()
	d.Start(t)
	if s := get(t, c, "box"); s.Commands != limit {
		t.Errorf("%d commands were taken over, want %d", s.Commands, limit)
	}
	if _, err := begin(); err == nil || !strings.Contains(err.Error(), fmt.Sprint(limit)) {
		t.Errorf("one more after a restart: %v", err)
	}
}

// TestPublishedPortLasts: a server inside is reached through stops, starts and daemons, as long as it is published.
func TestPublishedPortLasts(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	a4, _ := harness.W.Addr()
	at := net.JoinHostPort(a4.String(), "8080")
	policy := harness.Files + "process: {allow: [{command: python3}, {command: sh}]}\n"
	create(t, d, "web", policy)
	serve := func() {
		t.Helper()
		d.Do(t, "web", "exec", "--", "sh", "-c", "echo published > index.html")
		d.Do(t, "web", "exec", "--detach", "--", "python3", "-m", "http.server", "3000", "--bind", "127.0.0.1")
	}
	body := func() string {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
		r, err := client.Get("http://" + at)
		if err != nil {
			return ""
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b)
	}
	isServed := func() bool { return body() == "published\n" }
	serve()
	d.Do(t, "web", "publish", at, "3000")
	until(t, "it is reached", isServed)
	_, err := c.Publish(ctx, "web", api.Published{Host: at, Port: 3001})
	refused(t, err, api.Conflict, at)
	create(t, d, "second", policy)
	_, err = c.Publish(ctx, "second", api.Published{Host: at, Port: 3000})
	refused(t, err, api.Conflict, at)
	d.Kill()
	if body() != "" {
		t.Error("somebody answers for a daemon that is gone")
	}
	d.Start(t)
	until(t, "it is reached after a kill", isServed)
	d.Do(t, "web", "stop")
	if body() != "" {
		t.Error("a stopped sandbox answers")
	}
	d.Do(t, "web", "start")
	serve()
	until(t, "it is reached after a start", isServed)
	open, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	d.Do(t, "web", "unpublish", at)
	_ = open.SetReadDeadline(time.Now().Add(patience))
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection of a port that was taken back: %v", err)
	}
	if body() != "" {
		t.Error("it is reached although it was taken back")
	}
	d.Kill()
	d.Start(t)
	if body() != "" || len(get(t, c, "web").Publish) > 0 {
		t.Error("the next daemon publishes what was taken back")
	}
}

// TestKilledInASnapshot: a daemon that is killed while it keeps or brings back a workspace leaves a sandbox that runs, and a workspace that
// is wholly one or the other.
func TestKilledInASnapshot(t *testing.T) {
	t.Parallel()
	const rounds, files = 16, 200
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	create(t, d, "box", shell)
	ws := filepath.Join(d.StateDir(), "workspaces/box")
	fill := func(version string) {
		t.Helper()
		for i := range files {
			d := filepath.Join(ws, fmt.Sprint(i%7))
			if err := errors.Join(os.MkdirAll(d, 0o755), os.WriteFile(filepath.Join(d, fmt.Sprint(i)), []byte(version), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole := func() string {
		t.Helper()
		var versions []string
		n := 0
		err := filepath.WalkDir(ws, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if n++; !slices.Contains(versions, string(text)) {
				versions = append(versions, string(text))
			}
			return err
		})
		if err != nil || n != files || len(versions) != 1 {
			t.Fatalf("%d files of the versions %q, %v", n, versions, err)
		}
		return versions[0]
	}
	fill("first")
	first, err := c.Snapshot(ctx, "box", "first")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := c.Restore(ctx, "box", first.ID); err != nil {
		t.Fatal(err)
	}
	lasts := time.Since(begun)
	restored := 0
	for round := range rounds {
		fill("changed")
		if round%2 == 0 {
			d.Do(t, "box", "exec", "--detach", "--", "sleep", "1h")
		}
		before := get(t, c, "box")
		done := make(chan error, 1)
		go func() {
			var err error
			if round%2 == 0 {
				_, err = c.Snapshot(ctx, "box", "again")
			} else {
				_, err = c.Restore(ctx, "box", first.ID)
			}
			done <- err
		}()
		time.Sleep(time.Duration(rand.Int64N(int64(2 * lasts))))
		d.Kill()
		acknowledged := <-done == nil
		d.Start(t)
		until(t, "it runs again", func() bool { return get(t, c, "box").State == api.Running })
		d.Do(t, "box", "exec", "--", "true")
		version := whole()
		switch now := get(t, c, "box"); {
		case round%2 == 0 && (version != "changed" || now.PID != before.PID || now.Commands != before.Commands):
			t.Errorf("a snapshot changed the sandbox: %q, %+v, was %+v\n%s", version, now, before, d.Log())
		case round%2 == 1 && acknowledged && version != "first":
			t.Errorf("a restore that was acknowledged is not there: %q", version)
		}
		if version == "first" {
			restored++
		}
	}
	list, err := c.Snapshots(ctx, "box")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if _, err := c.Restore(ctx, "box", s.ID); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		want := "changed"
		if s.Name == "first" {
			want = "first"
		}
		if version := whole(); version != want {
			t.Errorf("snapshot %s has %q", s.ID, version)
		}
	}
	t.Logf("%d of %d restores had been done when the daemon was killed; %d snapshots are whole", restored, rounds/2, len(list))
}

// TestRefusedExecIsRecorded: who tried to start what the policy does not allow is in the log.
func TestRefusedExecIsRecorded(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	create(t, d, "box", shell)
	if status, out, said := d.Call(t, "box", "exec", "--", "id", "-u"); status != 126 || out != "" {
		t.Errorf("%d: %q, %q", status, out, said)
	}
	var records []policy.Decision
	err := c.Events(ctx, api.Events{Sandbox: "box", Planes: []string{string(policy.PlaneSystem)}, Verdict: []string{"deny"}}, func(_ []byte, d policy.Decision) error {
		records = append(records, d)
		return nil
	})
	if err != nil || len(records) != 1 || records[0].Action != "command" || records[0].Object != "id -u" || !strings.Contains(records[0].Reason, "not started for root") {
		t.Errorf("%+v, %v", records, err)
	}
}
