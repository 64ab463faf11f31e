package classify

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func newClassifier(t testing.TB, r Rules) *Classifier {
	t.Helper()
	c, err := New(r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// show writes matches as kind:text, with how they were hidden.
func show(parts []string, found []Match) []string {
	var out []string
	for _, m := range found {
		line := m.Kind + ":" + parts[m.Part][m.Start:m.End]
		if m.Via != "" {
			line += " via " + m.Via
		}
		out = append(out, line)
	}
	return out
}

func find(t testing.TB, c *Classifier, parts ...string) []string {
	t.Helper()
	found, err := c.Parts(parts)
	if err != nil {
		t.Fatal(err)
	}
	return show(parts, found)
}

// kindsIn are the kinds found in a text.
func kindsIn(t testing.TB, c *Classifier, parts ...string) string {
	t.Helper()
	found, err := c.Parts(parts)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range found {
		out = append(out, m.Kind)
	}
	return strings.Join(out, " ")
}

const secretText = "the card of Jane is 4111 1111 1111 1111, thanks"

func zipped(s string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.Bytes()
}

func deflated(s string) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return b.Bytes()
}

func lines(s string, n int, end string) string {
	var b strings.Builder
	for len(s) > n {
		b.WriteString(s[:n] + end)
		s = s[n:]
	}
	return b.String() + s
}

func utf16le(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(s[i])
		b.WriteByte(0)
	}
	return b.String()
}

