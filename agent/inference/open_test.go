package inference

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestOpenStreams shows that streams that have begun keep neither their prompts nor the room for them: others would have to wait.
func TestOpenStreams(t *testing.T) {
	w := newWorld(t, "  classes: {pii: redact}\n", nil)
	end := make(chan struct{})
	w.cloud.say = func(out http.ResponseWriter, _ string) {
		fmt.Fprint(out, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n")
		out.(http.Flusher).Flush()
		<-end
	}
	front := httptest.NewServer(w.Router)
	defer front.Close()
	defer close(end)
	long := strings.Repeat("The lamp went out, and for a while nobody said anything.\n", 1<<20/57)
	open := func(n int) uint64 {
		for range n {
			body := fmt.Sprintf(`{"model":"x","stream":true,"tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object"}}}],"messages":[{"role":"user","content":"ask jane.doe@example.com %s"}]}`,
				strings.ReplaceAll(long, "\n", `\n`))
			req, err := http.NewRequest(http.MethodPost, front.URL+"/v1/chat/completions", &prompt{left: []byte(body)}) // the client keeps none of it either
			if err != nil {
				t.Fatal(err)
			}
			req.Host, req.ContentLength = "inference.local", int64(len(body))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
			if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.Contains(line, `"a"`) {
				t.Fatalf("%d: %s: %v", resp.StatusCode, line, err)
			}
			resp.Request = nil
		}
		for deadline := time.Now().Add(10 * time.Second); !w.bodies.TryAcquire(maxBodies); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the room of the streams' prompts is still taken")
			}
		}
		w.bodies.Release(maxBodies)
		w.cloud.asked()
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const streams = 8
	before := open(1)
	if after := open(streams); after > before+streams<<18 {
		t.Errorf("%d streams with a prompt of 1 MB each take %d KB each", streams, (after-before)/streams>>10)
	}
}
