package forward

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// splunk is its HTTP Event Collector. Its answer says that it has the events, as far as a token without indexer acknowledgement does;
// one with it is refused by the collector, since no channel is given.
type splunk struct{ tail []byte }

func newSplunk(c config.Forward) *splunk {
	b := append([]byte(`,"source":"nemoclaw-agent","sourcetype":"nemoclaw:audit","host":`), appendJSON(nil, hostname())...)
	if c.Index != "" {
		b = appendJSON(append(b, `,"index":`...), c.Index)
	}
	return &splunk{append(b, `,"event":`...)}
}

func (s *splunk) request(dst []byte, batch []record) ([]byte, error) {
	for i := range batch {
		r := &batch[i]
		dst = strconv.AppendInt(append(dst, `{"time":"`...), r.Time.Unix(), 10)
		dst = fmt.Appendf(dst, `.%06d","fields":`, r.Time.Nanosecond()/1000)
		dst = append(appendLabels(dst, r), s.tail...)
		if len(r.body) > 0 && r.body[0] == '{' {
			dst = append(dst, r.body...)
		} else {
			dst = appendJSON(dst, string(r.body))
		}
		dst = append(dst, '}', '\n')
	}
	return dst, nil
}

// The collector's codes that an event may be to blame for: no data, an invalid format, no event, an empty one, indexed fields.
var eventCodes = map[int]bool{5: true, 6: true, 12: true, 13: true, 15: true}

// answer looks at the code: a collector says with 400 too that it has no such index.
func (s *splunk) answer(status int, body []byte, _ int) error {
	var said struct {
		Text string `json:"text"`
		Code *int   `json:"code"`
		At   *int   `json:"invalid-event-number"`
	}
	if err := json.Unmarshal(body, &said); err != nil || said.Code == nil {
		return fmt.Errorf("it answered %d without a code of the event collector's: is it one?", status)
	}
	reason := fmt.Sprintf("code %d: %s", *said.Code, said.Text)
	switch {
	case *said.Code == 0 && status/100 == 2:
		return nil
	case eventCodes[*said.Code]:
		return &rejected{reason}
	}
	return &later{error: fmt.Errorf("%d, %s", status, reason)}
}