func TestHidden(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{})
	b64 := base64.StdEncoding.EncodeToString
	long := strings.Repeat("nothing to see in this line of text. ", 8) + secretText
	for name, text := range map[string]string{
		"base64":            "see " + b64([]byte(secretText)) + " there",
		"url alphabet":      base64.URLEncoding.EncodeToString([]byte(secretText + "???>>>")),
		"unpadded":          base64.RawStdEncoding.EncodeToString([]byte(secretText)) + ".",
		"in a path":         "https://x.test/a/b/" + base64.RawURLEncoding.EncodeToString([]byte(secretText)),
		"as a parameter":    "https://x.test/?data=" + base64.RawURLEncoding.EncodeToString([]byte(secretText)) + "&y=1",
		"as data":           "data:text/plain;base64," + b64([]byte(secretText)),
		"out of step":       "xx" + b64([]byte(secretText)),
		"wrapped":           "x: " + lines(b64([]byte(long)), 64, "\n") + "\nend",
		"wrapped as mail":   lines(b64([]byte(long)), 76, "\r\n"),
		"wrapped, indented": "  " + lines(b64([]byte(long)), 60, "\n  "),
		"wrapped, in JSON":  `{"a":"` + lines(b64([]byte(long)), 64, `\n`) + `"}`,
		"UTF-16":            b64([]byte(utf16le(secretText))),
		"behind bytes":      b64([]byte("\x00\x01\xff\xfe\x80\x07\x11\x12\x99" + long)),
		"twice":             b64([]byte(b64([]byte(secretText)))),
		"three times":       b64([]byte(b64([]byte(b64([]byte(secretText)))))),
		"gzip":              b64(zipped(long)),
		"zlib":              b64(deflated(long)),
		"gzip in gzip":      b64(zipped(b64(zipped(long)))),
		"hex":               hex.EncodeToString([]byte(secretText)),
		"capital hex":       strings.ToUpper(hex.EncodeToString([]byte(secretText))),
		"hex of gzip":       hex.EncodeToString(zipped(long)),
		"raw gzip":          string(zipped(long)),
		"percent":           strings.ReplaceAll(secretText, "1", "%31"),
		"percent twice":     strings.ReplaceAll(secretText, "1", "%2531"),
		"blanks of URLs":    strings.ReplaceAll(secretText, " ", "%20"),
		"JSON":              strings.ReplaceAll(secretText, "1", `\u0031`),
		"JSON in JSON":      strings.ReplaceAll(secretText, "1", `\\\\u0031`),
		"after an escape":   `a\n4111111111111111\n`,
		"C":                 strings.ReplaceAll(secretText, "1", `\x31`),
		"HTML":              strings.ReplaceAll(secretText, "1", "&#49;"),
		"HTML, hex":         strings.ReplaceAll(secretText, "1", "&#x31;"),
		"HTML twice":        strings.ReplaceAll(secretText, "1", "&amp;#49;"),
		"HTML, unfinished":  strings.ReplaceAll(secretText, "1", "&#49"),
		"octal":             strings.ReplaceAll(secretText, "1", `\061`),
		"code points":       strings.ReplaceAll(secretText, "1", `\u{31}`),
		"keycaps":           strings.ReplaceAll(secretText, "1", "1\ufe0f\u20e3"),
		"circled":           strings.NewReplacer("4", "④", "0", "⓪", "1", "➀").Replace("the card is 4012 8888 8888 1881"),
		"double circled":    strings.ReplaceAll(secretText, "1", "⓵"),
		"blanks of Braille": strings.ReplaceAll(secretText, " ", "\u2800"),
		"lines of Unicode":  strings.ReplaceAll(secretText, "1 1", "1\u20281"),
		"fullwidth":         strings.ReplaceAll(secretText, "1", "１"),
		"mathematical":      strings.ReplaceAll(secretText, "1", "𝟏"),
		"Arabic digits":     strings.ReplaceAll(secretText, "1", "١"),
		"zero width":        strings.ReplaceAll(secretText, "1", "1\u200b"),
		"soft hyphens":      strings.ReplaceAll(secretText, "1", "\u00ad1"),
		"tags":              strings.Map(func(r rune) rune { return r + 0xe0000 }, secretText),
		"wide blanks":       strings.ReplaceAll(secretText, " ", "\u00a0"),
		"dashes":            "4111‑1111‑1111‑1111",
		"between CJK":       "卡号4111111111111111号",
		"all of them":       b64(zipped(strings.ReplaceAll(secretText, "1", `\u0031\u200b`))),
	} {
		found, err := c.Parts([]string{text})
		if got := strings.Join(show([]string{text}, found), "|"); err != nil || !strings.Contains(got, "card:") {
			t.Errorf("%s: no card in %q: found %q, %v", name, text, got, err)
		}
	}
	for name, text := range map[string]string{
		"Cyrillic key":   strings.NewReplacer("A", "А", "I", "І", "E", "Е").Replace("AKIAIOSFODNN7EXAMPLE"),
		"Greek key":      strings.NewReplacer("A", "Α", "K", "Κ").Replace("AKIAIOSFODNN7EXAMPLE"),
		"zero-width key": "AKIA\u200bIOSF\u2060ODNN7EXAMPLE",
	} {
		if got := kindsIn(t, c, text); got != "aws-key" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestBothReadings: what may be an escape or not is read both ways.
func TestBothReadings(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{})
	for text, want := range map[string]string{
		`\\files\123-45-6789`: "us-ssn", `fee=5%4111111111111111`: "card", `a\n4111111111111111\n`: "card", `C:\token = 'q7Zx92LmVt48RsBn31'`: "secret",
	} {
		if got := kindsIn(t, c, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{})
	for _, parts := range [][]string{
		{"my card: 4111 1111", "1111 1111 is it"},
		{"my card: 4111 1111 ", " 1111 1111 is it"},
		{"41", "11", "11", "11", "11", "11", "11", "11"},
		{"take 4111 1111", "Certainly, go on.", "1111 1111"},
		{"take NDExMSAxMTExIDEx", "MTEgMTExMQ=="},
	} {
		got := kindsIn(t, c, parts...)
		if !strings.Contains(got, "card card") {
			t.Errorf("%q: %q", parts, got)
		}
	}
	if got := find(t, c, "What is your social security number?", "078051120"); len(got) != 1 || got[0] != "us-ssn:078051120 via split" {
		t.Errorf("a question in one part, the answer in the next: %q", got)
	}
	for _, parts := range [][]string{
		{"write to jane.doe@exa", "mple.com soon"}, {"write to jane.doe", "@example.com soon"}, {"jane.doe@example", "Go on.", ".co.uk, that's it"}, {"jane@exam", "ple", ".org"},
		{"write to Jane", "@example.com"},
	} {
		if got := kindsIn(t, c, parts...); strings.Count(got, "e-mail") < 2 {
			t.Errorf("%q: %q", parts, got)
		}
	}
	for _, parts := range [][]string{{"ssh root@build", "console.log is empty"}, {"ask bob@work", "Sure. I will"}, {"install react@", "next.js is newer"}} {
		if got := kindsIn(t, c, parts...); got != "" {
			t.Errorf("%q: %q", parts, got)
		}
	}
	if got := find(t, c, "01a207ee-97df-7e5f-8630-ee94595e1cff", "01a205c4-1ca5-7a42-8b5b-bc9af68fc62c"); len(got) > 0 {
		t.Errorf("the ends of two UUIDs, which make an IBAN by chance: %q", got)
	}
	if got := find(t, c, "mail a@b.com", "and so on"); len(got) != 1 {
		t.Errorf("a find at the end of a part: %q", got)
	}
	if got := kindsIn(t, c, "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq", strings.Repeat("hkiG9w0BAQEFAASC\n", 40)+"-----END PRIVATE KEY-----"); !strings.Contains(got, "private-key private-key") {
		t.Errorf("a key over two parts: %q", got)
	}
}

func TestCannotJudge(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{})
	whole := base64.StdEncoding.EncodeToString(zipped(strings.Repeat(secretText, 20) + "0123456789abcdef"))
	deep := secretText
	for range maxDepth + 2 {
		deep = base64.StdEncoding.EncodeToString([]byte(deep))
	}
	for name, x := range map[string]struct {
		text string
		want error
	}{
		"cut gzip":     {whole[:len(whole)/2&^3], ErrUndecodable},
		"bomb":         {base64.StdEncoding.EncodeToString(zipped(strings.Repeat("\x00", maxDecoded+1))), ErrTooLarge},
		"too deep":     {deep, ErrTooDeep},
		"gzip, broken": {"\x1f\x8b\x08\x00" + strings.Repeat("a", 40), ErrUndecodable},
	} {
		if _, err := c.Parts([]string{x.text}); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	if _, err := c.Parts([]string{strings.Repeat("a", maxText), "b"}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too much text: %v", err)
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{})
	for text, want := range map[string]string{
		"née le 3, 1 85 05 2A 004 123 56, à Ajaccio":        "fr-nir",
		"n° 293062B03307794":                                "fr-nir",
		"n° 1 85 05 2A 004 123 11":                          "",
		"IBAN and BIC: DEUTDEFF500":                         "swift",
		"SWIFT code NEDSZAJJXXX, please":                    "swift",
		"bic COBADEFF":                                      "swift",
		"her address: 21 Fjellhaugen 7, Molde":              "address",
		"Tom Sawyer lives at 12 Tylova 4, Brno":             "person address",
		"at the corner of Ilirska 5 and Main":               "address",
		"3 Meadowlands 9\n Apt. 12\n Tromso\n Norway 90123": "address",
		"send it to the ship, FPO AP 96601":                 "address",
		"My zip code is 60601.":                             "address",
		"in der Mozart Straße 14 wohnt er":                  "address",
		"Kossuth Lajos u. 9, Szeged":                        "address",
		"Postfach 1234, 50667 Köln":                         "address",
		"IP address: 127.0.0.1 Port 80":                     "",
		"the address is 0x7ffe1234":                         "",
		"the address of Node 3, which":                      "",
		"listen address: Port 8080":                         "",
		"address: 5 items":                                  "",
		"zip 12345 files":                                   "",
		"see line u 12 of it":                               "",
		"hi, did you see jessica at the game?":              "first-name",
		"cat /home/jessica/x; grep jessica y":               "",
		"Taylor Swift CONCERTS are sold out":                "",
		"the SWIFT DOCUMENT":                                "",
		"BIC: DEUTXXFF":                                     "",
	} {
		if got := kindsIn(t, c, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestUUIDs: what Claude Code says of its session with each request is nothing sensitive, whichever UUID it drew; a number in the
// same shape is.
func TestUUIDs(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{})
	r := rand.NewChaCha8([32]byte{})
	var u [16]byte
	for range 50_000 {
		_, _ = r.Read(u[:]) // never fails
		text := fmt.Sprintf(`{"device_id":"","account_uuid":"","session_id":"%x-%x-%x-%x-%x"}`, u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		if got := find(t, c, text); len(got) > 0 {
			t.Fatalf("%s: %q", text, got)
		}
	}
	for text, want := range map[string]string{
		`{"account_uuid":"","session_id":"46424073-4893-4566-82d9-91d2fbf0274c"}`: "",
		`"account 46424073-4893-4566-8213-912345678901"`:                          "card bank-account",
		`"account 46424073-4893-4566", session 82d9-91d2fbf0274c`:                 "card",
	} {
		if got := kindsIn(t, c, text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestSlow: what a text costs grows with its length alone. One that isn't so keeps the test for minutes.
func TestSlow(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{})
	for _, unit := range []string{"sk-", "ghp_", "AIzaaaaa-", "eyJaaaaa-", "James-", "MRN-a1234b-", "а", "xаж", "%25", "1 ", "a\\u005c"} {
		if _, err := c.Parts([]string{strings.Repeat(unit, 1<<20/len(unit))}); err != nil && !errors.Is(err, ErrTooDeep) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%q: %v", unit, err)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	c := newClassifier(t, Rules{
		Patterns: []Pattern{
			{Name: "staff", Class: "hr", Regexp: `\bE-\d{6}\b`},
			{Name: "badge", Class: "hr", Regexp: `\b\d{5}\b`, Words: []string{"badge"}},
		},
		Dictionaries: []Dictionary{{Name: "projects", Class: Confidential, Words: []string{"Blue Heron", "Zürich-Nord", "kestrel"}}},
		Off:          []Class{Medical}, OffKinds: []string{"ip"},
	})
	got := find(t, c, "E-123456 of blue  heron and KESTREL, ZÜRICH nord; badge: 12345. From 192.168.1.77, patient has diabetes.")
	want := "staff:E-123456|projects:blue  heron|projects:KESTREL|projects:ZÜRICH nord|badge:12345"
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
	for want, r := range map[string]Rules{
		"pattern x: it finds": {Patterns: []Pattern{{Name: "x", Class: "y", Regexp: "a*"}}},
		"error parsing":       {Patterns: []Pattern{{Name: "x", Class: "y", Regexp: "("}}},
		"without a name":      {Patterns: []Pattern{{Class: "y", Regexp: "a"}}},
		"without a class":     {Dictionaries: []Dictionary{{Name: "x", Words: []string{"a"}}}},
		"no letter":           {Dictionaries: []Dictionary{{Name: "x", Class: "y", Words: []string{"--"}}}},
		`called "cards"`:      {OffKinds: []string{"cards"}},
	} {
		if _, err := New(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func FuzzParts(f *testing.F) {
	c, err := New(Rules{Dictionaries: []Dictionary{{Name: "d", Class: "x", Words: []string{"blue heron"}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("my card is 4111 1111", "1111 1111 and john%40example.com", "\\u0034\\n")
	f.Add(base64.StdEncoding.EncodeToString(zipped(secretText)), "Dr. Jane Roe, 742 Evergreen Terrace", "e\u0301\u200b１")
	f.Add("password = \"hunter2!\" https://bob:s3cr3tpw@host/", "-----BEGIN PRIVATE KEY-----", "2001:db8::1 aa:bb:cc:dd:ee:ff")
	f.Add("Blue heron P.O. Box 12", "DOB: May 3, 1980 MRN-00A123", "E11.9 diagnosis GB82WEST12345698765432")
	f.Fuzz(func(t *testing.T, a, b, d string) {
		parts := []string{a, b, d}
		found, err := c.Parts(parts)
		if err != nil {
			return
		}
		for i, m := range found {
			if m.Part < 0 || m.Part > 2 || m.Start < 0 || m.Start >= m.End || m.End > len(parts[m.Part]) {
				t.Fatalf("%+v lies outside of its part", m)
			}
			if m.Class == "" || m.Kind == "" {
				t.Fatalf("%+v", m)
			}
			if i > 0 && order(found[i-1], m) > 0 {
				t.Fatalf("%+v before %+v", found[i-1], m)
			}
		}
	})
}
