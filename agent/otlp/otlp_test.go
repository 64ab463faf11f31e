package otlp

import (
	"testing"

	"google.golang.org/protobuf/proto"
)

// A collector's answer is a stranger's bytes.
func TestPartial(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		refused int64
		reason  string
		ok      bool
	}{
		"":                           {0, "", true}, // all is well
		"\x0a\x00":                   {0, "", true},
		"\x0a\x06\x08\x03\x12\x02no": {3, "no", true},
		"\x12\x02hi\x0a\x02\x08\x03": {3, "", true}, // with a field that is not known
		"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01": {-1, "", true},
		"\x0a\x06\x08\x03": {0, "", false}, // cut off
		"{}":               {0, "", false},
		"<html>":           {0, "", false},
	} {
		refused, reason, ok := Partial([]byte(in))
		if ok != want.ok || ok && (refused != want.refused || reason != want.reason) {
			t.Errorf("%q: %d, %q, %t; want %+v", in, refused, reason, ok, want)
		}
	}
}

func FuzzPartial(f *testing.F) {
	f.Add([]byte("\x0a\x06\x08\x03\x12\x02no"))
	f.Fuzz(func(_ *testing.T, b []byte) { Partial(b) })
}

// What is no text of UTF-8 is sent as one that is.
func TestWords(t *testing.T) {
	t.Parallel()
	if b, err := proto.Marshal(Word("k", "a\xffb")); err != nil {
		t.Errorf("%q: %v", b, err)
	}
	if got := Words("a\xffb").GetStringValue(); got != "a\ufffdb" {
		t.Errorf("%q", got)
	}
}
