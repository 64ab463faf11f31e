// Package risk says what a person should know about an attempt before deciding it.
//
// It goes by what the attempt and the policy say. It looks nothing up, neither a name nor a file, and decides nothing. What it
// reads comes from inside a sandbox and may be meant to mislead; its texts quote it, and are escaped where they are shown. A risk is told only where it can change
// an answer: notes on everything would teach people to read none.
package risk

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// An Attempt is what is to be decided.
type Attempt struct {
	policy.Decision
	Policy   *policy.Compiled // in force
	Writable bool             // the sandbox may write the executable: of exec the one executed, else the one that attempts it
	Sent     int64            // bytes that the sandbox has sent so far in this session; 0: not known
}

// Of returns the risks of an attempt, the dangerous ones first, and within that always in the same order.
func Of(a Attempt) []api.Risk {
	if a.Policy == nil {
		a.Policy = &policy.Compiled{Rules: []policy.RuleRef{{Pos: "default"}}}
	}
	var n notes
	n.hidden(a)
	n.tainted(a)
	switch a.Plane {
	case policy.PlaneNetwork, policy.PlaneDNS:
		n.place(a)
	case policy.PlaneFile:
		n.file(a)
	case policy.PlaneExec:
		n.program(a)
	}
	if a.Writable && a.Plane != policy.PlaneExec {
		n.note("writable-program", "the sandbox can write the program that asks, so other code can come to ask by its name")
	}
	if a.Subject.Exe == "" && a.Plane != policy.PlaneExec {
		n.note("unknown-program", "which program asks is not known")
	}
	slices.SortStableFunc(n.list, func(a, b api.Risk) int {
		switch {
		case a.Dangerous == b.Dangerous:
			return 0
		case a.Dangerous:
			return -1
		}
		return 1
	})
	return n.list
}

// notes are risks in the order of how much they say.
type notes struct{ list []api.Risk }

// note adds a risk that who answers should see.
func (n *notes) note(code, format string, args ...any) { n.add(code, false, format, args...) }

// danger adds a risk for which allowing is asked twice: where a slip would give away what can't be taken back, or what is shown is
// made to look like something else.
func (n *notes) danger(code, format string, args ...any) { n.add(code, true, format, args...) }

func (n *notes) add(code string, dangerous bool, format string, args ...any) {
	for i, x := range args {
		if s, ok := x.(string); ok {
			args[i] = text.Clip(s, 200)
		}
	}
	n.list = append(n.list, api.Risk{Code: code, Text: fmt.Sprintf(format, args...), Dangerous: dangerous})
}

// hidden tells of characters that hide or reorder text.
func (n *notes) hidden(a Attempt) {
	for _, x := range []struct{ what, s string }{{"what is asked for", a.Object}, {"the program's path", a.Subject.Exe}} {
		if strings.ContainsFunc(x.s, hides) {
			n.danger("hidden-text", x.what+" holds characters that hide, move or reorder text: %s", x.s)
		}
	}
}

func hides(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// interpreters' own variables: the program that they are set for runs whatever it is told to anyway, so they make nothing of what is
// shown untrue. All others do, and so does what could not be found out.
var interpreterVariables = []string{
	"NODE_", "BUN_", "PYTHON", "RUBY", "PERL", "BASH_ENV", "LUA_INIT", "PHP", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS",
	"CLASSPATH", "DOTNET_",
}

func (n *notes) tainted(a Attempt) {
	t := a.Subject.Taint
	switch {
	case t == "":
	case t == "(unknown)":
		n.danger("tainted", "how the program was started was not seen, so other code may run as it")
	case t == "(unread)" || t == "(long)":
		n.danger("tainted", "the environment that the program was started with could not be read, so other code may run as it")
	case slices.ContainsFunc(interpreterVariables, func(v string) bool { return strings.HasPrefix(t, v) }):
		n.note("tainted", "%s was set when the program was started, so other code may run as it", t)
	default:
		n.danger("tainted", "%s was set when the program was started, so other code may run as it", t)
	}
}
