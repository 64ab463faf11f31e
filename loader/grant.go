package loader

import (
	"errors"
	"net/netip"
	"time"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Grant is a person's answer about one address and port, which is looked up before every rule. A deny is an answer
// too: a remembered rejection.
type Grant struct {
	Exe     FileID // zero: any executable
	Addr    netip.Addr
	Port    uint16
	Verdict policy.Verdict
	Rule    policy.RuleID
	Until   time.Time // zero: as long as the sandbox lives
	Once    bool      // the first connection takes it away
}

func (g *Guard) grantKey(gr Grant) bpf.GateGrantKey {
	return bpf.GateGrantKey{Cgid: g.cgid, Exe: gr.Exe.key(), Addr: words(gr.Addr), Port: uint32(gr.Port)}
}

// Grant enters an answer; it replaces an earlier one for the same executable, address and port.
func (g *Guard) Grant(gr Grant) error {
	if !gr.Addr.IsValid() || gr.Port == 0 {
		return errors.New("put a grant into the kernel: it needs an address and a port")
	}
	value := bpf.GateGrant{Expires: deadline(gr.Until), Rule: uint32(gr.Rule), Verdict: uint8(gr.Verdict)}
	if gr.Once {
		value.Once = 1
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	key := g.grantKey(gr)
	g.grants[key] = struct{}{}
	if err := g.l.maps.grants.Put(key, value); err != nil {
		return putError("a grant", err)
	}
	return nil
}

// Revoke takes a grant for this executable, address and port away. Connections that it let through go on.
func (g *Guard) Revoke(gr Grant) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	key := g.grantKey(gr)
	delete(g.grants, key)
	return remove(g.l.maps.grants, key)
}
