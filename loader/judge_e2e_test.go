//go:build e2e

package loader

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// reference is the decision of bpf/decide.h, written down a second time.
type reference struct {
	fallback policy.Verdict
	grants   []Grant
	names    []AddrRules
	prefixes []prefixRules
	sets     map[uint32][]Member
}

type prefixRules struct {
	prefix netip.Prefix
	ports  []PortRule
}

func (r *reference) decide(exe FileID, tainted bool, to netip.Addr, port uint16, now time.Time) (policy.Verdict, policy.RuleID) {
	for _, who := range []FileID{exe, {}} {
		for _, g := range r.grants {
			if tainted && who == exe && g.Verdict != policy.Deny {
				continue
			}
			if g.Exe == who && g.Addr == to && g.Port == port && (g.Until.IsZero() || g.Until.After(now)) {
				return g.Verdict, g.Rule
			}
		}
	}
	verdict, rule, found := r.fallback, policy.RuleID(0), false
	for _, p := range []uint16{port, 0} {
		e := r.entry(to, p)
		if e == nil || (!e.Expires.IsZero() && !e.Expires.After(now)) {
			continue
		}
		v, id := e.Verdict, e.Rule
		for _, m := range r.sets[e.Set] {
			if m.File == exe && (!tainted || m.Verdict < v) {
				v, id = m.Verdict, m.Rule
			}
		}
		if !found || v < verdict {
			verdict, rule = v, id
		}
		found = true
	}
	return verdict, rule
}

// entry returns what is said of exactly this port: of the name, or of the longest prefix that says anything of it.
func (r *reference) entry(to netip.Addr, port uint16) *PortRule {
	if Synthetic4.Contains(to) || Synthetic6.Contains(to) {
		for i := range r.names {
			if r.names[i].Addr != to {
				continue
			}
			for j := range r.names[i].Ports {
				if p := &r.names[i].Ports[j]; p.Port == port {
					return p
				}
			}
		}
		return nil
	}
	var best *PortRule
	bits := -1
	for i := range r.prefixes {
		p := &r.prefixes[i]
		if !p.prefix.Contains(to) || p.prefix.Bits() <= bits {
			continue
		}
		for j := range p.ports {
			if p.ports[j].Port == port {
				best, bits = &p.ports[j], p.prefix.Bits()
			}
		}
	}
	return best
}

// TestDecisionCore judges random queries under random rules with the program and with the reference.
func TestDecisionCore(t *testing.T) {
	l := commonLoader(t)
	judge := loadJudge(t, l)
	var exes []FileID
	for _, path := range []string{"/bin/true", "/bin/false", "/bin/sh"} {
		exes = append(exes, held(t, l, path))
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	one := func(n int) int { return random.IntN(n) }
	verdict := func() policy.Verdict { return policy.Verdict(one(3)) }
	when := func() time.Time {
		return []time.Time{{}, {}, time.Now().Add(time.Hour), time.Now().Add(-time.Hour)}[one(4)]
	}
	names := []netip.Addr{addr("198.18.1.1"), addr("198.18.1.2"), addr("fd6e:656d:6f63::1:1"), addr("fd6e:656d:6f63::1:2")}
	literals := []netip.Addr{addr("10.1.2.3"), addr("10.1.2.4"), addr("10.1.9.9"), addr("10.9.9.9"), addr("9.9.9.9"), addr("2001:db8::1"), addr("2001:db8:1::1"), addr("2001:db9::1")}
	prefixes := []netip.Prefix{}
	for _, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8:1::/48", "::/0"} {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	verdicts := map[policy.Verdict]int{}
	for round := range 60 {
		r := &reference{fallback: policy.Verdict(one(2)), sets: map[uint32][]Member{}}
		b := newBox(t, l, Options{Default: r.fallback, Revision: uint32(round)})
		ports := func() []PortRule {
			var rules []PortRule
			for p := range uint16(3) {
				if one(2) == 0 {
					rules = append(rules, PortRule{Port: p, Verdict: verdict(), Rule: policy.RuleID(1 + one(1000)), Set: uint32(one(4)), Expires: when()})
				}
			}
			return rules
		}
		for set := uint32(1); set <= 2; set++ {
			for _, exe := range exes[:2] {
				if one(2) == 0 {
					r.sets[set] = append(r.sets[set], Member{exe, verdict(), policy.RuleID(1 + one(1000))})
				}
			}
			must(t, b.SetCommandSet(set, r.sets[set]))
		}
		for _, a := range names {
			r.names = append(r.names, AddrRules{a, ports()})
		}
		must(t, b.Live().PutAddrs(r.names))
		for _, p := range prefixes {
			if one(3) != 0 {
				r.prefixes = append(r.prefixes, prefixRules{p, ports()})
				must(t, b.PutPrefix(p, r.prefixes[len(r.prefixes)-1].ports))
			}
		}
		granted := map[Grant]bool{}
		for range one(4) {
			key := Grant{Exe: append(exes, FileID{})[one(4)], Addr: append(names, literals...)[one(12)], Port: uint16(1 + one(2))}
			if granted[key] {
				continue
			}
			granted[key] = true
			key.Verdict, key.Rule, key.Until = verdict(), policy.RuleID(1+one(1000)), when()
			r.grants = append(r.grants, key)
			must(t, b.Grant(key))
		}
		for range 300 {
			exe, to, port := exes[one(3)], append(names, literals...)[one(12)], uint16(1+one(3))
			tainted := one(2)
			wantV, wantR := r.decide(exe, tainted == 1, to, port, time.Now())
			gotV, gotR := judge(bpf.JudgeQuery{
				Exe:  bpf.JudgeFileId(exe.key()),
				Cgid: b.cgid, Now: bootNow(), Addr: words(to), Revision: uint32(round), Port: port, Fallback: uint8(r.fallback), Tainted: uint8(tainted),
			})
			verdicts[wantV]++
			if gotV != wantV || gotR != wantR {
				t.Fatalf("round %d: %s port %d by %+v, tainted %d: program says %s by rule %d, reference %s by rule %d\n%+v",
					round, to, port, exe, tainted, gotV, gotR, wantV, wantR, r)
			}
		}
		must(t, b.Close())
	}
	if len(verdicts) != 3 {
		t.Errorf("not all verdicts came up: %v", verdicts)
	}
}

// loadJudge loads the decision core with the loader's own maps.
func loadJudge(t testing.TB, l *Loader) func(bpf.JudgeQuery) (policy.Verdict, policy.RuleID) {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.JudgeObject()))
	must(t, err)
	shared := map[string]*ebpf.Map{}
	for name, m := range l.maps.byName() {
		if _, ok := spec.Maps[name]; ok {
			shared[name] = *m
		}
	}
	objects, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	must(t, err)
	t.Cleanup(objects.Close)
	program := objects.Programs[bpf.JudgeProgJudge]
	return func(q bpf.JudgeQuery) (policy.Verdict, policy.RuleID) {
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&q)), unsafe.Sizeof(q))
		ret, err := program.Run(&ebpf.RunOptions{Context: raw})
		must(t, err)
		return policy.Verdict(ret >> 30), policy.RuleID(ret & 0x3fffffff)
	}
}

