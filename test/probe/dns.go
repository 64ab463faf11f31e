package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// lookups FROM TO ZONE: how many of nFROM.ZONE, ... have an address.
func lookups(w []string) (string, error) {
	from, err := strconv.Atoi(w[1])
	if err != nil {
		return "", err
	}
	to, err := strconv.Atoi(w[2])
	if err != nil {
		return "", err
	}
	found := 0
	for i := from; i < to; i++ {
		words := []string{"", "198.18.0.2", fmt.Sprintf("n%d.%s", i, w[3]), "A"}
		out, err := query(words)
		if err != nil { // a lost datagram, as resolvers see it
			out, err = query(words)
		}
		if err == nil && strings.HasPrefix(out, "NOERROR; ") {
			found++
		}
	}
	return strconv.Itoa(found), nil
}

// query asks as a stub resolver of the old kind does: one unconnected socket, sendto and recvfrom, and an answer counts
// only when it comes from the address that was asked.
func query(w []string) (string, error) {
	server, err := addrPort(w[1], "53")
	if err != nil {
		return "", err
	}
	kind, ok := dns.StringToType[w[3]]
	if !ok {
		return "", fmt.Errorf("%s is no record type", w[3])
	}
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(w[2]), kind)
	m.SetEdns0(1232, false)
	return exchange(server, m)
}

func exchange(server netip.AddrPort, m *dns.Msg) (string, error) {
	packed, err := m.Pack()
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(family(server.Addr()), unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return "", err
	}
	if err := unix.Sendto(fd, packed, 0, sockaddr(server)); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	n, peer, err := unix.Recvfrom(fd, buf, 0)
	for errors.Is(err, unix.EINTR) { // by Go's scheduler: with a time-out the kernel does not go on by itself
		n, peer, err = unix.Recvfrom(fd, buf, 0)
	}
	if err != nil {
		return "", err
	}
	if got := peerString(peer); got != server.String() {
		return "", fmt.Errorf("asked %s, answered by %s", server, got)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(buf[:n]); err != nil {
		return "", err
	}
	return shownAnswer(answer), nil
}

func shownAnswer(answer *dns.Msg) string {
	parts := []string{dns.RcodeToString[answer.Rcode]}
	for _, rr := range answer.Answer {
		parts = append(parts, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	if opt := answer.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				parts = append(parts, fmt.Sprintf("EDE %d", e.InfoCode))
			}
		}
	}
	return strings.Join(parts, "; ")
}

// odd asks in ways that carry more than a name: a question that is changed by w[0], over UDP or, for some, TCP.
func odd(w []string) (string, error) {
	server, err := addrPort(w[1], "53")
	if err != nil {
		return "", err
	}
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(w[2]), dns.TypeA)
	m.SetEdns0(1232, false)
	switch w[0] {
	case "dns-option":
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: dns.EDNS0LOCALSTART, Data: []byte(w[3])})
	case "dns-class":
		m.Question[0].Qclass = dns.ClassCHAOS
	case "dns-two":
		m.Question = append(m.Question, dns.Question{Name: dns.Fqdn(w[3]), Qtype: dns.TypeA, Qclass: dns.ClassINET})
	case "dns-update":
		m.SetUpdate(dns.Fqdn(w[2]))
		rr, err := dns.NewRR(dns.Fqdn(w[2]) + " 60 TXT update")
		if err != nil {
			return "", err
		}
		m.Insert([]dns.RR{rr})
	case "dns-notify":
		m.SetNotify(dns.Fqdn(w[2]))
	case "dns-tcp":
		m.Question[0].Qtype = dns.StringToType[w[3]]
		answer, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(m, server.String())
		if err != nil {
			return "", err
		}
		return shownAnswer(answer), nil
	}
	return exchange(server, m)
}

func peerString(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return "unknown"
}
