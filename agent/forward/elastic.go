package forward

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// elastic is the bulk API. A record is created under an id of its own, so one that was sent before is not there twice.
type elastic struct {
	name  string
	index []byte // the name in JSON
}

func newElastic(c config.Forward) *elastic {
	if c.Index == "" {
		c.Index = config.DefaultIndex
	}
	return &elastic{c.Index, appendJSON(nil, c.Index)}
}

// prepare makes the index, if it is not there. Elastic takes the first value that it sees in a field for the field's kind, and a string
// that looks like one for a date; so a program inside whose first word is a date would have it refuse everybody else's words.
func (e *elastic) prepare(address string) (at string, body []byte, ok bool) {
	u, err := url.Parse(address)
	if err != nil || !strings.HasSuffix(u.Path, "/_bulk") {
		return "", nil, false
	}
	u.Path, u.RawPath, u.RawQuery = strings.TrimSuffix(u.Path, "_bulk")+e.name, "", ""
	return u.String(), []byte(elasticIndex), true
}

// elasticIndex are the settings of an index. What a date is is ours.
const elasticIndex = `{"mappings":{"date_detection":false,"numeric_detection":false,"properties":{"@timestamp":{"type":"date"},"time":{"type":"date","ignore_malformed":true}}}}`

func (e *elastic) request(dst []byte, batch []record) ([]byte, error) {
	for i := range batch {
		r := &batch[i]
		dst = append(append(dst, `{"create":{"_index":`...), e.index...)
		dst = appendJSON(append(dst, `,"_id":`...), r.id())
		dst = append(dst, "}}\n"...)
		// The body is an object with at least one field.
		dst = append(dst, `{"@timestamp":"`...)
		dst = append(r.Time.UTC().AppendFormat(dst, time.RFC3339Nano), `",`...)
		dst = append(append(dst, r.body[1:]...), '\n')
	}
	return dst, nil
}

// answer looks at what became of each record.
func (e *elastic) answer(status int, body []byte, n int) error {
	if status/100 != 2 {
		return errAnswer
	}
	// No maps: of an answer that is made to be large they would take a hundred times as much as it.
	var said struct {
		Items []struct {
			Create *struct {
				Status int `json:"status"`
				Error  struct {
					Type   string `json:"type"`
					Reason string `json:"reason"`
				} `json:"error"`
			} `json:"create"`
		} `json:"items"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return fmt.Errorf("its answer is none of the bulk API: %w", err)
	}
	if len(said.Items) != n {
		return fmt.Errorf("it answers %d items for %d records", len(said.Items), n)
	}
	p := &partial{refused: map[int]string{}}
	for i, one := range said.Items {
		is := one.Create
		if is == nil {
			return fmt.Errorf("item %d of its answer is about no record that was created", i)
		}
		reason := strconv.Itoa(is.Status) + " " + is.Error.Type + ": " + is.Error.Reason
		switch {
		case is.Status/100 == 2 || is.Status == 409: // 409: it has it
			continue
		case is.Status == 400 || is.Status == 413:
			p.refused[i] = reason
		default: // too busy, no index, no right: none of these are the record's
			p.again = append(p.again, i)
		}
		p.reason = reason
	}
	if len(p.again)+len(p.refused) > 0 {
		return p
	}
	return nil
}
