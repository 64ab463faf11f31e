package dnsproxy

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/nemoclaw/nemoclaw/policy"
)

// resolve finds the addresses that may be dialled.
func (c *conn) resolve() {
	c.resolved = true
	if c.to.name != "" {
		c.enter(StepResolve)
	}
	if c.s.cfg.HostProxy != nil && c.s.cfg.HostProxy(c.to.host(), c.to.port) != nil {
		if c.to.name != "" && !c.learn() {
			return
		}
		c.viaProxy = true
		c.proceed()
		return
	}
	if c.to.name == "" {
		c.admit([]netip.Addr{c.to.addr})
		return
	}
	if !c.learn() {
		return
	}
	if e, ok := c.s.names.get(c.to.name); ok {
		c.admitName(e)
		return
	}
	var e cachedName
	var err error
	c.work(c.s.cfg.DialTimeout, func(ctx context.Context) { e, err = c.s.names.resolve(ctx, c.to.name) }, func() {
		if err != nil {
			c.fail(fmt.Sprintf("the host's resolvers did not answer for %s", c.to.name))
			return
		}
		c.admitName(e)
	}, nil)
}

// learn makes sure that the name is one of the sandbox's: a name that comes by CONNECT, in a URI or as SNI meets the same
// limits as one that was asked of the resolver, because each new one is told to the host's resolvers.
func (c *conn) learn() bool {
	_, _, refused := c.s.address(c.pol, c.to.name, c.rule.rule, func() policy.Subject { return c.peer.Subject })
	if refused != nil {
		c.refuse(rulePos(c.pol, c.rule.rule), "too many new names: the limits of the sandbox's resolver apply here too", alertAccess)
	}
	return refused == nil
}

func (c *conn) admitName(e cachedName) {
	if len(e.IPv4)+len(e.IPv6) == 0 {
		c.fail(fmt.Sprintf("%s has no address (asked of the host's resolvers)", c.to.name))
		return
	}
	c.admit(interleave(e.IPv6, e.IPv4))
}

// admit keeps the addresses that the guard lets through; with none left the connection is refused.
func (c *conn) admit(addrs []netip.Addr) {
	ok, bad, by, why := c.s.admitted(c.pol, addrs, c.to.port, c.peer.Caller)
	switch {
	case len(ok) > 0:
		c.addrs = ok
		c.proceed()
	case by != nil:
		c.refuse(rulePos(c.pol, by), fmt.Sprintf("it leads to %s, and %s", bad, why), alertAccess)
	default:
		reason := fmt.Sprintf("it leads to %s, and %s; name that address in a cidr rule if it is meant", bad, why)
		if c.to.name == "" {
			reason = fmt.Sprintf("%s may not be dialled: %s; name it in a cidr rule within that range if it is meant", bad, why)
		}
		c.refuse("builtin", reason, alertAccess)
	}
}

// interleave orders addresses as RFC 8305 does: families take turns, IPv6 first, each in the order of its answer.
func interleave(six, four []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(six)+len(four))
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			out = append(out, six[i])
		}
		if i < len(four) {
			out = append(out, four[i])
		}
	}
	return out
}
