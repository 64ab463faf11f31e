package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Addresses is what a name resolves to upstream.
type Addresses struct {
	IPv4, IPv6 []netip.Addr
	NXDomain   bool          // the name does not exist
	TTL        time.Duration // how long the answer holds; not clamped
}

// Upstream asks the host's resolvers. The server calls it only for names that the policy allows.
type Upstream interface {
	// Lookup asks for both address families of a canonical name. An error means that nobody answered.
	Lookup(ctx context.Context, name string) (Addresses, error)
	// Query asks for records of another type. The records returned belong to the name or to its CNAME chain.
	Query(ctx context.Context, name string, qtype uint16) (rcode int, records []dns.RR, err error)
}

// ResolverConfig says how a Resolver asks. The zero value reads the host's own files.
type ResolverConfig struct {
	Servers    []netip.AddrPort // asked in this order; empty: the nameserver lines of ResolvConf
	ResolvConf string           // "": /etc/resolv.conf. Read again when it changes. Its search list is not applied
	Hosts      string           // "": /etc/hosts, "-": none. Consulted first; read again when it changes
	Timeout    time.Duration    // for one server and one try; 0: 2 s
	Attempts   int              // rounds over the servers; 0: 2
}

// Resolver is the Upstream that asks real servers. It does not cache. Each query has a socket, so a source port, and a
// random id of its own, and an answer counts only when its id, question and sender match.
type Resolver struct {
	cfg   ResolverConfig
	hosts *watched[map[string]Addresses]
	conf  *watched[[]netip.AddrPort]
}

// NewResolver makes a Resolver. Files are read when first needed.
func NewResolver(cfg ResolverConfig) *Resolver {
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.Hosts == "" {
		cfg.Hosts = "/etc/hosts"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = 2
	}
	r := &Resolver{cfg: cfg, conf: &watched[[]netip.AddrPort]{path: cfg.ResolvConf, parse: parseResolvConf}}
	if cfg.Hosts != "-" {
		r.hosts = &watched[map[string]Addresses]{path: cfg.Hosts, parse: parseHosts}
	}
	return r
}

// hostsTTL is how long an entry of the hosts file is taken to hold.
const hostsTTL = 5 * time.Second

// Lookup implements Upstream.
func (r *Resolver) Lookup(ctx context.Context, name string) (Addresses, error) {
	if r.hosts != nil {
		if hosts, err := r.hosts.get(); err == nil {
			if a, ok := hosts[name]; ok {
				a.TTL = hostsTTL
				return a, nil
			}
		}
	}
	type half struct {
		rcode int
		chain chain
		err   error
	}
	ask := func(qtype uint16) half {
		rcode, msg, err := r.exchange(ctx, name, qtype)
		if err != nil {
			return half{err: err}
		}
		return half{rcode: rcode, chain: followChain(msg, name, qtype)}
	}
	six := make(chan half, 1)
	go func() { six <- ask(dns.TypeAAAA) }()
	a4, a6 := ask(dns.TypeA), <-six
	if a4.err != nil && a6.err != nil {
		return Addresses{}, a4.err
	}
	// One family may fail alone (some servers never answer AAAA). What the other says stands, briefly.
	out := Addresses{TTL: maxTTL}
	for _, h := range []half{a4, a6} {
		if h.err != nil {
			out.TTL = min(out.TTL, 10*time.Second)
			continue
		}
		out.TTL = min(out.TTL, h.chain.ttl)
		for _, rr := range h.chain.records {
			switch rr := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A); ok {
					out.IPv4 = append(out.IPv4, a.Unmap())
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
					out.IPv6 = append(out.IPv6, a) // a mapped one stays mapped here; the guard looks inside
				}
			}
		}
	}
	if len(out.IPv4)+len(out.IPv6) == 0 {
		if a4.err != nil || a6.err != nil {
			return Addresses{}, errors.Join(a4.err, a6.err) // half an answer is no proof that there is nothing
		}
		out.NXDomain = a4.rcode == dns.RcodeNameError && a6.rcode == dns.RcodeNameError
	}
	return out, nil
}

// Query implements Upstream.
func (r *Resolver) Query(ctx context.Context, name string, qtype uint16) (int, []dns.RR, error) {
	rcode, msg, err := r.exchange(ctx, name, qtype)
	if err != nil {
		return 0, nil, err
	}
	return rcode, followChain(msg, name, qtype).records, nil
}

