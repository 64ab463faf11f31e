package daemon

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestAskedIsSaved: what was asked about is on disk when the agent has its answer, whoever else asks at that time.
func TestAskedIsSaved(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "proposals.json")
	p, err := openProposals(file)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{proposals: p}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				object := fmt.Sprintf("asked-%d-%d.example.test:443", i, j)
				if v := b.ask(t.Context(), policy.Decision{Plane: policy.PlaneNetwork, Object: object}); v != policy.Deny {
					t.Errorf("nobody is there, and %s: %s", object, v)
				}
				// As the next daemon finds it after a kill -9 now.
				saved, err := openProposals(file)
				if err != nil {
					t.Error(err)
					return
				}
				found := false
				for _, x := range saved.all() {
					found = found || x.Object == object && x.Count == 1
				}
				if !found {
					t.Errorf("%s is not on disk", object)
				}
			}
		})
	}
	wg.Wait()
	p.close()
}
