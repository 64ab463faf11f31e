package forward

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/audit/export"
)

// record is one to send.
type record struct {
	audit.Entry
	body  []byte // in the stream's format, of one line: a JSON object, or CEF
	early bool   // it is sent before its turn, to see whether the receiver takes anything; it is sent again
}

// id is the same for the same record, however often it is sent, and another's never.
func (r *record) id() string { return strconv.FormatUint(r.Seq, 10) + "-" + r.Hash }

// newRecord puts a line into a format. What is no record in the log, because somebody wrote there, is sent as a text of one: it may
// end no request.
func newRecord(e audit.Entry, line []byte, format string) record {
	if !utf8.Valid(line) || !json.Valid(line) {
		return record{Entry: e, body: unreadable(e, line)}
	}
	if format == "json" {
		return record{Entry: e, body: bytes.Clone(line)}
	}
	d, err := export.Parse(line)
	if err != nil {
		return record{Entry: e, body: unreadable(e, line)}
	}
	body, err := export.Formats[format](nil, line, &d)
	if err != nil {
		return record{Entry: e, body: unreadable(e, line)}
	}
	return record{Entry: e, body: bytes.TrimSuffix(body, []byte("\n"))}
}

func unreadable(e audit.Entry, line []byte) []byte {
	b := strconv.AppendUint([]byte(`{"seq":`), e.Seq, 10)
	b = append(b, `,"unreadable":`...)
	return append(appendJSON(b, string(line)), '}')
}

// appendJSON appends a JSON string.
func appendJSON(dst []byte, s string) []byte {
	b, err := json.Marshal(strings.ToValidUTF8(s, "\ufffd"))
	if err != nil { // a string is always one
		return append(dst, `""`...)
	}
	return append(dst, b...)
}
