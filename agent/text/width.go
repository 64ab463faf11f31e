package text

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Width is how many columns of a terminal an escaped text takes.
func Width(escaped string) int {
	columns := 0
	for _, r := range escaped {
		switch {
		case unicode.Is(unicode.M, r):
		case wide(r):
			columns += 2
		default:
			columns++
		}
	}
	return columns
}

func wide(r rune) bool {
	if r < 0x1100 {
		return false
	}
	k := width.LookupRune(r).Kind()
	return k == width.EastAsianWide || k == width.EastAsianFullwidth
}

// Wrap cuts an escaped text into lines of at most limit columns: at least one, and no mark without its letter.
func Wrap(escaped string, limit int) []string {
	var lines []string
	begin, columns := 0, 0
	for i, r := range escaped {
		w := Width(string(r))
		if columns+w > max(limit, 2) { // a character has at most two
			end := i
			if space := strings.LastIndexByte(escaped[begin:i], ' ') + 1; r != ' ' && space > (i-begin)/2 {
				end = begin + space
			}
			lines = append(lines, escaped[begin:end])
			begin, columns = end, Width(escaped[end:i])
		}
		columns += w
	}
	return append(lines, escaped[begin:])
}

// Middle is Escape, cut in the middle to at most limit columns of a terminal, so that both ends are seen: what a path is below,
// and what it is. What is left out is counted: "/srv/aaaa...(4000 bytes)...aaaa/x.pem".
func Middle(s string, limit int) string {
	if len(s) <= 4*limit {
		if e := Escape(s); Width(e) <= limit {
			return e
		}
	}
	const gap = "...( bytes)..."
	room := limit - len(gap) - len(strconv.Itoa(len(s)))
	if room < 2 {
		return Short(s, max(limit, 0)/2) // too narrow to count; a character has at most two columns
	}
	head, n := start(s, room-room/2)
	tail, m := end(s[n:], room/2)
	return head + "...(" + strconv.Itoa(len(s)-n-m) + " bytes)..." + tail
}

// Clip is s without its middle where it has more than limit bytes, and UTF-8 in any case. It is not escaped: it is for what is told
// to programs as well, which goes through Escape where it is shown.
func Clip(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit/2] + "..." + s[len(s)-limit/2:]
	}
	return Valid(s)
}

// Valid is s with a replacement character for each run of bytes that are no UTF-8, as JSON needs it.
func Valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// start escapes as much of the start of s as takes at most room columns, and returns how many bytes of s that is.
func start(s string, room int) (shown string, bytes int) {
	var b strings.Builder
	for e := (escaper{}); bytes < len(s); {
		before := b.Len()
		n := e.next(&b, s[bytes:])
		if room -= Width(b.String()[before:]); room < 0 {
			return b.String()[:before], bytes
		}
		bytes += n
	}
	return b.String(), bytes
}

func marked(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return unicode.Is(unicode.M, r)
}

// end is start for the end of s.
func end(s string, room int) (shown string, bytes int) {
	from := max(0, len(s)-4*room) // no more can be shown
	for from < len(s) && !utf8.RuneStart(s[from]) {
		from++
	}
	type place struct{ raw, shown int }
	var places []place // of each character
	var b strings.Builder
	for e, at := (escaper{}), from; at < len(s); {
		places = append(places, place{at, b.Len()})
		at += e.next(&b, s[at:])
	}
	all := b.String()
	places = append(places, place{len(s), len(all)})
	first := len(places) - 1
	for first > 0 && room-Width(all[places[first-1].shown:places[first].shown]) >= 0 {
		first--
		room -= Width(all[places[first].shown:places[first+1].shown])
	}
	for first < len(places)-1 && marked(all[places[first].shown:]) { // no mark without its letter
		first++
	}
	return all[places[first].shown:], len(s) - places[first].raw
}
