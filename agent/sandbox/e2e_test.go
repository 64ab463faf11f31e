//go:build e2e

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Everything these tests make has the process's id in its name, so that two runs never meet.
var (
	testParent = fmt.Sprintf("nctest-%d", os.Getpid())
	testRun    = fmt.Sprintf("/run/nctest-%d", os.Getpid())
	testCount  atomic.Int32
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "owner" {
		ownerMain()
		return
	}
	status := m.Run()
	if left := leftovers(); len(left) > 0 {
		fmt.Println("left behind:", left)
		status = 1
	}
	os.Exit(status)
}

// leftovers removes what an empty parent group is, and lists everything else that is still there.
func leftovers() []string {
	var left []string
	h, err := hostHierarchies("")
	if err != nil {
		return []string{err.Error()}
	}
	points := map[string]bool{h.v2: true}
	for _, point := range h.v1 {
		points[point] = true
	}
	for point := range points {
		dir := filepath.Join(point, testParent)
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			left = append(left, dir)
		}
	}
	if dirs, _ := filepath.Glob(testRun + "/[^.]*"); len(dirs) > 0 {
		left = append(left, dirs...)
	}
	os.RemoveAll(testRun)
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if bytes.Contains(mounts, []byte(testRun)) {
		left = append(left, "mounts in "+testRun)
	}
	return left
}

// tools are the commands that most tests need.
const tools = `process: {allow: [{command: sh}, {command: cat}, {command: ls}, {command: id}, {command: sleep}, {command: touch}, {command: rm},
  {command: mkdir}, {command: mv}, {command: ln}, {command: stat}, {command: env}, {command: readlink}, {command: head}, {command: "true"}, {command: python3}]}
`

const workspaceRule = "filesystem: {allow: [{path: /workspace, permissions: [read, write]}]}\n"

