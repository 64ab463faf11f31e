package text

import (
	"encoding/json"
	"testing"
)

// FuzzJSON: what is shown of JSON is safe, and means what it meant.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{"", "plain", "é日本", "\x7f", "\u009b31m", "a\u202eb", "\u2028", "\U000e0041", "a\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301", "\xff", `\u0041"`, "😀"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		was, err := json.Marshal([]string{s})
		if err != nil {
			t.Fatal(err)
		}
		got := JSON(was)
		var a, b []string
		if err := json.Unmarshal(was, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(got, &b); err != nil || a[0] != b[0] {
			t.Errorf("%q became %q: %v", was, got, err)
		}
		if why := check(string(got)); why != "" {
			t.Errorf("%q: %s", got, why)
		}
	})
}
