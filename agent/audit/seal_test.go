package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

// fullRecord is a record with every text, each of them hostile.
func fullRecord(seq uint64) *policy.Decision {
	d := record(seq)
	d.Object = `he said "\",\"salt\":\"" and {[,]} ` + "\x00\xff\u202e"
	d.Subject.Args = `curl -d {"object":"x","reason":"y"} \\`
	d.Reason = strings.Repeat(`\"`, 40) + `,"prev":"`
	d.Asked = "network connect"
	d.Inference = &policy.ModelCall{
		ID: "8a15", Asked: `gpt"5`, Model: "corp/big", Instead: []string{"a: \"x\"", "b]"}, Classes: map[string]int{`my "class"`: 2}, Unseen: []string{"image"},
		Matches: []policy.Matched{{Class: "pii", Kind: "e-mail", Via: "base64", Text: `a@b.example"}]`}, {Class: "financial", Kind: "card", Text: "4111"}}, MS: 5,
		Tool: &policy.ToolUse{Through: []string{"tool_call", "x,y"}, Params: `{"card":"4111 1111 1111 1111"}`, ParamsBytes: 30, Result: "ok}", ResultBytes: 3, Failed: true},
	}
	return d
}

func one(d *policy.Decision, prev string) []byte {
	b, _ := appendLine(nil, d, prev)
	return b[:len(b)-1]
}

// read1 decodes a line as every reader of the log does.
func read1(t *testing.T, line []byte) (d policy.Decision) {
	t.Helper()
	if err := json.Unmarshal(line, &d); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return d
}

func TestTextsAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		d    *policy.Decision
		want int
	}{
		"no texts but the object": {&policy.Decision{Seq: 1}, 1},
		"a plain one":             {record(1), 3},
		"all, hostile":            {fullRecord(1), 10},
	} {
		line := one(c.d, genesis)
		p, ok := cutSealed(line)
		if !ok || !p.right() {
			t.Fatalf("%s: sealed %v, right %v: %s", name, ok, p.right(), line)
		}
		list, ok := cutTexts(nil, p.body)
		if _, written := appendRecord(nil, nil, c.d); !slices.Equal(written, list) {
			t.Errorf("%s: %v were written, %v are found", name, written, list)
		}
		if !ok || len(list) != c.want {
			t.Errorf("%s: %d texts, %v; want %d", name, len(list), ok, c.want)
		}
		for _, x := range list {
			if b := line[x.start:x.end]; !json.Valid(b) {
				t.Errorf("%s: %s is no value", name, b)
			}
		}
	}
}

// TestErasedLine: no text is left, all else is, and the hash is what it was.
func TestErasedLine(t *testing.T) {
	line := one(fullRecord(7), genesis)
	erased, ok := erase(nil, line)
	l, err := parseLine(erased)
	if !ok || err != nil || !l.own || !l.erased || l.hash != hashOf(line) || l.prev != genesis || l.seq != 7 {
		t.Fatalf("%v, %+v, %v: %s", ok, l, err, erased)
	}
	for _, text := range []string{"said", "curl", "gpt", "4111", "e-mail", "x,y", "ok}", `\\\"`, "salt"} {
		if bytes.Contains(erased, []byte(text)) {
			t.Errorf("%q is still in %s", text, erased)
		}
	}
	was, is := read1(t, line), read1(t, erased)
	if is.Object != Erased || is.Subject.Exe != Erased || is.Subject.Args != Erased || is.Reason != Erased || is.Inference.Asked != Erased ||
		!slices.Equal(is.Inference.Instead, []string{Erased}) || !slices.Equal(is.Inference.Tool.Through, []string{Erased}) ||
		is.Inference.Tool.Params != Erased || is.Inference.Tool.Result != Erased || len(is.Inference.Matches) != 1 || is.Inference.Matches[0].Text != Erased {
		t.Errorf("decoded %+v, %+v", is, is.Inference)
	}
	if !is.Time.Equal(was.Time) || is.Sandbox != was.Sandbox || is.Plane != was.Plane || is.Verdict != was.Verdict || is.Rule != was.Rule || is.Revision != was.Revision ||
		is.Asked != was.Asked || is.Subject.PID != was.Subject.PID || is.Inference.Model != was.Inference.Model || is.Inference.Classes[`my "class"`] != 2 || is.Inference.Tool.ResultBytes != 3 {
		t.Errorf("decoded %+v, was %+v", is, was)
	}
	again, ok := erase(nil, erased)
	if !ok || !bytes.Equal(again, erased) {
		t.Errorf("twice: %v, %s", ok, again)
	}
}

