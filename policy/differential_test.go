package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"strings"
	"testing"
)

// The reference evaluator: every rule is looked at, nothing is indexed, and the meaning is taken from the words of the
// language (docs) rather than from the code it is compared with.

type refNet struct {
	verdict  Verdict
	target   string
	ports    []uint16
	commands []string
}

// specificity is higher for the target to be named first; -1 when it doesn't match.
func (r refNet) specificity(name string, addr netip.Addr) int {
	if p, err := netip.ParsePrefix(r.target); err == nil {
		if addr.IsValid() && p.Contains(addr) {
			return p.Bits()
		}
		return -1
	}
	if addr.IsValid() {
		return -1
	}
	suffix, deep := strings.CutPrefix(r.target, "**")
	if deep {
		if strings.HasSuffix(name, suffix) && len(name) > len(suffix) {
			return 10 * strings.Count(suffix, ".")
		}
		return -1
	}
	suffix, one := strings.CutPrefix(r.target, "*")
	if one {
		if label := strings.TrimSuffix(name, suffix); label != name && label != "" && !strings.Contains(label, ".") {
			return 10*strings.Count(suffix, ".") + 1
		}
		return -1
	}
	if name == r.target {
		return 1000
	}
	return -1
}

func contains[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

func refJudge(rules []refNet, byDefault Verdict, name string, addr netip.Addr, port uint16, command string) (Verdict, string) {
	verdict, target, best := byDefault, "", -1
	for _, r := range rules {
		s := r.specificity(name, addr)
		if s < 0 || len(r.ports) > 0 && !contains(r.ports, port) || len(r.commands) > 0 && !contains(r.commands, command) {
			continue
		}
		if best < 0 || r.verdict < verdict || r.verdict == verdict && s > best {
			verdict, target, best = r.verdict, r.target, s
		}
	}
	return verdict, target
}

// yaml writes the rules of one verb; protocol is tcp, so that no two of them contradict each other.
func (r refNet) yaml() string {
	kind := "domain"
	if strings.Contains(r.target, "/") {
		kind = "cidr"
	}
	s := fmt.Sprintf("    - {%s: %q, protocol: tcp", kind, r.target)
	if len(r.ports) > 0 {
		s += ", ports: " + strings.ReplaceAll(fmt.Sprint(r.ports), " ", ", ")
	}
	if len(r.commands) > 0 {
		s += ", commands: [" + strings.Join(r.commands, ", ") + "]"
	}
	return s + "}\n"
}

// pick returns one of list; the lists are short, so that rules and questions often meet.
func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func randomName(r *rand.Rand) string {
	name := pick(r, "example.org", "b.net", "org")
	for range r.IntN(4) {
		name = pick(r, "a", "b", "xn--bcher-kva") + "." + name
	}
	return name
}

func randomTarget(r *rand.Rand) string {
	if r.IntN(4) == 0 {
		p := netip.PrefixFrom(randomAddr(r), 0)
		p = netip.PrefixFrom(p.Addr(), 1+r.IntN(p.Addr().BitLen()))
		return p.Masked().String()
	}
	name := randomName(r)
	wild := pick(r, "", "", "*.", "**.")
	if name == "org" {
		wild = ""
	}
	return wild + name
}

func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), byte(r.IntN(2)), byte(r.IntN(4))})
	}
	a := [16]byte{0: 0x20, 1: 0x01, 2: 0x0d, 3: 0xb8}
	a[15], a[7] = byte(r.IntN(4)), byte(r.IntN(2))
	return netip.AddrFrom16(a)
}

func TestNetworkAgainstReference(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var rules []refNet
		src := "network:\n  default: " + pick(r, "deny", "ask") + "\n"
		byDefault := Deny
		if strings.Contains(src, "ask") {
			byDefault = Ask
		}
		for _, v := range []Verdict{Allow, Ask, Deny} {
			src += "  " + v.String() + ":\n"
			if v == Deny {
				src += "    - {domain: never.example.com}\n"
			} else {
				src += "    - {domain: never.example.com, ports: [1], protocol: tcp}\n"
			}
			for range r.IntN(12) {
				rule := refNet{verdict: v, target: randomTarget(r), ports: pick(r, []uint16{80}, []uint16{443}, []uint16{80, 443})}
				if v == Deny && r.IntN(2) == 0 {
					rule.ports = nil
				}
				rule.commands = pick(r, nil, nil, []string{"node"}, []string{"git", "node"})
				rules = append(rules, rule)
				src += rule.yaml()
			}
		}
		n := &compile(t, src).Network
		for range 200 {
			var name string
			var addr netip.Addr
			var found []*NetRule
			if r.IntN(3) == 0 {
				addr = randomAddr(r)
				found = n.MatchAddr(addr)
			} else {
				name = randomName(r)
				found = n.Match(name)
			}
			port, command := pick[uint16](r, 80, 443, 22), pick(r, "", "node", "git")
			var is func(string) bool
			if command != "" {
				is = func(c string) bool { return c == command }
			}
			wantVerdict, wantTarget := refJudge(rules, byDefault, name, addr, port, command)
			verdict, rule := n.Judge(found, port, Caller{Is: is})
			target := ""
			if rule != nil {
				target = rule.target()
			}
			if verdict != wantVerdict || target != wantTarget {
				t.Fatalf("seed %d: %s%v port %d by %q: %v by %q, want %v by %q\n%s", seed, name, addr, port, command, verdict, target, wantVerdict, wantTarget, src)
			}
		}
	}
}

type refFile struct {
	deny   bool
	path   string
	access Access
}

func refAccess(rules []refFile, p string) (access, denied Access) {
	longest := ""
	for _, r := range rules {
		if !r.deny && covers(r.path, p) && len(r.path) > len(longest) {
			longest = r.path
		}
	}
	for _, r := range rules {
		switch {
		case r.deny && covers(r.path, p):
			denied |= r.access
		case !r.deny && r.path == longest:
			access |= r.access
		}
	}
	return access &^ denied, denied
}

func covers(rule, p string) bool {
	return rule == p || strings.HasPrefix(p, strings.TrimSuffix(rule, "/")+"/")
}

func randomPath(r *rand.Rand) string {
	p := "/"
	for range r.IntN(5) {
		p = path.Join(p, pick(r, "a", "b", "ab"))
	}
	return p
}

func TestFilesAgainstReference(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		var rules []refFile
		src := "filesystem:\n"
		for _, verb := range []string{"allow", "deny"} {
			src += "  " + verb + ":\n    - {path: /never, permissions: [read]}\n"
			for range r.IntN(8) {
				f := refFile{verb == "deny", randomPath(r), Access(1 + r.IntN(7))}
				rules = append(rules, f)
				src += fmt.Sprintf("    - {path: %s, permissions: [%s]}\n", f.path, f.access)
			}
		}
		f := &compile(t, src).Files
		for range 100 {
			p := randomPath(r)
			access, rule, found := f.Access(p)
			wantAccess, wantDenied := refAccess(rules, p)
			if access != wantAccess || rule.Denied != wantDenied || !found && wantAccess|wantDenied != 0 {
				t.Fatalf("seed %d: %s allows %v, denies %v; want %v, %v\n%s", seed, p, access, rule.Denied, wantAccess, wantDenied, src)
			}
		}
	}
}
