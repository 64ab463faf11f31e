package offer

import (
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// wanted is the access that an action on a file needs.
func wanted(action string) policy.Access {
	switch {
	case action == "read and write":
		return policy.Read | policy.Write
	case policy.ReadsOnly(action):
		return policy.Read
	case action == "execute":
		return policy.Execute
	}
	return policy.Write
}

func file(d policy.Decision, c *policy.Compiled) []Offer {
	p := d.Object
	if p == "" || p[0] != '/' || path.Clean(p) != p {
		return nil
	}
	want := wanted(d.Action)
	by := "a program that isn't known"
	if d.Subject.Exe != "" {
		by = shown(d.Subject.Exe)
	}
	// A rule covers all below its path. Of a directory that is another offer; of the rest nothing says whether it is one.
	var allow *policy.RuleSpec
	dir := p
	if !aDirectory(d.Action) {
		dir = path.Dir(p)
		if whole(p) {
			allow = fileRule(c, p, want)
		}
	}
	this := attempted(by+" may "+verbs(want)+" "+shown(p), allow, &policy.RuleSpec{Verdict: "deny", Path: p, Permissions: words(want)})
	for _, g := range c.Files.Written() {
		here := g.Verdict == policy.Ask && g.Path == p && g.Access&want == want && c.Rule(g.RuleFor(want)).Pos == d.Rule
		if here && !strings.HasPrefix(d.Rule, "preset:") && whole(p) && !aDirectory(d.Action) {
			access, _, _ := c.Files.Access(p)
			this = attempted(this.Text, &policy.RuleSpec{Verdict: "allow", Path: p, Permissions: words(want | policy.Read | access)}, this.Deny)
			this.Instead = &policy.RuleSpec{Verdict: "ask", Path: p, Permissions: words(want)}
		}
	}
	if this.Allow != nil {
		this.Text += "; always: any program, and what is below it"
	}
	list := []Offer{this}
	if want == policy.Read && whole(dir) && policy.Reveals(p) == "" && fileRule(c, p, want) != nil {
		list = append(list, wider(Directory, "any program may read everything below "+shown(dir), fileRule(c, dir, want),
			&policy.RuleSpec{Verdict: "deny", Path: dir, Permissions: words(want)}))
	}
	return list
}

// fileRule is the rule that gives access to a path and takes none that is there: a rule for a path stands instead of those above it.
// It is nil where another rule decides before it.
func fileRule(c *policy.Compiled, p string, want policy.Access) *policy.RuleSpec {
	access, rule, _ := c.Files.Access(p)
	beaten := rule.Denied
	for _, bit := range []policy.Access{policy.Read, policy.Write, policy.Execute} {
		if rule.Asked&bit != 0 && rule.RuleFor(bit) != 0 {
			beaten |= bit
		}
	}
	if want&beaten != 0 {
		return nil
	}
	return &policy.RuleSpec{Verdict: "allow", Path: p, Permissions: words((want | policy.Read | access) &^ beaten)}
}

// aDirectory reports whether an action is on directories only.
func aDirectory(action string) bool {
	return slices.Contains([]string{"readdir", "chdir", "chroot"}, action)
}

// homes are where people's files begin, and what holds all sorts of things.
var homes = []string{"/home", "/root", "/var", "/var/lib", "/var/run", "/run", "/run/user", "/mnt", "/media", "/proc", "/sys", "/dev"}

// whole reports whether all below a path may become a rule: it is no home, not the system's, and holds no secret that is known.
func whole(p string) bool {
	parent := path.Dir(p)
	if p == "/" || parent == "/" || parent == "/home" || slices.Contains(homes, p) || policy.Reveals(p) != "" {
		return false
	}
	return !slices.ContainsFunc(policy.BaselineSecrets, func(s policy.Secret) bool { return strings.HasPrefix(s.Path, p+"/") })
}

func words(a policy.Access) []string {
	var list []string
	for _, x := range []policy.Access{policy.Read, policy.Write, policy.Execute} {
		if a&x != 0 {
			list = append(list, x.String())
		}
	}
	return list
}

func verbs(a policy.Access) string { return strings.Join(words(a), " and ") }

func exec(d policy.Decision, c *policy.Compiled) []Offer {
	p := d.Object
	if p == "" || p[0] != '/' || path.Clean(p) != p {
		return nil
	}
	deny := &policy.RuleSpec{Verdict: "deny", Command: p}
	var allow *policy.RuleSpec
	if command := policy.SuggestedCommand(p); command != "" && !programBeaten(d, c) {
		allow = &policy.RuleSpec{Verdict: "allow", Command: command}
	}
	for _, asks := range c.Exec.Ask {
		if c.Rule(asks.ID).Pos == d.Rule && len(asks.Helpers) == 0 && !strings.HasPrefix(d.Rule, "preset:") && (asks.Name == p || asks.Name == path.Base(p)) {
			o := attempted(shown(p)+" may be executed", &policy.RuleSpec{Verdict: "allow", Command: asks.Name}, deny)
			o.Instead = &policy.RuleSpec{Verdict: "ask", Command: asks.Name}
			return []Offer{o}
		}
	}
	return []Offer{attempted(shown(p)+" may be executed", allow, deny)}
}

// programBeaten reports whether a rule decides about a program before one that would be added.
func programBeaten(d policy.Decision, c *policy.Compiled) bool {
	a := c.Explain(policy.Query{Action: policy.QueryExec, Path: d.Object})
	by := func(x policy.Command) bool { pos := c.Rule(x.ID).Pos; return pos == d.Rule || pos == a.Rule.Pos }
	return slices.ContainsFunc(slices.Concat(c.Exec.Ask, c.Exec.Deny), by) || a.Verdict == policy.Deny && a.Rule.Pos != "default"
}
