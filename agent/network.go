package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxConns is how many connections a sandbox may have open at once, in the kernel and in the proxy.
const maxConns = 1024

// sockets are the agent's own sockets inside the sandbox's network namespace.
type sockets struct {
	raw, dns, connect [2]net.Listener   // IPv4, IPv6
	udp               [2]net.PacketConn // DNS
}

// openNetwork opens the one way out: the kernel's rules, and the proxy behind the sockets.
func (r *run) openNetwork(s *sockets) (err error) {
	if r.rules, err = newNetRules(r.policy, r.programs, r.guard, r.started, r.fail); err != nil {
		return err
	}
	r.recorder.names.Store(r.rules)
	cfg := dnsproxy.Config{
		Policy: r.policy, Start: r.started, Identify: r.identify, Asker: r.asker, Record: r.records.Record, Learn: r.rules.learn,
		Upstream: dnsproxy.NewResolver(r.resolver()), HostProxy: dnsproxy.HostProxyFromEnvironment(os.Getenv), MaxConns: maxConns,
	}
	if desk := r.terminal.desk(r.records.Record, r.grant); desk != nil {
		cfg.Ask = func(ctx context.Context, d policy.Decision) policy.Verdict {
			d.Suggest = r.policy.SuggestAlways(d)
			return desk.Ask(ctx, d)
		}
	}
	if r.proxy, err = dnsproxy.New(cfg); err != nil {
		return err
	}
	for i := range 2 {
		for _, x := range []struct {
			socket any
			serve  func() error
		}{
			{s.raw[i], func() error { return r.proxy.ServeTCP(s.raw[i]) }},
			{s.connect[i], func() error { return r.proxy.ServeConnect(s.connect[i]) }},
			{s.dns[i], func() error { return r.proxy.ServeDNSTCP(s.dns[i]) }},
			{s.udp[i], func() error { return r.proxy.ServeDNS(s.udp[i]) }},
		} {
			if err := r.serve(conn(x.socket), x.serve); err != nil {
				return err
			}
		}
	}
	return nil
}

// serve starts one of the proxy's servers when the first packet comes to its socket: servers have threads, and many
// commands use no network. That a server fails while the sandbox lives is the end of the run.
func (r *run) serve(socket syscall.Conn, f func() error) error {
	idle, err := watched(socket)
	if err != nil {
		return fmt.Errorf("run: waiting for the sandbox's first packet: %w", err)
	}
	r.idle = append(r.idle, idle)
	go func() {
		if err := awaitPacket(idle); err != nil {
			return // closed: nothing came
		}
		if err := f(); err != nil && !r.ending.Load() {
			r.fail(fmt.Errorf("the sandbox was stopped: its proxy failed: %w", err))
		}
	}()
	return nil
}

