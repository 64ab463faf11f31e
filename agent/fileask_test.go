package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/agent/trace/tracetest"
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

// TestHeldCallThatWasWithdrawn: what nobody waits for any more when its answer comes is told of, too, and by which id it was asked about.
func TestHeldCallThatWasWithdrawn(t *testing.T) {
	t.Parallel()
	col := tracetest.New(t, nil)
	tracer, err := trace.Open(config.Traces{Endpoint: col.URL, Ratio: 1}, func(_, _, reason string) { t.Error(reason) })
	if err != nil {
		t.Fatal(err)
	}
	i := newInstance(Config{
		Policy: &policy.Compiled{Hold: time.Hour, Rules: make([]policy.RuleRef, 1)}, Traces: tracer.Source("box"),
		Ask: func(ctx context.Context, _ policy.Decision) policy.Verdict {
			trace.Asked(ctx, "0123456789")
			return policy.Allow
		},
	})
	i.answerFile(t.Context(), loader.HeldCall{}, policy.Decision{Plane: policy.PlaneFile, Action: "open", Object: "/workspace/file", Verdict: policy.Ask, Rule: "policy.yaml:3"})
	tracer.Close()
	tr, ok := col.Find(t, "hold open", "withdrawn")
	if !ok {
		t.Fatalf("there is no such trace: %v", col.Spans())
	}
	tr.Is(t, "", trace.Sandbox, "box", trace.Plane, "file", trace.Verdict, "ask", trace.Rule, "policy.yaml:3", trace.Approval, "0123456789", "nemoclaw.object", "/workspace/file")
}
