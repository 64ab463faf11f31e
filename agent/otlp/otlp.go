// Package otlp is what OTLP's messages have in common, of logs and of traces: attributes, who sends, and what a collector answers.
//
// It sends nothing and keeps nothing. The services' own packages of proto/otlp are never imported, since they bring in gRPC: the data
// messages (LogsData, TracesData) have the same bytes as their requests.
package otlp

import (
	"os"
	"strings"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// ContentType is that of its requests over HTTP, as protobuf.
const ContentType = "application/x-protobuf"

// Resource is the daemon of this host.
func Resource() *resource.Resource {
	host, _ := os.Hostname()
	return &resource.Resource{Attributes: []*common.KeyValue{Word("service.name", "nemoclaw-agent"), Word("host.name", host)}}
}

// Word is an attribute with a text.
func Word(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: Words(value)}
}

// Words is a string as protobuf wants it.
func Words(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(s, "\ufffd")}}
}

// Number is an attribute with a number.
func Number(key string, n int64) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: n}}}
}

// Partial reads a collector's answer, an Export...ServiceResponse: field 1 is the partial success, and of that field 1 how many items were
// refused, and field 2 why. ok: it is such an answer.
func Partial(b []byte) (refused int64, reason string, ok bool) {
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
