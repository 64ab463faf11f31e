package dnsproxy

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// HostProxyFromEnvironment makes a Config.HostProxy of the host's HTTPS_PROXY, HTTP_PROXY and NO_PROXY (and their lower-case
// forms) as getenv gives them; nil when none is set. Port 80 counts as http, every other port as https.
func HostProxyFromEnvironment(getenv func(string) string) func(host string, port uint16) *url.URL {
	either := func(upper, lower string) string {
		if v := getenv(upper); v != "" {
			return v
		}
		return getenv(lower)
	}
	cfg := httpproxy.Config{
		HTTPProxy:  either("HTTP_PROXY", "http_proxy"),
		HTTPSProxy: either("HTTPS_PROXY", "https_proxy"),
		NoProxy:    either("NO_PROXY", "no_proxy"),
	}
	if cfg.HTTPProxy == "" && cfg.HTTPSProxy == "" {
		return nil
	}
	find := cfg.ProxyFunc()
	return func(host string, port uint16) *url.URL {
		u := &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}
		if port == 80 {
			u.Scheme = "http"
		}
		p, err := find(u)
		if err != nil {
			return nil
		}
		return p
	}
}

// dialHostProxy connects to a target through the host's own proxy with CONNECT, by name.
func (s *Server) dialHostProxy(ctx context.Context, t target) (net.Conn, error) {
	u := s.cfg.HostProxy(t.host(), t.port)
	if u == nil {
		return nil, errors.New("the host's proxy settings changed meanwhile")
	}
	if u.Scheme != "http" {
		return nil, fmt.Errorf("the host's proxy %s is not an http:// proxy, and no other kind is spoken", u.Redacted())
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	var d net.Dialer
	d.SetMultipathTCP(false)
	nc, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("reach the host's proxy: %w", err)
	}
	if err := connectThrough(ctx, nc, u, t.String()); err != nil {
		return nil, errors.Join(fmt.Errorf("the host's proxy %s: %w", u.Redacted(), err), nc.Close())
	}
	return nc, nil
}

// connectThrough speaks CONNECT. It reads the answer byte by byte, so that nothing of what follows it is lost.
func connectThrough(ctx context.Context, nc net.Conn, u *url.URL, to string) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	if err := nc.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	auth := ""
	if u.User != nil {
		pass, _ := u.User.Password()
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+pass)) + "\r\n"
	}
	if _, err := io.WriteString(nc, "CONNECT "+to+" HTTP/1.1\r\nHost: "+to+"\r\n"+auth+"\r\n"); err != nil {
		return err
	}
	r := bufio.NewReaderSize(io.LimitReader(oneByte{nc}, maxHead), 16)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answered CONNECT %s with %s", to, resp.Status)
	}
	return nc.SetDeadline(time.Time{})
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return o.r.Read(b[:1])
}
