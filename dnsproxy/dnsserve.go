package dnsproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	udpBatch   = 8    // datagrams taken with one system call
	udpPacket  = 1536 // bytes kept of a query; a longer one is cut and so malformed
	cmsgSpace  = 64   // room for one IP_PKTINFO or IPV6_PKTINFO
	maxDNSConn = 128  // DNS connections over TCP at once
	udpLinger  = time.Millisecond
	dnsIdle    = 10 * time.Second
)

// ServeDNS answers queries that arrive on a UDP socket until Close. It takes the socket over. An answer leaves from the
// address that was asked, so one socket bound to a wildcard address can serve a namespace in which every address is local.
func (s *Server) ServeDNS(pc net.PacketConn) error {
	uc, ok := pc.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("serve DNS: the socket is a %T, not a UDP socket of the kernel's", pc)
	}
	fd, err := takeFD(uc)
	if err != nil {
		return fmt.Errorf("serve DNS on %s: %w", uc.LocalAddr(), err)
	}
	defer unix.Close(fd)
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("serve DNS: read the socket's family: %w", err)
	}
	if domain == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		if err == nil { // IPv6 lets an answer leave only from an interface's own address otherwise; a route is not enough
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
		}
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if err != nil {
		return fmt.Errorf("serve DNS: have the kernel tell which address was asked: %w", err)
	}
	// Reading waits a little by itself: a busy resolver needs two system calls for a batch, not four.
	err = unix.SetNonblock(fd, false)
	if err == nil {
		tv := unix.NsecToTimeval(int64(udpLinger))
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	}
	if err != nil {
		return fmt.Errorf("serve DNS: let reading wait: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("serve DNS: %w", err)
	}
	defer unix.Close(wake)
	done, err := s.running(func() { signalEvent(wake) })
	if err != nil {
		return err
	}
	defer done()
	u := newUDPLoop(s, fd, wake)
	defer u.wait()
	return u.run()
}

// takeFD returns a descriptor of its own for a socket and takes the socket out of Go's poller, whose wake-ups would come on
// top of ours.
func takeFD(c interface {
	SyscallConn() (syscallRawConn, error)
	Close() error
}) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	if dupErr != nil {
		return -1, dupErr
	}
	if err := c.Close(); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func signalEvent(fd int) {
	one := [8]byte{1}
	_, _ = unix.Write(fd, one[:]) // it can only fail when it is signalled already
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// udpLoop reads and answers one socket on one thread.
type udpLoop struct {
	s        *Server
	fd, wake int
	slots    chan struct{} // queries of this loop that wait for something

	in        [udpBatch]mmsghdr
	inIov     [udpBatch]unix.Iovec
	out       unix.Msghdr
	outIov    unix.Iovec
	names     [udpBatch]unix.RawSockaddrInet6 // room for either family
	controls  [udpBatch][cmsgSpace]byte
	packets   [udpBatch][udpPacket]byte
	responses [udpBatch][]byte
}

func newUDPLoop(s *Server, fd, wake int) *udpLoop {
	u := &udpLoop{s: s, fd: fd, wake: wake, slots: make(chan struct{}, maxSlowQueries)}
	for i := range u.in {
		u.responses[i] = make([]byte, 0, ednsSize)
		u.inIov[i] = unix.Iovec{Base: &u.packets[i][0], Len: udpPacket}
		h := &u.in[i].hdr
		h.Iov, h.Iovlen = &u.inIov[i], 1
		h.Name = (*byte)(unsafe.Pointer(&u.names[i]))
		h.Control = &u.controls[i][0]
	}
	return u
}

// wait returns when no query of this loop is being worked on, so that the socket may be closed.
func (u *udpLoop) wait() {
	for range cap(u.slots) {
		u.slots <- struct{}{}
	}
}

func (u *udpLoop) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var q query
	for {
		for i := range u.in {
			h := &u.in[i].hdr
			h.Namelen = uint32(unsafe.Sizeof(u.names[i]))
			h.SetControllen(cmsgSpace)
		}
		// Raw, so that Go's scheduler is not told of a wait that is over in a moment, or after udpLinger.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(u.fd), uintptr(unsafe.Pointer(&u.in[0])), udpBatch, unix.MSG_WAITFORONE, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN:
			fds := [2]unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLIN}, {Fd: int32(u.wake), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
				return fmt.Errorf("wait for DNS queries: %w", err)
			}
			if fds[1].Revents != 0 {
				return errClosed
			}
			continue
		case unix.EINTR, unix.ECONNREFUSED, unix.ENOMEM, unix.ENOBUFS: // ECONNREFUSED: a client left before its answer came
			continue
		default:
			return fmt.Errorf("read DNS queries: %w", errno)
		}
		if u.s.ctx.Err() != nil {
			return errClosed
		}
		u.answerAll(int(n), &q)
	}
}

