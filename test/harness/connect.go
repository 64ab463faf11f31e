package harness

import (
	"io"
	"net"
	"net/http"
	"net/netip"
)

// ConnectProxy is an HTTP proxy of the world that leads every CONNECT to one server: what a host behind a proxy has in
// HTTPS_PROXY. It returns its URL.
func (w *World) ConnectProxy(t T, to netip.AddrPort) string {
	t.Helper()
	a4, _ := w.Addr()
	w.HTTP(t, a4, 3128, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(rw, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		up, err := net.Dial("tcp", to.String())
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		defer up.Close()
		down, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer down.Close()
		if _, err := io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(up, down) // until either side closes
			up.Close()
		}()
		_, _ = io.Copy(down, up)
	}))
	return "http://" + netip.AddrPortFrom(a4, 3128).String()
}