// watched returns a second descriptor of a socket, for waiting: a listener itself can only be accepted from.
func watched(socket syscall.Conn) (*os.File, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// awaitPacket waits until a socket can be read. It closes the descriptor.
func awaitPacket(f *os.File) error {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

func (r *run) openSockets() (*sockets, error) {
	var s sockets
	err := r.box.Open(func(lc *net.ListenConfig) error {
		for i, family := range []struct {
			suffix             string
			raw, dns, explicit netip.Addr
		}{
			{"4", dnsproxy.RawAddr4, dnsproxy.ResolverAddr4, dnsproxy.ProxyAddr4},
			{"6", dnsproxy.RawAddr6, dnsproxy.ResolverAddr6, dnsproxy.ProxyAddr6},
		} {
			for _, l := range []struct {
				to   *net.Listener
				addr netip.Addr
				port uint16
			}{{&s.raw[i], family.raw, dnsproxy.RawPort}, {&s.dns[i], family.dns, 53}, {&s.connect[i], family.explicit, dnsproxy.ProxyPort}} {
				var err error
				if *l.to, err = lc.Listen(context.Background(), "tcp"+family.suffix, netip.AddrPortFrom(l.addr, l.port).String()); err != nil {
					return err
				}
			}
			var err error
			if s.udp[i], err = lc.ListenPacket(context.Background(), "udp"+family.suffix, netip.AddrPortFrom(family.dns, 53).String()); err != nil {
				return err
			}
		}
		return nil
	})
	return &s, err
}

func (s *sockets) steered() loader.Sockets {
	return loader.Sockets{
		TCP4: conn(s.raw[0]), TCP6: conn(s.raw[1]), DNSTCP4: conn(s.dns[0]), DNSTCP6: conn(s.dns[1]),
		DNSUDP4: conn(s.udp[0]), DNSUDP6: conn(s.udp[1]), Connect4: conn(s.connect[0]), Connect6: conn(s.connect[1]),
	}
}

// conn is the socket behind a listener of the kernel's.
func conn(l any) syscall.Conn {
	c, _ := l.(syscall.Conn)
	return c
}

// resolver says whom to ask for the names that the policy allows.
func (r *run) resolver() dnsproxy.ResolverConfig {
	c := dnsproxy.ResolverConfig{Hosts: r.o.HostsFile}
	if r.o.Resolver.IsValid() {
		c.Servers = []netip.AddrPort{r.o.Resolver}
	}
	return c
}

// identify says who is behind a connection, from what the kernel noted at connect.
func (r *run) identify(client, local netip.AddrPort) (dnsproxy.Peer, bool) {
	p, ok := r.guard.Peer(client, local)
	if !ok {
		return dnsproxy.Peer{}, false
	}
	return dnsproxy.Peer{
		Subject: r.subject(p),
		Is:      r.programs.is(p.Exe),
	}, true
}

// asker says who sent a DNS query.
func (r *run) asker(client netip.AddrPort) policy.Subject {
	p, ok := r.guard.Asker(client)
	if !ok {
		return policy.Subject{}
	}
	return r.subject(p)
}

func (r *run) subject(p loader.Peer) policy.Subject {
	return policy.Subject{PID: p.PID, Exe: r.recorder.exe(p.PID, p.Exe), Args: p.Args}
}

// grant lets the kernel know what a person answered for the run, so that it judges the next connection at once: a
// denied one fails in connect(2). Where the kernel has no name for something, the desk remembers it alone.
func (r *run) grant(d policy.Decision, v policy.Verdict) {
	host, num, err := net.SplitHostPort(d.Object)
	if err != nil {
		return
	}
	port, err := strconv.ParseUint(num, 10, 16)
	if err != nil {
		return
	}
	addrs := r.rules.addrs(host)
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a}
	}
	var rule policy.RuleID
	for i, ref := range r.policy.Rules {
		if ref.Pos == d.Rule {
			rule = policy.RuleID(i)
		}
	}
	for _, exe := range r.programs.ids {
		if r.programs.path(exe) != d.Subject.Exe {
			continue
		}
		for _, a := range addrs {
			if err := r.guard.Grant(loader.Grant{Exe: exe, Addr: a, Port: uint16(port), Verdict: v, Rule: rule}); err != nil {
				r.warn(err.Error())
			}
		}
	}
}

// tripwireDelay keeps the tripwire's set-up, which decides nothing, out of the way of commands that are over at once.
const tripwireDelay = 20 * time.Millisecond

// setTripwire sets the tripwire beside the run.
func (r *run) setTripwire() {
	defer close(r.wire)
	select {
	case <-r.process.Done():
		return
	case <-time.After(tripwireDelay):
	}
	wire, err := loader.Tripwire(r.box.NetnsFD(), func(e loader.TripEvent) {
		r.records.Record(policy.Decision{
			Time: e.Time, Plane: policy.PlaneNetwork, Action: "slipped", Object: e.To.String(), Verdict: policy.Allow, Rule: "builtin",
			Reason:   "a packet (protocol " + strconv.Itoa(int(e.Protocol)) + ") reached a place that nothing may reach: this is a hole, please report it",
			Revision: r.policy.Revision,
		})
	})
	if err != nil {
		r.warn(err.Error())
		return
	}
	r.wire <- wire
}
