package dnsproxy

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// maxCached is how many names' upstream addresses are kept. Allowed names only get here, and those are rate-limited.
const maxCached = 8192

// nameCache keeps what names resolve to upstream for as long as their TTLs say, never longer, and asks for one name once at
// a time.
type nameCache struct {
	s      *Server
	flight singleflight.Group

	mu sync.RWMutex
	m  map[string]cachedName
}

type cachedName struct {
	Addresses
	until int64 // nanoseconds of the server's clock
}

func (c *nameCache) init(s *Server) {
	c.s, c.m = s, make(map[string]cachedName)
}

// get returns a name's addresses if they are known now.
func (c *nameCache) get(name string) (cachedName, bool) {
	c.mu.RLock()
	e, ok := c.m[name]
	c.mu.RUnlock()
	return e, ok && c.s.now() < e.until
}

// resolve returns a name's addresses from memory or upstream.
func (c *nameCache) resolve(ctx context.Context, name string) (cachedName, error) {
	if e, ok := c.get(name); ok {
		return e, nil
	}
	// The flight outlives a caller that gives up: others may wait for it.
	ch := c.flight.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(c.s.ctx, c.s.cfg.DialTimeout)
		defer cancel()
		a, err := c.s.cfg.Upstream.Lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		ttl := min(max(a.TTL, minTTL), maxTTL)
		e := cachedName{Addresses: a, until: c.s.now() + int64(ttl/time.Nanosecond)}
		c.put(name, e)
		return e, nil
	})
	select {
	case r := <-ch:
		if r.Err != nil {
			return cachedName{}, r.Err
		}
		return r.Val.(cachedName), nil
	case <-ctx.Done():
		return cachedName{}, ctx.Err()
	}
}

func (c *nameCache) put(name string, e cachedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.m) >= maxCached {
		now := c.s.now()
		for k, v := range c.m {
			if v.until <= now {
				delete(c.m, k)
			}
		}
		if len(c.m) >= maxCached {
			clear(c.m)
		}
	}
	c.m[name] = e
}
