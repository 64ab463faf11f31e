package report

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/net/html"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// written makes a signed log, and the source of a report of it.
func written(t *testing.T, list []policy.Decision) *Source {
	t.Helper()
	s, err := audit.OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	w, err := audit.OpenChain(dir, "agent", "", audit.Options{Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		d := &list[i]
		d.Seq = w.Head().Seq + 1
		if d.Time.IsZero() {
			d.Time = noon.Add(time.Duration(i) * time.Second)
		}
		if err := w.Append(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &Source{Logs: []string{filepath.Join(dir, "agent.jsonl")}, Own: s}
}

// forms is a report in both forms.
func forms(t *testing.T, frame string, s *Source) (md, page string, whole bool) {
	t.Helper()
	d, whole, err := Audit(t.Context(), frame, s, noon, "test")
	if err != nil {
		t.Fatal(err)
	}
	var a, b bytes.Buffer
	if err := Markdown(&a, d); err != nil {
		t.Fatal(err)
	}
	if err := HTML(&b, d); err != nil {
		t.Fatal(err)
	}
	checkMarkdown(t, a.String())
	checkHTML(t, b.String())
	return a.String(), b.String(), whole
}

// activityForms is the report of an activity in both forms.
func activityForms(t *testing.T, a *Activity, box *api.Sandbox) (md, page string) {
	t.Helper()
	d := a.Document(box, noon, "test")
	for _, s := range d.Sections {
		for _, p := range s.Parts {
			if p.Chart != nil {
				checkChart(t, p.Chart)
			}
		}
	}
	var m, p bytes.Buffer
	if err := errors.Join(Markdown(&m, d), HTML(&p, d)); err != nil {
		t.Fatal(err)
	}
	checkMarkdown(t, m.String())
	checkHTML(t, p.String())
	return m.String(), p.String()
}

// checkChart wants bars that are inside of their chart, and words.
func checkChart(t *testing.T, ch *Chart) {
	t.Helper()
	if len(ch.Bars) == 0 || ch.Desc == "" || len(ch.Table.Rows) == 0 {
		t.Errorf("%s draws nothing, or does not say what", ch.ID)
	}
	const rounding = 0.01
	for _, b := range ch.Bars {
		if b.X < 0 || b.Y < 0 || b.W <= 0 || b.H <= 0 || b.X+b.W > ch.Width+rounding || b.Y+b.H > ch.Height+rounding || b.Tip == "" {
			t.Errorf("%s has a bar outside: %+v", ch.ID, b)
		}
	}
	for _, l := range ch.Labels {
		if l.X < 0 || l.X > ch.Width || l.Y < 0 || l.Y > ch.Height || len(l.Words) > 60 {
			t.Errorf("%s has a word outside: %+v", ch.ID, l)
		}
	}
}

// evil are texts that try to be more than text, in either form. Each says EVIL, which may stand in quotations only.
var evil = []string{
	`EVIL<script>alert(1)</script><img src=x onerror=alert(1)>`, `EVIL"><svg onload=alert(1)>`, `'EVIL' onmouseover='x`, "EVIL` | **bold** `` ``` [a](javascript:alert(1)) ![b](http://x/)",
	"EVIL\n\n# Heading\n| a | b |\n---\n<b>", "EVIL\r\nx\x00\x1b[31m\x9b", "EVIL\u202egnp.exe\u2066\u200b\u200d\ufeff\u00ad", "  EVIL  ", "`EVIL`", `EVIL\`, `EVIL\|x`, "EVIL{{.}}</style></title><!--", "EVIL\xff\xfe",
	"</code>EVIL&lt;&#60;", "~~~EVIL", "EVIL " + strings.Repeat("a", 5000), "EVIL\u2028\u2029\u0085", "http://EVIL.example/?q=1", "EVIL" + strings.Repeat("\u0301", 50), `EVIL" --`, "=EVIL()", "{}EVIL{}",
}

func hostile() (list []policy.Decision) {
	for _, e := range evil {
		for _, p := range policy.Planes() {
			for _, v := range []policy.Verdict{policy.Allow, policy.Ask, policy.Deny} {
				d := policy.Decision{Sandbox: e, Plane: p, Action: e, Object: e, Subject: policy.Subject{Exe: e, Args: e}, Verdict: v, Rule: e, Reason: e, Revision: e}
				if p == policy.PlaneInference {
					d.Action = "request"
					d.Inference = &policy.ModelCall{Asked: e, Model: e, Route: e, Classes: map[string]int{e: 1}, Unseen: []string{e}, TokensIn: -5}
				}
				list = append(list, d)
			}
		}
		d := policy.Decision{Sandbox: e, Plane: policy.PlaneInference, Action: "tool-call", Object: e, Inference: &policy.ModelCall{Model: e, Tool: &policy.ToolUse{Params: e}}}
		list = append(list, d)
		for _, a := range []string{"lost", "policy", "create", "failed", "command", "start"} {
			list = append(list, policy.Decision{Sandbox: e, Plane: policy.PlaneSystem, Action: a, Object: e, Reason: e + ", by " + e, Revision: e})
		}
		answer := policy.Decision{Sandbox: e, Plane: policy.PlaneSystem, Action: "answer", Asked: "network connect", Object: e, Verdict: policy.Allow, Reason: e + " allowed it (once) after 1s: " + e}
		granted := policy.Decision{Sandbox: e, Plane: policy.PlaneNetwork, Action: "connect", Object: e, Verdict: policy.Allow, Rule: e, Reason: "approved by a person"}
		list = append(list, answer, granted)
	}
	return list
}

func TestHostile(t *testing.T) {
	t.Parallel()
	s := written(t, hostile())
	s.Named = []string{"EVIL`|\n<b>.jsonl"}
	s.Filter.Sandbox = ""
	for _, f := range Frameworks() {
		md, page, whole := forms(t, f, s)
		if !whole {
			t.Errorf("%s: the log is whole", f)
		}
		for _, part := range []string{`\u202e`, `\x1b`, `\n`, `\x00`} {
			if !strings.Contains(md, part) || !strings.Contains(page, part) {
				t.Errorf("%s: %s is not made visible", f, part)
			}
		}
	}
	a := NewActivity("box", noon, time.Time{})
	for _, d := range hostile() {
		a.Add(&d)
	}
	var found api.Changes
	for _, e := range evil {
		found.Files = append(found.Files, api.Changed{Path: "/workspace/" + e, Kind: e, What: api.Added, Time: noon, Size: -1}, api.Changed{Path: e, What: api.ChangeKind(e)})
		found.Places, found.Missed, found.Cut = append(found.Places, e), append(found.Missed, e), e
	}
	a.Changed(found, nil)
	md, page := activityForms(t, a, &api.Sandbox{Name: "box", State: api.Running, Started: &noon, Level: evil[0], Workspace: evil[1], GPUs: []api.SandboxGPU{{Name: evil[2], UUID: evil[3]}}})
	for _, want := range []string{`id="names-chart-t"`, `id="files-chart-t"`, `id="programs-chart-t"`, `id="timeline-t"`, `id="changes-chart-t"`, `text-anchor="end" class="code">EVIL`, `\u202e`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of an activity does not have %s", want)
		}
	}
	if !strings.Contains(md, "nemoclaw box logs --plane") {
		t.Errorf("the activity does not say what finds the rest:\n%.2000s", md)
	}
	// A filter that somebody types is as hostile.
	for _, e := range evil {
		s.Filter.Sandbox = e
		forms(t, "soc2", s)
	}
}

// allowedHTML are the elements of a page, with their attributes.
var allowedHTML = map[string][]string{
	"html": {"lang"}, "head": nil, "meta": {"charset", "http-equiv", "content", "name"}, "title": {"id"}, "style": nil, "body": nil, "main": nil, "header": nil, "footer": nil, "h1": nil,
	"h2": {"id"}, "p": {"class", "role"}, "span": {"class"}, "code": {"class"}, "ul": {"class"}, "li": {"class"}, "nav": {"aria-label"}, "a": {"href"}, "section": {"id", "aria-labelledby"},
	"div": {"class"}, "table": nil, "caption": nil, "thead": nil, "tbody": nil, "tr": nil, "th": {"scope", "class"}, "td": {"class"}, "details": nil, "summary": nil,
	"svg": {"class", "role", "aria-labelledby", "viewBox", "width", "height"}, "desc": {"id"}, "line": {"x1", "x2", "y1", "y2"}, "rect": {"class", "x", "y", "width", "height", "rx"},
	"text": {"x", "y", "text-anchor", "class"},
}

var word = regexp.MustCompile(`^[a-zA-Z0-9 .#%=',;/-]*$`)

// checkHTML wants a page of nothing but the elements and attributes above, in which EVIL stands in quotations and a chart's words only.
func checkHTML(t *testing.T, page string) {
	t.Helper()
	checkSigns(t, page)
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		switch n.Type {
		case html.ElementNode:
			attrs, ok := allowedHTML[n.Data]
			if !ok {
				t.Errorf("the page has an element %s", n.Data)
			}
			for _, a := range n.Attr {
				if !slices.Contains(attrs, a.Key) || !word.MatchString(a.Val) {
					t.Errorf("the page has an attribute %s.%s=%q", n.Data, a.Key, a.Val)
				}
				if a.Key == "href" && !strings.HasPrefix(a.Val, "#") {
					t.Errorf("the page links to %q", a.Val)
				}
			}
		case html.TextNode:
			if in := n.Parent.Data; strings.Contains(n.Data, "EVIL") && in != "code" && in != "text" && in != "title" {
				t.Errorf("in <%s>: %q", in, n.Data)
			}
			if n.Parent.Data == "style" && (strings.Contains(n.Data, "url(") || strings.Contains(n.Data, "@import")) {
				t.Error("the style loads something")
			}
		case html.CommentNode:
			t.Errorf("the page has a comment %q", n.Data)
		}
	}
	for _, want := range []string{"default-src &#39;none&#39;", "default-src 'none'"} {
		if strings.Contains(page, want) {
			return
		}
	}
	t.Error("the page has no policy that loads nothing")
}

var codeSpans = regexp.MustCompile("`[^`\n]*`")

// checkMarkdown wants that EVIL stands in code spans only, that these end on their line, and that rows are as long as their heads.
func checkMarkdown(t *testing.T, md string) {
	t.Helper()
	checkSigns(t, md)
	columns := 0
	for line := range strings.Lines(md) {
		line = strings.TrimSuffix(line, "\n")
		for _, span := range codeSpans.FindAllString(line, -1) {
			if strings.Contains(span, "|") {
				t.Errorf("a code span ends a cell: %q", span)
			}
		}
		plain := codeSpans.ReplaceAllString(line, "CODE")
		if strings.Contains(plain, "EVIL") {
			t.Errorf("outside of a code span: %q", line)
		}
		bare := plain
		for _, sign := range "\\`*_{}[]<>#|~&!" {
			bare = strings.ReplaceAll(bare, `\`+string(sign), "")
		}
		if strings.ContainsAny(strings.TrimPrefix(bare, "> "), "`<>[]\\&~") {
			t.Errorf("outside of a code span: %q", line)
		}
		n := strings.Count(bare, "|")
		if n > 0 && columns > 0 && n != columns {
			t.Errorf("%d columns of %d: %q", n-1, columns-1, line)
		}
		columns = n
	}
}

// checkSigns wants no sign that moves a cursor, reorders or hides text.
func checkSigns(t *testing.T, s string) {
	t.Helper()
	for i, r := range s {
		if r == unicode.ReplacementChar || r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)) {
			t.Errorf("%U in %q", r, s[max(i-30, 0):min(i+10, len(s))])
			return
		}
	}
}

