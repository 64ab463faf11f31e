// Command quality measures what agent/inference/classify finds, and in the same run what openredaction and redact-pii find, on the corpus
// of this repository and on one of the caller's. It prints precision, recall and F1 for each class, and never a text.
//
//	go run ./test/quality [-pii FILE] [-peers DIR]
//
// FILE has one JSON object a line: "text", and "spans" with "entity_type", "start_position" and "end_position" in characters, as
// presidio-research writes them. DIR is one where `npm install openredaction redact-pii` was run.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/agent/inference/classify/corpus"
)

//go:embed peers.mjs
var peersScript []byte

func main() {
	pii := flag.String("pii", os.Getenv("NEMOCLAW_PII"), "a corpus of the caller's, JSONL")
	peers := flag.String("peers", os.Getenv("NEMOCLAW_PEERS"), "where openredaction and redact-pii are installed")
	misses := flag.Bool("misses", false, "print the texts in which something was missed or found wrongly")
	flag.Parse()
	if err := run(*pii, *peers, *misses); err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
		os.Exit(1)
	}
}

// neutral is the label of spans that a find of another label may touch: places and organisations are in addresses, days in dates of birth.
const neutral = "neutral"

func run(pii, peers string, misses bool) error {
	if err := compare("corpus", corpus.Texts(), corpus.Labels, peers, misses); err != nil {
		return err
	}
	if pii == "" {
		return nil
	}
	texts, err := read(pii)
	if err != nil {
		return err
	}
	// By a hash of the text, so that a half is always the same: the recognisers were made with the first before the eyes.
	halves := [2][]corpus.Text{}
	for _, t := range texts {
		h := fnv.New32a()
		h.Write([]byte(t.Text))
		halves[h.Sum32()>>8&1] = append(halves[h.Sum32()>>8&1], t)
	}
	labels := []string{"card", "iban", "ssn", "e-mail", "phone", "person", "address", "ip"}
	for i, name := range []string{"pii, half that was looked at", "pii, half that was not"} {
		if err := compare(name, halves[i], labels, peers, misses && i == 0); err != nil {
			return err
		}
	}
	return nil
}

// read reads a labelled corpus. Places become bytes.
func read(path string) ([]corpus.Text, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{
		"CREDIT_CARD": "card", "IBAN_CODE": "iban", "US_SSN": "ssn", "EMAIL_ADDRESS": "e-mail", "PHONE_NUMBER": "phone", "PERSON": "person",
		"ADDRESS": "address", "STREET_ADDRESS": "address", "IP_ADDRESS": "ip",
	}
	var out []corpus.Text
	for line := range bytes.Lines(data) {
		var one struct {
			Text  string `json:"text"`
			Spans []struct {
				Type  string `json:"entity_type"`
				Start int    `json:"start_position"`
				End   int    `json:"end_position"`
			} `json:"spans"`
		}
		if err := json.Unmarshal(line, &one); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		t := corpus.Text{Text: one.Text}
		at := offsets(one.Text)
		for _, s := range one.Spans {
			l := labels[s.Type]
			if l == "" {
				l = neutral
			}
			t.Spans = append(t.Spans, corpus.Span{Label: l, Start: at[s.Start], End: at[s.End]})
		}
		out = append(out, t)
	}
	return out, nil
}

// offsets are where the characters of a text begin, and its end.
func offsets(s string) []int {
	var at []int
	for i := range s {
		at = append(at, i)
	}
	return append(at, len(s))
}

