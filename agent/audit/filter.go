package audit

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Filter selects records. Its zero value selects all.
type Filter struct {
	Since    uint64    // those after this number
	From     time.Time // not before; zero: no limit
	To       time.Time // not after; zero: no limit
	Sandbox  string    // "": all
	Planes   []policy.Plane
	Verdicts []policy.Verdict
	Text     string // in the line as it stands; "": any
	Last     int    // only the last so many of what is there; 0: all
}

// text is what a line must have for Text.
func (flt *Filter) text() []byte {
	if flt.Text == "" {
		return nil
	}
	b := quoted(nil, flt.Text)
	return b[1 : len(b)-1]
}

var (
	keyTime    = []byte(`,"time":"`)
	keySandbox = []byte(`,"sandbox":"`)
	keyPlane   = []byte(`,"plane":"`)
	keyVerdict = []byte(`,"verdict":"`)
)

// fields are what a Filter looks at, taken from a line without decoding it: AppendJSON's order is fixed, and quotes in
// values are escaped, so a key with its quotes can't be inside of one.
type fields struct {
	seq                  uint64
	time, sandbox, plane []byte
	rest                 []byte // what comes after plane
}

// cutFields reads the beginning of a line; false when it is no record.
func cutFields(line []byte) (f fields, ok bool) {
	f.seq, ok = cutSeq(line)
	if !ok {
		return f, false
	}
	rest := line[len(keySeq)+digitsOf(line[len(keySeq):]):]
	if f.time, rest, ok = cutValue(rest, keyTime); !ok {
		return f, false
	}
	if f.sandbox, rest, ok = cutValue(rest, keySandbox); !ok {
		return f, false
	}
	f.plane, f.rest, ok = cutValue(rest, keyPlane)
	return f, ok
}

// cutSeq reads a line's number.
func cutSeq(line []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(line, keySeq)
	if !ok {
		return 0, false
	}
	seq, err := strconv.ParseUint(string(rest[:digitsOf(rest)]), 10, 64)
	return seq, err == nil
}

func digitsOf(b []byte) (n int) {
	for n < len(b) && n < 20 && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	return n
}

// cutValue takes a key and its value, which holds no quote.
func cutValue(b, key []byte) (value, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, key)
	if !ok {
		return nil, nil, false
	}
	return bytes.Cut(b, quote)
}

var quote = []byte{'"'}

// when reads the time; the zero time when it is none.
func (f *fields) when() time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(f.time))
	if err != nil {
		return time.Time{}
	}
	return t
}

// matches reports whether the filter selects a record. Its time says nothing of those around it: events wait in the kernel's rings,
// folded ones have the time of the first, and a clock may be set back.
func (flt *Filter) matches(f *fields) bool {
	if f.seq <= flt.Since || flt.Sandbox != "" && string(f.sandbox) != flt.Sandbox {
		return false
	}
	if len(flt.Planes) > 0 && !slices.Contains(flt.Planes, policy.Plane(f.plane)) {
		return false
	}
	if !flt.From.IsZero() || !flt.To.IsZero() {
		if t := f.when(); t.Before(flt.From) || !flt.To.IsZero() && t.After(flt.To) {
			return false
		}
	}
	if len(flt.Verdicts) == 0 {
		return true
	}
	verdict := f.verdict()
	return slices.ContainsFunc(flt.Verdicts, func(v policy.Verdict) bool { return string(verdict) == v.String() })
}

// verdict returns the word; none when there is none.
func (f *fields) verdict() []byte {
	// What a line is full of, commas and quotes, is nothing to begin a search with.
	for rest := f.rest; ; {
		at := bytes.Index(rest, keyVerdict[2:])
		if at < 0 {
			return nil
		}
		before := rest[:at]
		rest = rest[at+len(keyVerdict)-2:]
		if bytes.HasSuffix(before, keyVerdict[:2]) {
			verdict, _, _ := bytes.Cut(rest, quote)
			return verdict
		}
	}
}
