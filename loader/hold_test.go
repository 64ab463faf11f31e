package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// fileRecord builds a record of a question or refusal about a file.
func fileRecord(t *testing.T, f bpf.LsmFileEvent, names string) []byte {
	t.Helper()
	f.Event.Hook, f.Event.PathLen = uint8(HookFile), uint16(len(names))
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, f); err != nil {
		t.Fatal(err)
	}
	b.WriteString(names)
	return b.Bytes()
}

func TestDecodeFileEvent(t *testing.T) {
	f := bpf.LsmFileEvent{Started: 7, Asked: 9, Ino: 5, Dev: 6, Gen: 8, Tid: 43, Missing: uint8(policy.Write), Named: 1}
	f.Event.Cgid, f.Event.Tgid, f.Event.Port, f.Event.Protocol = 42, 41, uint16(OpCreate), uint8(policy.Write)
	cgid, e, err := decodeEvent(fileRecord(t, f, "new\x00dir\x00"))
	if err != nil || cgid != 42 {
		t.Fatal(cgid, err)
	}
	want := FileObject{File: FileID{Ino: 5, Dev: 6, Gen: 8}, Name: "new"}
	if e.File.Op != OpCreate || e.File.Missing != policy.Write || e.File.Below != "dir/new" || e.File.Object != want {
		t.Errorf("%+v", e.File)
	}
	h := e.File.Held
	if h.IsZero() || h.PID() != 41 || h.TID() != 43 || h.Started() != 7 || h.key.What != asked(42, want, policy.Write) {
		t.Errorf("%+v", h)
	}
	// The same task asks the same again.
	f.Asked = 10
	if _, again, _ := decodeEvent(fileRecord(t, f, "new\x00dir\x00")); again.File.Held == h || again.File.Held.key != h.key {
		t.Errorf("%+v and %+v", again.File.Held, h)
	}
	f.Asked, f.Named = 0, 0
	if _, e, _ = decodeEvent(fileRecord(t, f, "file\x00")); !e.File.Held.IsZero() || e.File.Object.Name != "" {
		t.Errorf("%+v", e.File)
	}
}

func TestFileGrantKeys(t *testing.T) {
	g := &Guard{cgid: 42}
	file := FileObject{File: FileID{Ino: 5, Dev: 6}}
	for _, c := range []struct {
		grant FileGrant
		want  []policy.Access
	}{
		// Who may do two things may do each.
		{FileGrant{Access: policy.Read | policy.Write, Verdict: policy.Allow}, []policy.Access{1, 2, 3}},
		// Who may not do one may not do it together with another.
		{FileGrant{Access: policy.Write | policy.Execute | List, Verdict: policy.Deny}, []policy.Access{14, 15}},
		{FileGrant{Access: policy.Read | policy.Write, Verdict: policy.Allow, Once: true}, []policy.Access{3}},
	} {
		c.grant.Object, c.grant.Exe = file, FileID{Ino: 9}
		keys, err := g.fileGrantKeys(c.grant)
		if err != nil {
			t.Error(err)
		}
		var got []policy.Access
		for _, k := range keys {
			got = append(got, policy.Access(k.What.Access))
			if k.What.Cgid != 42 || k.What.Ino != 5 || k.Exe.Ino != 9 {
				t.Errorf("%+v", k)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v is entered for %v, want %v", c.grant, got, c.want)
		}
	}
	long := FileObject{File: file.File, Name: string(make([]byte, NameMax+1))}
	for _, bad := range []FileGrant{
		{Object: file, Verdict: policy.Allow},
		{Object: file, Verdict: policy.Ask, Access: policy.Read},
		{Object: file, Verdict: policy.Allow, Access: 16},
		{Verdict: policy.Allow, Access: policy.Read},
		{Object: long, Verdict: policy.Allow, Access: policy.Read},
	} {
		if _, err := g.fileGrantKeys(bad); err == nil {
			t.Errorf("%+v can be entered", bad)
		}
	}
}

func TestResumeRefuses(t *testing.T) {
	g := &Guard{cgid: 42}
	if err := g.Resume(HeldCall{}, policy.Allow); !errors.Is(err, ErrNotHeld) {
		t.Error(err)
	}
	other := HeldCall{pid: 1, asked: 1}
	other.key.What.Cgid = 43
	if err := g.Resume(other, policy.Deny); !errors.Is(err, ErrNotHeld) {
		t.Errorf("another sandbox's call: %v", err)
	}
	other.key.What.Cgid = 42
	if err := g.Resume(other, policy.Ask); err == nil || errors.Is(err, ErrNotHeld) {
		t.Error(err)
	}
}

// TestCutNames: a path that an event has no room for does not look like one that it has.
func TestCutNames(t *testing.T) {
	long := strings.Repeat("n", nameKept)
	for _, c := range []struct {
		names, below string
		tail         bool
	}{
		{"file\x00dir\x00", "dir/file", false},
		{long[1:] + "\x00dir\x00", "dir/" + long[1:], false},
		{long + "\x00dir\x00", "dir/" + long + Cut, false},
		{strings.Repeat(long[1:]+"\x00", 4), strings.Repeat("/"+long[1:], 4)[1:], true},
	} {
		if _, e, err := decodeEvent(fileRecord(t, bpf.LsmFileEvent{}, c.names)); err != nil || e.File.Below != c.below || e.File.Tail != c.tail {
			t.Errorf("%q: %q, %v, %v", c.names, e.File.Below, e.File.Tail, err)
		}
	}
}
