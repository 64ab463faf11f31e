package forward

import (
	"errors"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/otlp"
	"github.com/nemoclaw/nemoclaw/policy"
)

// otlpLogs is OTLP/HTTP's logs, as protobuf. LogsData has the same bytes as the service's request, whose package would bring in gRPC.
type otlpLogs struct{ resource *resource.Resource }

func newOTLP(config.Forward) *otlpLogs {
	return &otlpLogs{otlp.Resource()}
}

var severities = map[policy.Verdict]logs.SeverityNumber{
	policy.Deny: logs.SeverityNumber_SEVERITY_NUMBER_WARN, policy.Ask: logs.SeverityNumber_SEVERITY_NUMBER_INFO2, policy.Allow: logs.SeverityNumber_SEVERITY_NUMBER_INFO,
}

func (o *otlpLogs) request(dst []byte, batch []record) ([]byte, error) {
	list := make([]*logs.LogRecord, len(batch))
	for i := range batch {
		r := &batch[i]
		at := uint64(max(0, r.Time.UnixNano()))
		list[i] = &logs.LogRecord{
			TimeUnixNano: at, ObservedTimeUnixNano: at, SeverityNumber: severities[r.Verdict], SeverityText: r.Verdict.String(), EventName: "nemoclaw.audit", Body: otlp.Words(string(r.body)),
			Attributes: []*common.KeyValue{
				otlp.Number("seq", int64(r.Seq)),
				otlp.Word("hash", r.Hash), otlp.Word("sandbox", r.Sandbox), otlp.Word("plane", string(r.Plane)), otlp.Word("verdict", r.Verdict.String()),
			},
		}
	}
	scope := &common.InstrumentationScope{Name: "nemoclaw.audit"}
	all := &logs.LogsData{ResourceLogs: []*logs.ResourceLogs{{Resource: o.resource, ScopeLogs: []*logs.ScopeLogs{{Scope: scope, LogRecords: list}}}}}
	return proto.MarshalOptions{}.MarshalAppend(dst, all)
}

// answer looks for a partial success: how many records were refused, but not which. Nothing of such a request may be sent again.
func (o *otlpLogs) answer(status int, body []byte, n int) error {
	if status/100 != 2 {
		return errAnswer
	}
	refused, reason, ok := otlp.Partial(body)
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
