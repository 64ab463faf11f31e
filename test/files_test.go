//go:build e2e

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	_, out := harness.W.Probe(t, harness.Box{},
		// the workspace and /tmp are to be written
		"write /workspace/new text", "read /workspace/new", "mkdir /workspace/d", "rename /workspace/new /workspace/d/moved", "chmod 600 /workspace/d/moved",
		"unlink /workspace/d/moved", "rmdir /workspace/d", "write /tmp/x y", "symlink /etc/passwd /tmp/link", "open tmp /tmp",
		// HOME is the sandbox's own, as are /dev/shm and what programs expect of /dev and /proc
		"write /home/agent/.config text", "write /dev/shm/x y", "open rw /dev/null", "open r /dev/urandom", "read /proc/self/status", "open r /proc/cpuinfo",
		"open r /etc/passwd", "open r /etc/resolv.conf", "open r /etc/ssl/certs/ca-certificates.crt", "ls /usr/bin",
	)
	for _, o := range out {
		check(t, o, "")
	}
}

func TestFilesRefused(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	attempts := []string{
		"read /etc/shadow", "read /etc/gshadow", "read /etc/sudoers", "read /etc/ssh/ssh_host_ed25519_key", "read /root/.bashrc", "read /root/.ssh/id_rsa", "read " + secret,
		"ls /root", "ls /var/lib", "ls /sys", "open w /etc/passwd", "write /etc/new x", "write /usr/bin/new x", "write /new x", "mkdir /new", "chmod 777 /usr/bin",
		"unlink /etc/passwd", "rename /etc/passwd /tmp/passwd", "link /etc/passwd /tmp/passwd", "chown /workspace", "mknod /tmp/null", "mknod /workspace/null",
		"open r /dev/kmsg", "open r /dev/mem", "open r /dev/vda", "open r /dev/sda", "open rw /dev/kvm", "open rw /dev/net/tun", "open rw /dev/fuse",
		"open w /proc/sys/kernel/core_pattern", "open w /proc/sysrq-trigger", "open r /proc/kcore", "open w /proc/sys/net/ipv4/ip_forward", "read /proc/1/environ",
		"open w /proc/self/uid_map", "open w /sys/fs/cgroup/cgroup.procs", "ls /sys/fs/bpf", "truncate /usr/bin/env",
		"open rw /run/docker.sock", "ls /var/log/nemoclaw", "ls /run/nemoclaw",
	}
	_, out := harness.W.Probe(t, harness.Box{}, attempts...)
	for _, o := range out {
		switch o.Errno {
		case "ENOENT", "EACCES", "EPERM", "EROFS", "ENXIO", "EXDEV", "EINVAL": // EINVAL: uid 0 does not exist inside
			check(t, o, o.Errno)
		default:
			t.Errorf("%q gave %q %q", o.Op, o.Errno, o.Out)
		}
	}
}

