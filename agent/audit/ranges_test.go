package audit

import (
	"strings"
	"testing"
)

func TestRanges(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"7": "7", "7-9,12": "7-9,12", "12,7-9": "7-9,12", "1-3,2-5,6": "1-6", "4,4,4": "4", "18446744073709551614": "18446744073709551614"} {
		if r, err := ParseRanges(in); err != nil || r.String() != want {
			t.Errorf("%s: %v, %v; want %s", in, r, err, want)
		}
	}
	for _, bad := range []string{"", "0", "a", "3-1", "1,", "-1", "1-", "1-2-3", " 1", "18446744073709551615", "1--2", "+1"} {
		if r, err := ParseRanges(bad); err == nil {
			t.Errorf("%q gives %v", bad, r)
		}
	}
	r, _ := ParseRanges("3-5,9,100-200")
	for seq, want := range map[uint64]bool{2: false, 3: true, 5: true, 6: false, 9: true, 99: false, 200: true, 201: false} {
		if r.Has(seq) != want {
			t.Errorf("%d: %v", seq, !want)
		}
	}
	var joined []string
	for _, part := range r.Split(5) {
		if len(part.String()) > 7 { // one range may be longer
			t.Errorf("%s", part)
		}
		joined = append(joined, part.String())
	}
	if len(joined) != 3 || strings.Join(joined, ",") != r.String() {
		t.Errorf("%q", joined)
	}
}

// FuzzRanges: a record of the log, or a request, may say anything; what is read says the same again, in order and without overlap.
func FuzzRanges(f *testing.F) {
	f.Add("7-9,12")
	f.Add("18446744073709551614,1-18446744073709551613")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRanges(s)
		if err != nil {
			return
		}
		again, err := ParseRanges(r.String())
		if err != nil || again.String() != r.String() || len(r) == 0 {
			t.Fatalf("%q is %v, then %v, %v", s, r, again, err)
		}
		for i, x := range r {
			if x.First == 0 || x.Last < x.First || i > 0 && x.First <= r[i-1].Last+1 || !r.Has(x.First) || !r.Has(x.Last) || r.Has(x.Last+1) {
				t.Fatalf("%q is %v", s, r)
			}
		}
	})
}
