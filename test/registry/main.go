// Command registry serves a small npm registry on loopback, for the demo on a machine that reaches no other. It prints its address and
// runs until its standard input ends, so that it can't outlive the script that started it.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/nemoclaw/nemoclaw/test/registry/npm"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "registry:", err)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(l.Addr())
	srv := &http.Server{Handler: npm.Handler(npm.Samples), ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, "registry:", srv.Serve(l))
	os.Exit(1)
}
