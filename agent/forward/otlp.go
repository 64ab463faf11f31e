package forward

import (
	"errors"
	"strings"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// otlp is OTLP/HTTP's logs, as protobuf. LogsData has the same bytes as the service's request, whose package would bring in gRPC.
type otlp struct{ resource *resource.Resource }

func newOTLP(config.Forward) *otlp {
	return &otlp{&resource.Resource{Attributes: []*common.KeyValue{word("service.name", "nemoclaw-agent"), word("host.name", hostname())}}}
}

func word(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: words(value)}
}

// words is a string as protobuf wants it.
func words(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(s, "\ufffd")}}
}

var severities = map[policy.Verdict]logs.SeverityNumber{
	policy.Deny: logs.SeverityNumber_SEVERITY_NUMBER_WARN, policy.Ask: logs.SeverityNumber_SEVERITY_NUMBER_INFO2, policy.Allow: logs.SeverityNumber_SEVERITY_NUMBER_INFO,
}

func (o *otlp) request(dst []byte, batch []record) ([]byte, error) {
	list := make([]*logs.LogRecord, len(batch))
	for i := range batch {
		r := &batch[i]
		at := uint64(max(0, r.Time.UnixNano()))
		list[i] = &logs.LogRecord{
			TimeUnixNano: at, ObservedTimeUnixNano: at, SeverityNumber: severities[r.Verdict], SeverityText: r.Verdict.String(), EventName: "nemoclaw.audit", Body: words(string(r.body)),
			Attributes: []*common.KeyValue{
				{Key: "seq", Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(r.Seq)}}},
				word("hash", r.Hash), word("sandbox", r.Sandbox), word("plane", string(r.Plane)), word("verdict", r.Verdict.String()),
			},
		}
	}
	scope := &common.InstrumentationScope{Name: "nemoclaw.audit"}
	all := &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{Resource: o.resource, ScopeLogs: []*logs.ScopeLogs{{Scope: scope, LogRecords: list}}}}}
	return proto.MarshalOptions{}.MarshalAppend(dst, all)
}

// answer looks for a partial success: how many records were refused, but not which. Nothing of such a request may be sent again.
func (o *otlp) answer(status int, body []byte, n int) error {
	if status/100 != 2 {
		return errAnswer
	}
	refused, reason, ok := partialSuccess(body)
	switch {
	case !ok:
		return errors.New("its answer is none of OTLP's")
	case refused <= 0: // a message alone is a warning
		return nil
	case refused >= int64(n):
		return &rejected{reason}
	}
	return &partial{unnamed: int(refused), reason: reason}
}

// partialSuccess reads an ExportLogsServiceResponse: field 1 is the partial success, and of that field 1 a number and field 2 why.
func partialSuccess(b []byte) (refused int64, reason string, ok bool) {
	ok = eachField(b, func(n protowire.Number, _ uint64, in []byte) bool {
		return n != 1 || eachField(in, func(n protowire.Number, v uint64, s []byte) bool {
			switch n {
			case 1:
				refused = int64(v)
			case 2:
				reason = string(s)
			}
			return true
		})
	})
	return refused, reason, ok
}

// eachField calls fn with the fields of a message: a varint's value, or the bytes of what has a length.
func eachField(b []byte, fn func(n protowire.Number, v uint64, in []byte) bool) bool {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return false
		}
		b = b[size:]
		var v uint64
		var in []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			in, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 || !fn(n, v, in) {
			return false
		}
		b = b[size:]
	}
	return true
}
