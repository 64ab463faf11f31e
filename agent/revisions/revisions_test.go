package revisions

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill makes a store of n revisions.
func fill(t *testing.T, dir string, n int) *Store {
	t.Helper()
	s := open(t, dir)
	for i := range n {
		if _, err := s.Append(text(i+1), Change{Name: "p.yaml", Hash: "00", Who: "root", What: "set"}, i); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func text(number int) []byte { return bytes.Repeat(fmt.Appendf(nil, "# %d\n", number), number%50+1) }

func TestAppendAndGet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "policy")
	s := open(t, dir)
	if s.Latest().Number != 0 || len(s.List()) != 0 {
		t.Errorf("a new store has %v", s.List())
	}
	if _, _, err := s.Get(1); !errors.Is(err, ErrNone) {
		t.Errorf("Get of none: %v", err)
	}
	s = fill(t, dir, 3)
	if _, err := s.Append(text(4), Change{Who: "ada", What: "added a.org"}, 0); err != nil {
		t.Fatal(err)
	}
	_, err := s.Append(text(5), Change{}, 3)
	var c *Conflict
	if !errors.As(err, &c) || c.Expected != 3 || c.Latest != 4 {
		t.Errorf("expected 3 of 4: %v", err)
	}
	if _, err := s.Append(make([]byte, MaxText+1), Change{}, 0); err == nil {
		t.Error("a text that is too large was taken")
	}
	again := open(t, dir)
	if diff := cmp.Diff(s.List(), again.List()); diff != "" {
		t.Error(diff)
	}
	for n := 1; n <= 4; n++ {
		if r, b, err := again.Get(n); err != nil || r.Number != n || !bytes.Equal(b, text(n)) {
			t.Errorf("revision %d: %+v %q %v", n, r, b, err)
		}
	}
	if r := again.Latest(); r.Who != "ada" || r.What != "added a.org" || time.Since(r.When) > time.Minute {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"1.yaml", indexName} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

func TestConcurrentAppends(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		wg.Go(func() {
			for {
				latest := s.Latest().Number
				if latest >= 20 {
					return
				}
				var c *Conflict
				if _, err := s.Append(text(latest+1), Change{}, latest); err == nil {
					mu.Lock()
					won++
					mu.Unlock()
				} else if !errors.As(err, &c) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	// An expectation of 0 is none, so the first revision may be made more than once.
	if n := len(s.List()); n != won || n < 20 {
		t.Errorf("%d revisions by %d appends", n, won)
	}
}

// TestCutShort has what an append leaves that is cut off between its steps.
func TestCutShort(t *testing.T) {
	for name, files := range map[string][]string{"a text": {"4.yaml"}, "a file not in its place": {"4.yaml.new"}, "both": {"4.yaml", "index.json.new"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, 3)
			for _, f := range files {
				if err := os.WriteFile(filepath.Join(dir, f), []byte("half"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, dir)
			for _, f := range files {
				if _, err := os.Lstat(filepath.Join(dir, f)); err == nil {
					t.Errorf("%s was left", f)
				}
			}
			if r, err := s.Append(text(4), Change{}, 3); err != nil || r.Number != 4 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestRefusesWhatItDidNotWrite(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"a gap": {func(dir string) error { return os.Remove(filepath.Join(dir, "2.yaml")) }, "revision 2 is missing"},
		"a changed last": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "3.yaml"), bytes.ReplaceAll(text(3), []byte("#"), []byte("$")), 0o600)
		}, "3.yaml is not the file that was written"},
		"a changed length":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, "1.yaml"), nil, 0o600) }, "1.yaml is not the file"},
		"an index cut off":    {func(dir string) error { return os.Truncate(filepath.Join(dir, indexName), 100) }, "index.json can't be read"},
		"an index gone":       {func(dir string) error { return os.Remove(filepath.Join(dir, indexName)) }, "ends with revision 0"},
		"an empty index":      {func(dir string) error { return os.Truncate(filepath.Join(dir, indexName), 0) }, "index.json can't be read"},
		"a text from nowhere": {func(dir string) error { return os.WriteFile(filepath.Join(dir, "9.yaml"), nil, 0o600) }, "9.yaml is there, and index.json ends with revision 3"},
		"a link": {func(dir string) error {
			return errors.Join(os.Rename(filepath.Join(dir, "2.yaml"), filepath.Join(dir, "x")), os.Symlink("x", filepath.Join(dir, "2.yaml")))
		}, "2.yaml is not the file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, 3)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Open: %v, want %q", err, c.want)
			}
		})
	}
	dir := t.TempDir()
	s := fill(t, dir, 3)
	if err := os.WriteFile(filepath.Join(dir, "1.yaml"), []byte("else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Get(1); err == nil {
		t.Error("a changed text was given out")
	}
}

// TestAppendFails takes the directory away: what was there stays, and the store says so.
func TestAppendFails(t *testing.T) {
	dir := t.TempDir()
	s := fill(t, dir, 2)
	// A directory in the place of the temporary file makes every write fail, for root too.
	if err := os.Mkdir(filepath.Join(dir, "3.yaml.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(text(3), Change{}, 2); err == nil || s.Latest().Number != 2 {
		t.Errorf("%v, latest %d", err, s.Latest().Number)
	}
	// The writing removed the empty directory.
	if r, err := s.Append(text(3), Change{}, 2); err != nil || r.Number != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	open(t, dir)
}

// TestAppendingProcess is the process that TestKilled kills.
func TestAppendingProcess(t *testing.T) {
	dir := os.Getenv("REVISIONS_TEST_DIR")
	if dir == "" {
		return
	}
	s := open(t, dir)
	for {
		n := s.Latest().Number
		if _, err := s.Append(text(n+1), Change{Who: "root", What: strings.Repeat("x", n%100)}, n); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n + 1)
	}
}

// TestKilled kills a process that appends, at random moments: what it had said was appended is there, and whole.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	said := 0
	for range 15 {
		var out bytes.Buffer
		c := exec.Command(os.Args[0], "-test.run=^TestAppendingProcess$")
		c.Env = append(os.Environ(), "REVISIONS_TEST_DIR="+dir)
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(5+rand.IntN(40)) * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		lines := strings.Fields(out.String())
		if len(lines) > 0 {
			if _, err := fmt.Sscan(lines[len(lines)-1], &said); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, dir)
		if n := s.Latest().Number; n < said || n > said+1 {
			t.Fatalf("revision %d was appended, and %d is the last", said, n)
		}
		for _, r := range s.List() {
			if _, b, err := s.Get(r.Number); err != nil || !bytes.Equal(b, text(r.Number)) {
				t.Fatalf("revision %d: %q, %v", r.Number, b, err)
			}
		}
		said = s.Latest().Number
	}
	if said == 0 {
		t.Error("nothing was appended")
	}
}
