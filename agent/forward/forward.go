// Package forward sends the records of the audit log to the receivers of the daemon's configuration: syslog, OTLP, Loki, Elastic and
// Splunk. Each has a stream of its own, which reads the log's files, in order, and keeps how far its receiver has come in a file.
//
// The log is the queue: a receiver that is away costs nothing but that the log's old files wait for it, and a kill loses nothing.
// What a receiver does not acknowledge is sent again, so it may get a record twice, with the same number and hash; never not at all,
// but for what it refuses for ever, while it takes others, and for what audit_max_total removed first. Both are counted, and recorded.
//
// It never changes a record or the log, holds up who writes it, keeps a copy, sends anything to a server whose certificate does not
// verify, or lets a secret into an error. UDP is left out: nobody would know what was lost.
package forward

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
)

// A Note records what becomes of a receiver, for whoever runs the daemon.
type Note func(action, object, reason string)

// Streams are those of a daemon, one for each receiver.
type Streams []*stream

// Open checks that what the receivers need is there, and reads how far each has come from a directory, which is made.
func Open(list []config.Forward, dir string, note Note) (Streams, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	var all Streams
	for _, c := range list {
		s, err := newStream(c, filepath.Join(dir, c.Name), note)
		if err != nil {
			return nil, fmt.Errorf("forward %s: %w", c.Name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// Check says what is wrong with the files that the receivers' settings name.
func Check(list []config.Forward) error {
	for _, c := range list {
		if _, err := newReceiver(c); err != nil {
			return fmt.Errorf("forward %s: %w", c.Name, err)
		}
	}
	return nil
}

// Run sends records until ctx ends or the log is closed.
func (all Streams) Run(ctx context.Context, log *audit.Writer) {
	var running sync.WaitGroup
	for _, s := range all {
		running.Go(func() { s.run(ctx, log) })
	}
	running.Wait()
}

// Forwarded is the last record that every receiver has, as the next daemon would know it too.
func (all Streams) Forwarded() uint64 {
	last := uint64(math.MaxUint64)
	for _, s := range all {
		s.mu.Lock()
		last = min(last, s.saved.seq)
		s.mu.Unlock()
	}
	return last
}

// Removed tells that records are no more in the log, of which not every receiver has all.
func (all Streams) Removed(first, last uint64) {
	for _, s := range all {
		s.gone(first, last)
	}
}

// State is how a receiver is.
type State struct {
	Name, Kind string
	Seq        uint64        // of the last record that it has
	Behind     time.Duration // the age of the oldest record that it was not given yet
	Refused    uint64        // records that it does not take, since the daemon began
	Removed    uint64        // records that were removed before it had them
	Error      string        // why it gets nothing now; "": it does
}

// States are how the receivers are, in the configuration's order.
func (all Streams) States() []State {
	list := make([]State, len(all))
	for i, s := range all {
		list[i] = s.state()
	}
	return list
}
