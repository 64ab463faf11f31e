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

// TestWhich: what an answer would let through tells questions apart, whatever they look like.
func TestWhich(t *testing.T) {
	t.Parallel()
	at := func(exe, ino uint64, name string, missing policy.Access) loader.Event {
		return loader.Event{
			Exe:  loader.FileID{Inode: exe << 20, Ino: exe},
			File: loader.FileAttempt{Object: loader.FileObject{File: loader.FileID{Ino: ino, Dev: 1}, Name: name}, Missing: missing},
		}
	}
	seen := map[string]loader.Event{}
	for _, e := range []loader.Event{
		at(1, 2, "", policy.Write), at(1, 2, "", policy.Read|policy.Write), at(1, 3, "", policy.Write), at(1, 2, "new", policy.Write), at(1, 2, "new 2", policy.Write),
		at(4, 2, "", policy.Write),
	} {
		if other, there := seen[which(e)]; there {
			t.Errorf("%+v is taken for %+v", e, other)
		}
		seen[which(e)] = e
	}
	again := at(1, 2, "", policy.Write)
	again.Exe.Inode = 9
	if _, there := seen[which(again)]; !there {
		t.Error("a program that the kernel has read again is another")
	}
}
