package hub

import (
	"fmt"
	"io"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

// behind is how many records a reader of events may fall behind before it loses some.
const behind = 4096

// Events writes every record of a hub to w as JSON lines, until the hub is closed. A reader that is too slow loses
// records, and finds a record of plane system, action "lost" with their count in the place where they would be.
type Events struct {
	done chan struct{}
	err  error
}

// WriteEvents starts writing h's records to w. close is called at the end when w is an io.Closer.
func WriteEvents(h *Hub, w io.Writer) *Events {
	e := &Events{done: make(chan struct{})}
	sub := h.Subscribe(behind)
	go func() {
		defer close(e.done)
		e.err = e.copy(sub, w)
		if c, ok := w.(io.Closer); ok {
			_ = c.Close() // what was written was written; a close error of a pipe or file can't be acted on
		}
	}()
	return e
}

func (e *Events) copy(sub *Subscription, w io.Writer) error {
	var buf []byte
	var told, last uint64 // losses written, number of the last record written
	for d := range sub.C {
		buf = buf[:0]
		for more := true; more; {
			// What is missing shows in the numbers, so the note stands where the records would.
			if last != 0 && d.Seq > last+1 {
				told += d.Seq - last - 1
				buf = appendLost(buf, d, d.Seq-last-1)
			}
			last = d.Seq
			buf = append(audit.AppendJSON(buf, &d), '\n')
			more = false
			if len(buf) < 64<<10 {
				select {
				case n, ok := <-sub.C:
					if ok {
						d, more = n, true
					}
				default:
				}
			}
		}
		if _, err := w.Write(buf); err != nil {
			return fmt.Errorf("json events: write: %w; the run goes on without them", err)
		}
	}
	if n := sub.Lost() - told; n > 0 {
		end := policy.Decision{Seq: last + n + 1, Time: time.Now()}
		if _, err := w.Write(appendLost(buf[:0], end, n)); err != nil {
			return fmt.Errorf("json events: write: %w", err)
		}
	}
	return nil
}

// appendLost appends the note that n records before d are missing, with the number of the last of them.
func appendLost(buf []byte, d policy.Decision, n uint64) []byte {
	note := policy.Decision{Seq: d.Seq - 1, Time: d.Time, Sandbox: d.Sandbox, Plane: policy.PlaneSystem, Action: "lost",
		Object: "events", Rule: "builtin", Verdict: policy.Allow, Revision: d.Revision, Count: n,
		Reason: "the reader of these events was too slow; the audit log has them all"}
	return append(audit.AppendJSON(buf, &note), '\n')
}

// Wait returns when the hub is closed and everything is written, or after the limit: a reader that does not read must
// not keep the run from ending.
func (e *Events) Wait(limit time.Duration) error {
	select {
	case <-e.done:
		return e.err
	default:
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-e.done:
		return e.err
	case <-t.C:
		return fmt.Errorf("json events: the reader did not take the last records within %v", limit)
	}
}
