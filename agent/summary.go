package agent

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// summary is what a run says at its end.
type summary struct {
	policy   string // the file's name as given, or "the built-in policy"
	revision string
	refused  []hub.Refusal
	more     uint64   // refusals beyond those
	lost     uint64   // events that the kernel could not hand over
	warnings []string // about the sandbox and the policy
	level    policy.Level
	unseen   []string // what could be refused without being seen here; see unseenRefusals
	log      string   // the audit log's path
	failed   bool     // the command's status wasn't 0
	terminal bool     // a person reads it
	colour   bool
}

// maxShown bounds the refusals that the summary spells out; the audit log has them all.
const maxShown = 20

// String returns the text, or "" when there is nothing to say.
func (s *summary) String() string {
	quiet := len(s.refused) == 0 && s.more == 0 && s.lost == 0 && len(s.warnings) == 0
	if quiet && !(s.failed && s.terminal) {
		return ""
	}
	var b bytes.Buffer
	for _, w := range s.warnings {
		fmt.Fprintf(&b, "nemoclaw: warning: %s\n", text.Escape(w))
	}
	if len(s.refused) > 0 {
		fmt.Fprintf(&b, "nemoclaw: %s (%s, revision %s):\n", s.bold("refused"), text.Escape(s.policy), s.revision)
	}
	suggested := map[string]bool{}
	for _, r := range s.refused[:min(len(s.refused), maxShown)] {
		s.row(&b, r, suggested)
	}
	if hidden := len(s.refused) - maxShown; hidden > 0 || s.more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", uint64(max(hidden, 0))+s.more)
	}
	if s.lost > 0 {
		fmt.Fprintf(&b, "nemoclaw: %d refusals came faster than they could be written down: they were refused and counted, but are not in the log\n", s.lost)
	}
	if len(s.unseen) > 0 && (len(s.refused) > 0 || s.failed && s.terminal) {
		fmt.Fprintf(&b, "nemoclaw: refusals that could not be seen (level %s):\n", s.level)
		for _, u := range s.unseen {
			fmt.Fprintf(&b, "  %s\n", text.Escape(u))
		}
	}
	if len(s.refused) > 0 {
		fmt.Fprintf(&b, "nemoclaw: every decision is in %s\n", text.Escape(s.log))
	}
	return b.String()
}

func (s *summary) row(b *bytes.Buffer, r hub.Refusal, suggested map[string]bool) {
	what := r.Action + " " + text.Short(r.Object, 120)
	if r.Subject.Exe != "" && r.Plane != policy.PlaneExec { // what was executed is who it is
		what += " by " + text.Short(r.Subject.Exe, 80)
	}
	fmt.Fprintf(b, "  %4dx %s\n", r.Times, s.bold(what))
	why := r.Rule
	if r.Reason != "" {
		why = text.Short(r.Reason, 200) + " (" + r.Rule + ")"
	}
	fmt.Fprintf(b, "        %s\n", why)
	y := r.Suggest
	if y == "" {
		y = policy.Suggest(r.Decision)
	}
	secret := ""
	if r.Plane == policy.PlaneFile {
		secret = policy.Reveals(r.Object)
	}
	switch {
	case y == "":
	case secret != "":
		fmt.Fprintf(b, "        no rule is suggested for what may be a secret: %s\n", secret)
	case suggested[y]:
		fmt.Fprint(b, "        to allow it: the same rule as above\n")
	default:
		suggested[y] = true
		fmt.Fprint(b, "        to allow it, add to the policy:\n")
		for l := range strings.Lines(text.Lines(strings.TrimRight(y, "\n"))) {
			fmt.Fprintf(b, "          %s\n", strings.TrimRight(l, "\n"))
		}
	}
}

func (s *summary) bold(t string) string {
	if !s.colour {
		return t
	}
	return "\x1b[1m" + t + "\x1b[0m"
}

// unseenRefusals says, from the policy, what can be refused at level static without a record. reported tells that the
// kernel reports what Landlock refuses, programs that refused programs are seen without that; mounts refuse in silence
// all the same.
func unseenRefusals(p *policy.Compiled, level policy.Level, reported, programs bool) []string {
	var hidden, readOnly []string
	for _, r := range p.Files.Rules {
		switch {
		case r.Denied&policy.Read != 0:
			hidden = append(hidden, r.Path)
		case r.Denied&policy.Write != 0:
			readOnly = append(readOnly, r.Path)
		}
	}
	slices.Sort(hidden)
	slices.Sort(readOnly)
	list := func(what string, paths []string) []string {
		if len(paths) == 0 {
			return nil
		}
		const most = 5
		s := strings.Join(paths[:min(len(paths), most)], ", ")
		if n := len(paths) - most; n > 0 {
			s += fmt.Sprintf(" and %d more", n)
		}
		return []string{what + s}
	}
	var out []string
	if level == policy.LevelStatic {
		out = append(list("anything below paths that are hidden by a deny rule: ", hidden), list("writes below paths that a deny rule makes read-only: ", readOnly)...)
	}
	if p.Files.Baseline {
		out = append(out, "writes to the system (/usr, /etc, ...), which is mounted read-only")
	}
	out = append(out, "paths that no rule covers: they do not exist inside")
	if !reported && level == policy.LevelStatic {
		what := "what else Landlock refuses"
		if !programs {
			what = "programs that are refused at once, and " + what
		}
		out = append(out, what+": the kernel's audit, which tells, is off (auditctl -e 1 turns it on) or older than Linux 6.15")
	}
	return out
}