// Bounds on how long an answer is kept.
const (
	minTTL      = 5 * time.Second
	maxTTL      = time.Hour
	negativeTTL = 30 * time.Second // when the answer has no SOA to say
	maxChain    = 16               // CNAMEs followed within one answer
	maxRecords  = 64               // records taken from one answer
)

// chain is what an answer section says about one question: nothing of it about other names counts.
type chain struct {
	records []dns.RR // of the type asked, owned by the end of the chain; for other types than addresses with the CNAMEs before
	ttl     time.Duration
}

// followChain walks from name through the CNAMEs of the answer section to the records asked for.
func followChain(m *dns.Msg, name string, qtype uint16) chain {
	c := chain{ttl: maxTTL}
	see := func(rr dns.RR) { c.ttl = min(c.ttl, time.Duration(rr.Header().Ttl)*time.Second) }
	owner := name
	for range maxChain {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(strings.TrimSuffix(h.Name, "."), owner) {
				continue
			}
			switch {
			case h.Rrtype == qtype && len(c.records) < maxRecords:
				see(rr)
				c.records = append(c.records, rr)
			case h.Rrtype == dns.TypeCNAME && qtype != dns.TypeCNAME && next == "":
				see(rr)
				next = strings.ToLower(strings.TrimSuffix(rr.(*dns.CNAME).Target, "."))
				if qtype != dns.TypeA && qtype != dns.TypeAAAA {
					c.records = append(c.records, rr)
				}
			}
		}
		if next == "" || next == owner {
			break
		}
		owner = next
	}
	if len(c.records) == 0 {
		c.ttl = negativeTTL
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok { // RFC 2308: the lesser of the record's TTL and MINIMUM
				c.ttl = time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			}
		}
	}
	return c
}

// exchange asks the servers in turn until one gives an answer that is an answer: NOERROR or NXDOMAIN.
func (r *Resolver) exchange(ctx context.Context, name string, qtype uint16) (int, *dns.Msg, error) {
	servers := r.cfg.Servers
	if len(servers) == 0 {
		var err error
		if servers, err = r.conf.get(); err != nil {
			return 0, nil, fmt.Errorf("read the host's resolvers: %w", err)
		}
	}
	if len(servers) == 0 {
		return 0, nil, fmt.Errorf("%s names no nameserver", r.cfg.ResolvConf)
	}
	var errs []error
	for range r.cfg.Attempts {
		for _, server := range servers {
			m, err := r.ask(ctx, server, name, qtype)
			if err != nil {
				if ctx.Err() != nil {
					return 0, nil, ctx.Err()
				}
				errs = append(errs, fmt.Errorf("%s: %w", server, err))
				continue
			}
			if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
				return m.Rcode, m, nil
			}
			errs = append(errs, fmt.Errorf("%s answered %s", server, dns.RcodeToString[m.Rcode]))
		}
	}
	return 0, nil, errors.Join(errs...)
}

// ask asks one server over UDP, and over TCP when the answer was cut short.
func (r *Resolver) ask(ctx context.Context, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype) // random id
	q.SetEdns0(ednsSize, false)
	m, err := r.roundTrip(ctx, "udp", server, q)
	if err == nil && m.Truncated {
		m, err = r.roundTrip(ctx, "tcp", server, q)
	}
	if err == nil && m.Rcode == dns.RcodeFormatError { // a server from before EDNS
		q.Extra = nil
		q.Id = dns.Id()
		m, err = r.roundTrip(ctx, "udp", server, q)
	}
	return m, err
}

// roundTrip sends one query from a connected socket of its own (so the kernel drops what others send) and waits for the
// answer to it, ignoring those to anything else.
func (r *Resolver) roundTrip(ctx context.Context, network string, server netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	deadline, _ := ctx.Deadline()
	if err := nc.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) }) // an expired or cancelled wait ends the read
	defer stop()
	c := &dns.Conn{Conn: nc, UDPSize: ednsSize}
	if err := c.WriteMsg(q); err != nil {
		return nil, err
	}
	for {
		m, err := c.ReadMsg()
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) || network == "tcp" || ctx.Err() != nil {
				return nil, err
			}
			continue // a datagram that is not DNS
		}
		if m.Id == q.Id && m.Response && len(m.Question) == 1 &&
			m.Question[0].Qtype == q.Question[0].Qtype && m.Question[0].Qclass == dns.ClassINET &&
			strings.EqualFold(m.Question[0].Name, q.Question[0].Name) {
			return m, nil
		}
	}
}
