package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ways to bytes on a socket.
var socketAttempts = map[string]attempt{
	"mark":        func(w []string) (string, error) { return option(unix.SOL_SOCKET, unix.SO_MARK, 1) },
	"priority":    func(w []string) (string, error) { return option(unix.SOL_SOCKET, unix.SO_PRIORITY, 7) },
	"transparent": func(w []string) (string, error) { return option(unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1) },
	"repair":      func(w []string) (string, error) { return option(unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) },
	"buffer":      func(w []string) (string, error) { return option(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) },
	"by-device":   byDevice,                                                                                      // by-device DEVICE ADDR PORT: SO_BINDTODEVICE, then connect
	"again":       again,                                                                                         // again HOST PORT ADDR PORT: connect to the first, dissolve, connect to the second
	"multipath":   func(w []string) (string, error) { return protocol(unix.SOCK_STREAM, unix.IPPROTO_MPTCP, w) }, // multipath ADDR PORT
	"udplite":     func(w []string) (string, error) { return protocol(unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE, w) },
	"echo":        echo,     // echo ADDR: an ICMP echo request on a raw socket, and its answer
	"frame":       frame,    // frame: an Ethernet frame of our own making
	"address":     address,  // address: asks the kernel for another address on lo
	"forge":       forge,    // forge TEXT: a record in the host's audit log
	"received":    received, // received PATH: a descriptor that the unix socket's server gives, and what it holds
	"post":        post,     // post PATH TEXT: a datagram to a unix socket
	"follow":      follow,   // follow URL TEXT: follows redirects; what it gets must hold TEXT
	"fronted":     fronted,  // fronted HOST PORT INNERHOST TEXT: TLS to HOST, and inside it a request for INNERHOST
	"told":        told,     // told TEXT HOST PORT PAYLOAD(base64): say; the answer must hold TEXT
}

func option(level, name, value int) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return "", unix.SetsockoptInt(fd, level, name, value)
}

func byDevice(w []string) (string, error) {
	a, err := addrPort(w[2], w[3])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.BindToDevice(fd, w[1]); err != nil {
		return "", err
	}
	return "", unix.Sendto(fd, []byte("probe"), 0, sockaddr(a))
}

// again uses a socket that was allowed to connect once.
func again(w []string) (string, error) {
	addrs, err := resolve(w[1])
	if err != nil {
		return "", err
	}
	first, err := addrPort(addrs[0].String(), w[2])
	if err != nil {
		return "", err
	}
	second, err := addrPort(w[3], w[4])
	if err != nil {
		return "", err
	}
	fd, err := connect(unix.SOCK_STREAM, first)
	if err != nil {
		return "first", err
	}
	defer unix.Close(fd)
	nowhere := [16]byte{} // AF_UNSPEC
	if err := raw(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nowhere)), uintptr(len(nowhere))); err != nil {
		return "dissolve", err
	}
	return "", unix.Connect(fd, sockaddr(second))
}

func protocol(kind, proto int, w []string) (string, error) {
	a, err := addrPort(w[1], w[2])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(family(a.Addr()), kind, proto)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sockaddr(a)); err != nil {
		return "", err
	}
	_, err = unix.Write(fd, []byte("probe"))
	return "", err
}

func echo(w []string) (string, error) {
	a, err := addrPort(w[1], "0")
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	request := []byte{8, 0, 0xf7, 0xfd, 0, 1, 0, 1} // type, code, checksum, id, sequence
	if err := unix.Sendto(fd, request, 0, sockaddr(a)); err != nil {
		return "", err
	}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return "", err
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 256), 0)
	return "", err
}

func frame([]string) (string, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return "", err
	}
	return "", unix.Sendto(fd, make([]byte, 64), 0, &unix.SockaddrLinklayer{Ifindex: lo.Index, Protocol: 0x0008})
}

// ask sends one netlink request and returns what the kernel said of it.
func ask(proto int, request []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	const header = 16
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < header+4 {
		return err
	}
	if code := int32(binary.NativeEndian.Uint32(answer[header:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func netlinkHead(kind uint16, flags uint16) []byte {
	b := make([]byte, 16)
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	return b
}

func address([]string) (string, error) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return "", err
	}
	b := netlinkHead(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	b = append(b, unix.AF_INET, 32, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(lo.Index))
	b = append(b, 8, 0, unix.IFA_LOCAL, 0, 127, 9, 9, 9)
	return "", ask(unix.NETLINK_ROUTE, b)
}

func forge(w []string) (string, error) {
	const user = 1107 // AUDIT_USER_AVC... any kind that programs send
	return "", ask(unix.NETLINK_AUDIT, append(netlinkHead(user, 0), w[1]...))
}

func received(w []string) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: w[1]}); err != nil {
		return "", err
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), rights, 0)
	if err != nil {
		return "", err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) == 0 {
		return "", errors.Join(err, errors.New("no descriptor came"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return "", err
	}
	return fromStart(fds[0])
}

func post(w []string) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return "", unix.Sendto(fd, []byte(w[2]), 0, &unix.SockaddrUnix{Name: w[1]})
}

func holds(out, text string, err error) (string, error) {
	if err == nil && !strings.Contains(out, text) {
		line, _, _ := strings.Cut(out, "\r\n")
		err = fmt.Errorf("another answer: %s", line)
	}
	return out, err
}

func follow(w []string) (string, error) {
	out, err := get(w)
	return holds(out, w[2], err)
}

func told(w []string) (string, error) {
	out, err := say(w[1:])
	return holds(out, w[1], err)
}

func fronted(w []string) (string, error) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{ServerName: w[1]},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(w[1], w[2]))
		},
	}}
	r, err := client.Get("https://" + w[1] + ":" + w[2])
	if err == nil {
		r.Body.Close()
		req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+w[1]+":"+w[2]+"/inner", nil)
		req.Host = w[3]
		r, err = client.Do(req)
	}
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return holds(string(b), w[4], err)
}
