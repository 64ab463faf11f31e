package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Server answers DNS and carries connections for one sandbox. Its methods may be called concurrently.
type Server struct {
	cfg   Config
	pol   atomic.Pointer[policy.Compiled]
	book  *book
	names nameCache
	dns   dnsState
	epoch time.Time // the server's clock counts nanoseconds from here

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // goroutines and loops

	// wanted tells where an accepted connection was meant to go: its own local address, since every address is local in
	// the sandbox's namespace. Tests that have no such namespace put another way here.
	wanted func(fd int, client netip.AddrPort) (netip.AddrPort, error)

	mu     sync.Mutex
	closed bool
	loops  []*loop
	stops  map[int]func() // running Serve calls' ways to end them
	nextID int

	stats stats
	conns atomic.Int64
	full  atomic.Uint64 // connections refused at a cap since the last record of it
}

// New makes a server and gives every exact name of the policy its addresses (Learn is called for each).
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("make the sandbox's proxy: %w", err)
	}
	s := &Server{cfg: cfg, epoch: time.Now(), stops: make(map[int]func())}
	s.wanted = func(fd int, _ netip.AddrPort) (netip.AddrPort, error) { return sysLocal(fd) }
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.pol.Store(cfg.Policy)
	s.names.init(s)
	s.dns.init()
	s.stats.init()
	if s.book, err = openBook(cfg.BookFile, cfg.MaxLearnt, cfg.Learn); err != nil {
		s.cancel()
		return nil, err
	}
	if err := s.assign(cfg.Policy); err != nil {
		s.cancel()
		return nil, errors.Join(err, s.book.close())
	}
	return s, nil
}

// assign gives addresses to the names of an earlier run and to the exact names of a policy.
func (s *Server) assign(p *policy.Compiled) error {
	for _, name := range s.book.pendingNames() {
		if _, _, err := s.book.add(name, false); err != nil {
			return err
		}
	}
	for _, name := range p.Network.ExactNames() {
		if isSpecial(name) {
			continue
		}
		if _, _, err := s.book.add(name, true); err != nil {
			return fmt.Errorf("give %s its addresses: %w", name, err)
		}
	}
	return nil
}

// Names returns every name that has synthetic addresses, in the order they were given out.
func (s *Server) Names() []Named { return s.book.names() }

// SetPolicy makes p the policy from now on. The kernel must know the names' new rules already (Names lists them); names that
// are new get addresses here. When it returns the connections that p does not allow are closed: so many.
func (s *Server) SetPolicy(p *policy.Compiled) (closed int, err error) {
	if err := s.assign(p); err != nil {
		return 0, err
	}
	s.pol.Store(p)
	s.dns.answers.clear()
	return s.cut((*loop).rejudge), nil
}

// CloseGranted closes the connections that a person has let through and for which f says so, and returns how many they were. f gets
// what Ask and Granted got.
func (s *Server) CloseGranted(f func(policy.Decision) bool) int {
	return s.cut(func(l *loop) int { return l.ungrant(f) })
}

// cut has each loop close connections, and returns how many they were.
func (s *Server) cut(f func(*loop) int) (closed int) {
	s.mu.Lock()
	loops := s.loops
	s.mu.Unlock()
	cut := make(chan int, len(loops))
	for _, l := range loops {
		if !l.post(func() { cut <- f(l) }) {
			cut <- 0
		}
	}
	for range loops {
		select {
		case n := <-cut:
			closed += n
		case <-s.ctx.Done(): // a loop that stops closes all of its own
		}
	}
	return closed
}

// Traffic returns how many bytes were relayed since the server was made: to the upstreams, and from them.
func (s *Server) Traffic() (sent, received int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.loops {
		sent += l.sent.Load()
		received += l.received.Load()
	}
	return sent, received
}

