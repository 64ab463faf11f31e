//go:build e2e

package attacks

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	doc        = "../../docs/levels.md"
	beginTable = "<!-- What follows is written by `UPDATE=1 go test -tags e2e ./test/attacks` (as root) from what the attempts gave. -->\n"
	endTable   = "<!-- end of the attempts -->\n"
)

// compare wants docs/levels.md to say what the planes, all of which passed, say.
func compare(t *testing.T, planes []*plane) {
	t.Helper()
	b, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(b), beginTable)
	old, tail, ok2 := strings.Cut(rest, endTable)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost the marks of its attempts", doc)
	}
	now := tables(planes)
	switch {
	case old == now:
	case os.Getenv("UPDATE") == "":
		t.Errorf("%s does not say what the attempts gave: write it with UPDATE=1", doc)
	default:
		if err := os.WriteFile(doc, []byte(head+beginTable+now+endTable+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// tables writes a table for each plane, and what is open.
func tables(planes []*plane) string {
	var tables, opened strings.Builder
	live, through := 0, 0
	last := ""
	for _, p := range planes {
		name := strings.ToUpper(p.name[:1]) + p.name[1:]
		if p.name == "dns" {
			name = "DNS"
		}
		if name != last {
			fmt.Fprintf(&tables, "\n### %s\n\n| attempt | natively | inside | recorded |\n|---|---|---|---|\n", name)
			last = name
		}
		for _, a := range p.table {
			live++
			if a.open != "" {
				through++
				fmt.Fprintf(&opened, "| %s | %s |\n", a.name, a.open)
			}
			fmt.Fprintf(&tables, "| %s | %s | %s | %s |\n", a.name, a.nativeWord(), a.insideWord(), a.recordWord(p))
		}
	}
	return fmt.Sprintf("**%d attempts that work natively; %d are let through, all of which this level cannot stop.**\n", live, through) +
		"\n| let through | why, and what would stop it |\n|---|---|\n" + opened.String() + tables.String()
}

func (a *attempt) nativeWord() string {
	if a.user {
		return "works"
	}
	return "works for root"
}

func (a *attempt) insideWord() string {
	switch {
	case a.open != "":
		return "**works**"
	case a.inside == "":
		return a.note
	case strings.HasPrefix(a.inside, "signal: "):
		return strings.TrimPrefix(a.inside, "signal: ")
	case strings.ToUpper(a.inside) == a.inside && len(a.inside) > 3:
		return "`" + a.inside + "`"
	}
	return a.inside
}

func (a *attempt) recordWord(p *plane) string {
	switch {
	case strings.HasPrefix(a.record, "+"):
		return "yes, folded"
	case a.record != "":
		return "yes"
	case a.landlock:
		return "where the kernel's audit is on"
	case p.refused != "":
		return "the error names file and line"
	}
	return "no"
}
