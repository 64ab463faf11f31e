package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestAsksEnd: the end of a sandbox waits for no answer: not to a call that does not wait itself, and not where the sandbox could not be
// taken over.
func TestAsksEnd(t *testing.T) {
	t.Parallel()
	for name, guarded := range map[string]bool{"in force": true, "not taken over": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstance(Config{
					Policy: &policy.Compiled{Hold: time.Hour, Rules: make([]policy.RuleRef, 1)}, Record: func(policy.Decision) {},
					Ask: func(ctx context.Context, _ policy.Decision) policy.Verdict { <-ctx.Done(); return policy.Deny },
				})
				if guarded {
					close(i.guarded)
				}
				began := time.Now()
				i.askFile(loader.Event{Hook: loader.HookFile, Verdict: policy.Ask, File: loader.FileAttempt{Op: loader.OpTruncate, Missing: policy.Write}},
					policy.Decision{Plane: policy.PlaneFile, Action: "truncate", Object: "/workspace/file"})
				synctest.Wait()
				i.asks.close()
				if waited := time.Since(began); waited != 0 {
					t.Errorf("it waited for %v", waited)
				}
			})
		})
	}
}
