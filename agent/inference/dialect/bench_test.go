package dialect

import (
	"bytes"
	"io"
	"testing"
)

// BenchmarkRequest is what a request of 1 MB in many short messages costs: read and shown, and written too.
func BenchmarkRequest(b *testing.B) {
	tree, err := parse(fixture(b, "requests", Anthropic))
	if err != nil {
		b.Fatal(err)
	}
	ms := tree.get("messages")
	line := str("{\"level\":\"info\",\n\"msg\":\"a line of a log, as tools give them\"}\n")
	for len(tree.json()) < 1<<20 {
		for range 100 {
			ms.add(obj("role", "user", "content", arr(obj("type", "text", "text", line))))
		}
	}
	body := tree.append(nil)
	for name, to := range map[string]Dialect{"read": 0, fileNames[Anthropic]: Anthropic, fileNames[OpenAIChat]: OpenAIChat} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := ReadRequest(Anthropic, Generate, "/v1/messages", body)
				if err != nil {
					b.Fatal(err)
				}
				if len(r.Texts()) == 0 {
					b.Fatal("no texts")
				}
				if to == 0 {
					continue
				}
				if _, _, err := r.Write(to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream is what a stream costs.
func BenchmarkStream(b *testing.B) {
	stream := fixture(b, "streams", Anthropic)
	for _, to := range []Dialect{Anthropic, OpenAIChat, OpenAIResponses} {
		b.Run(fileNames[to], func(b *testing.B) {
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				if err := pipe(NewDecoder(Anthropic, bytes.NewReader(stream)), NewEncoder(to, io.Discard, &Request{Dialect: to})); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
