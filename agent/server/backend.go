// Package server is the daemon's HTTP server: it listens on a Unix socket, asks the kernel who calls (SO_PEERCRED), checks
// and bounds what they send, and hands it to a Backend. It owns the routes, the limits and the OpenAPI document.
//
// It never decides what a sandbox may do, keeps nothing, and trusts no caller: no input makes it panic or grow without bound.
package server

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Caller is who asks, as the kernel says.
type Caller struct {
	UID, GID uint32
	PID      int
	Name     string // "root" or the account's name, or the uid as a number: for the history
}

// Process is a command that runs inside.
type Process interface {
	// Terminal is the master side of its terminal, nil when no stream was one. Whoever gets it closes it.
	Terminal() *os.File
	Done() <-chan struct{}
	// Wait returns the status as a shell gives it; the error says that the whole sandbox ended.
	Wait() (int, error)
	Signal(sig int) error
}

// Backend is the daemon behind the server. An error that is an *api.Error goes to the caller as it is, any other as
// api.Internal. Its methods may be called from any goroutine; ctx ends when the caller goes away.
type Backend interface {
	Info() api.Info

	List() []api.Sandbox
	Get(name string) (api.Sandbox, error)
	Create(ctx context.Context, who Caller, c api.Create) (api.Sandbox, error)
	Start(ctx context.Context, who Caller, name string) (api.Sandbox, error)
	Stop(ctx context.Context, who Caller, name string) (api.Sandbox, error)
	Destroy(ctx context.Context, who Caller, name string) error
	Usage(name string) (api.Usage, error)
	Models(name string) (api.Models, error)

	// Changes says which files were changed from a time on and before another; the zero time is no bound.
	Changes(ctx context.Context, name string, from, until time.Time) (api.Changes, error)

	GPUs(ctx context.Context) api.GPUs // of the host

	// Exec starts a command. files are the caller's stdin, stdout and stderr; nil ones are /dev/null. They are the
	// server's, which closes them after Done. ctx is of the start alone: when the caller goes away before the command
	// runs, nothing is left of it; what runs and is detached outlives its request.
	Exec(ctx context.Context, who Caller, name string, e api.Exec, files [3]*os.File) (Process, error)

	// Upload unpacks a tar stream below path; Download packs path. Paths are those of the sandbox.
	Upload(ctx context.Context, who Caller, name, path string, tar io.Reader) error
	Download(ctx context.Context, who Caller, name, path string, tar io.Writer) error

	Policy(name string, revision int) (api.PolicyText, error) // revision 0: the latest
	Revisions(name string) ([]api.PolicyText, error)          // without their text, newest first
	ChangePolicy(ctx context.Context, who Caller, name string, c api.PolicyChange) (api.PolicyResult, error)
	Explain(name string, q policy.Query) (policy.Answer, error)

	Requests(sandbox string) ([]api.Request, error) // of all for ""
	Request(id string) (api.Request, error)         // id may be the beginning of one
	// FollowRequests calls f with each change of the requests, beginning with all that there are, until f fails or ctx ends.
	FollowRequests(ctx context.Context, sandbox string, f func(api.RequestChange) error) error
	Answer(ctx context.Context, who Caller, id string, a api.NewAnswer) (api.AnswerResult, error)
	Grants(name string) ([]api.Grant, error)
	Revoke(who Caller, name, id string) (api.Revoked, error)

	SetConfig(ctx context.Context, who Caller, name string, set map[string]string) (api.Sandbox, error) // a value of "" takes the key away

	Publish(ctx context.Context, who Caller, name string, p api.Published) (api.Published, error)
	Unpublish(ctx context.Context, who Caller, name, host string) error

	Snapshots(name string) ([]api.Snapshot, error)
	Snapshot(ctx context.Context, who Caller, name, label string) (api.Snapshot, error)
	Restore(ctx context.Context, who Caller, name, id string) (api.Sandbox, error)
	DeleteSnapshot(ctx context.Context, who Caller, name, id string) error

	// EraseAudit erases the texts of records of the audit log, once it is on the disk that it was asked for.
	EraseAudit(ctx context.Context, who Caller, e api.Erase) (api.Erased, error)

	// Events calls f with each record that e selects, in order, until f fails, ctx ends, or, without Follow, there is
	// no more. f gets the line of the audit log, without its newline, and must not keep it.
	Events(ctx context.Context, e api.Events, f func(seq uint64, line []byte) error) error
}
