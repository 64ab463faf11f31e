//go:build e2e

package daemon

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

const (
	many   = 200
	atOnce = 4 // changes of theirs
)

// TestManySandboxes has 200 sandboxes at once on one host, each with a mask to watch, which takes more of the kernel than one
// without: all are made, run commands, outlive their daemon, and go.
func TestManySandboxes(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	name := func(i int) string { return fmt.Sprintf("many-%d", i) }
	all := func(what string, f func(i int) error) {
		t.Helper()
		begun := time.Now()
		var g errgroup.Group
		g.SetLimit(atOnce)
		for i := range many {
			g.Go(func() error { return f(i) })
		}
		if err := g.Wait(); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, d.Log())
		}
		t.Logf("%s all %d: %s", what, many, time.Since(begun).Round(time.Millisecond))
	}
	run := func(i int) error {
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		defer read.Close()
		p, err := c.Exec(ctx, name(i), api.Exec{Args: []string{"sh", "-c", "cat own; cat private/key"}}, [3]*os.File{1: write})
		write.Close()
		if err != nil {
			return err
		}
		defer p.Close()
		var out bytes.Buffer
		if _, err := out.ReadFrom(read); err != nil {
			return err
		}
		if status, err := p.Wait(); err != nil || status == 0 || out.String() != name(i) {
			return fmt.Errorf("%s: status %d, %w, %q", name(i), status, err, &out)
		}
		return nil
	}
	policy := harness.Files + "  deny: [{path: /workspace/private, permissions: [read, write]}]\n" + strings.TrimPrefix(shell, harness.Files)
	all("create", func(i int) error {
		ws := filepath.Join(d.Dir, name(i))
		for _, f := range []struct{ dir, file, text string }{{ws, "own", name(i)}, {filepath.Join(ws, "private"), "key", "secret"}} {
			if err := os.Mkdir(f.dir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(f.dir, f.file), []byte(f.text), 0o644); err != nil {
				return err
			}
		}
		_, err := c.Create(ctx, api.Create{Name: name(i), Policy: policy, Workspace: ws, Start: true})
		return err
	})
	all("exec in", run)
	begun := time.Now()
	list, err := c.List(ctx)
	if err != nil || len(list) != many || slices.ContainsFunc(list, func(s api.Sandbox) bool { return s.State != api.Running }) {
		t.Fatalf("%d are listed, %v\n%s", len(list), err, d.Log())
	}
	t.Logf("list: %s", time.Since(begun).Round(time.Millisecond))
	d.Kill()
	begun = time.Now()
	d.Start(t)
	t.Logf("take over: %s", time.Since(begun).Round(time.Millisecond))
	for i, s := range list {
		if now := get(t, c, s.Name); now.State != api.Running || now.PID != s.PID {
			t.Fatalf("%d: %+v\n%s", i, now, d.Log())
		}
	}
	all("exec in", run)
	all("destroy", func(i int) error { return c.Destroy(ctx, name(i)) })
	d.Verify(t)
}
