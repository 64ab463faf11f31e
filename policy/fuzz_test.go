package policy

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever the bytes: no panic, a policy or an error and never both, every error with its file, every accepted policy
// one that compiles twice to the same revision or is refused with a reason.
func FuzzParse(f *testing.F) {
	seed, err := os.ReadFile("../examples/seed.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(Initial())
	f.Add([]byte(explained))
	for _, tt := range refusals {
		f.Add([]byte(tt.src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := Parse("p.yaml", src)
		if err != nil {
			if p != nil {
				t.Fatal("a policy beside an error")
			}
			checkErrors(t, err)
			return
		}
		c, err := Compile(p)
		if err != nil {
			checkErrors(t, err)
			return
		}
		again, err := Compile(p)
		if err != nil || again.Revision != c.Revision {
			t.Fatalf("compiled twice: %v, %s and %s", err, c.Revision, again.Revision)
		}
		for i, r := range c.Rules {
			if !utf8.ValidString(r.Text) || strings.ContainsAny(r.Text, "\n\x00") || r.Pos == "" {
				t.Fatalf("rule %d is %+q", i, r)
			}
		}
		for i := range c.Network.Rules {
			r := &c.Network.Rules[i]
			if r.Verdict != Deny && len(r.Ports) == 0 {
				t.Fatalf("a rule for every port: %+v", r)
			}
			if r.Name == "" && !r.Prefix.IsValid() {
				t.Fatalf("a rule about nothing: %+v", r)
			}
		}
		c.Warnings()
	})
}

func checkErrors(t *testing.T, err error) {
	t.Helper()
	var all Errors
	if !errors.As(err, &all) || len(all) == 0 || len(all) > maxErrors+1 {
		t.Fatalf("not Errors: %v", err)
	}
	for _, e := range all {
		if e.File == "" || e.Msg == "" || !utf8.ValidString(e.Error()) || strings.ContainsAny(e.Error(), "\n\x1b\x00") {
			t.Fatalf("unfit to be shown: %q", e)
		}
	}
}

// A name from inside: no panic, and what is found does cover it.
func FuzzMatch(f *testing.F) {
	f.Add("a.b.example.org")
	f.Add("..")
	f.Add("A.Example.ORG.")
	f.Add("xn--bcher-kva.example.org")
	n := compile(f, names).Network
	f.Fuzz(func(t *testing.T, name string) {
		canonical := strings.ToLower(strings.TrimSuffix(name, "."))
		for _, r := range n.Match(name) {
			if (refNet{target: r.Name}).specificity(canonical, netip.Addr{}) < 0 {
				t.Fatalf("%q matched %s", name, r.Name)
			}
		}
	})
}

// An object from inside: what is suggested is a policy that parses.
func FuzzSuggest(f *testing.F) {
	f.Add("a.example.org:443", uint8(0))
	f.Add("/tmp/a\nb", uint8(1))
	f.Add("[::1%a]:1", uint8(0))
	f.Add("true", uint8(2))
	planes := []Plane{PlaneNetwork, PlaneFile, PlaneExec, PlaneDNS}
	f.Fuzz(func(t *testing.T, object string, plane uint8) {
		s := Suggest(Decision{Plane: planes[int(plane)%len(planes)], Object: object})
		if s == "" {
			return
		}
		if p, err := Parse("s.yaml", []byte(s)); err != nil {
			t.Fatalf("%q: %v\n%s", object, err, s)
		} else if _, err := Compile(p); err != nil {
			t.Fatalf("%q: %v\n%s", object, err, s)
		}
	})
}

// Canonical is a fixed point, and never gives what a resolver takes for an address.
func FuzzCanonical(f *testing.F) {
	f.Add("Bücher.example.org")
	f.Add("１.２.３.４")
	f.Add("xn--bcher-kva.example.org.")
	f.Fuzz(func(t *testing.T, name string) {
		s, ok := Canonical(name)
		if !ok {
			return
		}
		if again, ok := Canonical(s); !ok || again != s {
			t.Fatalf("%q gives %q gives %q, %v", name, s, again, ok)
		}
		if _, err := netip.ParseAddr(s); err == nil || len(s) > maxName {
			t.Fatalf("%q gives %q", name, s)
		}
	})
}
