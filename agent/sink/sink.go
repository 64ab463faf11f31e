// Package sink posts to the servers over HTTP that the daemon's configuration names: receivers of audit records and of traces.
//
// It never speaks to a server whose certificate does not verify, follows a redirection, keeps a secret in memory longer than a request
// needs it, or lets one into an error. What an answer means is for who asked.
package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

const (
	dialTime      = 10 * time.Second
	answerTime    = time.Minute // for a request and its answer
	maxAnswer     = 4 << 20
	maxHead       = 64 << 10  // of an answer
	maxRetryAfter = time.Hour // that a server may want to be left alone
)

// Options are what a Client is made of.
type Options struct {
	URL    string
	Path   string // where the URL has none
	Server config.Server
	Scheme string      // of the header Authorization, before a token without a user
	Header http.Header // of each request
}

// A Client posts to one server.
type Client struct {
	address string // of the URL, with its path
	host    string
	http    *http.Client
	header  http.Header
	server  config.Server
	scheme  string
}

// Open checks the files that a server's settings name. Nothing is connected yet.
func Open(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("its address is no URL")
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = o.Path
	}
	c := &Client{address: u.String(), host: u.Host, server: o.Server, scheme: o.Scheme, header: http.Header{"User-Agent": {"nemoclaw-agent"}}}
	maps.Copy(c.header, o.Header)
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: dialTime, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxHead}
	if u.Scheme == "https" {
		renew := TLS(o.Server, "") // the URL's host, or the proxy's
		if transport.TLSClientConfig, err = renew(); err != nil {
			return nil, err
		}
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			now, err := renew()
			if err != nil || len(now.Certificates) == 0 {
				return &tls.Certificate{}, err
			}
			return &now.Certificates[0], nil
		}
	}
	c.http = &http.Client{
		Timeout: answerTime, Transport: transport,
		// Who may be sent to stands in the configuration, and not in an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	_, err = readToken(o.Server.Token)
	return c, err
}

// Host is the server's, with its port where the URL has one.
func (c *Client) Host() string { return c.host }

// Address is the URL that is posted to.
func (c *Client) Address() string { return c.address }

// Post sends a body, and returns what the server says to it, whatever its status. An error has neither the URL nor the token in it.
func (c *Client) Post(ctx context.Context, body []byte) (*Answer, error) {
	return c.ask(ctx, http.MethodPost, c.address, c.header, body)
}

// PutJSON is Post for what comes before that, at another address of the same server.
func (c *Client) PutJSON(ctx context.Context, address string, body []byte) (*Answer, error) {
	header := http.Header{"User-Agent": c.header["User-Agent"], "Content-Type": {"application/json"}}
	return c.ask(ctx, http.MethodPut, address, header, body)
}

func (c *Client) ask(ctx context.Context, method, address string, header http.Header, body []byte) (*Answer, error) {
	token, err := readToken(c.server.Token) // anew, so that another token holds at once
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("its address is no URL")
	}
	req.Header = header.Clone()
	switch {
	case token == "":
	case c.server.User != "":
		req.SetBasicAuth(c.server.User, token)
	default:
		req.Header.Set("Authorization", c.scheme+" "+token)
	}
	_, sent, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.host, withoutURL(err))
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s: its answer broke off: %w", c.host, err)
	}
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: said, host: c.host, secrets: []string{token, sent}}, nil
}

// An Answer is a server's.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // at most 4 MiB

	host    string
	secrets []string // the token, and how it was sent
}

// Reason is the answer in words.
func (a *Answer) Reason() string {
	reason := fmt.Sprintf("%s answered %d %s", a.host, a.Status, http.StatusText(a.Status))
	if more := strings.TrimSpace(a.Hide(string(a.Body))); more != "" {
		reason += ": " + text.Short(more, 300)
	}
	return reason
}

// RetryAfter is how long the server wants to be left alone, an hour at most.
func (a *Answer) RetryAfter(now time.Time) time.Duration {
	v := a.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(v); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(0, t.Sub(now)), maxRetryAfter)
	}
	return 0
}

// Hide takes the token, and how it was sent, out of what the server said, which may be what it was sent.
func (a *Answer) Hide(s string) string {
	for _, secret := range a.secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "(the token)")
		}
	}
	return s
}

// withoutURL is an error without the address that net/url puts into it.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
