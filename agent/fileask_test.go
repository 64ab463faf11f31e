package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestAsksEnd: the end of a sandbox that could not be taken over waits for nobody.
func TestAsksEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(Config{
			Policy: &policy.Compiled{Hold: time.Hour, Rules: make([]policy.RuleRef, 1)}, Record: func(policy.Decision) {},
			Ask: func(context.Context, policy.Decision) policy.Verdict {
				t.Error("asked about what is not in force")
				return policy.Deny
			},
		})
		began := time.Now()
		i.hold(loader.HeldCall{}, policy.Decision{Plane: policy.PlaneFile, Action: "write", Object: "/workspace/file"})
		synctest.Wait()
		i.asks.close()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it waited for %v", waited)
		}
	})
}
