package forward

import (
	"strconv"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// loki is its push API. A stream's labels are fixed, whatever is in the records: what tells them apart is structured metadata, which
// makes no streams (Loki 3, or 2.9 with allow_structured_metadata).
//
// What comes before its turn is a stream of its own: Loki refuses what is an hour older than the newest of its stream.
type loki struct{ head, early []byte }

func newLoki(config.Forward) *loki {
	b := append([]byte(`{"streams":[{"stream":{"service_name":"nemoclaw-agent","host":`), appendJSON(nil, hostname())...)
	return &loki{head: append(b[:len(b):len(b)], `},"values":[`...), early: append(b, `,"early":"true"},"values":[`...)}
}

func (l *loki) request(dst []byte, batch []record) ([]byte, error) {
	if batch[0].early {
		dst = append(dst, l.early...)
	} else {
		dst = append(dst, l.head...)
	}
	for i := range batch {
		r := &batch[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(append(dst, `["`...), r.Time.UnixNano(), 10)
		dst = appendJSON(append(dst, `",`...), string(r.body))
		dst = appendLabels(append(dst, ','), r)
		dst = append(dst, ']')
	}
	return append(dst, `]}]}`...), nil
}

// appendLabels appends a JSON object of what tells records apart, as strings.
func appendLabels(dst []byte, r *record) []byte {
	dst = append(dst, '{')
	for i, l := range [][2]string{
		{"seq", strconv.FormatUint(r.Seq, 10)}, {"hash", r.Hash}, {"sandbox", r.Sandbox}, {"plane", string(r.Plane)}, {"verdict", r.Verdict.String()},
	} {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSON(dst, l[0]), ':')
		dst = appendJSON(dst, l[1])
	}
	return append(dst, '}')
}

func (l *loki) answer(status int, _ []byte, _ int) error {
	if status/100 == 2 {
		return nil
	}
	return errAnswer
}
