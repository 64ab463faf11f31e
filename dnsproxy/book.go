package dnsproxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
)

// The synthetic ranges. Names get addresses from FirstIPv4 and FirstIPv6 upward, in pairs with the same index; below them
// are the addresses of the proxy itself.
var (
	Synthetic4 = netip.MustParsePrefix("198.18.0.0/15")
	Synthetic6 = netip.MustParsePrefix("fd6e:656d:6f63::/64")

	// RawAddr4 and RawAddr6 are where the transparent listener is bound (port 1); connecting to them directly is refused.
	RawAddr4 = netip.MustParseAddr("198.18.0.1")
	RawAddr6 = netip.MustParseAddr("fd6e:656d:6f63::1")
	// ResolverAddr4 and ResolverAddr6 are what resolv.conf names.
	ResolverAddr4 = netip.MustParseAddr("198.18.0.2")
	ResolverAddr6 = netip.MustParseAddr("fd6e:656d:6f63::2")
	// ProxyAddr4 and ProxyAddr6 are the explicit proxy, port ProxyPort, name ProxyName.
	ProxyAddr4 = netip.MustParseAddr("198.18.0.3")
	ProxyAddr6 = netip.MustParseAddr("fd6e:656d:6f63::3")

	firstIPv4 = netip.MustParseAddr("198.18.1.0")
)

// Ports and names of the proxy's own addresses.
const (
	RawPort   = 1
	ProxyPort = 3128
	ProxyName = "proxy.nemoclaw.internal"
)

const (
	firstIPv6Low = 0x10000          // fd6e:656d:6f63::1:0
	bookSize     = 1<<17 - 256      // addresses from 198.18.1.0 to 198.19.255.255
	maxBookFile  = bookSize * 280   // bytes; a longer file was not written by us
	reservedV6   = firstIPv6Low - 1 // low 32 bits up to which IPv6 addresses are the proxy's own
)

// ErrBookFull says that no more names can be learnt.
var ErrBookFull = errors.New("the sandbox has learnt as many names as it may")

// Named is one name and its pair of addresses.
type Named struct {
	Name     string
	IPv4     netip.Addr
	IPv6     netip.Addr
	Assigned bool // asked for by the policy (an exact name), not learnt from a query
}

// book keeps which name has which synthetic addresses. Look-ups may run concurrently with one another and with add.
// A name is found only after its line is in the file and the learn callback has returned.
type book struct {
	max   int                                        // learnt names
	learn func(name string, a4, a6 netip.Addr) error // nil: nothing to tell

	addMu sync.Mutex // serialises add, so that the callback runs once per name and outside mu
	file  *os.File   // nil: not persisted

	mu      sync.RWMutex
	index   map[string]uint32
	entries []bookEntry
	learnt  int
}

type bookEntry struct {
	name     string
	assigned bool
	ready    bool // the learn callback has succeeded
}

// openBook reads the names of an earlier run from path ("" keeps them in memory only) and appends to it from then on.
// A torn last line, which a kill may leave, is cut off; anything else unexpected is an error.
func openBook(path string, maxLearnt int, learn func(string, netip.Addr, netip.Addr) error) (*book, error) {
	b := &book{max: maxLearnt, learn: learn, index: make(map[string]uint32)}
	if path == "" {
		return b, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the names file: %w", err)
	}
	if err := b.load(f); err != nil {
		return nil, errors.Join(fmt.Errorf("read the names file %s: %w", path, err), f.Close())
	}
	b.file = f
	return b, nil
}

func (b *book) load(f *os.File) error {
	src, err := io.ReadAll(io.LimitReader(f, maxBookFile))
	if err != nil {
		return err
	}
	whole := bytes.LastIndexByte(src, '\n') + 1
	for n, line := range strings.Split(strings.TrimSuffix(string(src[:whole]), "\n"), "\n") {
		if line == "" && whole == 0 {
			break
		}
		kind, rest, _ := strings.Cut(line, " ")
		idx, name, _ := strings.Cut(rest, " ")
		i, err := strconv.ParseUint(idx, 10, 32)
		clean, ok := canonicalName(name)
		if err != nil || !ok || clean != name || int(i) != len(b.entries) || kind != "exact" && kind != "learnt" {
			return fmt.Errorf("line %d is not \"exact|learnt INDEX NAME\" in order; the file was changed by something else: remove it while the sandbox is stopped", n+1)
		}
		b.entries = append(b.entries, bookEntry{name: name, assigned: kind == "exact"})
		b.index[name] = uint32(i)
		if kind == "learnt" {
			b.learnt++
		}
	}
	if whole != len(src) {
		return f.Truncate(int64(whole))
	}
	return nil
}

// close closes the names file. The book still answers look-ups.
func (b *book) close() error {
	b.addMu.Lock()
	defer b.addMu.Unlock()
	if b.file == nil {
		return nil
	}
	f := b.file
	b.file = nil
	return f.Close()
}

