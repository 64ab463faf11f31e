package inference

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/policy"
)

// BenchmarkRequest is what a request costs that goes to the cloud: both ends and the model server are this process, too.
func BenchmarkRequest(b *testing.B) {
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`)
	}))
	defer cloud.Close()
	p, err := policy.Parse("p.yaml", []byte("inference:\n  cloud: {model: corp/big, api: openai, url: \""+cloud.URL+"\"}\n"))
	if err != nil {
		b.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		b.Fatal(err)
	}
	a, err := OpenAuthority("")
	if err != nil {
		b.Fatal(err)
	}
	r, err := New(Config{Policy: c, Authority: a, Record: func(policy.Decision) {}, Source: Source{Key: func(*policy.Backend) (string, error) { return "k", nil }}})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			r.Serve(nc, 443, policy.Subject{}, trace.Link{})
		}
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, l.Addr().String())
		},
	}}
	defer client.CloseIdleConnections()
	const unit = "The scheduler looks at each task in turn and decides whether it may run now or has to wait.\n\tif err != nil { return \"x\" }\n"
	for _, size := range []int{1 << 10, 32 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			type m map[string]any
			var list []m
			for left := size; left > 0; left -= 8 << 10 {
				list = append(list, m{"role": "user", "content": strings.Repeat(unit, 100)[:min(left, 8<<10)]})
			}
			body, err := json.Marshal(m{"model": "x", "messages": list})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			start := used(b)
			defer func() { b.ReportMetric(float64((used(b)-start).Microseconds())/float64(b.N), "µs-core/op") }()
			for b.Loop() {
				resp, err := client.Post("https://"+policy.InferenceName+"/v1/chat/completions", "application/json", bytes.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				said, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(err, resp.Status, string(said))
				}
				resp.Body.Close()
			}
		})
	}
}

// used is the processors' time: the machines of this project are shared, and the clock shows that.
func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
