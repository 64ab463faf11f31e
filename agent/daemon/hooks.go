package daemon

import (
	"context"

	"github.com/nemoclaw/nemoclaw/agent/hook"
	"github.com/nemoclaw/nemoclaw/api"
)

// openHooks checks what is to be told of requests. Told it is by tellHooks.
func (d *Daemon) openHooks() (hook.Hooks, error) {
	return hook.Open(d.c.Hooks, d.c.Socket, func(action, object, reason string) {
		d.log.Warn(reason, action, object)
		d.note(action, object, reason)
	})
}

// tellHooks tells them until the daemon ends.
func (d *Daemon) tellHooks(hooks hook.Hooks) {
	d.starts.Go(func() {
		_ = hooks.Run(d.life, func(ctx context.Context, f func(api.RequestChange) error) error { // it ends with life
			return d.FollowRequests(ctx, "", f)
		})
	})
}
