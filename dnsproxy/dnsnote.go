package dnsproxy

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/nemoclaw/nemoclaw/policy"
)

type noted struct {
	at    time.Time
	count uint64
}

const (
	maxSlowQueries = 256 // queries that wait for something, for each socket
	foldFor        = 5 * time.Second
	maxNoted       = 4096
)

// takeToken reports whether one more new name may appear under a wildcard rule now: the label is a way to send data out, one query at
// a time.
func (s *Server) takeToken(id policy.RuleID) bool {
	s.dns.mu.Lock()
	defer s.dns.mu.Unlock()
	l := s.dns.limits[id]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(s.cfg.WildcardRate), s.cfg.WildcardBurst)
		s.dns.limits[id] = l
	}
	return l.Allow()
}

// noteDNS records a decision unless the same was recorded in the last seconds; the next record then tells how many were
// folded into it. A resolver library asks for several types and tries several times, and that is one attempt.
func (s *Server) noteDNS(d policy.Decision, who asker, key string) { s.note(d, who, key, foldFor) }

// noteOnce records a decision once in the server's life.
func (s *Server) noteOnce(d policy.Decision, who asker, key string) { s.note(d, who, key, 1<<62) }

func (s *Server) note(d policy.Decision, who asker, key string, fold time.Duration) {
	s.dns.mu.Lock()
	now := time.Now()
	n, ok := s.dns.noted[key]
	if ok && now.Sub(n.at) < fold {
		n.count++
		s.dns.noted[key] = n
		s.dns.mu.Unlock()
		return
	}
	if len(s.dns.noted) >= maxNoted && key != "" {
		for k, v := range s.dns.noted {
			if now.Sub(v.at) >= foldFor && k != "full" {
				delete(s.dns.noted, k)
			}
		}
		if len(s.dns.noted) >= maxNoted { // a flood: one line for all of it
			s.dns.mu.Unlock()
			s.note(d, who, "", fold)
			return
		}
	}
	s.dns.noted[key] = noted{at: now}
	s.dns.mu.Unlock()
	if n.count > 0 {
		d.Count = n.count + 1
	}
	d.Subject = who()
	s.cfg.Record(d)
}
