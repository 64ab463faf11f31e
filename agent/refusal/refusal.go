// Package refusal reads the file and exec refusals that Landlock reports through the kernel's audit stream (ABI 7 and
// newer), so that the static level can write down what it can see. It never turns the host's audit on or off and
// decides nothing: a refusal it tells of has already happened.
package refusal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrOff is returned by Open when the kernel reports no refusals: its audit is off or not built in.
var ErrOff = errors.New("the kernel's audit is off (auditctl -e 1 turns it on)")

// The values of linux/audit.h that are used here.
const (
	auditGet     = 1000 // AUDIT_GET
	groupReadLog = 1    // AUDIT_NLGRP_READLOG, as a bit mask of multicast groups
)

// Refusal is one access that Landlock denied.
type Refusal struct {
	Owner    string   // what Open's owner said
	PID      int      // in the host's pid namespace
	Exe      string   // the caller's executable; "" when the kernel doesn't audit system calls
	Args     string   // the caller's command line, arguments joined by a space; likewise
	Blockers []string // Landlock's names: fs.read_file, fs.execute, ...
	Path     string   // as the caller sees it; "" when the refusal has none (a scope)
}

// Reader receives the kernel's audit records.
type Reader struct {
	conn   *netlink.Conn
	owner  func(pid int) string
	closed atomic.Bool
}

// Open subscribes to the audit stream. owner says which of the caller's sandboxes the process pid (in the host's pid
// namespace) is in, "" for none; it is asked once per Landlock domain. ErrOff when this host reports nothing.
func Open(owner func(pid int) string) (*Reader, error) {
	on, err := enabled()
	if err != nil {
		return nil, err
	}
	if !on {
		return nil, ErrOff
	}
	conn, err := netlink.Dial(unix.NETLINK_AUDIT, &netlink.Config{Groups: groupReadLog})
	if err != nil {
		return nil, fmt.Errorf("subscribe to the kernel's audit stream: %w", err)
	}
	return &Reader{conn: conn, owner: owner}, nil
}

// Run hands each refusal of the caller's sandboxes to sink, and calls lost when the kernel dropped records because the
// reader was too slow, until Close. It returns nil after Close.
func (r *Reader) Run(sink func(Refusal), lost func()) error {
	a := newAssembler(r.owner, sink)
	for {
		msgs, err := r.conn.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil && r.closed.Load():
			return nil
		case err != nil:
			return fmt.Errorf("read the kernel's audit stream: %w", err)
		}
		for _, m := range msgs {
			a.add(uint16(m.Header.Type), string(m.Data))
		}
	}
}

// Close ends Run.
func (r *Reader) Close() error {
	r.closed.Store(true)
	return r.conn.Close()
}

// enabled asks the kernel whether its audit is on (struct audit_status of linux/audit.h).
func enabled() (bool, error) {
	conn, err := netlink.Dial(unix.NETLINK_AUDIT, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open the kernel's audit socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	msgs, err := conn.Execute(netlink.Message{Header: netlink.Header{Type: auditGet, Flags: netlink.Request}})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ECONNREFUSED) {
		return false, nil // in a container: the audit of another pid or network namespace is not told
	}
	if err != nil {
		return false, fmt.Errorf("ask the kernel's audit status: %w", err)
	}
	for _, m := range msgs {
		if m.Header.Type == auditGet && len(m.Data) >= 8 {
			return binary.NativeEndian.Uint32(m.Data[4:]) != 0, nil
		}
	}
	return false, nil
}
