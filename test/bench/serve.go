package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// serve answers /small with a few bytes and /large with 16 MiB on each address, in a process of its own, so that the server's work is
// nobody's advantage.
func serve(addrs []string) {
	large := make([]byte, 16<<20)
	mux := http.NewServeMux()
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello\n") })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(large)))
		_, _ = w.Write(large) // a client that went away is its own matter
	})
	done := make(chan error)
	for _, a := range addrs {
		l, err := net.Listen("tcp", a)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench serve:", err)
			os.Exit(1)
		}
		srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go func() { done <- srv.Serve(l) }()
	}
	fmt.Fprintln(os.Stderr, "bench serve:", <-done)
	os.Exit(1)
}
