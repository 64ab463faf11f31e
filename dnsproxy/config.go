package dnsproxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Peer is who is behind an accepted connection, as the kernel knows it.
type Peer struct {
	Subject policy.Subject
	policy.Caller
}

// Limit is a cap on connections that several servers can share.
type Limit struct {
	Max  int64
	used atomic.Int64
}

func (l *Limit) take() bool {
	if l == nil {
		return true
	}
	if l.used.Add(1) > l.Max {
		l.used.Add(-1)
		return false
	}
	return true
}

func (l *Limit) give() {
	if l != nil {
		l.used.Add(-1)
	}
}

// Config is everything a Server is given. Policy, Identify and Record are needed; the rest has defaults.
type Config struct {
	Policy *policy.Compiled
	Start  time.Time // what a rule's `expires` counts from; zero: now

	// Asker says who sent a DNS query by UDP from client's port; it is for the records only. nil: nobody knows.
	Asker func(client netip.AddrPort) policy.Subject

	// Identify finds who is behind an accepted connection. client is the sandbox's end, local the wanted address; both
	// without v4-mapping. false refuses the connection. It is called on the proxy's own threads and must be quick.
	Identify func(client, local netip.AddrPort) (Peer, bool)
	// Record gets every decision, from several goroutines. It is called before the decision takes effect and must be quick.
	Record func(policy.Decision)
	// Permit is Record for a connection that is about to be let through: an error refuses it. nil: Record. It may take as long as a
	// disk does, and holds up the connections of its thread meanwhile.
	Permit func(policy.Decision) error
	// Learn puts a name's rules into the kernel. It is called once per name, before any answer with its addresses.
	Learn func(name string, a4, a6 netip.Addr) error
	// Ask holds one decision until a person answers, the policy's hold runs out or ctx ends (the client went away).
	// nil: nobody is there, so asked is denied.
	Ask func(ctx context.Context, d policy.Decision) policy.Verdict
	// Granted reports whether a person has allowed this already (object, subject) although the policy's default or an ask
	// rule stands against it. nil: no. It is never consulted about what a deny rule decided. It must be quick.
	Granted func(d policy.Decision) bool

	// Trace is asked of each connection that comes: what it returns has its ids in it, and is given to Traced when the connection is
	// over. nil, or a nil trace: nobody wants to know. Both are called on the proxy's own threads and must be quick.
	Trace  func() *ConnTrace
	Traced func(*ConnTrace)

	// Local is a name that is answered in this process; nil: there is none.
	Local *Local

	// Upstream resolves allowed names; nil: a Resolver over the host's own files.
	Upstream Upstream
	// Dial connects to an address that has been checked; nil: sockets of this process's own network namespace.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// HostProxy returns the proxy that the host itself must use for a destination; nil, or a nil URL: dial directly. Through
	// it connections go by name with CONNECT: what the name resolves to is then for that proxy to judge, not for the guard
	// against inward addresses.
	HostProxy func(host string, port uint16) *url.URL

	BookFile  string // names and their addresses are kept here; "": in memory only
	MaxLearnt int    // names learnt from queries; 0: 4096

	MaxConns int    // connections at once in this server; 0: 1024
	Shared   *Limit // a further cap, shared with other servers; nil: none

	HeaderTimeout time.Duration // for a ClientHello or a request's head to be complete; 0: 10 s
	IdleTimeout   time.Duration // without a byte in either direction; 0: 1 h
	HalfIdle      time.Duration // the same once one side has ended; 0: 5 min
	DialTimeout   time.Duration // for the name and all its addresses together; 0: 15 s

	WildcardRate  float64 // new names per second under one wildcard rule; 0: 5
	WildcardBurst int     // as many at once; 0: 200

	Loops int // threads that carry connections; 0: by the number of processors
}

// withDefaults fills in what was left out, or says what is missing.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Policy == nil {
		errs = append(errs, errors.New("Config.Policy is missing"))
	}
	if c.Identify == nil {
		errs = append(errs, errors.New("Config.Identify is missing: without it nobody could be told apart"))
	}
	if c.Record == nil {
		errs = append(errs, errors.New("Config.Record is missing: decisions must go somewhere"))
	}
	if (c.Trace == nil) != (c.Traced == nil) {
		errs = append(errs, errors.New("Config.Trace and Config.Traced belong together"))
	}
	if c.Upstream == nil {
		c.Upstream = NewResolver(ResolverConfig{})
	}
	if c.Start.IsZero() {
		c.Start = time.Now()
	}
	orInt(&c.MaxLearnt, 4096)
	orInt(&c.MaxConns, 1024)
	orInt(&c.WildcardBurst, 200)
	if c.WildcardRate <= 0 {
		c.WildcardRate = 5
	}
	orTime(&c.HeaderTimeout, 10*time.Second)
	orTime(&c.IdleTimeout, time.Hour)
	orTime(&c.HalfIdle, 5*time.Minute)
	orTime(&c.DialTimeout, 15*time.Second)
	return c, errors.Join(errs...)
}

func orInt(p *int, d int) {
	if *p <= 0 {
		*p = d
	}
}

func orTime(p *time.Duration, d time.Duration) {
	if *p <= 0 {
		*p = d
	}
}
