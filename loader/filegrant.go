package loader

import (
	"errors"
	"fmt"
	"time"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// FileObject is what a grant on files is about: one file, or what will have a name in a directory.
type FileObject struct {
	File FileID // its address is not looked at
	Name string // not empty: File is the directory
}

// FileGrant is a person's answer about one file, which is looked up before anything is refused. A deny is an answer too:
// a remembered rejection. What a rule of the policy denies no grant allows, but what only the default denies it does.
type FileGrant struct {
	Exe     FileID // zero: any executable
	Object  FileObject
	Access  policy.Access // also List
	Verdict policy.Verdict
	Rule    policy.RuleID
	Until   time.Time // zero: as long as the sandbox lives
	Once    bool      // the first operation takes it away
}

// anyAccess is every right that can be missing.
const anyAccess = policy.Read | policy.Write | policy.Execute | List

// fileGrantKeys returns the entries of a grant: an operation looks for exactly what it misses. Who may do two things
// may do each, and who may not do one may not do it together with another. Once is exactly what was asked.
func (g *Guard) fileGrantKeys(gr FileGrant) ([]bpf.LsmFileGrantKey, error) {
	switch {
	case gr.Access == 0 || gr.Access&^anyAccess != 0 || gr.Verdict == policy.Ask:
		return nil, errors.New("put a grant into the kernel: it needs what is allowed or denied")
	case gr.Object.File.Ino == 0:
		return nil, errors.New("put a grant into the kernel: its file has no identity")
	case len(gr.Object.Name) > NameMax:
		return nil, fmt.Errorf("put a grant into the kernel: the name %q is longer than %d bytes", gr.Object.Name, NameMax)
	}
	var keys []bpf.LsmFileGrantKey
	for access := policy.Access(1); access <= anyAccess; access++ {
		part := access == gr.Access
		if !gr.Once {
			part = gr.Verdict == policy.Allow && access&^gr.Access == 0 || gr.Verdict == policy.Deny && gr.Access&^access == 0
		}
		if part {
			keys = append(keys, bpf.LsmFileGrantKey{Exe: gr.Exe.key(), What: asked(g.cgid, gr.Object, access)})
		}
	}
	return keys, nil
}

// asked names a file and what is asked of it.
func asked(cgid uint64, o FileObject, access policy.Access) bpf.LsmAsked {
	a := bpf.LsmAsked{Cgid: cgid, Ino: o.File.Ino, Dev: o.File.Dev, Gen: o.File.Gen, Access: uint32(access)}
	copy(a.Name[:], o.Name)
	return a
}

// GrantFile enters an answer; it replaces an earlier one for the same executable, file and access. It needs level full.
func (g *Guard) GrantFile(gr FileGrant) error {
	keys, err := g.fileGrantKeys(gr)
	if err != nil {
		return err
	}
	if g.l.maps.fileGrants == nil {
		return errors.New("put a grant on files into the kernel: this needs BPF LSM: " + g.l.LevelReason())
	}
	value := bpf.GateGrant{Expires: deadline(gr.Until), Rule: uint32(gr.Rule), Verdict: uint8(gr.Verdict)}
	if gr.Once {
		value.Once = 1
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	for _, key := range keys {
		g.fileGrants[key] = struct{}{}
		if err := g.l.maps.fileGrants.Put(key, value); err != nil {
			return putError("a grant on files", err)
		}
	}
	return nil
}

// RevokeFile takes away what GrantFile has entered. What was opened stays open.
func (g *Guard) RevokeFile(gr FileGrant) error {
	keys, err := g.fileGrantKeys(gr)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.l.maps.fileGrants == nil {
		return nil
	}
	var errs []error
	for _, key := range keys {
		delete(g.fileGrants, key)
		errs = append(errs, remove(g.l.maps.fileGrants, key))
	}
	return errors.Join(errs...)
}
