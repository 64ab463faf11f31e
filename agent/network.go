package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/trace"
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
func (i *Instance) openNetwork() error {
	if err := i.makeProxy(i.policy); err != nil {
		return err
	}
	return i.serveAll()
}

// makeProxy makes the proxy, and so puts the rules of all known names into the kernel.
func (i *Instance) makeProxy(p *policy.Compiled) (err error) {
	i.recorder.names.Store(i.rules)
	cfg := dnsproxy.Config{
		Policy: p, Start: i.c.Started, Identify: i.identify, Asker: i.asker, Record: i.c.Record, Permit: i.permit, Learn: i.rules.learn,
		Upstream: dnsproxy.NewResolver(i.resolver()), HostProxy: dnsproxy.HostProxyFromEnvironment(os.Getenv), MaxConns: maxConns,
		BookFile: i.c.BookFile,
	}
	if err := i.makeRouter(p); err != nil {
		return err
	}
	cfg.Trace, cfg.Traced = i.c.Traces.Connections()
	if i.router != nil {
		cfg.Local = &dnsproxy.Local{Name: policy.InferenceName, Serve: func(c net.Conn, from dnsproxy.Handed) {
			i.router.Serve(c, from.Port, from.Subject, trace.Link{Trace: from.Trace, Span: from.Span})
		}}
	}
	if i.c.Ask != nil {
		cfg.Ask, cfg.Granted = i.askConnection, i.c.Granted
	}
	i.proxy, err = dnsproxy.New(cfg)
	return err
}

// askConnection asks about a connection, whose trace is told by which id, where there is one.
func (i *Instance) askConnection(ctx context.Context, d policy.Decision) policy.Verdict {
	if t := dnsproxy.TraceOf(ctx); t != nil {
		ctx = trace.Asking(ctx, t.AskedAs)
	}
	return i.c.Ask(ctx, d)
}

// serveAll begins to answer at the sockets.
func (i *Instance) serveAll() (err error) {
	s := i.sockets
	var list []service
	for n := range 2 {
		list = append(list,
			service{s.raw[n], func() error { return i.proxy.ServeTCP(s.raw[n]) }},
			service{s.connect[n], func() error { return i.proxy.ServeConnect(s.connect[n]) }},
			service{s.dns[n], func() error { return i.proxy.ServeDNSTCP(s.dns[n]) }},
			service{s.udp[n], func() error { return i.proxy.ServeDNS(s.udp[n]) }})
	}
	if i.idle, err = watch(list); err != nil {
		return fmt.Errorf("run: waiting for the sandbox's first packets: %w", err)
	}
	go i.serveWhenNeeded(list)
	return nil
}

// close closes what the proxy has not taken over.
func (s *sockets) close() {
	for n := range 2 {
		for _, l := range []io.Closer{s.raw[n], s.dns[n], s.connect[n], s.udp[n]} {
			if l == nil {
				continue // it could not be opened
			}
			_ = l.Close() // of what the proxy has closed there is nothing left to do
		}
	}
}

// service is one of the proxy's servers, and the socket that it answers at.
type service struct {
	socket any
	run    func() error
}

