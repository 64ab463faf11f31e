package dnsproxy

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// watched is a small file, parsed anew when it changes. Its time stamp is looked at no more often than once a second.
type watched[T any] struct {
	path  string
	parse func(string) T

	mu      sync.Mutex
	looked  time.Time
	stamp   time.Time
	size    int64
	value   T
	err     error
	present bool
}

const watchInterval = time.Second

func (w *watched[T]) get() (T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if now.Sub(w.looked) < watchInterval {
		return w.value, w.err
	}
	w.looked = now
	st, err := os.Stat(w.path)
	if err == nil && w.present && st.ModTime().Equal(w.stamp) && st.Size() == w.size {
		return w.value, w.err
	}
	var src []byte
	if err == nil {
		src, err = os.ReadFile(w.path)
	}
	if err != nil {
		var zero T
		w.value, w.err, w.present = zero, err, false
		return zero, err
	}
	w.value, w.err, w.present = w.parse(string(src)), nil, true
	w.stamp, w.size = st.ModTime(), st.Size()
	return w.value, nil
}

// parseResolvConf returns the nameserver lines' addresses, port 53. Everything else, the search list included, has no
// bearing on names that a policy spells out in full.
func parseResolvConf(src string) []netip.AddrPort {
	var out []netip.AddrPort
	for line := range strings.Lines(src) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	return out
}

// parseHosts reads an /etc/hosts file into canonical name -> addresses.
func parseHosts(src string) map[string]Addresses {
	out := make(map[string]Addresses)
	for line := range strings.Lines(src) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		a, err := netip.ParseAddr(f[0])
		if err != nil {
			continue
		}
		for _, n := range f[1:] {
			name, ok := canonicalName(strings.TrimSuffix(n, "."))
			if !ok {
				continue
			}
			e := out[name]
			if a.Is4() {
				e.IPv4 = append(e.IPv4, a)
			} else {
				e.IPv6 = append(e.IPv6, a)
			}
			out[name] = e
		}
	}
	return out
}
