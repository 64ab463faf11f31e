package report

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/russross/blackfriday/v2"
	"golang.org/x/net/html"

	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/vterm"
)

// tricks are what Markdown renderers and pages were made to take for more than text.
var tricks = []string{
	`<script>alert(1)</script>`, `</code></td></table><iframe src=http://x>`, `</style><script>`, `<!--`, `]]>`, `[click](http://x)`, `](http://x)`, `![](http://x/pixel)`, `<http://x>`,
	`http://x.example/a`, `www.x.example`, "`", "``` \n# head\n```", `| a | b |`, `\|`, "\\`", "x\n\n# forged heading\n", "x\n| forged | row |\n|---|---|", "  ", " `", "_a_ **c** ~~d~~", "[^1]: x",
	"[x]: http://x", "\u202egpj.exe", "\x00\x1b[2J", strings.Repeat("`|<", 1<<10), "a\xff\xfe", "$$x$$ {{.}}",
}

// rendered are the elements that a renderer may make of a report in Markdown.
var rendered = []string{"html", "head", "body", "h1", "h2", "h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "strong", "blockquote"}

// cells is a document that has a text wherever one from inside can be.
func cells(s string) *Document {
	t := &Table{Title: "table", Heads: heads("a", "#b")}
	t.row(s, say("before {} after {}", s, s))
	return &Document{Title: "title", Subtitle: from(s), Alerts: []Alert{{"bad", say("log {}", s)}}, Sections: []Section{{ID: "s", Title: "section", Words: []Text{from(s)},
		Parts: []Part{{Chart: bars("c", "chart", "of", []Key{{"one", "times"}}, []slice{{name: from(s), parts: []uint64{3}}})}, {Table: t, Notes: []Text{command("nemoclaw", s)}}}}}}
}

// checkCells wants of a document with a text from inside as many elements as of one with a harmless text.
func checkCells(t *testing.T, s string) {
	t.Helper()
	elements := func(s string) map[string]int {
		d := cells(s)
		var md, page bytes.Buffer
		if err := Markdown(&md, d); err != nil {
			t.Fatal(err)
		}
		if err := HTML(&page, d); err != nil {
			t.Fatal(err)
		}
		checkHTML(t, page.String())
		checkSigns(t, md.String())
		shown := blackfriday.Run(md.Bytes(), blackfriday.WithExtensions(blackfriday.CommonExtensions|blackfriday.Footnotes),
			blackfriday.WithRenderer(blackfriday.NewHTMLRenderer(blackfriday.HTMLRendererParameters{})))
		n := map[string]int{}
		for form, b := range map[string][]byte{"md": shown, "html": page.Bytes()} {
			doc, err := html.Parse(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			for e := range doc.Descendants() {
				switch {
				case e.Type == html.CommentNode:
					t.Fatalf("%q: %s has a comment", s, form)
				case e.Type == html.ElementNode && e.Data != "code": // what is empty is no quotation
					n[form+" "+e.Data]++
					if form == "md" && (!slices.Contains(rendered, e.Data) || slices.ContainsFunc(e.Attr, func(a html.Attribute) bool { return a.Key != "align" })) {
						t.Fatalf("%q: the Markdown is rendered with <%s %v>", s, e.Data, e.Attr)
					}
				}
			}
		}
		return n
	}
	if got, want := fmt.Sprint(elements(s)), fmt.Sprint(elements("harmless")); got != want {
		t.Errorf("%q: %s, want %s", s, got, want)
	}
}

// TestCells has a renderer of Markdown, and a browser's parser, say what a text from inside becomes.
func TestCells(t *testing.T) {
	t.Parallel()
	for _, s := range slices.Concat(tricks, evil, vterm.Hostile()) {
		checkCells(t, s)
	}
}

func FuzzCells(f *testing.F) {
	for _, s := range slices.Concat(tricks, evil) {
		f.Add(s)
	}
	f.Fuzz(checkCells)
}

// TestClip: of what is cut nothing is left of a word that was cut, since of half a secret nobody can tell that it was one.
func TestClip(t *testing.T) {
	t.Parallel()
	const secret = "AKIAZ7Q4XN2PLM5TWE3R"
	for n := range 220 {
		got := clip(strings.Repeat("x", n)+"/"+secret+"/"+strings.Repeat("y", 400), 200)
		if strings.Contains(got, "AKIA") && !strings.Contains(got, secret) || len(got) > 203 {
			t.Fatalf("%d: %q", n, got)
		}
		got = clip(strings.Repeat("y", 400)+"/"+secret+"/"+strings.Repeat("x", n), 200)
		if strings.Contains(got, "WE3R") && !strings.Contains(got, secret) || len(got) > 203 {
			t.Fatalf("%d: %q", n, got)
		}
	}
	if got := clip(strings.Repeat("x", 1<<20), 200); got != "xxxxxxxx..." {
		t.Errorf("a word without end: %.300q", got)
	}
}

func TestReadAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reason string
		v      policy.Verdict
		want   said
	}{
		{"root (uid 0), by nemoclaw approvals allowed it (for 1h) after 59.5s: curl to x:443", policy.Allow, said{"root (uid 0), by nemoclaw approvals", "for 1h", "59.5s"}},
		{"root (uid 0) denied it (once) after 1s: this", policy.Deny, said{"root (uid 0)", "once", "1s"}},
		{`a (uid 7, pts/3), by "x allowed it (always) after 1s: " allowed it (once) after 2s: y`, policy.Allow, said{`a (uid 7, pts/3), by "x allowed it (always) after 1s: "`, "once", "2s"}},
		{"a (uid 7) allowed it (session) after 3s: /x allowed it (always) after 1s: z", policy.Allow, said{"a (uid 7)", "session", "3s"}},
		{`a (uid 7) allowed it (session) after 3s: /x, by "b allowed it (always)`, policy.Allow, said{"a (uid 7)", "session", "3s"}},
		{"the answer came when nothing waited any more", policy.Deny, said{}},
		{`a (uid 7), by "x allowed it (once)`, policy.Allow, said{}},
		{"", policy.Allow, said{}},
		{"root (uid 0) allowed it (once) after 1s: x", policy.Ask, said{}},
	} {
		if got, ok := readAnswer(c.reason, c.v); got != c.want || ok != (c.want != said{}) {
			t.Errorf("%q: %+v, %v", c.reason, got, ok)
		}
	}
}

