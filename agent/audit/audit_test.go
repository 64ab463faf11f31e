package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/policy"
)

func record(seq uint64) *policy.Decision {
	return &policy.Decision{
		Seq: seq, Time: time.Date(2026, 5, 4, 3, 2, 1, int(seq), time.UTC), Sandbox: "box", Plane: policy.PlaneNetwork,
		Action: "connect", Object: fmt.Sprintf("host-%d.example:443", seq), Rule: "p.yaml:3", Revision: "00112233aabbccdd",
		Subject: policy.Subject{PID: 42, Exe: "/usr/bin/curl", Args: "curl https://x"},
	}
}

// build writes n records through a Writer and returns the directory and the file's bytes.
func build(t *testing.T, n int) (dir string, data []byte) {
	t.Helper()
	dir = t.TempDir()
	w, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Append(record(uint64(i + 1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, read(t, filepath.Join(dir, "run.jsonl"))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWriteAndVerify(t *testing.T) {
	dir, data := build(t, 100)
	r, err := VerifyFile(filepath.Join(dir, "run.jsonl"))
	if err != nil || r.Fault != nil || r.Lines != 100 || r.First != 1 || r.Head.Seq != 100 {
		t.Fatalf("report %+v, fault %v, error %v", r, r.Fault, err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte{'\n'})
	var got struct {
		policy.Decision
		Verdict    string `json:"verdict"` // a policy.Verdict is only ever written
		Prev, Hash string
	}
	if err := json.Unmarshal(lines[6], &got); err != nil {
		t.Fatal(err)
	}
	if got.Seq != 7 || got.Subject.Exe != "/usr/bin/curl" || got.Verdict != "deny" || got.Prev != hashOf(lines[5]) {
		t.Errorf("line 7 reads back as %+v", got)
	}
	for _, name := range []string{"run.jsonl", "run.jsonl.head"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, error %v; want 0600", name, st.Mode(), err)
		}
	}
}

// TestContinues shows that a second writer goes on with the first one's chain.
func TestContinues(t *testing.T) {
	dir, _ := build(t, 3)
	w, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if w.Head().Seq != 3 {
		t.Fatalf("head %v after three records", w.Head())
	}
	if err := w.Append(record(9)); err == nil {
		t.Error("record 9 was taken after record 3")
	}
	if err := w.Append(record(4)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(record(5)); err == nil {
		t.Error("a closed writer took a record")
	}
	r, err := VerifyFile(w.Path())
	if err != nil || r.Fault != nil || r.Lines != 4 {
		t.Fatalf("report %+v, fault %v, error %v", r, r.Fault, err)
	}
}

func TestLowestFreeFile(t *testing.T) {
	dir := t.TempDir()
	var open []*Writer
	for _, want := range []string{"run.jsonl", "run-2.jsonl", "run-3.jsonl"} {
		w, err := Open(dir, "box", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := filepath.Base(w.Path()); got != want {
			t.Errorf("opened %s, want %s", got, want)
		}
		open = append(open, w)
	}
	if err := open[1].Close(); err != nil {
		t.Fatal(err)
	}
	w, err := Open(dir, "box", Options{})
	if err != nil || filepath.Base(w.Path()) != "run-2.jsonl" {
		t.Fatalf("after run-2.jsonl was given free: %v, %v", w.Path(), err)
	}
	for _, w := range []*Writer{open[0], open[2], w} {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTornLine cuts the log at every byte of its last line, as a killed writer may leave it.
func TestTornLine(t *testing.T) {
	_, data := build(t, 3)
	start := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
	for cut := start + 1; cut < len(data); cut += 7 {
		dir := t.TempDir()
		path := filepath.Join(dir, "run.jsonl")
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := VerifyFile(path); err != nil || r.Fault == nil || r.Fault.Kind != Torn || r.Fault.Line != 3 {
			t.Fatalf("cut at %d: verify says %v, %v", cut, r.Fault, err)
		}
		w, err := Open(dir, "box", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(bytes.TrimSpace(read(t, path)), []byte{'\n'})
		var raw map[string]any
		if err := json.Unmarshal(lines[len(lines)-1], &raw); err != nil {
			t.Fatal(err)
		}
		kept, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(raw["object"].(string), "base64:"))
		if raw["plane"] != "system" || raw["action"] != "recover" || !bytes.Equal(kept, data[start:cut]) {
			t.Fatalf("cut at %d: the record keeps %q of %q", cut, kept, data[start:cut])
		}
		if r, err := VerifyFile(path); err != nil || r.Fault != nil || r.Lines != 3 {
			t.Fatalf("cut at %d: after the repair verify says %v, %v", cut, r.Fault, err)
		}
	}
}

// TestTornOnly is a log that holds nothing but a torn first line, and one that holds zeros, as a power cut leaves it.
func TestTornOnly(t *testing.T) {
	for _, torn := range [][]byte{[]byte(`{"seq":1,"ti`), make([]byte, 5000)} {
		dir := t.TempDir()
		path := filepath.Join(dir, "run.jsonl")
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Open(dir, "box", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Append(record(2)), w.Close()); err != nil {
			t.Fatal(err)
		}
		if r, err := VerifyFile(path); err != nil || r.Fault != nil || r.Lines != 2 {
			t.Errorf("verify says %+v %v, %v", r, r.Fault, err)
		}
	}
}

// TestCutOff loses whole lines at the end: the verifier sees it before and after the next run has appended.
func TestCutOff(t *testing.T) {
	dir, data := build(t, 5)
	path := filepath.Join(dir, "run.jsonl")
	lines := bytes.SplitAfter(data, []byte{'\n'})
	if err := os.WriteFile(path, bytes.Join(lines[:3], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	want := func(line int) {
		t.Helper()
		r, err := VerifyFile(path)
		if err != nil || r.Fault == nil || r.Fault.Kind != Lost || r.Fault.Seq != 4 || r.Fault.Line != line {
			t.Fatalf("verify says %v, %v", r.Fault, err)
		}
	}
	want(4)
	w, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.Head().Seq; got != 6 {
		t.Errorf("the record of the loss has number %d, want 6", got)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want(4)
	if last := bytes.Split(read(t, path), []byte{'\n'})[3]; !bytes.Contains(last, []byte("records 4 to 5 were here before and are missing")) {
		t.Errorf("the loss is recorded as %s", last)
	}
}

func TestUnusable(t *testing.T) {
	long := t.TempDir()
	if err := os.WriteFile(filepath.Join(long, "run.jsonl"), bytes.Repeat([]byte{'x'}, 2*MaxLine), 0o600); err != nil {
		t.Fatal(err)
	}
	link := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(link, "run.jsonl")); err != nil {
		t.Fatal(err)
	}
	pipe := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(pipe, "run.jsonl"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, want string }{
		{long, "move the file away and keep it"},
		{link, "too many levels of symbolic links; name another directory with --audit"},
		{pipe, "is a pipe, not a regular file"},
		{filepath.Join(file, "sub"), "make it, or name another with --audit"},
	} {
		if _, err := Open(c.dir, "box", Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%s) = %v, want %q in it", c.dir, err, c.want)
		}
	}
}

// TestDiskFull uses /dev/full: every write fails with ENOSPC, as on a full disk.
func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	head, err := os.Create(filepath.Join(t.TempDir(), "head"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(files{"/dev", "full"}, full, head)
	go w.run()
	go w.keeper()
	if err := w.Append(record(1)); err != nil {
		t.Fatal(err)
	}
	<-w.Failed()
	for what, err := range map[string]error{"Flush": w.Flush(), "Append": w.Append(record(2)), "Close": w.Close()} {
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestConcurrent appends from several goroutines, as the planes do through the hub, with more bytes than may wait.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	w, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seq uint64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				mu.Lock()
				seq++
				d := record(seq)
				d.Subject.Args = strings.Repeat("x", 2000)
				if err := w.Append(d); err != nil {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	// What Flush promises: the kernel has it all, though the writer is still open.
	if r, err := VerifyFile(w.Path()); err != nil || r.Fault != nil || r.Lines != 4000 {
		t.Errorf("report %+v %v, %v", r, r.Fault, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestEncoding(t *testing.T) {
	for _, d := range []policy.Decision{
		{},
		*record(1),
		{Seq: 1 << 63, Time: time.Unix(1, 0).UTC(), Verdict: policy.Allow, Count: 3, Reason: "why", Subject: policy.Subject{Args: "a", Taint: "LD_PRELOAD"}},
		{Time: time.Unix(2, 0).UTC(), Inference: &policy.ModelCall{}},
		{Time: time.Unix(3, 0).UTC(), Reason: "why", Count: 2, Inference: &policy.ModelCall{
			ID: "a", Asked: "gpt\x1b[2J", Model: "corp/big", Route: "redact", Classes: map[string]int{"pii": 2, "a\"b\u202e": 1}, Unseen: []string{"image", "\x00"},
			Sticky: true, Matches: []policy.Matched{{Class: "pii", Kind: "e-mail", Text: "a\u009b"}, {Via: "base64"}}, BytesIn: 1, BytesOut: 2, TokensIn: 3,
			TokensCached: 4, TokensOut: 5, TokensReasoning: 6, Estimated: true, Cost: 9, Instead: []string{"corp/<big>: down"}, FirstMS: 7, MS: 8,
			Tool: &policy.ToolUse{Through: []string{"tool_call", "\x1b"}, Params: `{"a":"},\"verdict\":\"deny\""}`, ParamsBytes: 9, Result: "\n", ResultBytes: 10, Failed: true, Withheld: true},
		}},
		{Time: time.Unix(4, 0).UTC(), Inference: &policy.ModelCall{Tool: &policy.ToolUse{}}},
		{Time: time.Unix(0, 120).UTC(), Object: "\"\\\x00\x1b[31m\n\u202e\u009b\u2028😀\U000e0041日本<&>", Verdict: policy.Ask},
	} {
		got := AppendJSON(nil, &d)
		want, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var g, w any
		if err := errors.Join(json.Unmarshal(got, &g), json.Unmarshal(want, &w)); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if diff := cmp.Diff(w, g); diff != "" {
			t.Errorf("%s differs from encoding/json: %s", got, diff)
		}
		for _, c := range string(got) {
			if c < 0x20 || c == 0x7f || c == 0x9b || c == 0x202e {
				t.Errorf("%q is written as it is in %s", c, got)
			}
		}
	}
	if got := AppendJSON(nil, &policy.Decision{Object: "a\xffb"}); !bytes.Contains(got, []byte(`"a\\xffb"`)) {
		t.Errorf("a byte that is not UTF-8 is written as %s", got)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("a\xff\x1b", "\u202e\"\\")
	f.Fuzz(func(t *testing.T, object, args string) {
		d := policy.Decision{Object: object, Subject: policy.Subject{Args: args}}
		b := AppendJSON(nil, &d)
		if !json.Valid(b) || bytes.ContainsFunc(b, func(r rune) bool { return r < 0x20 }) {
			t.Fatalf("%q", b)
		}
		line, _ := appendLine(nil, &d, genesis)
		if l, err := parseLine(line[:len(line)-1]); err != nil || !l.own {
			t.Fatalf("own line does not parse: %v", err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	w, err := Open(b.TempDir(), "box", Options{})
	if err != nil {
		b.Fatal(err)
	}
	d := record(1)
	for i := 0; b.Loop(); i++ {
		d.Seq = uint64(i + 1)
		if err := w.Append(d); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// lines splits a log so that each element keeps its newline.
func lines(data []byte) [][]byte {
	l := bytes.SplitAfter(data, []byte{'\n'})
	return slices.DeleteFunc(l, func(b []byte) bool { return len(b) == 0 })
}