func compileYAML(t testing.TB, text string) *policy.Compiled {
	t.Helper()
	c, err := parsePolicy(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

func parsePolicy(text string) (*policy.Compiled, error) {
	parsed, err := policy.Parse("test.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	return policy.Compile(parsed)
}

// box is a running sandbox of a test.
type box struct {
	*Sandbox
	t testing.TB
}

func testSpec(t testing.TB, text, workspace string) Spec {
	return Spec{
		Name: fmt.Sprintf("t%d", testCount.Add(1)), Policy: compileYAML(t, text), Workspace: workspace,
		RunDir: testRun, CgroupParent: testParent, Nameserver: "198.18.0.2",
	}
}

func start(t testing.TB, text, workspace string) *box {
	t.Helper()
	return startSpec(t, testSpec(t, text, workspace))
}

func startSpec(t testing.TB, spec Spec) *box {
	t.Helper()
	s, err := Prepare(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return &box{s, t}
}

// run runs a command and returns its output and status.
func (b *box) run(args ...string) (string, int) {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	p, err := b.Exec(ExecRequest{Args: args, Env: Environment(nil, false, nil), Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		b.t.Fatalf("%v: %v", args, err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		b.t.Fatal(err)
	}
	status, err := p.Wait()
	if err != nil {
		b.t.Fatalf("%v: %v\n%s", args, err, out.String())
	}
	return out.String(), status
}

// sh runs a line of shell.
func (b *box) sh(line string) (string, int) {
	b.t.Helper()
	return b.run("sh", "-c", line)
}

// want checks a line's output and status.
func (b *box) want(line, output string, status int) {
	b.t.Helper()
	out, got := b.sh(line)
	if strings.TrimSpace(out) != output || got != status {
		b.t.Errorf("%s: %q (%d), not %q (%d)", line, strings.TrimSpace(out), got, output, status)
	}
}

// refused checks that a line fails and says why.
func (b *box) refused(line, why string) {
	b.t.Helper()
	out, status := b.sh(line)
	if status == 0 || !strings.Contains(out, why) {
		b.t.Errorf("%s: %q (%d), not refused with %q", line, strings.TrimSpace(out), status, why)
	}
}

func workspaceOf(t testing.TB, uid, gid int) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	// The parents of TempDir are root's alone; nothing inside needs them.
	return dir
}

func TestIdentity(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	b.want("id", "uid=1000(agent) gid=1000(agent) groups=1000(agent)", 0)
	b.want("echo $HOME $USER $PATH $TMPDIR; pwd", "/home/agent agent "+policy.SearchPath+" /tmp\n/workspace", 0)
	status, _ := b.sh("cat /proc/self/status")
	for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
		"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "Groups:\t \n", "SigIgn:\t0000000000000000", "SigBlk:\t0000000000000000"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	b.want("ls /proc/self/fd", "0\n1\n2\n3", 0) // 3 is ls's own
	b.want("cat /proc/sys/kernel/hostname /etc/hostname", b.spec.Name+"\n"+b.spec.Name, 0)
	b.want("while read l; do case $l in 0::*) echo $l;; esac; done < /proc/self/cgroup", "0::/", 0)
	b.want("read inside outside n < /proc/self/uid_map; echo $inside $outside $n", fmt.Sprintf("1000 %d 1", b.HostID()), 0)
}

func TestFiles(t *testing.T) {
	for _, owner := range [][2]int{{0, 0}, {1234, 4321}, {1000, 1000}} {
		t.Run(fmt.Sprint(owner), func(t *testing.T) {
			dir := workspaceOf(t, owner[0], owner[1])
			secret := filepath.Join(dir, "mine")
			if err := errors.Join(os.WriteFile(secret, []byte("text"), 0o600), os.Chown(secret, owner[0], owner[1])); err != nil {
				t.Fatal(err)
			}
			b := start(t, workspaceRule+tools, dir)
			b.want("cat mine", "text", 0)
			b.want("echo new > file && mkdir -p d/e && ln -s file link && stat -c %U:%G file", "agent:agent", 0)
			for _, name := range []string{"file", "d", "d/e", "link"} {
				info, err := os.Lstat(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if at := info.Sys().(*syscall.Stat_t); int(at.Uid) != owner[0] || int(at.Gid) != owner[1] {
					t.Errorf("%s belongs to %d:%d on the host", name, at.Uid, at.Gid)
				}
			}
			b.want("echo x > $HOME/a && echo y > /tmp/b && echo z > /dev/shm/c && cat $HOME/a /tmp/b /dev/shm/c", "x\ny\nz", 0)
		})
	}
}

func TestReadOnly(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	for _, line := range []string{"touch /usr/bin/x", "echo > /etc/passwd", "mkdir /x", "touch /dev/x", "rm /etc/hosts", "ln /etc/passwd /workspace/p",
		"mv /etc/hosts /tmp/h", "echo 0 > /proc/sys/vm/overcommit_memory", "echo x > /proc/1/comm", "mkdir /proc/x", "rm -rf /workspace"} {
		if out, status := b.sh(line); status == 0 {
			t.Errorf("%s: %q", line, out)
		}
	}
	for _, line := range []string{"cat /etc/shadow", "ls /root", "ls /var", "ls /sys", "head -c 1 /proc/kcore | grep -q ''", "ls /etc/ssl/private", "cat /etc/sudoers", "cat /proc/1/environ",
		"ls /proc/1/root", "cat /proc/1/maps", "ls /run", "ls /home/agent/../../root"} {
		if out, status := b.sh(line); status == 0 {
			t.Errorf("%s: %q", line, out)
		}
	}
	b.want("cat /proc/cmdline /proc/keys", "", 0)
	b.want("cat /etc/resolv.conf", "nameserver 198.18.0.2\noptions timeout:10 attempts:2", 0)
}

// patient is far above what anything takes here that waits for nobody, on a busy machine too.
const patient = 2 * time.Second

func TestExec(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho ran $1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(dir, "python")
	if err := os.WriteFile(python, []byte("#!/usr/bin/env python3\nprint('ran')\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	perl := filepath.Join(dir, "perl")
	if err := os.WriteFile(perl, []byte("#!/usr/bin/perl\nprint 'ran'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := start(t, workspaceRule+tools, dir)
	b.want("./script here", "ran here", 0)
	b.want("./python", "ran", 0)
	b.refused("./perl", "Permission denied")
	b.refused("grep x /etc/passwd", "Permission denied")
	b.refused("/usr/bin/grep x", "Permission denied")
	b.refused("nothing-like-it", "not found")
	for name, want := range map[string]error{"grep": unix.EACCES, "nothing-like-it": unix.ENOENT, "/usr/bin/perl": unix.EACCES, "/workspace": unix.EACCES} {
		started := time.Now()
		_, err := b.Exec(ExecRequest{Args: []string{name}})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, not %v", name, err, want)
		}
		if took := time.Since(started); took > patient { // nobody was waited for
			t.Errorf("%s: refused after %v", name, took)
		}
	}
	if _, err := b.Exec(ExecRequest{Args: []string{"true"}, Dir: "/nowhere"}); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "working directory") {
		t.Error(err)
	}
}

func TestPrograms(t *testing.T) {
	b := start(t, workspaceRule+`process: {allow: [{command: git, helpers: ["/usr/lib/git-core/*", less]}, {command: no-such-thing}, {command: npm}]}`, workspaceOf(t, 0, 0))
	kinds := map[string]ProgramKind{}
	for _, p := range b.Programs() {
		kinds[p.Path] = p.Kind
		var at unix.Stat_t
		if err := unix.Fstat(int(p.File.Fd()), &at); err != nil || at.Mode&unix.S_IFMT != unix.S_IFREG {
			t.Errorf("%s: %v", p.Path, err)
		}
	}
	if kind, ok := kinds["/usr/bin/git"]; !ok || kind != KindCommand {
		t.Errorf("git: %v", kinds)
	}
	if kinds["/usr/lib/git-core/git-remote-http"] != KindHelper || kinds["/usr/bin/env"] != KindEnv {
		t.Errorf("helpers: %v", kinds)
	}
	warnings := strings.Join(b.Warnings(), "\n")
	for _, want := range []string{"no-such-thing is not allowed to run", "npm is a script for node"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("no %q in %q", want, warnings)
		}
	}
}

// A command behind a link that somebody inside may have made is not the one that the policy means.
func TestCommandBehindALink(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	for name, target := range map[string]string{"tool": "/usr/bin/head", "chain": "tool"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	b := start(t, workspaceRule+`process: {allow: [{command: sh}, {command: dash}, {command: /workspace/tool}, {command: sleep, helpers: ["/workspace/*"]}]}`, dir)
	b.refused("head -c 1 /etc/passwd", "Permission denied")
	b.refused("./tool -c 1 /etc/passwd", "Permission denied")
	if warnings := strings.Join(b.Warnings(), "\n"); !strings.Contains(warnings, "/workspace/tool is a symbolic link where the sandbox may write") {
		t.Error(warnings)
	}
	var names []string
	for _, p := range b.Programs() {
		names = append(names, p.Command+" "+p.Path)
	}
	if want := "sh /usr/bin/dash,dash /usr/bin/dash,sleep /usr/bin/sleep,env /usr/bin/env"; strings.Join(names, ",") != want {
		t.Errorf("%v, not %s", names, want)
	}
}

func TestRealPrograms(t *testing.T) {
	dir := workspaceOf(t, 1234, 1234)
	b := start(t, workspaceRule+`process: {allow: [{command: git, helpers: ["/usr/lib/git-core/*"]}, {command: python3}, {command: node}, {command: sh}, {command: npm}]}`, dir)
	b.want("git init -q repo && cd repo && git config user.email a@b && git config user.name a && echo x > f && git add f && git commit -qm m && git status --short && git log --format=%s", "m", 0)
	b.want("python3 -c 'import os, subprocess, multiprocessing, tempfile, ssl, socket; print(os.cpu_count() > 0, subprocess.check_output([\"git\", \"--version\"])[:3], tempfile.gettempdir())'",
		"True b'git' /tmp", 0)
	b.want("node -e 'const os=require(\"os\"),fs=require(\"fs\"); fs.writeFileSync(\"n\",\"1\"); console.log(os.userInfo().username, os.homedir(), os.cpus().length>0, process.version[0])'",
		"agent /home/agent true v", 0)
	b.want("npm --version > v && echo ok", "ok", 0)
	b.want("python3 -c 'from multiprocessing import Pool\nwith Pool(2) as p: print(p.map(abs, [-1,-2]))'", "[1, 2]", 0)
}

func TestStatus(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	for line, want := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -TERM $$": 143, "kill -KILL $$": 137, "kill -SEGV $$": 139} {
		if out, status := b.sh(line); status != want {
			t.Errorf("%s: %d %q, not %d", line, status, out, want)
		}
	}
	ready, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	p, err := b.Exec(ExecRequest{Args: []string{"sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done"}, Env: Environment(nil, false, nil), Stdout: said})
	said.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if status, err := p.Wait(); status != 9 || err != nil {
		t.Error(status, err)
	}
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Error("a command that has ended: ", err)
	}
}

// TestInit is about PID 1: it reaps, it survives whatever is done to it, and it goes when the sandbox is closed.
func TestInit(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	b.want("for i in 1 2 3 4 5 6 7 8; do (sleep 0.02 &) ; done; sleep 0.3; for p in /proc/[0-9]*; do read a < $p/stat; case $a in *' Z '*) echo zombie $a;; esac; done", "", 0)
	for _, signal := range []string{"KILL", "STOP", "TERM", "HUP", "CHLD", "SEGV", "USR1", "TSTP", "RTMIN"} {
		b.sh("kill -" + signal + " 1")
	}
	b.want("sleep 100 & kill -KILL -1", "", 0) // everybody but the shell itself and PID 1
	b.want("echo alive", "alive", 0)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Exec(ExecRequest{Args: []string{"true"}}); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error("a second Close: ", err)
	}
}

func TestCloseKills(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	var all []*Process
	for range 20 {
		p, err := b.Exec(ExecRequest{Args: []string{"sh", "-c", "trap '' TERM INT HUP; (sleep 1000 & sleep 1000) & while :; do sleep 1000; done"}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	started := time.Now()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	for _, p := range all {
		if status, err := p.Wait(); status != 137 || !errors.Is(err, ErrGone) {
			t.Error(status, err)
		}
	}
}

func TestInitKilled(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	p, err := b.Exec(ExecRequest{Args: []string{"sleep", "1000"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(b.InitPID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

// TestInitTerminated: a machine that goes down sends SIGTERM to everybody and waits. What comes from inside counts for nothing,
// whoever it says it is from.
func TestInitTerminated(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	b.want("kill -TERM 1; kill -TERM 1; echo alive", "alive", 0)
	b.want(`python3 -c '
import ctypes, struct
for code in 0, -1, -6:
    info = ctypes.create_string_buffer(struct.pack("iiiiII", 15, 0, code, 0, 0, 0), 128)
    ctypes.CDLL(None).syscall(129, 1, 15, info) # rt_sigqueueinfo
'; echo alive`, "alive", 0)
	p, err := b.Exec(ExecRequest{Args: []string{"sh", "-c", "trap 'echo ended > ended; exit 3' TERM; echo > ready; while :; do sleep 0.01; done"}})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(b.spec.Workspace, "ready")); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := unix.Kill(b.InitPID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.want("echo alive", "alive", 0) // as long as somebody is left
	if err := p.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); status != 3 || err != nil {
		t.Error(status, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := b.Exec(ExecRequest{Args: []string{"true"}}); errors.Is(err, ErrGone) {
			break
		} else if time.Now().After(end) {
			t.Fatal("PID 1 is still there")
		}
	}
}

func TestParallel(t *testing.T) {
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for range 5 {
				b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
				b.want("echo $$ > f; cat f", "2", 0)
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestSameName(t *testing.T) {
	spec := testSpec(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	startSpec(t, spec)
	if _, err := Prepare(spec); err == nil || !strings.Contains(err.Error(), "choose another name") {
		t.Error(err)
	}
}