// TestSaltsDiffer: two records that are the same have nothing by which that shows once they are erased.
func TestSaltsDiffer(t *testing.T) {
	a, b := one(record(1), genesis), one(record(1), genesis)
	x, _ := erase(nil, a)
	y, _ := erase(nil, b)
	p, _ := cutSealed(x)
	q, _ := cutSealed(y)
	if hashOf(a) == hashOf(b) || bytes.Equal(p.digest, q.digest) {
		t.Errorf("%s and %s", x, y)
	}
}

// TestForgedSeals: what who has no key, but the log, makes of one line so that the line after it still follows.
func TestForgedSeals(t *testing.T) {
	line := one(fullRecord(7), genesis)
	erased, _ := erase(nil, line)
	swap := func(b []byte, old, with string) []byte {
		out := bytes.Replace(b, []byte(old), []byte(with), 1)
		if bytes.Equal(out, b) {
			t.Fatalf("%q is not in %s", old, b)
		}
		return out
	}
	p, _ := cutSealed(erased)
	digest, hash := string(p.digest), string(p.hash)
	s, _ := cutSealed(line)
	salt := string(s.salt)
	zeros := strings.Repeat("0", hashLen)
	for name, forged := range map[string][]byte{
		"the digest of another":             swap(erased, digest, zeros),
		"another hash":                      swap(erased, hash, zeros),
		"another salt":                      swap(line, salt, zeros[:saltLen]),
		"a text in an erased line":          swap(erased, `"object":"`+Erased, `"object":"harmless`),
		"a list in an erased line":          swap(erased, `"instead":["`+Erased, `"instead":["harmless`),
		"a match in an erased line":         swap(erased, `"text":"`+Erased, `"text":"harmless`),
		"a text of another kind":            swap(erased, `"object":"`+Erased+`"`, `"object":["`+Erased+`"]`),
		"a text left out":                   swap(erased, `"args":"`+Erased+`"`, `"taint":"`+Erased+`"`),
		"a text put in":                     swap(erased, `"asked":"network connect",`, `"asked":"network connect","reason":"`+Erased+`",`),
		"the verdict of an erased line":     swap(erased, `"verdict":"deny"`, `"verdict":"allow"`),
		"the rule of an erased line":        swap(erased, `"rule":"p.yaml:3"`, `"rule":"p.yaml:4"`),
		"blanked, and the salt left":        swap(line, `"args":"curl`, `"args":"`+Erased+`"}`+`,"x":{"y":"`),
		"the digest in the salt's place":    swap(erased, `"erased":"`+digest, `"salt":"`+digest[:saltLen]),
		"two texts that change places":      swap(swap(swap(line, `"asked":"gpt\"5"`, `"asked":"@"`), `"result":"ok}"`, `"result":"gpt\"5"`), `"asked":"@"`, `"asked":"ok}"`),
		"a byte from one text to the next":  swap(swap(line, `"result":"ok}"`, `"result":"k}"`), `4111 1111 1111 1111\"}"`, `4111 1111 1111 1111\"}o"`),
		"the salt as one of version 1":      swap(line, `,"salt":"`, `,"tlas":"`),
		"an erased line as of version 1":    swap(erased, `,"erased":"`, `,"desare":"`),
		"a text with a zero byte":           swap(line, `4111 1111`, "4111\x001111"),
		"the seal twice":                    swap(line, `,"salt":"`+salt+`"`, `,"salt":"`+salt+`","salt":"`+salt+`"`),
		"an erased line with its salt back": swap(erased, `,"erased":"`, `,"salt":"`+salt+`","erased":"`),
	} {
		if l, err := parseLine(forged); err == nil && l.own && l.hash == hash {
			t.Errorf("%s is taken: %s", name, forged)
		}
	}
}

// version1 writes a line as version 1 did.
func version1(d *policy.Decision, prev string) []byte {
	b := AppendJSON(nil, d)
	b = fmt.Appendf(b[:len(b)-1], `,"prev":"%s"`, prev)
	return fmt.Appendf(b, `,"hash":"%s"}`, sum(b))
}

func TestVersionsAreNotConfused(t *testing.T) {
	old := version1(record(1), genesis)
	l, err := parseLine(old)
	if err != nil || !l.own || l.sealed || l.hash != sum(old) {
		t.Fatalf("%+v, %v", l, err)
	}
	if _, ok := erase(nil, old); ok {
		t.Error("a line of version 1 was erased")
	}
	sealedNow := one(record(1), genesis)
	p, _ := cutSealed(sealedNow)
	// Bytes that version 1 hashes, with the hash of version 1.
	body := string(sealedNow[:len(sealedNow)-len(keyHash)-hashLen-len(`"}`)])
	if l, err := parseLine([]byte(body + `,"hash":"` + sum([]byte(body)) + `"}`)); err == nil && l.own {
		t.Error("a sealed line with a hash of version 1 is taken")
	}
	// The other way round: a line of version 1 whose hash is that of a sealed one.
	tail := string(sealedNow[len(p.body)+len(keySalt)+saltLen+1:])
	if l, err := parseLine([]byte(string(p.body) + tail)); err == nil && l.own {
		t.Error("a line of version 1 with the hash of a sealed one is taken")
	}
}