// answerAll answers n received datagrams: what is known at once, the rest in goroutines.
func (u *udpLoop) answerAll(n int, q *query) {
	now := u.s.now()
	for i := range n {
		m := &u.in[i]
		p := u.packets[i][:m.len]
		rcode := q.parse(p)
		if rcode == parseDrop {
			continue
		}
		var a *answer
		if rcode != parseOK {
			a = errorAnswer(rcode)
		} else if a = u.s.quick(q, now); a == nil {
			u.slow(m, p, q)
			continue
		}
		u.responses[i] = u.s.stats.answered(a).pack(u.responses[i][:0], q, q.size)
		u.outIov = unix.Iovec{Base: &u.responses[i][0], Len: uint64(len(u.responses[i]))}
		o := &u.out
		*o = m.hdr // name and control go back as they came
		o.Iov = &u.outIov
		o.SetControllen(replyControl(u.controls[i][:m.hdr.Controllen]))
		if o.Controllen == 0 {
			o.Control = nil
		}
		u.send(o)
	}
}

// send sends one answer at once: the client works on it while the next one is made, which a batch would not let it do.
func (u *udpLoop) send(h *unix.Msghdr) {
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(u.fd), uintptr(unsafe.Pointer(h)), unix.MSG_DONTWAIT)
		if errno != unix.EINTR {
			return // one that can't be sent (a full buffer, an address that vanished): the client asks again
		}
	}
}

// slow answers one query in a goroutine. With all slots taken the query is dropped: the client asks again.
func (u *udpLoop) slow(m *mmsghdr, p []byte, q *query) {
	select {
	case u.slots <- struct{}{}:
	default:
		u.s.stats.queries[DNSDropped].Add(1)
		return
	}
	packet := append([]byte(nil), p...)
	name := append([]byte(nil), unsafe.Slice(m.hdr.Name, m.hdr.Namelen)...)
	control := append([]byte(nil), unsafe.Slice(m.hdr.Control, m.hdr.Controllen)...)
	control = control[:replyControl(control)]
	go func() {
		defer func() { <-u.slots }()
		defer u.s.guard("dns")
		var q query
		if q.parse(packet) != parseOK {
			return
		}
		a := u.s.slow(u.s.ctx, q.name(), q.qtype, func() policy.Subject {
			if u.s.cfg.Asker == nil || len(name) < unix.SizeofSockaddrInet4 {
				return policy.Subject{}
			}
			var from unix.RawSockaddrInet6 // room for either family
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&from)), unsafe.Sizeof(from)), name)
			return u.s.cfg.Asker(addrPort(&from))
		})
		b := u.s.stats.answered(a).pack(nil, &q, q.size)
		iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
		h := unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov, Iovlen: 1}
		if len(control) > 0 {
			h.Control = &control[0]
			h.SetControllen(len(control))
		}
		u.send(&h)
		runtime.KeepAlive(b)
	}()
}

// replyControl turns a received packet-info message into the one that makes the answer leave from the address that was
// asked, in place, and returns its length.
func replyControl(c []byte) int {
	if len(c) < unix.SizeofCmsghdr {
		return 0
	}
	level := int32(binary.NativeEndian.Uint32(c[8:]))
	kind := int32(binary.NativeEndian.Uint32(c[12:]))
	data := c[unix.SizeofCmsghdr:]
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		clear(data[0:4])            // any interface
		copy(data[4:8], data[8:12]) // source: what the query was addressed to
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		clear(data[16:20])
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	return 0
}

// ServeDNSTCP answers queries over TCP until Close. It takes the listener over.
func (s *Server) ServeDNSTCP(l net.Listener) error {
	done, err := s.running(func() { _ = l.Close() })
	if err != nil {
		return err
	}
	defer done()
	slots := make(chan struct{}, maxDNSConn)
	for {
		c, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return errClosed
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return fmt.Errorf("accept a DNS connection: %w", err)
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-slots }()
			defer c.Close()
			defer s.guard("dns")
			stop := context.AfterFunc(s.ctx, func() { _ = c.Close() })
			defer stop()
			s.dnsConn(c)
		}()
	}
}

// askerOf says who asks over TCP.
func (s *Server) askerOf(c net.Conn) policy.Subject {
	client, _ := c.RemoteAddr().(*net.TCPAddr)
	local, _ := c.LocalAddr().(*net.TCPAddr)
	if client == nil || local == nil {
		return policy.Subject{}
	}
	peer, _ := s.cfg.Identify(client.AddrPort(), local.AddrPort())
	return peer.Subject
}

// dnsConn answers the queries of one connection, in order, until the client is done or silent.
func (s *Server) dnsConn(c net.Conn) {
	var q query
	var size [2]byte
	packet := make([]byte, udpPacket)
	var out []byte
	for {
		if c.SetDeadline(time.Now().Add(dnsIdle)) != nil {
			return
		}
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n < dnsHeader || n > len(packet) {
			return
		}
		if _, err := io.ReadFull(c, packet[:n]); err != nil {
			return
		}
		rcode := q.parse(packet[:n])
		if rcode == parseDrop {
			return
		}
		var a *answer
		if rcode != parseOK {
			a = errorAnswer(rcode)
		} else if a = s.quick(&q, s.now()); a == nil {
			a = s.slow(s.ctx, q.name(), q.qtype, func() policy.Subject { return s.askerOf(c) })
		}
		out = s.stats.answered(a).pack(append(out[:0], 0, 0), &q, 65535)
		binary.BigEndian.PutUint16(out, uint16(len(out)-2))
		if c.SetDeadline(time.Now().Add(dnsIdle)) != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}