// Close ends all Serve calls and all connections, and waits until they are gone.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	stops, loops := s.stops, s.loops
	s.stops = nil
	s.mu.Unlock()
	s.cancel()
	for _, stop := range stops {
		stop()
	}
	for _, l := range loops {
		l.post(l.stop)
	}
	s.wg.Wait()
	return s.book.close()
}

// errClosed is what Serve calls return after Close.
var errClosed = errors.New("the proxy is closed")

// running registers a way to end a Serve call; the returned function takes it back.
func (s *Server) running(stop func()) (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	id := s.nextID
	s.nextID++
	s.stops[id] = stop
	s.wg.Add(1)
	return func() {
		s.mu.Lock()
		if s.stops != nil {
			delete(s.stops, id)
		}
		s.mu.Unlock()
		s.wg.Done()
	}, nil
}

// now is the server's clock: nanoseconds since it was made, monotonic.
func (s *Server) now() int64 { return int64(time.Since(s.epoch)) }

// live leaves out rules that have expired. It allocates only when there is one.
func (s *Server) live(rules []*policy.NetRule) []*policy.NetRule {
	for i, r := range rules {
		if s.expired(r) {
			out := append([]*policy.NetRule(nil), rules[:i]...)
			for _, r := range rules[i+1:] {
				if !s.expired(r) {
					out = append(out, r)
				}
			}
			return out
		}
	}
	return rules
}

func (s *Server) expired(r *policy.NetRule) bool {
	return r.Expires > 0 && time.Since(s.cfg.Start) > r.Expires
}

// ruling is what the policy says of one target for one caller.
type ruling struct {
	verdict policy.Verdict
	rule    *policy.NetRule // nil: the default
	mode    policy.Protocol
	ech     bool

	withheld *policy.NetRule // denied, although this rule lets the caller's command through: the caller is tainted
}

// judge applies the policy to a name or a literal.
func (s *Server) judge(p *policy.Compiled, t target, who policy.Caller) ruling {
	var rules []*policy.NetRule
	if t.name != "" {
		rules = p.Network.Match(t.name)
	} else {
		rules = p.Network.MatchAddr(t.addr)
	}
	rules = s.live(rules)
	v, rule := p.Network.Judge(rules, t.port, who)
	r := ruling{verdict: v, rule: rule}
	if who.Tainted && v == policy.Deny {
		if v, rule := p.Network.Judge(rules, t.port, policy.Caller{Is: who.Is}); v != policy.Deny {
			r.withheld = rule
		}
	}
	if rule == nil {
		// A person who approves "name:443" means TLS to that name, as the rule that is suggested says.
		r.mode = policy.ProtocolOf(t.port)
		return r
	}
	r.mode, r.ech = rule.Protocol, rule.ECH
	return r
}

// rulePos returns the "file:line" of a rule, "default" for nil.
func rulePos(p *policy.Compiled, r *policy.NetRule) string {
	if r == nil {
		return "default"
	}
	return p.Rule(r.ID).Pos
}

// decision starts a record.
func (s *Server) decision(p *policy.Compiled, plane policy.Plane, action, object string, v policy.Verdict, r *policy.NetRule, reason string) policy.Decision {
	d := policy.Decision{Plane: plane, Action: action, Object: object, Verdict: v, Rule: rulePos(p, r), Reason: reason, Revision: p.Revision}
	d.Suggest = policy.Suggest(d)
	return d
}

// admitted splits resolved addresses into those that may be dialled and a reason for the first that may not.
func (s *Server) admitted(p *policy.Compiled, addrs []netip.Addr, port uint16, who policy.Caller) (ok []netip.Addr, refused netip.Addr, by *policy.NetRule, why string) {
	for _, a := range addrs {
		good, rule, reason := admits(&p.Network, s.live, a, port, who)
		if good {
			ok = append(ok, a.Unmap())
		} else if why == "" {
			refused, by, why = a, rule, reason
		}
	}
	return ok, refused, by, why
}