// TestTampered: a log of which a word was changed gives a report, which says so, as does one without its checkpoints.
func TestTampered(t *testing.T) {
	t.Parallel()
	s := written(t, []policy.Decision{
		{Sandbox: "box", Plane: policy.PlaneNetwork, Action: "connect", Object: "one.test:443", Verdict: policy.Allow, Rule: "p.yaml:3", Revision: "00"},
		{Sandbox: "box", Plane: policy.PlaneNetwork, Action: "connect", Object: "two.test:443", Verdict: policy.Deny, Rule: "default", Revision: "00"},
		{Sandbox: "box", Plane: policy.PlaneNetwork, Action: "connect", Object: "three.test:443", Verdict: policy.Deny, Rule: "default", Revision: "00"},
	})
	md, page, whole := forms(t, "soc2", s)
	if !whole || !strings.Contains(md, "each of its records here is signed") || !strings.Contains(page, `class="alert good"`) {
		t.Errorf("a log that is whole:\n%s", md)
	}
	log := s.Logs[0]
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, bytes.Replace(text, []byte("two.test"), []byte("too.test"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	md, page, whole = forms(t, "soc2", s)
	if whole || !strings.Contains(md, "FAILED") || !strings.Contains(md, "record 2 changed") || !strings.Contains(md, "2 of this report") || !strings.Contains(page, `class="alert bad"`) {
		t.Errorf("a log that was changed: whole %v\n%.1500s", whole, md)
	}
	if err := os.WriteFile(log, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(log + ".sig"); err != nil {
		t.Fatal(err)
	}
	if md, _, whole = forms(t, "soc2", s); whole || !strings.Contains(md, "unsigned") {
		t.Errorf("a log without its checkpoints: whole %v\n%.1500s", whole, md)
	}
	// Who has no key is told that nobody vouches for it.
	s.Own, s.NoOwn = nil, "this host's key can't be read"
	if md, _, whole = forms(t, "soc2", s); !whole || !strings.Contains(md, "Signatures were not verified") {
		t.Errorf("without a key: whole %v\n%.1500s", whole, md)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if md, _, whole = forms(t, "soc2", s); whole || !strings.Contains(md, "could not be verified") {
		t.Errorf("no log: whole %v\n%.1500s", whole, md)
	}
}

// TestBounded: of many different things a report shows some, and says how many more there are.
func TestBounded(t *testing.T) {
	t.Parallel()
	var list []policy.Decision
	for i := range 3000 {
		list = append(list, policy.Decision{Sandbox: "flood", Plane: policy.PlaneNetwork, Action: "connect", Object: fmt.Sprintf("h%d.test:443", i), Verdict: policy.Deny, Rule: "default"})
	}
	list = append(list, policy.Decision{Sandbox: "quiet", Plane: policy.PlaneNetwork, Action: "connect", Object: "last.test:443", Verdict: policy.Deny, Rule: "default", Count: 2})
	md, page, _ := forms(t, "hipaa", written(t, list))
	for _, want := range []string{"last.test:443", "And 976 more: `nemoclaw audit search --plane network --verdict deny`", "2,000 more attempts", "| 3,000 |"} {
		if !strings.Contains(md, want) {
			t.Errorf("the report does not have %q", want)
		}
	}
	if len(md) > 64<<10 || len(page) > 128<<10 {
		t.Errorf("%d and %d bytes", len(md), len(page))
	}
}

// TestActivity: what one sandbox did, with sums over whatever decided, and what can't be seen said.
func TestActivity(t *testing.T) {
	t.Parallel()
	h200, peak := gpu.GivenGPU{Name: "NVIDIA H200"}, int64(2<<20)
	a := NewActivity("box", noon, time.Time{})
	for i, d := range []policy.Decision{
		{Plane: policy.PlaneSystem, Action: "start", Object: "box", Reason: "level static"},
		{Plane: policy.PlaneSystem, Action: "command", Object: "curl http://one.test/", Reason: "started by root"},
		{Plane: policy.PlaneNetwork, Action: "connect", Object: "one.test:443", Verdict: policy.Allow, Rule: "p.yaml:3"},
		{Plane: policy.PlaneNetwork, Action: "connect", Object: "one.test:443", Verdict: policy.Deny, Rule: "default", Count: 4},
		{Plane: policy.PlaneInference, Action: "request", Object: "m", Verdict: policy.Allow, Inference: &policy.ModelCall{Model: "x/m", Route: "cloud", TokensIn: 1200, TokensOut: 34, Cost: 20_000, Estimated: true}},
		{Plane: policy.PlaneInference, Action: "request", Object: "m", Verdict: policy.Allow, Inference: &policy.ModelCall{Model: "y/n", Route: "local", TokensIn: 5}},
		{Plane: policy.PlaneSystem, Action: gpu.Action, Object: "GPU-1", Reason: gpu.Granted(h200)},
		{Plane: policy.PlaneSystem, Action: gpu.Action, Object: "GPU-1", Reason: gpu.Used(h200, api.GPUTime{From: noon.Add(-15 * time.Minute), To: noon.Add(15 * time.Minute), Given: 18e11, Measured: 18e11, Busy: 9e11, Memory: &peak})},
	} {
		d.Sandbox, d.Seq, d.Time = "box", uint64(i+1), noon.Add(time.Duration(i)*time.Minute)
		a.Add(&d)
	}
	a.Changed(api.Changes{
		Files: []api.Changed{
			{Path: "/workspace/a.go", Kind: "file", What: api.Modified, Time: noon.Add(2 * time.Minute), Size: 2048}, {Path: "/workspace/sub", Kind: "directory", What: api.Removals, Time: noon.Add(time.Minute)},
		}, Added: 40, Changed: 1, Removed: 1, Bytes: 5 << 20, Later: 3, Unread: 1, Cut: "it took longer than 5s", Looked: 99, Places: []string{"/tmp", "/workspace"}, Missed: []string{"/data: it is looked at while the sandbox runs"},
	}, nil)
	memory, busy := int64(3<<20), 7
	md, page := activityForms(t, a, &api.Sandbox{Name: "box", State: api.Running, Started: &noon, Level: "static", GPUs: []api.SandboxGPU{{UUID: "GPU-1", GPUUse: api.GPUUse{Memory: &memory, Busy: &busy}}}})
	for _, want := range []string{
		"| `one.test:443` | network | 1 | 0 | 4 | 2026-11-23 12:02:00 | 2026-11-23 12:03:00 |", "1,239", "1,205 in, 34 out; of 1 request estimated", "$0.0200", "| `x/m` | `cloud` | allow | 1 | 1,200 | 34 | $0.0200 | 0 |",
		"`curl http://one.test/`", "leaves no record", "| 0 | `NVIDIA H200` | `GPU-1` | 0.25 | 0.25 | 0.12 | 2.0 MiB | 3.0 MiB | 7 % |", "GPU hours busy: **0.12** (of 0.25 given)", "given for this run: GPU 0", "| 2026-11-23 12:02:00 | changed | file | `/workspace/a.go` | 2.0 KiB |", "| 2026-11-23 12:01:00 | something removed | directory | `/workspace/sub` | - |", "And 40 more.",
		"files added or changed: **at least 41** (5.0 MiB; not all was looked at)", "The numbers are of the 99 files and directories that were", "3 files were changed after this time", "Not looked at: `/data: it is", "(5.0 MiB together)", "`nemoclaw audit report --framework soc2 --sandbox box`",
	} {
		if !strings.Contains(strings.ReplaceAll(md, `\`, ""), want) {
			t.Errorf("the report does not say %q:\n%s", want, md)
		}
	}
	if strings.Count(page, "<svg") != 5 {
		t.Errorf("%d charts, not those of time, names, tokens, GPUs and changed files", strings.Count(page, "<svg"))
	}
	_, page = activityForms(t, NewActivity("box", noon, time.Time{}), &api.Sandbox{Name: "box", State: api.Stopped})
	if !strings.Contains(page, "no record of this time") || strings.Contains(page, "<svg") {
		t.Errorf("of nothing:\n%s", page)
	}
}