// TestVersion1: what an earlier version has written can be verified, searched, and continued.
func TestVersion1(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/v1")); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile("testdata/v1/key.pub")
	if err != nil {
		t.Fatal(err)
	}
	public, err := ParseKey(string(key))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "agent.jsonl")
	known := Evidence{Keys: []ed25519.PublicKey{public}}
	r, err := known.VerifyFile(path)
	if err != nil || r.Fault != nil || r.Lines != 20 || r.Signed == nil || r.Signed.Seq != 20 {
		t.Fatalf("%+v, fault %v, %v", r, r.Fault, err)
	}
	w, err := OpenChain(dir, "agent", "", Options{Rotate: 2500})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(10) {
		if err := errors.Join(w.Append(fullRecord(21+i)), w.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err = known.VerifyFile(path)
	if err != nil || r.Fault != nil || r.Lines != 30 {
		t.Fatalf("%+v, fault %v, %v", r, r.Fault, err)
	}
	n := 0
	// What is of version 1 is told, and left.
	if w, err = OpenChain(dir, "agent", "", Options{}); err != nil {
		t.Fatal(err)
	}
	e := Erasure{Records: Ranges{{3, 4}, {20, 22}}, Reason: "r", By: "root"}
	if s, err := w.Erase(t.Context(), e, w.Recorder(), nil); err != nil || s.Old != 3 || s.Records.String() != "21-22" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err = VerifyFile(path)
	if err != nil || r.Fault != nil || r.Lines != 31 || r.Erased != 2 {
		t.Fatalf("%+v, fault %v, %v", r, r.Fault, err)
	}
	if err := Query(t.Context(), dir, "agent", Filter{Text: "host-4.example"}, func(uint64, []byte) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d found, %v", n, err)
	}
}

// FuzzLine: whatever a line is, erasing it fails or leaves a line that is right, has the same hash, and is erased.
func FuzzLine(f *testing.F) {
	f.Add(one(fullRecord(1), genesis))
	f.Add(one(record(1), genesis))
	f.Add(version1(record(1), genesis))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLine(b)
		out, ok := erase(nil, b)
		if !ok {
			if err == nil && l.own && l.sealed {
				t.Fatalf("not erased: %q", b)
			}
			return
		}
		if err != nil {
			return // right, but no JSON: the verifier names it
		}
		e, err := parseLine(out)
		if err != nil || !e.own || !e.erased || e.hash != l.hash || e.prev != l.prev || e.seq != l.seq {
			t.Fatalf("%q became %q: %+v, %v", b, out, e, err)
		}
	})
}

// FuzzSealed is FuzzLine for what a writer writes, whatever is in the texts.
func FuzzSealed(f *testing.F) {
	f.Add("a", "b", "c", "d", true)
	f.Add(`","salt":"`, "\x00", "]}", `\\"`, false)
	f.Fuzz(func(t *testing.T, object, args, params, through string, call bool) {
		d := record(3)
		d.Object, d.Subject.Args, d.Reason = object, args, params
		if call {
			d.Inference = &policy.ModelCall{Asked: args, Tool: &policy.ToolUse{Through: []string{through, object}, Params: params}}
		}
		line := one(d, genesis)
		l, err := parseLine(line)
		out, ok := erase(nil, line)
		if err != nil || !l.own || !ok {
			t.Fatalf("%+v, %v, erased %v: %s", l, err, ok, line)
		}
		e, err := parseLine(out)
		if err != nil || !e.own || !e.erased || e.hash != l.hash {
			t.Fatalf("%+v, %v: %s", e, err, out)
		}
		d.Object, d.Subject.Exe = Erased, Erased
		blanks := func(s *string) {
			if *s != "" {
				*s = Erased
			}
		}
		blanks(&d.Subject.Args)
		blanks(&d.Reason)
		if c := d.Inference; c != nil {
			blanks(&c.Asked)
			blanks(&c.Tool.Params)
			c.Tool.Through = []string{Erased}
		}
		want := AppendJSON(nil, d)
		if p, _ := cutSealed(out); string(p.body)+"}" != string(want) {
			t.Fatalf("%s, want %s", out, want)
		}
	})
}
