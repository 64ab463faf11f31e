package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// bigPolicy has rules rules, four fifths of them about the network.
func bigPolicy(rules int) []byte {
	var b strings.Builder
	b.WriteString("network:\n  allow:\n")
	for i := range rules * 2 / 5 {
		fmt.Fprintf(&b, "    - {domain: host%d.example%d.org, ports: [443], protocol: https}\n", i, i%100)
	}
	for i := range rules / 5 {
		fmt.Fprintf(&b, "    - {domain: \"*.wild%d.example.org\", ports: [443, 8443], protocol: https}\n", i)
	}
	for i := range rules / 5 {
		fmt.Fprintf(&b, "    - {cidr: %s, ports: [5432], protocol: tcp}\n", netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	b.WriteString("filesystem:\n  allow:\n")
	for i := range rules / 5 {
		fmt.Fprintf(&b, "    - {path: /srv/dir%d/sub, permissions: [read]}\n", i)
	}
	return []byte(b.String())
}

func compileCounting(t testing.TB, src []byte) *merge {
	t.Helper()
	p, err := Parse("big.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	m := newMerge(p.File)
	m.add(p)
	m.settings(p)
	m.finish()
	if err := m.err(); err != nil {
		t.Fatal(err)
	}
	return m
}

// Ten times the rules take ten times the steps: counted, so that a busy machine can't fail it.
func TestCompileIsLinear(t *testing.T) {
	small, big := compileCounting(t, bigPolicy(1000)).steps, compileCounting(t, bigPolicy(10000)).steps
	if big > 11*small {
		t.Errorf("1,000 rules take %d steps, 10,000 take %d", small, big)
	}
}

// What a look-up allocates and finds does not depend on how many rules there are.
func TestLookupsDontGrow(t *testing.T) {
	for _, rules := range []int{100, 10000} {
		c := compileCounting(t, bigPolicy(rules)).out
		if got := len(c.Network.index.bits4); got != 1 {
			t.Errorf("%d rules: an address takes %d look-ups, want one per prefix length in use", rules, got)
		}
		allocs := testing.AllocsPerRun(100, func() {
			if len(c.Network.Match("x.wild3.example.org")) != 1 || len(c.Network.Match("host5.example5.org")) != 1 || c.Network.Match("a.b.c.d.e.f.example.net") != nil {
				t.Error("wrong match")
			}
			if len(c.Network.MatchAddr(netip.AddrFrom4([4]byte{10, 0, 3, 9}))) != 1 {
				t.Error("wrong match of an address")
			}
		})
		if allocs != 0 {
			t.Errorf("%d rules: %v allocations", rules, allocs)
		}
	}
}

func BenchmarkParse10000(b *testing.B) {
	src := bigPolicy(10000)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		if _, err := Parse("big.yaml", src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompile10000(b *testing.B) {
	p, err := Parse("big.yaml", bigPolicy(10000))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, rules := range []int{10, 10000} {
		n := &compileCounting(b, bigPolicy(rules)).out.Network
		b.Run(fmt.Sprintf("name/%d", rules), func(b *testing.B) {
			for b.Loop() {
				n.Match("x.wild1.example.org")
			}
		})
		addr := netip.AddrFrom4([4]byte{10, 0, 1, 9})
		b.Run(fmt.Sprintf("addr/%d", rules), func(b *testing.B) {
			for b.Loop() {
				n.MatchAddr(addr)
			}
		})
	}
}
