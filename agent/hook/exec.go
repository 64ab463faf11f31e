package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// runTime is how long a program may run for one message.
const runTime = 30 * time.Second

// tempFail is the exit status of a program that wants to be run again with the same message: EX_TEMPFAIL of sysexits.h.
const tempFail = 75

// program is one of the host that is run for each message, with its body on standard input. Nothing of it outlives its first
// process.
type program struct {
	argv []string
	env  []string
	as   *syscall.Credential // nil: as the daemon, which is root
	time time.Duration
}

func newProgram(c config.Hook, socket string) (*program, error) {
	info, err := os.Stat(c.Exec[0])
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return nil, errors.New("it is no program: want an executable file")
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("it can be written by others than its owner (mode %04o): chmod go-w %s", info.Mode().Perm(), c.Exec[0])
	}
	p := &program{argv: c.Exec, time: runTime}
	home := "/root"
	if c.User != "" {
		if p.as, home, err = account(c.User); err != nil {
			return nil, err
		}
	}
	p.env = []string{"PATH=" + policy.SearchPath, "LANG=C.UTF-8", "HOME=" + home, "NEMOCLAW_SOCKET=" + socket}
	return p, nil
}

// account is what a user's programs run with.
func account(name string) (*syscall.Credential, string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, "", fmt.Errorf("user %q: there is no such account", name)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, "", fmt.Errorf("user %q: its groups: %w", name, err)
	}
	var ids []uint32
	for _, s := range append([]string{u.Uid, u.Gid}, groups...) {
		id, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, "", fmt.Errorf("user %q: %q is no id", name, s)
		}
		ids = append(ids, uint32(id))
	}
	return &syscall.Credential{Uid: ids[0], Gid: ids[1], Groups: ids[2:]}, u.HomeDir, nil
}

func (p *program) send(ctx context.Context, m *message) error {
	ctx, cancel := context.WithTimeout(ctx, p.time)
	defer cancel()
	var said head
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stderr = "/", p.env, bytes.NewReader(m.body), &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: p.as}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	// While its first process is not waited for its number is nobody else's, so what is left of its group can be ended.
	for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // there may be nobody left
	err := cmd.Wait()
	if state := cmd.ProcessState; state != nil && state.Success() {
		return nil // whoever left its group may have its standard error still
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("it was ended after %s", p.time)
	case cmd.ProcessState.ExitCode() == tempFail:
		return &again{error: said.explain(err)}
	}
	return said.explain(err)
}

// head keeps the beginning of what a program says.
type head struct{ b []byte }

func (h *head) Write(b []byte) (int, error) {
	h.b = append(h.b, b[:min(len(b), 512-len(h.b))]...)
	return len(b), nil
}

func (h *head) explain(err error) error {
	if len(h.b) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, bytes.TrimSpace(h.b))
}
