package forward

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxDoubt is how many records in a row are refused before the receiver is tried with another: what fails meanwhile is done again.
const maxDoubt = 64

// prove tries a receiver that refuses one record after the other with a later one of the log: with that the daemon itself made last,
// which no program inside can have spoilt, and with the last of all. If it takes one, it is the doubted that are wrong, and they are
// judged, with next as judge has it. It reports whether that could be done.
func (s *stream) prove(ctx context.Context, doubted []doubt, next uint64) (bool, error) {
	after := uint64(0)
	for _, d := range doubted {
		after = max(after, d.r.Seq)
	}
	took := false
	var tried uint64
	for _, planes := range [][]policy.Plane{{policy.PlaneSystem}, s.flt.Planes} {
		if len(s.flt.Planes) > 0 && !slices.Contains(s.flt.Planes, planes[0]) {
			continue // it is not to have these
		}
		r, ok, err := s.newest(ctx, after, planes)
		if err != nil {
			return false, err
		}
		if !ok || r.Seq == tried {
			continue
		}
		tried = r.Seq
		err = s.receiver.send(ctx, []record{r})
		var no *rejected
		var part *partial
		switch {
		case err == nil:
			took = true
		case errors.As(err, &no) || errors.As(err, &part) && len(part.refused) > 0:
		default:
			return false, err
		}
		if took {
			break
		}
	}
	if !took {
		return false, nil
	}
	return true, s.judge(ctx, doubted, next)
}

// newest is the last record after a number that the receiver is to have, as one to try it with.
func (s *stream) newest(ctx context.Context, after uint64, planes []policy.Plane) (r record, ok bool, err error) {
	flt := audit.Filter{Since: after, Planes: planes, Verdicts: s.flt.Verdicts, Last: 1}
	err = s.log.Query(ctx, flt, func(_ uint64, line []byte) error {
		e, _ := audit.ReadEntry(line)
		r, ok = newRecord(e, line, s.format), true
		r.early = true
		return nil
	})
	return r, ok, err
}

// nextOf is the number of the first of records, or one that none has.
func nextOf(list []record) uint64 {
	if len(list) == 0 {
		return math.MaxUint64
	}
	return list[0].Seq
}
