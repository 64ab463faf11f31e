package report

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/audit/export"
)

// A Source is the logs that a report is made from, and what is known of them from elsewhere.
type Source struct {
	Logs   []string // FILE.jsonl, each of which stands for its closed files too
	Named  []string // logs as they were named by whoever asked, for commands to copy; none: the daemon's
	Filter audit.Filter
	Known  audit.Evidence // given by hand; its keys are then asked of each log
	Own    *audit.Signer  // this host's key; nil: it can't be read
	NoOwn  string         // why not
	Live   bool           // the records come from a daemon, of Filter.Sandbox
}

// A Log is one log as it was found.
type Log struct {
	Path    string
	Checked audit.Report
	Err     error  // it can't be read, or not be verified
	Asked   string // whose signatures were asked for; "": nobody's
	Why     string // why nobody's

	first, last uint64    // records in the report
	from, to    time.Time // when they were made
	records     uint64
	after       uint64 // of them, at and after the first fault
	unsigned    uint64 // of them, after the last checkpoint
	bad         uint64 // lines that are no record
}

// OK reports whether the log is whole, as far as it was asked.
func (l *Log) OK() bool { return l.Err == nil && l.Checked.Fault == nil }

// read verifies each log and collects the records that are selected, up to the last one that was verified: what is written
// meanwhile is of the next report. Of a log that is not whole everything is read that can be.
func (s *Source) read(ctx context.Context, c *collected) []*Log {
	list := make([]*Log, len(s.Logs))
	for i, path := range s.Logs {
		l := &Log{Path: path}
		list[i] = l
		e, err := s.evidence(l)
		if err != nil {
			l.Err = err
		} else if l.Checked, l.Err = e.VerifyFile(path); l.Err != nil && errors.Is(l.Err, fs.ErrNotExist) {
			continue
		}
		if err := s.collect(ctx, l, c); err != nil && !errors.Is(err, errEnough) {
			l.Err = errors.Join(l.Err, err)
		}
	}
	return list
}

// evidence is what is known of a log. This host's own key is asked of the log that it signs, which is known by the head that is kept
// with the key, and of one that has checkpoints beside it.
func (s *Source) evidence(l *Log) (audit.Evidence, error) {
	e := s.Known
	if e.Keys != nil {
		l.Asked = "the keys that were given"
		return e, nil
	}
	if s.Own == nil {
		l.Why = s.NoOwn
		return e, nil
	}
	own, err := s.Own.Evidence(l.Path)
	if err != nil {
		return e, err
	}
	_, err = os.Lstat(l.Path + ".sig")
	if len(own.Heads) == 0 && errors.Is(err, fs.ErrNotExist) {
		l.Why = "it has no checkpoints: it was written before the logs of `nemoclaw run` were signed, or they were taken away"
		return e, nil
	}
	l.Asked = "this host's key"
	e.Keys = own.Keys
	e.Heads = append(e.Heads[:len(e.Heads):len(e.Heads)], own.Heads...)
	return e, nil
}

var errEnough = errors.New("the rest was not verified")

func (s *Source) collect(ctx context.Context, l *Log, c *collected) error {
	name, ok := strings.CutSuffix(filepath.Base(l.Path), ".jsonl")
	if !ok {
		return fmt.Errorf("%s: name a log by its FILE.jsonl, or a directory of logs", l.Path)
	}
	fault := uint64(0)
	if f := l.Checked.Fault; f != nil {
		fault = f.Seq
		if fault == 0 { // a line that tells no number
			fault = l.Checked.Head.Seq + 1
		}
	}
	// A search passes over what an index says is of other times. Whoever may write the log may have forged that, which the verification
	// says; what it hid belongs into the report all the same, so here each record is looked at.
	all := s.Filter
	all.From, all.To = time.Time{}, time.Time{}
	return audit.Query(ctx, filepath.Dir(l.Path), name, all, func(seq uint64, line []byte) error {
		if l.OK() && seq > l.Checked.Head.Seq {
			return errEnough
		}
		if !s.Filter.Selects(line) {
			return nil
		}
		d, err := export.Parse(line)
		if err != nil {
			l.bad++
			return nil
		}
		if l.records == 0 {
			l.first, l.from = seq, d.Time
		}
		l.last, l.to = seq, d.Time
		l.records++
		if fault > 0 && seq >= fault {
			l.after++
		}
		if l.Asked != "" && (l.Checked.Signed == nil || seq > l.Checked.Signed.Seq) {
			l.unsigned++
		}
		c.add(&d)
		return nil
	})
}
