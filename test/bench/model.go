package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

// bodies are room for what the model is asked, so that its collector is no part of what is measured.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// model is a model server that speaks OpenAI's chat API. The prompt says how it answers ("Answer in 32 words, one each 5ms"); each
// word is the time at which it was sent.
func model(addr string) {
	die(http.ListenAndServe(addr, http.HandlerFunc(answer))) //nolint:gosec // nobody but the bench is here
}

func answer(w http.ResponseWriter, r *http.Request) {
	asked := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(asked)
	asked.Reset()
	if _, err := io.Copy(asked, r.Body); err != nil {
		return // the caller is gone
	}
	words, each, stream := 1, time.Duration(0), bytes.Contains(asked.Bytes(), []byte(`"stream":true`))
	if i := bytes.LastIndex(asked.Bytes(), []byte("Answer in ")); i >= 0 {
		var pause string
		if _, err := fmt.Sscanf(string(asked.Bytes()[i:min(i+60, asked.Len())]), "Answer in %d words, one each %s please", &words, &pause); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		each, _ = time.ParseDuration(pause) // it is the bench's own
	}
	if !stream {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`, sentences[0])
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	for i := range words {
		if i > 0 && each > 0 {
			select {
			case <-time.After(each):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprintf(w, "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@%.3f \"},\"finish_reason\":null}]}\n\n", now())
		if flush.Flush() != nil {
			return
		}
	}
	fmt.Fprint(w, "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"+
		"data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}\n\ndata: [DONE]\n\n")
}

// relay is a plain reverse proxy in Go, with TLS.
func relay(addr, to, pem string) {
	target, err := url.Parse(to)
	if err != nil {
		die(err)
	}
	p := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Else a stream that begins before the last look at the request's body is broken off now and then.
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/1 always can
		p.ServeHTTP(w, r)
	})
	s := &http.Server{Addr: addr, Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)} // of who only looks whether it is up
	die(s.ListenAndServeTLS(pem, pem))
}

func die(err error) {
	fmt.Fprintln(os.Stderr, "bench:", err)
	os.Exit(1)
}

// sentAt is when the word in a line of a stream was sent; false: there is none in it.
func sentAt(line []byte) (float64, bool) {
	_, rest, ok := bytes.Cut(line, []byte("@"))
	word, _, end := bytes.Cut(rest, []byte(" "))
	if !ok || !end {
		return 0, false
	}
	at, err := strconv.ParseFloat(string(word), 64)
	return at, err == nil
}
