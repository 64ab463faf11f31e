package tui

import (
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// sheet is what a page is written on.
type sheet struct {
	theme theme
	w     int
	out   []line
}

// margin is the width of the names of fields.
const margin = 12

// add adds text, wrapped.
func (s *sheet) add(style tcell.Style, safe string) {
	for _, l := range wrap(bounded(safe), s.w) {
		s.out = append(s.out, line{l, style})
	}
}

// bounded keeps a text to what can be drawn thirty times a second.
func bounded(safe string) string {
	const limit = 32 << 10
	if len(safe) <= limit {
		return safe
	}
	return whole(safe[:limit]) + "…"
}

func (s *sheet) blank() { s.out = append(s.out, line{}) }

// field adds a named value; an empty one is left out.
func (s *sheet) field(name, safe string) { s.styled(name, safe, s.theme.text) }

func (s *sheet) styled(name, safe string, style tcell.Style) {
	if safe == "" {
		return
	}
	for _, l := range wrap(bounded(safe), s.w-margin) {
		s.out = append(s.out, line{fmt.Sprintf("%-*s%s", margin, name, l), style})
		name = ""
	}
}

// most is how many bytes of a value a page shows: as many as a path can have.
const most = 4 << 10

// value is text from inside, as long as a page takes.
func value(s string) string {
	if len(s) <= most {
		return text.Escape(s)
	}
	return text.Escape(whole(s[:most])) + fmt.Sprintf("… (%d bytes more)", len(s)-most)
}

// bytes adds what a value really is, where what is shown is not it.
func (s *sheet) bytes(shown string, raw []byte) {
	if raw == nil {
		if text.Escape(shown) == shown {
			return
		}
		raw = []byte(shown)
	}
	cut := raw[:min(len(raw), 1024)]
	s.field("  bytes", strconv.QuoteToASCII(string(cut)))
	s.field("  hex", hex.EncodeToString(cut))
	if len(raw) > len(cut) {
		s.field("", fmt.Sprintf("(%d bytes more)", len(raw)-len(cut)))
	}
}

// reads is how the name of a host that is not spelt in plain letters can be compared by eye; "" of others, and of what is no host.
func reads(plane, object string) string {
	if plane != string(policy.PlaneNetwork) && plane != string(policy.PlaneDNS) {
		return ""
	}
	host := object
	if h, _, err := net.SplitHostPort(object); err == nil {
		host = h
	}
	if shown := text.Host(host); len(host) < most && shown != text.Escape(host) {
		return shown
	}
	return ""
}

// tree adds who started a program: what is nearest to it last, as a process tree is drawn.
func (s *sheet) tree(r *api.Request) {
	name := "started by"
	for i := len(r.Ancestors) - 1; i >= 0; i-- {
		a := r.Ancestors[i]
		depth := strings.Repeat("  ", min(len(r.Ancestors)-1-i, 8))
		s.field(name, fmt.Sprintf("%s%d %s", depth, a.PID, middle(show(a.Args), max(s.w-margin-len(depth)-9, 20))))
		name = ""
	}
}

func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

// requestPage is all about a request.
type requestPage struct {
	c    *console
	last *api.Request
}

// request is the request as it is known now.
func (p *requestPage) request() *api.Request {
	p.c.model.read(func() {
		if r := p.c.model.requests.get(p.last.ID); r != nil {
			p.last = r
		}
	})
	return p.last
}

func (p *requestPage) title() string   { return "Request " + text.Escape(p.last.ID) }
func (p *requestPage) sandbox() string { return p.last.Sandbox }
func (p *requestPage) keys() string {
	return "a approve  r reject  A/R with scope  e explain  p policy  g grants"
}

func (p *requestPage) question() (question, bool) {
	r := p.last
	return planeQuestion(r.Sandbox, r.Plane, r.Action, r.Object, r.Program)
}

func (p *requestPage) lines(w int) []line {
	r, now := p.request(), time.Now()
	s := &sheet{theme: p.c.theme, w: w}
	s.styled("state", requestState(r, now), s.theme.verdict(string(r.State)))
	s.field("sandbox", text.Escape(r.Sandbox))
	s.field("what", text.Escape(r.Plane+" "+r.Action))
	s.styled("object", value(r.Object), s.theme.title)
	s.styled("  reads", reads(r.Plane, r.Object), s.theme.warn)
	s.bytes(r.Object, r.RawObject)
	s.field("program", or(value(r.Program), "(not known)"))
	s.field("command", value(r.Args))
	s.bytes(r.Args, r.RawArgs)
	if r.PID != 0 {
		s.field("pid", strconv.Itoa(r.PID)+" on the host")
	}
	s.tree(r)
	if r.Taint != "" {
		s.styled("tainted", "other code may run as this program, by its environment: "+text.Escape(r.Taint), s.theme.bad)
	}
	s.field("rule", text.Escape(r.Rule))
	s.field("times", fmt.Sprintf("%d, first %s, last %s", r.Count, stamp(r.First), stamp(r.Last)))
	for _, k := range r.Risks {
		style := s.theme.warn
		if k.Dangerous {
			style = s.theme.bad
		}
		s.styled("risk", text.Escape(k.Text), style)
	}
	for _, o := range r.Offers {
		s.blank()
		s.add(s.theme.title, "Answer for "+text.Escape(o.Text))
		s.field("scopes", scopeNames(o.Scopes))
		s.yaml("to allow it always", o.YAML)
		s.yaml("to deny it always", o.Deny)
	}
	return s.out
}

// yaml adds what would be added to the policy.
func (s *sheet) yaml(what, rule string) {
	if rule == "" {
		return
	}
	s.add(s.theme.dim, what+", the policy would have:")
	s.add(s.theme.text, indent(text.Lines(rule)))
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// requestState is where a request is, in words.
func requestState(r *api.Request, now time.Time) string {
	switch {
	case r.Answer != nil:
		return fmt.Sprintf("%s by %s, %s after it was asked: it is over", r.State, text.Escape(r.Answer.Who), r.Answer.Waited.Round(time.Millisecond))
	case r.State == api.Held && r.Until != nil:
		return fmt.Sprintf("held, and denied in %d s if nobody answers; waiting: %d", max(int(r.Until.Sub(now).Seconds()), 0), r.Held)
	case r.State == api.Refused:
		return "refused: an answer is for the next try"
	case r.State == api.Withdrawn:
		return "withdrawn: it needs no answer any more"
	}
	return string(r.State)
}

func scopeNames(scopes []api.Scope) string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return text.Escape(strings.Join(names, ", "))
}

// decisionPage is all about a decision.
type decisionPage struct {
	c *console
	d policy.Decision
}

func (p *decisionPage) title() string   { return fmt.Sprintf("Decision %d", p.d.Seq) }
func (p *decisionPage) sandbox() string { return p.d.Sandbox }
func (p *decisionPage) keys() string    { return "e explain  p policy  g grants" }

func (p *decisionPage) question() (question, bool) {
	return planeQuestion(p.d.Sandbox, string(p.d.Plane), p.d.Action, p.d.Object, p.d.Subject.Exe)
}

func (p *decisionPage) lines(w int) []line {
	s, d := &sheet{theme: p.c.theme, w: w}, p.d
	s.styled("verdict", d.Verdict.String(), s.theme.verdict(d.Verdict.String()))
	s.field("when", stamp(d.Time))
	s.field("sandbox", text.Escape(d.Sandbox))
	s.field("what", text.Escape(string(d.Plane)+" "+d.Action))
	s.styled("object", value(d.Object), s.theme.title)
	s.styled("  reads", reads(string(d.Plane), d.Object), s.theme.warn)
	s.bytes(d.Object, nil)
	s.field("program", value(d.Subject.Exe))
	s.field("command", value(d.Subject.Args))
	s.bytes(d.Subject.Args, nil)
	if d.Subject.PID != 0 {
		s.field("pid", strconv.Itoa(d.Subject.PID)+" on the host")
	}
	if d.Subject.Taint != "" {
		s.styled("tainted", "other code may run as this program, by its environment: "+text.Escape(d.Subject.Taint), s.theme.bad)
	}
	s.field("rule", text.Escape(d.Rule))
	s.field("why", text.Escape(d.Reason))
	if d.Inference != nil {
		s.call(d.Inference)
	}
	s.field("policy", text.Escape(d.Revision))
	if d.Count > 1 {
		s.field("times", strconv.FormatUint(d.Count, 10))
	}
	return s.out
}

// boxPage is all about a sandbox.
type boxPage struct {
	c    *console
	name string
}

func (p *boxPage) title() string   { return "Sandbox " + text.Escape(p.name) }
func (p *boxPage) sandbox() string { return p.name }
func (p *boxPage) keys() string    { return "s shell  p policy  g grants" }

func (p *boxPage) lines(w int) []line {
	s := &sheet{theme: p.c.theme, w: w}
	b := p.c.model.box(p.name)
	if b == nil {
		s.add(s.theme.bad, "it is gone")
		return s.out
	}
	s.styled("state", string(b.State), s.theme.verdict(string(b.State)))
	s.styled("reason", text.Escape(b.Reason), s.theme.warn)
	s.field("level", text.Escape(b.Level))
	s.field("policy", fmt.Sprintf("%s revision %d (%s)", text.Escape(b.Policy.Name), b.Policy.Revision, text.Escape(b.Policy.Hash)))
	if b.Policy.Running != 0 && b.Policy.Running != b.Policy.Revision {
		s.styled("", fmt.Sprintf("in force is revision %d until it is restarted", b.Policy.Running), s.theme.warn)
	}
	s.field("workspace", text.Escape(b.Workspace))
	s.field("image", text.Escape(b.Image))
	s.field("model", text.Escape(b.Inference.Model))
	s.field("created", stamp(b.Created))
	if b.Started != nil {
		s.field("started", stamp(*b.Started))
	}
	s.field("denied", fmt.Sprintf("%d since it was started", b.Refused))
	var u usage
	var known bool
	p.c.model.read(func() { u, known = p.c.model.usage[p.name] })
	if known && b.State == api.Running {
		s.field("memory", size(u.Memory))
		s.field("processor", u.CPU.Round(time.Millisecond).String()+" since its start")
		s.field("processes", strconv.Itoa(u.Processes))
		s.field("connected", strconv.Itoa(u.Conns))
		s.field("traffic", fmt.Sprintf("sent %s, received %s", size(u.Sent), size(u.Received)))
		if u.Disk >= 0 {
			s.field("disk", size(u.Disk))
		}
	}
	for _, g := range b.GPUs {
		s.field("gpu", fmt.Sprintf("%d: %s (%s), %s of its memory, %s busy with it", g.Index, text.Escape(g.Name), text.Escape(g.UUID), gpuMemory(&g.GPUUse), gpuBusy(&g.GPUUse)))
	}
	for _, port := range b.Publish {
		s.field("published", fmt.Sprintf("%s reaches port %d inside", text.Escape(port.Host), port.Port))
	}
	for _, warning := range b.Warnings {
		s.styled("warning", text.Escape(warning), s.theme.warn)
	}
	return s.out
}
