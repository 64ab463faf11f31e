package forward

import (
	"fmt"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
)

// tally counts, and knows what of it was recorded.
type tally struct {
	n, told uint64
	at      time.Time
}

// failed keeps why nothing arrives, and records it when it has lasted.
func (s *stream) failed(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.since = time.Now()
	}
	s.err = err
	tell := !s.told && time.Since(s.since) >= s.patience
	s.told = s.told || tell
	s.mu.Unlock()
	if tell {
		s.note("forward", s.name, "records don't arrive; the log keeps them until they do: "+text.Short(err.Error(), 500))
	}
}

// arrived keeps that something arrives.
func (s *stream) arrived() {
	s.waits = 0
	s.mu.Lock()
	told, since := s.told, s.since
	s.err, s.told = nil, false
	s.mu.Unlock()
	if told {
		s.note("forward", s.name, "records arrive again, after "+time.Since(since).Round(time.Second).String())
	}
}

// refuse counts records that the receiver does not take, though it takes others.
func (s *stream) refuse(n uint64, which, reason string) {
	s.mu.Lock()
	t := &s.refused
	t.n += n
	tell, more := time.Since(t.at) >= s.tellEvery, t.n-t.told-n
	if tell {
		t.at, t.told = time.Now(), t.n
	}
	s.mu.Unlock()
	if !tell {
		return
	}
	reason = which + " is refused for ever, and others are taken; it is in the log: " + text.Short(reason, 500)
	if more > 0 {
		reason += fmt.Sprintf("; so were %d more since this was recorded last", more)
	}
	s.note("forward", s.name, reason)
}

// refusedSince records how many more were refused, when that was not recorded for long.
func (s *stream) refusedSince() {
	s.mu.Lock()
	t := &s.refused
	more := t.n - t.told
	if more == 0 || time.Since(t.at) < s.tellEvery {
		s.mu.Unlock()
		return
	}
	t.at, t.told = time.Now(), t.n
	s.mu.Unlock()
	s.note("forward", s.name, fmt.Sprintf("%d more records were refused for ever since this was recorded last; they are in the log", more))
}

// gone counts records that were removed before the receiver had them.
func (s *stream) gone(first, last uint64) {
	s.mu.Lock()
	first = max(first, s.goneTo+1, s.saved.seq+1)
	n := uint64(0)
	if last >= first {
		n = last - first + 1
		s.removed += n
		s.goneTo = last
	}
	s.mu.Unlock()
	if n > 0 {
		s.note("forward", s.name, fmt.Sprintf("the records %d to %d were removed from the log before the receiver had them: give audit_max_total more room, or see that it is reached", first, last))
	}
}

func (s *stream) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{Name: s.name, Kind: s.kind, Seq: s.acked.seq, Refused: s.refused.n, Removed: s.removed}
	if !s.oldest.IsZero() {
		st.Behind = max(0, time.Since(s.oldest))
	}
	if s.err != nil {
		st.Behind = max(st.Behind, time.Since(s.since)) // the clock may have been ahead when they were recorded
		st.Error = text.Short(s.err.Error(), 500)
	}
	return st
}
