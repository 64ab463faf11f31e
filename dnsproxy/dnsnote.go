package dnsproxy

import (
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

type noted struct {
	at    time.Time
	count uint64
}

// bucket limits how fast new names may appear under one wildcard: the label is a way to send data out, one query at a time.
type bucket struct {
	tokens float64
	at     time.Time
}

const (
	maxSlowQueries = 256 // queries that wait for something, for each socket
	foldFor        = 5 * time.Second
	maxNoted       = 4096
)

// takeToken reports whether one more new name may appear under a wildcard rule now.
func (s *Server) takeToken(id policy.RuleID) bool {
	s.dns.mu.Lock()
	defer s.dns.mu.Unlock()
	now := time.Now()
	b := s.dns.buckets[id]
	if b == nil {
		b = &bucket{tokens: float64(s.cfg.WildcardBurst), at: now}
		s.dns.buckets[id] = b
	}
	b.tokens = min(float64(s.cfg.WildcardBurst), b.tokens+now.Sub(b.at).Seconds()*s.cfg.WildcardRate)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
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