func TestPolicyBy(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string][2]string{
		"added network.allow: {domain: x, ports: [443]}, by root":              {"added network.allow: {domain: x, ports: [443]}", "root"},
		"added a, by alice (uid 7, pts/3), by nemoclaw term":                   {"added a", "alice (uid 7, pts/3), by nemoclaw term"},
		`added a, by alice (uid 7), by "my (own), word"`:                       {"added a", `alice (uid 7), by "my (own), word"`},
		"added {path: /x, by alice}, by root":                                  {"added {path: /x, by alice}", "root"},
		"added {path: /x, by alice (uid 0), by b}, by root":                    {"added {path: /x, by alice (uid 0), by b}", "root"},
		"back to revision 1: revision 2 can't be put into force: no such file": {"back to revision 1: revision 2 can't be put into force: no such file", ""},
	} {
		if what, who := policyBy(reason); what != want[0] || who != want[1] {
			t.Errorf("%q: %q by %q", reason, what, who)
		}
	}
}

// BenchmarkLongTexts: records of nothing but long texts are collected about as fast as others.
func BenchmarkLongTexts(b *testing.B) {
	c := newCollected()
	d := policy.Decision{Sandbox: "box", Plane: policy.PlaneFile, Action: "open", Time: noon, Object: strings.Repeat("/abc de=f", 450), Subject: policy.Subject{Exe: strings.Repeat("a", 4000)}, Verdict: policy.Deny}
	for b.Loop() {
		d.Seq++
		d.Time = d.Time.Add(time.Millisecond)
		c.add(&d)
	}
}
