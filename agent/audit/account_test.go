package audit

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

// blankLine erases a line of a file that is not compressed, as who may write it and has no key can.
func blankLine(t *testing.T, name string, seq uint64) {
	t.Helper()
	l := lines(read(t, name))
	for i, line := range l {
		if got, _ := cutSeq(line); got == seq {
			out, ok := erase(nil, line[:len(line)-1])
			if !ok {
				t.Fatal("it can't be erased")
			}
			l[i] = append(out, '\n')
			if err := os.WriteFile(name, bytes.Join(l, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("record %d is not in %s", seq, name)
}

// TestBlankedUnseen: a line that nobody has said to be erased is named, also when who blanked it writes a record that says so.
func TestBlankedUnseen(t *testing.T) {
	t.Parallel()
	c := newChain(t, 40, Options{})
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	unpack(t, c.f)
	blankLine(t, c.f.closed(2), 20)
	blanked := func(what string, r Report, err error) {
		t.Helper()
		if err != nil || r.Fault == nil || r.Fault.Kind != Blanked || r.Fault.Seq != 20 || r.Fault.File != c.f.closed(2) || r.Fault.Line < 2 {
			t.Errorf("%s: %+v, fault %+v, %v", what, r, r.Fault, err)
		}
	}
	blanked("with the key", c.verify(t), nil)
	r, err := VerifyFile(c.f.live())
	blanked("without", r, err)
	r, err = VerifyFile(c.f.closed(2))
	if err != nil || r.Fault != nil || r.Erased != 1 || r.Unaccounted != 1 {
		t.Errorf("alone: %+v, fault %v, %v", r, r.Fault, err)
	}

	// The forger writes the record of it behind the last one: the chain is whole, but nobody has signed that.
	forged, err := OpenChain(c.f.dir, "agent", "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := Erasure{Records: Ranges{{20, 20}}, Reason: "forged", By: "root"}
	for _, d := range e.decisions() {
		if err := forged.Recorder()(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := forged.Close(); err != nil {
		t.Fatal(err)
	}
	unpack(t, c.f)
	r, err = VerifyFile(c.f.live())
	if err != nil || r.Fault != nil || r.Erased != 1 {
		t.Errorf("without a key: %+v, fault %v, %v", r, r.Fault, err)
	}
	r, err = Evidence{Keys: c.known(t).Keys}.VerifyFile(c.f.live())
	blanked("with the key, and a forged record", r, err)

	// The daemon's next start finds it behind the head that it kept, says so, and does not sign it as one that counts.
	c.open(t, Options{})
	var found []string
	if err := c.w.Query(t.Context(), Filter{Since: 41}, func(_ uint64, line []byte) error {
		found = append(found, read1(t, line).Reason)
		return nil
	}); err != nil || len(found) != 1 || !strings.Contains(found[0], "they were put in") {
		t.Errorf("found %q, %v", found, err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	unpack(t, c.f)
	blanked("with the key, and a forged record that was signed", c.verify(t), nil)
}

// TestRecordOfErasingCounts: which records speak of an erased one, and which don't.
func TestRecordOfErasingCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(d *policy.Decision)
		at     uint64 // of 6
		ok     bool
	}{
		"as it is":          {func(*policy.Decision) {}, 6, true},
		"more than needed":  {func(d *policy.Decision) { d.Object = "1-3,5" }, 6, true},
		"itself too":        {func(d *policy.Decision) { d.Object = "2-6" }, 6, true},
		"before it":         {func(*policy.Decision) {}, 1, false},
		"another record":    {func(d *policy.Decision) { d.Object = "1,3-5" }, 6, false},
		"no numbers":        {func(d *policy.Decision) { d.Object = "all" }, 6, false},
		"backwards":         {func(d *policy.Decision) { d.Object = "3-1" }, 6, false},
		"of another plane":  {func(d *policy.Decision) { d.Plane = policy.PlaneExec }, 6, false},
		"of another action": {func(d *policy.Decision) { d.Action = "erased" }, 6, false},
		"of a policy":       {func(d *policy.Decision) { d.Rule = "p.yaml:3" }, 6, false},
		"that was denied":   {func(d *policy.Decision) { d.Verdict = policy.Deny }, 6, false},
		"asked":             {func(d *policy.Decision) { d.Verdict = policy.Ask }, 6, false},
		"in a text":         {func(d *policy.Decision) { d.Action, d.Reason = "x", `","action":"erase","` }, 6, false},
	} {
		var log []byte
		hash := genesis
		for seq := uint64(1); seq <= 6; seq++ {
			d := secretRecord(seq)
			if seq == c.at {
				d = &(&Erasure{Records: Ranges{{2, 2}}, Reason: "r", By: "root"}).decisions()[0]
				d.Seq = seq
				c.change(d)
			}
			line := one(d, hash)
			hash = hashOf(line)
			if seq == 2 {
				line, _ = erase(nil, line)
			}
			log = append(append(log, line...), '\n')
		}
		r, err := Verify(bytes.NewReader(log), Head{6, hash})
		if err != nil || (r.Fault == nil) != c.ok || !c.ok && (r.Fault.Kind != Blanked || r.Fault.Line != 2) {
			t.Errorf("%s: fault %v, %v", name, r.Fault, err)
		}
	}
}