// pair returns the addresses of index i.
func pair(i uint32) (a4, a6 netip.Addr) {
	b4 := firstIPv4.As4()
	binary.BigEndian.PutUint32(b4[:], binary.BigEndian.Uint32(b4[:])+i)
	b6 := Synthetic6.Addr().As16()
	binary.BigEndian.PutUint32(b6[12:], firstIPv6Low+i)
	return netip.AddrFrom4(b4), netip.AddrFrom16(b6)
}

// indexOf is the inverse of pair; false for addresses outside the ranges and for the proxy's own.
func indexOf(a netip.Addr) (uint32, bool) {
	switch {
	case a.Is4() && Synthetic4.Contains(a):
		b, f := a.As4(), firstIPv4.As4()
		v, first := binary.BigEndian.Uint32(b[:]), binary.BigEndian.Uint32(f[:])
		return v - first, v >= first
	case a.Is6() && Synthetic6.Contains(a):
		b := a.As16()
		if binary.BigEndian.Uint32(b[8:]) != 0 {
			return 0, false
		}
		v := binary.BigEndian.Uint32(b[12:])
		return v - firstIPv6Low, v > reservedV6
	}
	return 0, false
}

// isSynthetic reports whether a is in a synthetic range, assigned or not.
func isSynthetic(a netip.Addr) bool { return Synthetic4.Contains(a) || Synthetic6.Contains(a) }

// name returns the name behind a synthetic address.
func (b *book) name(a netip.Addr) (string, bool) {
	i, ok := indexOf(a)
	if !ok {
		return "", false
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if int64(i) >= int64(len(b.entries)) || !b.entries[i].ready {
		return "", false
	}
	return b.entries[i].name, true
}

// lookup returns a name's addresses if it has some already.
func (b *book) lookup(name string) (a4, a6 netip.Addr, ok bool) {
	b.mu.RLock()
	i, ok := b.index[name]
	ok = ok && b.entries[i].ready
	b.mu.RUnlock()
	if !ok {
		return netip.Addr{}, netip.Addr{}, false
	}
	a4, a6 = pair(i)
	return a4, a6, true
}

// add returns a name's addresses, giving it a pair when it has none: first the file, then the learn callback, and only then
// is the name visible. assigned names (exact ones of the policy) do not count towards the cap. Errors: ErrBookFull, the
// file's, the callback's; after an error the same call may be tried again.
func (b *book) add(name string, assigned bool) (a4, a6 netip.Addr, err error) {
	if a4, a6, ok := b.lookup(name); ok {
		return a4, a6, nil
	}
	b.addMu.Lock()
	defer b.addMu.Unlock()
	b.mu.RLock()
	i, known := b.index[name]
	ready := known && b.entries[i].ready
	next, learnt := len(b.entries), b.learnt
	b.mu.RUnlock()
	if !known {
		if next >= bookSize || !assigned && learnt >= b.max {
			return a4, a6, ErrBookFull
		}
		i = uint32(next)
		if err := b.persist(i, name, assigned); err != nil {
			return a4, a6, err
		}
		b.mu.Lock()
		b.entries = append(b.entries, bookEntry{name: name, assigned: assigned})
		b.index[name] = i
		if !assigned {
			b.learnt++
		}
		b.mu.Unlock()
	}
	a4, a6 = pair(i)
	if ready {
		return a4, a6, nil
	}
	if b.learn != nil {
		if err := b.learn(name, a4, a6); err != nil {
			return netip.Addr{}, netip.Addr{}, fmt.Errorf("tell the kernel about %s: %w", name, err)
		}
	}
	b.mu.Lock()
	b.entries[i].ready = true
	b.mu.Unlock()
	return a4, a6, nil
}

// persist appends one line with one write. A failed or short write is undone, so that the next line starts clean.
func (b *book) persist(i uint32, name string, assigned bool) error {
	if b.file == nil {
		return nil
	}
	kind := "learnt"
	if assigned {
		kind = "exact"
	}
	line := kind + " " + strconv.FormatUint(uint64(i), 10) + " " + name + "\n"
	end, err := b.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("append %s to the names file %s: %w", name, b.file.Name(), err)
	}
	if _, err := b.file.WriteString(line); err != nil {
		return fmt.Errorf("append %s to the names file %s: %w", name, b.file.Name(), errors.Join(err, b.file.Truncate(end)))
	}
	return nil
}

// pendingNames returns the names that have addresses which the learn callback has not heard of: those of an earlier run.
func (b *book) pendingNames() []string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []string
	for _, e := range b.entries {
		if !e.ready {
			out = append(out, e.name)
		}
	}
	return out
}

// names returns all names that have addresses, in the order of their indexes.
func (b *book) names() []Named {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]Named, 0, len(b.entries))
	for i, e := range b.entries {
		if e.ready {
			a4, a6 := pair(uint32(i))
			out = append(out, Named{Name: e.name, IPv4: a4, IPv6: a6, Assigned: e.assigned})
		}
	}
	return out
}