// BenchmarkConnect measures connect and close of a refused and of an allowed connection, in a sandbox and outside of
// any, with few and with many rules. Refusals cost less than native because nothing is connected.
func BenchmarkConnect(b *testing.B) {
	l := openLoader(b, privateConfig(b))
	n := newNet(b)
	for _, rules := range []int{0, 1, 10000} {
		name := []string{"native", "1 rule", "10000 rules"}[min(rules, 1)+rules/10000]
		b.Run(name, func(b *testing.B) {
			box := newBox(b, l, Options{MaxConns: 1 << 20})
			must(b, box.SetExec([]ExecEntry{{File: self(b, l), Quiet: true}}))
			addrs := []AddrRules{{addr(name4), []PortRule{{Port: 443, Verdict: policy.Allow}}}}
			next := addr("198.18.2.0")
			for len(addrs) < rules {
				addrs = append(addrs, AddrRules{next, []PortRule{{Port: 443, Verdict: policy.Allow}}})
				next = next.Next()
			}
			start := time.Now()
			must(b, box.Live().PutAddrs(addrs))
			b.Logf("%d rules put in %v", len(addrs), time.Since(start))
			p := startProxy(b, n, box.Guard)
			defer p.stop()
			dir := box.dir
			if rules == 0 {
				dir = nil
			}
			v := startVictim(b, n, dir)
			for _, port := range []string{"443", "444"} {
				if rules == 0 && port == "444" {
					continue
				}
				b.Run(map[string]string{"443": "allowed", "444": "refused"}[port], func(b *testing.B) {
					ns := v.get("bench %s:%s %d", name4, port, b.N)
					d, err := time.ParseDuration(ns)
					must(b, err)
					b.ReportMetric(float64(d.Nanoseconds())/float64(b.N), "ns/connect")
				})
			}
		})
	}
}

// BenchmarkStart measures what a sandbox's start needs of this package.
func BenchmarkStart(b *testing.B) {
	cfg := privateConfig(b)
	l := openLoader(b, cfg)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			again, err := Open(cfg)
			must(b, err)
			must(b, again.Close())
		}
	})
	dir := makeCgroup(b, l)
	b.Run("guard", func(b *testing.B) {
		for b.Loop() {
			g, err := l.NewGuard(dir, Options{MaxConns: 10})
			must(b, err)
			must(b, g.Close())
		}
	})
	g, err := l.NewGuard(dir, Options{})
	must(b, err)
	defer func() { must(b, g.Close()) }()
	b.Run("identify", func(b *testing.B) {
		f, err := os.OpenFile("/bin/true", unix.O_PATH, 0)
		must(b, err)
		defer f.Close()
		for b.Loop() {
			_, err := l.Identify(int(f.Fd()))
			must(b, err)
		}
	})
	n := newNet(b)
	b.Run("netns", func(b *testing.B) {
		for b.Loop() {
			c, err := g.AttachNetns(int(n.fd.Fd()), Sockets{})
			must(b, err)
			must(b, c.Close())
		}
	})
}
