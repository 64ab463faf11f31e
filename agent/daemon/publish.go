package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/api"
)

// maxPublished is how many connections one published port carries at a time.
const maxPublished = 256

// publisher carries connections from a port of the host to a server inside.
type publisher struct {
	listener net.Listener
	slots    chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil: closed
	wg    sync.WaitGroup
}

func checkPublish(p api.Published) error {
	at, err := netip.ParseAddrPort(p.Host)
	if err != nil || at.Port() == 0 {
		return fmt.Errorf("publish at %q: want an address and a port of the host, such as 127.0.0.1:8080", p.Host)
	}
	if p.Port == 0 {
		return errors.New("publish: which port inside?")
	}
	return nil
}

// publish begins to listen. The sandbox runs.
func (b *box) publish(p api.Published) error {
	i, err := b.running()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", p.Host)
	if err != nil {
		return fmt.Errorf("publish port %d at %s: %w", p.Port, p.Host, err)
	}
	pub := &publisher{listener: l, slots: make(chan struct{}, maxPublished), conns: map[net.Conn]struct{}{}}
	b.mu.Lock()
	if b.instance != i {
		b.mu.Unlock()
		return l.Close()
	}
	b.publisher[p.Host] = pub
	b.mu.Unlock()
	pub.wg.Go(func() {
		pub.accept(func(ctx context.Context) (net.Conn, error) {
			return i.Box().Dial(ctx, "127.0.0.1:"+strconv.Itoa(int(p.Port)))
		})
	})
	return nil
}

func (p *publisher) accept(dial func(context.Context) (net.Conn, error)) {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // no descriptor is left: some time later there may be
			continue
		}
		select {
		case p.slots <- struct{}{}:
		default:
			_ = c.Close() // too many: the client sees it end
			continue
		}
		if !p.keep(c) {
			return
		}
		p.wg.Go(func() {
			defer func() { <-p.slots }()
			defer p.drop(c)
			p.carry(c, dial)
		})
	}
}

// dialTime is how long a server inside has to accept.
const dialTime = 5 * time.Second

func (p *publisher) carry(c net.Conn, dial func(context.Context) (net.Conn, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	in, err := dial(ctx)
	if err != nil || !p.keep(in) {
		return // nobody listens inside: the client sees its connection end
	}
	defer p.drop(in)
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // how it ended shows at the other end
		if half, ok := to.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	}
	both.Go(func() { one(in, c) })
	both.Go(func() { one(c, in) })
	both.Wait()
}

func (p *publisher) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *publisher) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// close ends the listener and all connections.
func (p *publisher) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.wg.Wait()
}

// Publish makes a server inside reachable at a port of the host, now and at each start.
func (d *Daemon) Publish(_ context.Context, who server.Caller, name string, p api.Published) (api.Published, error) {
	if err := checkPublish(p); err != nil {
		return p, &api.Error{Code: api.Invalid, Message: err.Error()}
	}
	_, err := d.operate(name, func(b *box) error {
		if slices.ContainsFunc(b.spec.Publish, func(o api.Published) bool { return o.Host == p.Host }) {
			return &api.Error{Code: api.Conflict, Message: fmt.Sprintf("%s is published already; take it back first: nemoclaw %s unpublish %s", p.Host, name, p.Host)}
		}
		if _, err := b.running(); err == nil {
			if err := b.publish(p); err != nil {
				return &api.Error{Code: api.Conflict, Message: err.Error()}
			}
		}
		if err := b.change(func(s *spec) { s.Publish = append(slices.Clone(s.Publish), p) }); err != nil {
			b.unpublish(p.Host)
			return err
		}
		b.note("publish", p.Host, fmt.Sprintf("port %d, by %s", p.Port, who.Name))
		return nil
	})
	return p, err
}

// Unpublish takes a published port back, with its connections.
func (d *Daemon) Unpublish(_ context.Context, who server.Caller, name, host string) error {
	_, err := d.operate(name, func(b *box) error {
		is := func(o api.Published) bool { return o.Host == host }
		if !slices.ContainsFunc(b.spec.Publish, is) {
			return &api.Error{Code: api.NotFound, Message: fmt.Sprintf("nothing is published at %s; `nemoclaw %s status` shows what is", host, name)}
		}
		if err := b.change(func(s *spec) { s.Publish = slices.DeleteFunc(slices.Clone(s.Publish), is) }); err != nil {
			return err
		}
		b.unpublish(host)
		b.note("unpublish", host, "by "+who.Name)
		return nil
	})
	return err
}

func (b *box) unpublish(host string) {
	b.mu.Lock()
	p := b.publisher[host]
	delete(b.publisher, host)
	b.mu.Unlock()
	if p != nil {
		p.close()
	}
}
