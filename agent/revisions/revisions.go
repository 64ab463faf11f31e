// Package revisions keeps the policies that a sandbox has had, in a directory of its own: 1.yaml, 2.yaml, ... as they
// were written, and index.json, which says of each who made it, when, why, and what its bytes were.
//
// A revision is there when the index names it. Every file is written whole beside its place, forced to the disk, and
// renamed: whenever the process is killed, the power cut or the disk full, the directory has the revisions before the
// append or those after it. What a cut leaves beside them is removed by the next Open. Anything else that doesn't fit is
// refused with what is wrong, never guessed around: it was not written by this package.
//
// The package never reads what a policy says, and never changes or removes a revision. One process at a time may have a
// directory open; that is its owner's to see to.
package revisions

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
)

// MaxText is the most bytes of one policy's text.
const MaxText = 1 << 20

const indexName = "index.json"

// A Change says of a revision what its text doesn't.
type Change struct {
	Name string `json:"name"` // what records call the policy
	Hash string `json:"hash"` // over what it means
	Who  string `json:"who"`
	What string `json:"what"` // what was changed, in words
}

// A Revision is one policy that the sandbox has had.
type Revision struct {
	Number int `json:"revision"` // from 1
	Change
	When time.Time `json:"when"`
	Size int       `json:"size"`
	Sum  string    `json:"sha256"` // of the text
}

// A Conflict is the error of an Append that expected another latest revision.
type Conflict struct{ Expected, Latest int }

// Error says what was expected and what is there.
func (c *Conflict) Error() string {
	return fmt.Sprintf("the policy is at revision %d, not %d: somebody changed it meanwhile; look at what changed, and try again", c.Latest, c.Expected)
}

// A Store is the revisions of one sandbox. Its methods may be called from several goroutines.
type Store struct {
	dir string

	mu     sync.Mutex
	list   []Revision // list[i] is revision i+1
	broken error      // what is on the disk is not known any more
}

// Open opens the directory, which is made (0700) when it is missing, and checks it: every revision from 1 to the last is
// there with its size, and the last one's bytes are those that were written.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("policy revisions: %w", err)
	}
	s := &Store{dir: dir}
	if err := s.readIndex(); err != nil {
		return nil, err
	}
	for _, r := range s.list {
		st, err := os.Lstat(s.path(r.Number))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, s.corrupt("revision %d is missing", r.Number)
		case err != nil:
			return nil, fmt.Errorf("policy revisions: %w", err)
		case !st.Mode().IsRegular() || st.Size() != int64(r.Size):
			return nil, s.corrupt("%d.yaml is not the file that was written", r.Number)
		}
	}
	if err := s.sweep(); err != nil {
		return nil, err
	}
	if n := len(s.list); n > 0 {
		if _, _, err := s.Get(n); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Store) path(number int) string { return filepath.Join(s.dir, strconv.Itoa(number)+".yaml") }

func (s *Store) corrupt(format string, args ...any) error {
	return fmt.Errorf("policy revisions %s: %s: the directory was changed by something else; put it back from a backup, or move it away and set the policy anew",
		s.dir, fmt.Sprintf(format, args...))
}

func (s *Store) readIndex() error {
	b, err := os.ReadFile(filepath.Join(s.dir, indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("policy revisions: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s.list); err != nil || dec.More() {
		return s.corrupt("%s can't be read (%v)", indexName, err)
	}
	for i, r := range s.list {
		if r.Number != i+1 {
			return s.corrupt("%s names revision %d where %d should be", indexName, r.Number, i+1)
		}
	}
	return nil
}

// sweep removes what an append that was cut short left: one text without its entry, and a file that was not in its place.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("policy revisions: %w", err)
	}
	for _, e := range entries {
		number, isText := strings.CutSuffix(e.Name(), ".yaml")
		n, err := strconv.Atoi(number)
		switch {
		case strings.HasSuffix(e.Name(), atomicfile.Suffix):
		case !isText || err != nil || n <= len(s.list):
			continue
		case n > len(s.list)+1:
			return s.corrupt("%s is there, and %s ends with revision %d", e.Name(), indexName, len(s.list))
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("policy revisions: %w", err)
		}
	}
	return nil
}

// Latest returns the last revision; its Number is 0 while there is none.
func (s *Store) Latest() Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == 0 {
		return Revision{}
	}
	return s.list[len(s.list)-1]
}

// List returns all revisions, oldest first.
func (s *Store) List() []Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// ErrNone is the error that there is no revision of a number.
var ErrNone = errors.New("no such revision")

// Get returns a revision and its text, whose bytes are checked.
func (s *Store) Get(number int) (Revision, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number < 1 || number > len(s.list) {
		return Revision{}, nil, fmt.Errorf("policy revision %d: %w: there are 1 to %d", number, ErrNone, len(s.list))
	}
	r := s.list[number-1]
	text, err := os.ReadFile(s.path(number))
	if err != nil {
		return Revision{}, nil, fmt.Errorf("policy revisions: %w", err)
	}
	if sum(text) != r.Sum {
		return Revision{}, nil, s.corrupt("%d.yaml is not the file that was written", number)
	}
	return r, text, nil
}

// Append adds a revision, which is on the disk when it returns. expect is the latest revision as the caller knows it, 0:
// whichever it is; where it is another the error is a *Conflict. After any error the revisions are those before.
func (s *Store) Append(text []byte, c Change, expect int) (Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	latest := len(s.list)
	switch {
	case s.broken != nil:
		return Revision{}, s.broken
	case expect != 0 && expect != latest:
		return Revision{}, &Conflict{expect, latest}
	case len(text) > MaxText:
		return Revision{}, fmt.Errorf("the policy has %d bytes; at most %d are kept", len(text), MaxText)
	}
	r := Revision{Number: latest + 1, Change: c, When: time.Now().UTC(), Size: len(text), Sum: sum(text)}
	list := append(slices.Clip(s.list), r)
	index, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return Revision{}, fmt.Errorf("policy revisions: %w", err)
	}
	name := filepath.Base(s.path(r.Number))
	if err := s.write(name, text); err != nil {
		os.Remove(filepath.Join(s.dir, name))
		return Revision{}, err
	}
	if err := s.write(indexName, append(index, '\n')); err != nil {
		if errors.Is(err, atomicfile.ErrInPlace) {
			// The index names the revision, and a power cut may take that back: only the next Open can tell.
			s.broken = fmt.Errorf("%w; the daemon has to be restarted before this policy can be changed again", err)
			return Revision{}, s.broken
		}
		os.Remove(filepath.Join(s.dir, name))
		return Revision{}, err
	}
	s.list = list
	return r, nil
}

// write puts a file in its place, whole and on the disk.
func (s *Store) write(name string, data []byte) error {
	err := atomicfile.Write(filepath.Join(s.dir, name), data)
	if err == nil {
		return nil
	}
	hint := ""
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		hint = "; make room on its file system: the policy is what it was"
	}
	return fmt.Errorf("policy revisions: write %s: %w%s", filepath.Join(s.dir, name), err, hint)
}

func sum(text []byte) string {
	h := sha256.Sum256(text)
	return hex.EncodeToString(h[:])
}