// watch returns a descriptor that can be read when something has come to one of the sockets: an epoll that says it once.
func watch(list []service) (*os.File, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	err = unix.SetNonblock(fd, true) // so that Go waits for it
	f := os.NewFile(uintptr(fd), "sockets")
	for n := range list {
		if err == nil {
			err = on(list[n].socket, func(socket int) error {
				return unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, socket, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(n)})
			})
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// on calls f with a socket's descriptor.
func on(socket any, f func(int) error) error {
	raw, err := conn(socket).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(raw.Control(func(fd uintptr) { failed = f(int(fd)) }), failed)
}

// serveWhenNeeded starts each of the proxy's servers when the first packet comes to its socket: servers have threads, and
// many commands use no network. That a server fails while the sandbox lives is the end of the run.
func (i *Instance) serveWhenNeeded(list []service) {
	failed := func(err error) {
		if err != nil && !i.ending.Load() {
			i.c.Failed(fmt.Errorf("the sandbox was stopped: its proxy failed: %w", err))
		}
	}
	raw, err := i.idle.SyscallConn()
	for left := len(list); left > 0 && err == nil; {
		var events [8]unix.EpollEvent
		n := 0
		var wrong error
		err = raw.Read(func(fd uintptr) bool {
			n, wrong = unix.EpollWait(int(fd), events[:], 0)
			return n > 0 || wrong != nil && !errors.Is(wrong, unix.EINTR)
		})
		err = cmp.Or(err, wrong) // that of one that was closed, usually: nothing came to the others
		for _, e := range events[:max(n, 0)] {
			left--
			go func() { failed(list[e.Fd].run()) }()
		}
	}
	failed(err)
	i.idle.Close()
}

func (i *Instance) openSockets() (*sockets, error) {
	var s sockets
	err := i.box.Open(func(lc *net.ListenConfig) error {
		for n, family := range []struct {
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
			}{{&s.raw[n], family.raw, dnsproxy.RawPort}, {&s.dns[n], family.dns, 53}, {&s.connect[n], family.explicit, dnsproxy.ProxyPort}} {
				err := sandbox.TakeOver(unix.EADDRINUSE, func() (err error) {
					*l.to, err = lc.Listen(context.Background(), "tcp"+family.suffix, netip.AddrPortFrom(l.addr, l.port).String())
					return err
				})
				if err != nil {
					return err
				}
			}
			err := sandbox.TakeOver(unix.EADDRINUSE, func() (err error) {
				s.udp[n], err = lc.ListenPacket(context.Background(), "udp"+family.suffix, netip.AddrPortFrom(family.dns, 53).String())
				return err
			})
			if err != nil {
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
func (i *Instance) resolver() dnsproxy.ResolverConfig {
	c := dnsproxy.ResolverConfig{Hosts: i.c.HostsFile}
	if i.c.Resolver.IsValid() {
		c.Servers = []netip.AddrPort{i.c.Resolver}
	}
	return c
}

// identify says who is behind a connection, from what the kernel noted at connect.
func (i *Instance) identify(client, local netip.AddrPort) (dnsproxy.Peer, bool) {
	p, ok := i.guard.Peer(client, local)
	if !ok {
		return dnsproxy.Peer{}, false
	}
	return dnsproxy.Peer{
		Subject: i.subject(p),
		Caller:  policy.Caller{Is: i.recorder.programs.Load().is(p.Exe), Tainted: p.Taint != loader.TaintNone},
	}, true
}

// asker says who sent a DNS query.
func (i *Instance) asker(client netip.AddrPort) policy.Subject {
	p, ok := i.guard.Asker(client)
	if !ok {
		return policy.Subject{}
	}
	return i.subject(p)
}

func (i *Instance) subject(p loader.Peer) policy.Subject {
	return policy.Subject{PID: p.PID, Exe: i.recorder.exe(p.PID, p.Exe), Args: p.Args, Taint: p.Taint.String(), File: policy.Identity(p.Exe)}
}

// tripwireDelay keeps the tripwire's set-up, which decides nothing, out of the way of commands that are over at once.
const tripwireDelay = 20 * time.Millisecond

// tripwire is set beside everything else.
type tripwire struct {
	made chan *loader.Wire // holds it once it is set, and is closed then; nil when it is not to be
}

// set sets the tripwire after a while, unless done comes first. The sandbox may end before it is set: it has a descriptor of the
// network namespace of its own, whose number means nothing else by then.
func (t *tripwire) set(i *Instance, done <-chan struct{}) {
	netns, err := unix.FcntlInt(uintptr(i.box.NetnsFD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		i.c.Warn("set the tripwire: " + err.Error())
		return
	}
	t.made = make(chan *loader.Wire, 1)
	go func() {
		defer close(t.made)
		defer unix.Close(netns)
		select {
		case <-done:
			return
		case <-time.After(tripwireDelay):
		}
		wire, err := loader.Tripwire(netns, i.tripped)
		if err != nil {
			i.c.Warn(err.Error())
			return
		}
		t.made <- wire
	}()
}

func (t *tripwire) close() error {
	if t.made == nil {
		return nil
	}
	if wire, ok := <-t.made; ok {
		return wire.Close()
	}
	return nil
}

// tripped records a packet that should not exist.
func (i *Instance) tripped(e loader.TripEvent) {
	i.c.Record(policy.Decision{
		Time: e.Time, Plane: policy.PlaneNetwork, Action: "slipped", Object: e.To.String(), Verdict: policy.Allow, Rule: "builtin",
		Reason:   "a packet (protocol " + strconv.Itoa(int(e.Protocol)) + ") reached a place that nothing may reach: this is a hole, please report it",
		Revision: i.recorder.policies.latest().Revision,
	})
}
