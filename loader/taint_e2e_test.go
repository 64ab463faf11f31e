//go:build e2e

package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// victimStart executes a victim with an environment and lets it try something. NAME=xN in the environment is a value of N bytes, and many=N
// stands for N variables.
func victimStart(f []string) (string, error) {
	n := slices.Index(f, "--")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"GODEBUG=asyncpreemptoff=1"}
	for _, v := range f[:n] {
		name, value, _ := strings.Cut(v, "=")
		long, err := strconv.Atoi(strings.TrimPrefix(value, "x"))
		switch {
		case name == "many":
			for i := range long {
				cmd.Env = append(cmd.Env, fmt.Sprintf("V%d=", i))
			}
		case err == nil && strings.HasPrefix(value, "x"):
			cmd.Env = append(cmd.Env, name+"="+strings.Repeat("v", long))
		default:
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, victimEnv+"=1")
	cmd.Stdin = strings.NewReader(strings.Join(f[n+1:], " ") + "\n")
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	_, answer, _ := strings.Cut(strings.TrimSpace(string(out)), "\n") // after its "ready"
	if value, ok := strings.CutPrefix(answer, "ok"); ok {
		return strings.TrimSpace(value), nil
	}
	return "", errnoOf(answer)
}

func errnoOf(name string) unix.Errno {
	for e := unix.Errno(1); e < 200; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	return unix.ENOSYS
}

// victimFork connects in a child that is a copy of this process; an orphan's parent has ended by then. The copy may only make system calls.
func victimFork(to string, orphan bool) error {
	addr := netip.MustParseAddrPort(to)
	sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: addr.Port()<<8 | addr.Port()>>8, Addr: addr.Addr().As4()}
	answer := make([]int, 2)
	if err := unix.Pipe(answer); err != nil {
		return err
	}
	defer unix.Close(answer[0])
	var errno [1]byte
	pid := rawFork()
	if pid == 0 {
		if orphan && rawFork() != 0 {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		if orphan {
			var second unix.Timespec
			second.Nsec = 50_000_000
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(ptr(&second)), 0, 0)
		}
		fd, _, _ := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
		_, _, e := unix.RawSyscall(unix.SYS_CONNECT, fd, uintptr(ptr(&sa)), unix.SizeofSockaddrInet4)
		errno[0] = byte(e)
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(answer[1]), uintptr(ptr(&errno)), 1)
		_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	unix.Close(answer[1])
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &status, 0, nil); err != nil {
		return err
	}
	if n, err := unix.Read(answer[0], errno[:]); err != nil || n != 1 {
		return errors.Join(errors.New("the copy said nothing"), err)
	}
	if errno[0] != 0 {
		return unix.Errno(errno[0])
	}
	return nil
}

func rawFork() uintptr {
	pid, _, _ := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	return pid
}

// TestTaint: what the rules let a command alone do is not for a process that other code may run in, by its environment when it was executed.
func TestTaint(t *testing.T) {
	w := newWorldAlone(t, Options{})
	const own, others = name4 + ":443", name4 + ":445"
	must(t, w.SetCommandSet(1, []Member{{w.exe, policy.Allow, 31}}))
	must(t, w.SetCommandSet(2, []Member{{w.exe, policy.Deny, 32}}))
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{
		{Port: 443, Verdict: policy.Deny, Set: 1}, {Port: 444, Verdict: policy.Allow, Rule: 33, Set: 2}, {Port: 445, Verdict: policy.Allow, Rule: 34},
	}))
	clean := strings.Fields("LD_PRELOAD= LD_PRELOADS=1 XLD_PRELOAD=1 ld_preload=1 NODE_OPTIONS PATH=/usr/bin:LD_PRELOAD=x LD_PRELOA=x A_NAME_THAT_IS_LONGER_THAN_ANY=1 =LD_AUDIT=1 =")
	w.in.wants("ok", "start LD_PRELOAD=x -- reach %s", others)
	for _, tt := range []struct{ env, taint string }{
		{"LD_PRELOAD=./evil.so", "LD_PRELOAD"},
		{"LD_AUDIT=x", "LD_AUDIT"},
		{"NODE_OPTIONS=--require=./evil.js", "NODE_OPTIONS"},
		{"DOTNET_STARTUP_HOOKS=x", "DOTNET_STARTUP_HOOKS"},
		{"LD_PRELOAD= PYTHONPATH=. LD_PRELOAD=x", "PYTHONPATH"},
		{"LD_PRELOAD= LD_PRELOAD=x", "LD_PRELOAD"},
		{"many=4000 LD_AUDIT=x", "LD_AUDIT"},
		{"many=5000", "(long)"},
		{"A=x120000 LD_AUDIT=x", "LD_AUDIT"},
		{"A=x120000 B=x120000 C=x120000 D=x120000 E=x120000", "(long)"},
		{"A=x120000", ""},
		{strings.Join(clean, " "), ""},
	} {
		if tt.taint == "" {
			w.in.wants("ok", "start %s -- reach %s", tt.env, own)
			if events := w.take(); len(events) != 0 {
				t.Errorf("%s, events:%s", tt.env, describe(events))
			}
			continue
		}
		w.in.wants("EPERM", "start %s -- reach %s", tt.env, own)
		if events := w.take(); len(events) != 1 || events[0].Reason != ReasonTainted || events[0].Rule != 31 || events[0].Taint.String() != tt.taint {
			t.Errorf("%s, events:%s", tt.env, describe(events))
		}
	}
	// Where parts of a long environment meet.
	for n := 124; n < 127; n++ {
		w.in.wants("EPERM", "start A=x%d LD_AUDIT=x -- reach %s", n, own)
	}
	w.in.wants("ok", "start A=x125 B=LD_AUDIT=x -- reach %s", own)

	// It goes with forks, whoever their parent is, and ends with the next program.
	for _, fork := range []string{"reach", "fork", "fork-orphan"} {
		w.in.wants("ok", "start -- %s %s", fork, own)
		w.in.wants("EPERM", "start LD_PRELOAD=x -- %s %s", fork, own)
	}
	w.in.wants("ok", "start LD_PRELOAD=x -- start A=b -- reach %s", own)
	w.in.wants("EPERM", "start A=b -- start LD_PRELOAD=x -- reach %s", own)

	// What is against the command stays against it, and what a person granted it is withheld too.
	w.take()
	w.in.wants("EPERM", "start LD_PRELOAD=x -- reach %s:444", name4)
	if events := w.take(); len(events) == 0 || events[len(events)-1].Rule != 32 || events[len(events)-1].Reason != ReasonRule {
		t.Errorf("events:%s", describe(events))
	}
	must(t, w.Grant(Grant{Exe: w.exe, Addr: addr(name4), Port: 446, Verdict: policy.Allow}))
	must(t, w.Grant(Grant{Exe: w.exe, Addr: addr(name4), Port: 445, Verdict: policy.Deny}))
	w.in.wants("EPERM", "start LD_PRELOAD=x -- reach %s:446", name4)
	w.in.wants("ok", "start -- reach %s:446", name4)
	w.in.wants("EPERM", "start LD_PRELOAD=x -- reach %s", others)

	// The proxy is told, and what has ended leaves nothing.
	if c := w.proxy.next(); c.peer.Taint.String() != "LD_PRELOAD" {
		t.Errorf("the proxy is told of %q", c.peer.Taint)
	}
	if n := entries(t, w.l.maps.environs); n != 1 {
		t.Errorf("%d processes are known, want the victim alone", n)
	}
}