// TestWorkspaceKeepsOwners: what the agent writes belongs to whom the workspace belongs on the host, and the other way round.
func TestWorkspaceKeepsOwners(t *testing.T) {
	t.Parallel()
	for _, owner := range []int{0, 1234} {
		t.Run(fmt.Sprint("owner ", owner), func(t *testing.T) {
			s := harness.W.Prepare(t, harness.Box{})
			old := filepath.Join(s.Workspace, "old")
			if err := os.WriteFile(old, []byte("from the host"), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, p := range []string{s.Workspace, old, filepath.Join(s.Workspace, "probe")} {
				if err := os.Chown(p, owner, owner); err != nil {
					t.Fatal(err)
				}
			}
			_, out := harness.W.Probe(t, harness.Box{Workspace: s.Workspace}, "read /workspace/old", "owner /workspace/old", "write /workspace/made x", "owner /workspace/made")
			for _, o := range out {
				check(t, o, "")
			}
			if out[1].Out != "1000:1000" || out[3].Out != "1000:1000" {
				t.Errorf("inside the owners are %s and %s, want the agent", out[1].Out, out[3].Out)
			}
			if got := hostOwner(t, filepath.Join(s.Workspace, "made")); got != fmt.Sprintf("%d:%d", owner, owner) {
				t.Errorf("on the host the new file belongs to %s, want %d", got, owner)
			}
		})
	}
}

func TestDenyBelowAReadOnlyTree(t *testing.T) {
	t.Parallel()
	policy := harness.Exec + "filesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write]}\n  deny:\n    - {path: /usr/share/doc, permissions: [read, write]}\n    - {path: /etc/passwd, permissions: [read]}\n"
	_, out := harness.W.Probe(t, harness.Box{Policy: policy}, "ls /usr/share/doc", "read /etc/passwd", "ls /usr/share")
	for _, o := range out[:2] {
		if o.Errno == "" && o.Out != "" {
			t.Errorf("%q shows %q", o.Op, o.Out)
		}
	}
	check(t, out[2], "")
}

// TestPathsThatAreNotThere: a rule for a path that is missing, or that is a symlink, does not stop the start.
func TestPathsThatAreNotThere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(harness.W.Dir, "paths")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "real"), []byte("behind a link"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "real"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	policy := harness.Exec + fmt.Sprintf("filesystem:\n  allow:\n    - {path: /workspace, permissions: [read]}\n    - {path: /opt/missing/tool, permissions: [read]}\n    - {path: %s/link, permissions: [read]}\n  deny:\n    - {path: /root/.ssh, permissions: [read, write]}\n", dir)
	_, out := harness.W.Probe(t, harness.Box{Policy: policy}, "read /opt/missing/tool", "read "+dir+"/link", "write /workspace/x y")
	if out[0].Errno == "" || out[1].Out != "behind a link" {
		t.Errorf("a missing path gave %q, a symlink %q %q", out[0].Errno, out[1].Errno, out[1].Out)
	}
	if out[2].Errno != "EACCES" && out[2].Errno != "EROFS" {
		t.Errorf("a workspace to read only was written: %q", out[2].Errno)
	}
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	allowed, other := filepath.Join(dir, "allowed.sock"), filepath.Join(dir, "other.sock")
	harness.Unix(t, allowed, "greetings")
	harness.Unix(t, other, "not for you")
	for _, p := range []string{allowed, other} {
		if err := os.Chmod(p, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	policy := harness.Base + fmt.Sprintf("network:\n  unix: [%s]\n", allowed)
	_, out := harness.W.Probe(t, harness.Box{Policy: policy}, "unix "+allowed, "unix "+other)
	if out[0].Out != "greetings" {
		t.Errorf("the allowed socket gave %q %q", out[0].Errno, out[0].Out)
	}
	if out[1].Errno == "" {
		t.Errorf("another socket of the host was reached: %q", out[1].Out)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	policy := harness.Files + "process:\n  allow:\n    - {command: /workspace/probe}\n    - {command: python3}\n"
	s := harness.W.Prepare(t, harness.Box{})
	if err := os.WriteFile(filepath.Join(s.Workspace, "script"), []byte("#!/usr/bin/python3\nprint('a script runs')\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Workspace, "shell"), []byte("#!/bin/bash\necho a shell runs\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, out := harness.W.Probe(t, harness.Box{Policy: policy, Workspace: s.Workspace},
		"exec /usr/bin/python3 -c print('python3-runs')", "exec /workspace/script",
		"exec /usr/bin/id", "exec /bin/sh", "exec /usr/bin/env", "exec /workspace/shell",
		"copy-exec /usr/bin/id /workspace/id", "copy-exec /usr/bin/id /tmp/id", "copy-exec /usr/bin/id /dev/shm/id", "memfd /usr/bin/id",
		"exec "+loader(t)+" /usr/bin/id", "exec "+loader(t)+" /usr/bin/python3 -c print('python3-by-loader')",
	)
	for i, want := range []string{"python3-runs", "a script runs"} {
		if !strings.Contains(out[i].Out, want) {
			t.Errorf("%q gave %q %q", out[i].Op, out[i].Errno, out[i].Out)
		}
	}
	for _, o := range out[2:] {
		switch {
		case strings.Contains(o.Out, "uid=") || strings.Contains(o.Out, "runs") || strings.Contains(o.Out, "by-loader"):
			t.Errorf("%q ran: %q", o.Op, o.Out)
		case o.Errno != "" && o.Errno != "EACCES" && o.Errno != "EPERM" && o.Errno != "ENOENT":
			t.Errorf("%q gave %q", o.Op, o.Errno)
		case o.Errno == "" && !strings.Contains(o.Out, "signal: killed") && !strings.Contains(o.Op, "/usr/bin/env"):
			t.Errorf("%q gave %q", o.Op, o.Out)
		}
	}
	check(t, out[2], "EACCES")
	if n := len(r.Find("exec", "deny", "")); n < 4 {
		t.Errorf("%d refused programs recorded, want each that was killed\n%s", n, r.Dump())
	}
}

// loader finds the dynamic loader that python3 asks for.
func loader(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	t.Fatal("no dynamic loader")
	return ""
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	s := harness.W.Prepare(t, harness.Box{Env: []string{"MINE=mine"}}, "/workspace/probe", "env", "cwd", "status Uid Gid Groups NoNewPrivs Seccomp CapEff CapPrm CapBnd CapAmb CapInh")
	s.Cmd.Env = append(os.Environ(), "SECRET_TOKEN=hidden", "LD_PRELOAD=", "TERM=xterm")
	if err := s.Cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, s.Stderr.String())
	}
	r := harness.Result{Session: s, Out: s.Stdout.String()}
	out := r.Outcomes(t)
	env := strings.Split(out[0].Out, "\n")
	for _, want := range []string{"HOME=/home/agent", "USER=agent", "TMPDIR=/tmp", "MINE=mine", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not in the environment:\n%s", want, out[0].Out)
		}
	}
	for _, kv := range env {
		if strings.Contains(kv, "SECRET") || strings.HasPrefix(kv, "LD_") || strings.HasPrefix(kv, "NEMOCLAW") {
			t.Errorf("%s came in from the host", kv)
		}
	}
	if out[1].Out != "/workspace" {
		t.Errorf("the command starts in %s", out[1].Out)
	}
	for _, want := range []string{"Uid: 1000 1000 1000 1000", "Gid: 1000 1000 1000 1000", "NoNewPrivs: 1", "Seccomp: 2",
		"CapEff: 0000000000000000", "CapPrm: 0000000000000000", "CapBnd: 0000000000000000", "CapAmb: 0000000000000000", "CapInh: 0000000000000000"} {
		if !strings.Contains(out[2].Out, want) {
			t.Errorf("no %q in\n%s", want, out[2].Out)
		}
	}
}
