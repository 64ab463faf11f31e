package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/agent/support"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A Text is words of ours, with what comes from elsewhere between them: names, paths, whatever a program inside chose. Only
// say and from make one, so that what is foreign can't come to be taken for ours.
type Text []Piece

// A Piece is a part of a Text. Its words are escaped: nothing in them moves a cursor, reorders or hides text.
type Piece struct {
	Words   string
	Foreign bool   // it is shown as what it is: a quotation
	Kind    string // "allow", "ask", "deny", "good", "bad" or "": how it is coloured; "when": a part of a time
}

// wordy is how many characters of what is foreign stay on one line.
const wordy = 28

// Long reports whether a page may break it where it likes; a short word that is broken is no word.
func (p Piece) Long() bool { return utf8.RuneCountInString(p.Words) > wordy }

// ours are words that are not foreign.
type ours string

// painted are words of ours with a colour.
type painted struct{ words, kind string }

const stamp = "2006-01-02 15:04:05"

// say puts args where {} stands. Strings are foreign.
func say(words string, args ...any) Text {
	var t Text
	for i, part := range strings.Split(words, "{}") {
		if i > 0 {
			t = append(t, pieces(args[i-1])...)
		}
		if part != "" {
			t = append(t, Piece{Words: part})
		}
	}
	return t
}

func pieces(arg any) Text {
	switch v := arg.(type) {
	case Text:
		return v
	case string:
		return from(v)
	case ours:
		return Text{{Words: string(v)}}
	case painted:
		return Text{{Words: v.words, Kind: v.kind}}
	case policy.Verdict:
		return Text{{Words: v.String(), Kind: v.String()}}
	case time.Time:
		if v.IsZero() {
			return Text{{Words: "-"}}
		}
		date, clock, _ := strings.Cut(v.UTC().Format(stamp), " ")
		return Text{{Words: date, Kind: "when"}, {Words: " "}, {Words: clock, Kind: "when"}} // a line ends between them, if anywhere
	case int:
		return Text{{Words: number(uint64(v))}}
	case uint64:
		return Text{{Words: number(v)}}
	}
	panic(fmt.Sprintf("report: say of a %T", arg))
}

// shown is how many columns of what is foreign are shown.
const shown = 160

// from is a text that somebody else chose: without what looks like a secret, escaped, and cut in its middle.
func from(s string) Text {
	if s == "" {
		return Text{{Words: "-"}}
	}
	return Text{{Words: text.Middle(hide(s), shown), Foreign: true}}
}

// masks finds what must not be repeated. Addresses and first names are what a report is about.
var masks = sync.OnceValue(func() *classify.Classifier {
	c, err := classify.New(classify.Rules{OffKinds: []string{"ip", "mac", "person", "first-name", "address"}})
	if err != nil {
		panic(err) // the kinds are misspelt
	}
	return c
})

const maxHidden = 4 << 10 // bytes of a text that are looked into, and shown

// hide takes out of a text what looks like a secret, or like personal data: too much rather than too little.
func hide(s string) string {
	s = support.Text(clip(s, maxHidden))
	found, err := masks().Parts([]string{s})
	if err != nil {
		return fmt.Sprintf("(%d bytes that can't be looked into)", len(s))
	}
	slices.SortFunc(found, func(a, b classify.Match) int { return a.Start - b.Start })
	var b strings.Builder
	end := 0
	for _, m := range found {
		if m.End <= end {
			continue
		}
		if m.Start >= end {
			b.WriteString(s[end:m.Start])
			b.WriteString("[" + string(m.Class) + "]")
		}
		end = m.End
	}
	b.WriteString(s[end:])
	return b.String()
}

// number writes 1234567 as 1,234,567.
func number(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// many is a number of things.
func many[N int | uint64](n N, one, more string) ours {
	if n == 1 {
		return ours("1 " + one)
	}
	return ours(number(uint64(n)) + " " + more)
}

// money writes millionths of a USD.
func money(micro int64) string {
	return fmt.Sprintf("$%d.%04d", micro/1e6, micro%1e6/100)
}
