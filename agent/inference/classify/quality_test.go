package classify_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/agent/inference/classify/corpus"
)

// TestQuality holds the recognisers to what is promised of them on the corpus.
func TestQuality(t *testing.T) {
	t.Parallel()
	c, err := classify.New(classify.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	scores := map[string]*corpus.Score{}
	for _, l := range corpus.Labels {
		scores[l] = &corpus.Score{}
	}
	wrong := map[string][]string{}
	texts := corpus.Texts()
	benign, flagged := 0, 0
	for _, x := range texts {
		found, err := c.Parts([]string{x.Text})
		if err != nil {
			t.Fatalf("%q: %v", x.Text, err)
		}
		if len(x.Spans) == 0 {
			benign++
			if len(found) > 0 {
				flagged++
			}
		}
		for _, l := range corpus.Labels {
			var want, got []corpus.Span
			for _, s := range x.Spans {
				if s.Label == l {
					want = append(want, s)
				}
			}
			for _, m := range found {
				if corpus.LabelOf(m.Kind) == l {
					got = append(got, corpus.Span{Label: l, Start: m.Start, End: m.End})
				}
			}
			var one corpus.Score
			one.Add(want, got, nil)
			if one.Missed > 0 {
				wrong[l] = append(wrong[l], fmt.Sprintf("missed %q", x.Text))
			}
			if one.Wrong > 0 {
				wrong[l] = append(wrong[l], fmt.Sprintf("wrong  %q: %v", x.Text, got))
			}
			s := scores[l]
			s.Found, s.Missed, s.Right, s.Wrong = s.Found+one.Found, s.Missed+one.Missed, s.Right+one.Right, s.Wrong+one.Wrong
		}
	}
	if len(texts) < 2000 || benign*2 < len(texts) {
		t.Errorf("%d texts, %d benign: want 2,000, half of them benign", len(texts), benign)
	}
	t.Logf("%d of %d benign texts have a find", flagged, benign)
	floor := map[string][2]float64{"card": {0.98, 0.99}, "iban": {0.98, 0.99}, "ssn": {0.98, 0.99}, "e-mail": {0.98, 0.99}, "credential": {0.98, 0.99}}
	for _, l := range corpus.Labels {
		s := scores[l]
		t.Logf("%-12s precision %.3f recall %.3f F1 %.3f", l, s.Precision(), s.Recall(), s.F1())
		if len(wrong[l]) > 0 {
			t.Logf("%s", strings.Join(wrong[l], "\n"))
		}
		least, strict := floor[l]
		if !strict {
			least = [2]float64{0.9, 0.9}
		}
		if s.Precision() < least[0] || s.Recall() < least[1] {
			t.Errorf("%s: precision %.3f, recall %.3f; want %.2f and %.2f:\n%s", l, s.Precision(), s.Recall(), least[0], least[1], strings.Join(wrong[l][:min(len(wrong[l]), 14)], "\n"))
		}
	}
}