// compare prints the table of one corpus.
func compare(name string, texts []corpus.Text, labels []string, peers string, misses bool) error {
	found := map[string][][]corpus.Span{}
	who := []string{"nemoclaw"}
	ours, err := classified(texts)
	if err != nil {
		return err
	}
	found["nemoclaw"] = ours
	if peers != "" {
		others, err := peersFind(texts, peers)
		if err != nil {
			return err
		}
		for _, p := range []string{"openredaction", "redact-pii"} {
			found[p] = others[p]
			who = append(who, p)
		}
	}
	spans, benign := 0, 0
	for _, t := range texts {
		spans += len(t.Spans)
		if len(t.Spans) == 0 {
			benign++
		}
	}
	fmt.Printf("%s: %d texts, %d spans, %d texts without any\n%-12s", name, len(texts), spans, benign, "")
	for _, w := range who {
		fmt.Printf("  %-24s", w)
	}
	fmt.Printf("\n%-12s", "class")
	for range who {
		fmt.Printf("  %-6s %-6s %-9s ", "prec", "recall", "F1")
	}
	fmt.Println()
	for _, l := range labels {
		fmt.Printf("%-12s", l)
		for _, w := range who {
			s := score(texts, found[w], l, misses && w == "nemoclaw")
			if s.Right+s.Wrong == 0 {
				fmt.Printf("  %-6s %-6s %-9s ", "-", "-", "-")
				continue
			}
			fmt.Printf("  %.3f  %.3f  %.3f     ", s.Precision(), s.Recall(), s.F1())
		}
		fmt.Println()
	}
	fmt.Println()
	return nil
}

func score(texts []corpus.Text, found [][]corpus.Span, label string, misses bool) corpus.Score {
	var all corpus.Score
	for i, t := range texts {
		want, got, others := only(t.Spans, label), only(found[i], label), only(t.Spans, neutral)
		var s corpus.Score
		s.Add(want, got, others)
		if misses && s.Missed+s.Wrong > 0 {
			fmt.Printf("%s missed %d wrong %d: %q found %v\n", label, s.Missed, s.Wrong, t.Text, got)
		}
		all.Found, all.Missed, all.Right, all.Wrong = all.Found+s.Found, all.Missed+s.Missed, all.Right+s.Right, all.Wrong+s.Wrong
	}
	return all
}

func only(spans []corpus.Span, label string) []corpus.Span {
	var out []corpus.Span
	for _, s := range spans {
		if s.Label == label {
			out = append(out, s)
		}
	}
	return out
}

func classified(texts []corpus.Text) ([][]corpus.Span, error) {
	c, err := classify.New(classify.Rules{})
	if err != nil {
		return nil, err
	}
	out := make([][]corpus.Span, len(texts))
	for i, t := range texts {
		found, err := c.Parts([]string{t.Text})
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			out[i] = append(out[i], corpus.Span{Label: corpus.LabelOf(m.Kind), Start: m.Start, End: m.End})
		}
	}
	return out, nil
}

// peersFind asks the packages of npm, in one process of node.
func peersFind(texts []corpus.Text, dir string) (map[string][][]corpus.Span, error) {
	script := filepath.Join(os.TempDir(), fmt.Sprintf("nemoclaw-peers-%d.mjs", os.Getpid()))
	if err := os.WriteFile(script, peersScript, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(script)
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, t := range texts {
		if err := enc.Encode(map[string]string{"text": t.Text}); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command("node", script)
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, &in, os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("node in %s: %w", dir, err)
	}
	out := map[string][][]corpus.Span{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 64<<20)
	for _, t := range texts {
		if !lines.Scan() {
			return nil, fmt.Errorf("node answered fewer than %d texts", len(texts))
		}
		var one map[string][][3]any
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, err
		}
		at := utf16Offsets(t.Text)
		for _, who := range []string{"openredaction", "redact-pii"} {
			var spans []corpus.Span
			for _, s := range one[who] {
				label, _ := s[0].(string)
				from, _ := s[1].(float64)
				to, _ := s[2].(float64)
				spans = append(spans, corpus.Span{Label: label, Start: at[clamp(int(from), len(at))], End: at[clamp(int(to), len(at))]})
			}
			out[who] = append(out[who], spans)
		}
	}
	return out, nil
}

func clamp(i, n int) int { return max(0, min(i, n-1)) }

// utf16Offsets are where the UTF-16 units of a text lie in its bytes, and its end.
func utf16Offsets(s string) []int {
	var at []int
	for i, r := range s {
		at = append(at, i)
		if utf8.RuneLen(r) == 4 {
			at = append(at, i)
		}
	}
	return append(at, len(s))
}
