package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// process makes a sandbox's process a server's.
type process struct{ *sandbox.Process }

func (p process) Signal(sig int) error { return p.Process.Signal(syscall.Signal(sig)) }

// shells are tried in this order.
var shells = []string{"bash", "sh", "zsh", "fish", "dash", "ash"}

// Exec starts a command in a sandbox that runs. One that does not run yet when ctx ends is killed.
func (d *Daemon) Exec(ctx context.Context, who server.Caller, name string, e api.Exec, files [3]*os.File) (server.Process, error) {
	b, err := d.find(name)
	if err != nil {
		return nil, err
	}
	i, err := b.running()
	if err != nil {
		return nil, err
	}
	terminal := false
	for _, f := range files {
		terminal = terminal || f != nil && term.Is(f)
	}
	env, err := b.environment(e, terminal)
	if err != nil {
		return nil, err
	}
	req := sandbox.ExecRequest{
		Args: e.Args, Env: env, Dir: e.Dir,
		Stdin: files[0], Stdout: files[1], Stderr: files[2], Abort: ctx.Done(),
	}
	var p *sandbox.Process
	if e.Shell {
		p, err = b.shell(i, req)
	} else {
		p, err = i.Exec(req)
	}
	if err != nil {
		err = execError(err)
		if refused := (*api.Error)(nil); errors.As(err, &refused) && refused.Code == api.CommandRefused {
			b.records.Record(policy.Decision{
				Plane: policy.PlaneSystem, Action: "command", Object: strings.Join(e.Args, " "), Verdict: policy.Deny, Rule: "builtin",
				Reason: "not started for " + who.Name + ": " + err.Error(),
			})
		}
		return nil, err
	}
	b.note("command", strings.Join(p.Args(), " "), "started by "+who.Name)
	return process{p}, nil
}

// shell starts the first shell that the policy allows.
func (b *box) shell(i *agent.Instance, req sandbox.ExecRequest) (*sandbox.Process, error) {
	for _, s := range shells {
		req.Args = []string{s}
		p, err := i.Exec(req)
		if err == nil || !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.ENOENT) {
			return p, err
		}
	}
	return nil, fmt.Errorf("the policy of %s allows no shell: %w; add `command: bash` to its process.allow: nemoclaw %s policy add --exec bash --restart", b.name, syscall.EACCES, b.name)
}

// execError tells what a shell would tell apart.
func execError(err error) error {
	var code api.Code
	switch {
	case errors.Is(err, sandbox.ErrGone):
		code = api.Conflict
	case errors.Is(err, syscall.ENOENT):
		code = api.CommandNotFound
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EISDIR):
		code = api.CommandRefused
	case errors.Is(err, syscall.E2BIG), errors.Is(err, syscall.ENOTDIR):
		code = api.Invalid
	default:
		return err
	}
	return &api.Error{Code: code, Message: err.Error()}
}
