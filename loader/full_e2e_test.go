//go:build e2e

package loader

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestFullMaps fills maps up: what does not fit is an error, and denied.
func TestFullMaps(t *testing.T) {
	w := newWorldAlone(t, Options{})
	fill(t, w.l.maps.grants, 1<<16, func(i int) bpf.GateGrantKey { return bpf.GateGrantKey{Port: uint32(i)} }, bpf.GateGrant{})
	fill(t, w.l.maps.members, 1<<16, func(i int) bpf.GateMemberKey { return bpf.GateMemberKey{Set: uint32(i)} }, bpf.GateMember{})
	fill(t, w.l.maps.prefixes, 1<<18, func(i int) bpf.GatePrefixKey {
		return bpf.GatePrefixKey{Bits: prefixBits + 128, Cgid: 1, Addr: [4]uint32{uint32(i)}}
	}, bpf.GateRule{})
	for what, err := range map[string]error{
		"grant":  w.Grant(Grant{Addr: addr(name4), Port: 443, Verdict: policy.Allow}),
		"set":    w.SetCommandSet(1, []Member{{w.exe, policy.Allow, 1}}),
		"prefix": w.PutPrefix(netip.MustParsePrefix("10.0.0.0/8"), []PortRule{{Port: 443, Verdict: policy.Allow}}),
	} {
		if err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, w.PutName(addr("198.18.1.2"), netip.Addr{}, []PortRule{{Port: 443, Set: 1, Verdict: policy.Deny}}))
	for _, to := range []string{name4 + ":443", "198.18.1.2:443", "10.1.1.1:443"} {
		if answer, _ := w.in.connect("tcp", to); answer != "EPERM" {
			t.Errorf("what did not fit: connect %s: %s", to, answer)
		}
	}
}

func TestFullFlowsAreServedNobody(t *testing.T) {
	w := newWorldAlone(t, Options{})
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{{Port: 443, Verdict: policy.Allow}}))
	fill(t, w.l.maps.flows, 1<<18, func(i int) bpf.GateTuple { return bpf.GateTuple{Cgid: 1, Local: [4]uint32{uint32(i)}} }, bpf.GatePeer{})
	w.in.get("connect %s %s:443", w.in.socket("tcp", name4+":443"), name4)
	if a := w.proxy.next(); a.known {
		t.Errorf("the proxy knows a connection that could not be remembered: %+v", a)
	}
	if n, err := w.Connections(); n != 0 || err != nil {
		t.Errorf("%d connections counted (%v)", n, err)
	}
}

// fill enters n keys.
func fill[K comparable, V any](t *testing.T, m *ebpf.Map, n int, key func(int) K, value V) {
	t.Helper()
	const step = 1 << 14
	values := slices.Repeat([]V{value}, step)
	for at := 0; at < n; at += step {
		var keys []K
		for i := range step {
			keys = append(keys, key(at+i))
		}
		if _, err := m.BatchUpdate(keys, values, nil); err != nil && !isFull(err) {
			t.Fatal(err)
		}
	}
}
