package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

const (
	answerTime = time.Minute // for a request and its answer
	maxAnswer  = 4 << 20
)

// server is a receiver of HTTP requests. The dialect says what is in one, and what an answer means.
type server struct {
	address string // of the URL, with its path
	host    string
	client  *http.Client
	header  http.Header
	token   config.Token
	user    string
	scheme  string // of the header Authorization, before the token
	dialect dialect
}

// A dialect is what a kind of receiver says.
type dialect interface {
	// request appends the body of a request.
	request(dst []byte, batch []record) ([]byte, error)
	// answer judges the body of an answer whose status is a success, or 400.
	answer(status int, body []byte, n int) error
}

// newHTTP makes a receiver that is no syslog server.
func newHTTP(c config.Forward) (receiver, error) {
	kind, where := c.Kind()
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("its address is no URL")
	}
	s := &server{token: c.Token, user: c.User, scheme: "Bearer", header: http.Header{"User-Agent": {"nemoclaw-agent"}}}
	var path string
	content := "application/json"
	switch kind {
	case "otlp":
		path, content, s.dialect = "/v1/logs", "application/x-protobuf", newOTLP(c)
	case "loki":
		path, s.dialect = "/loki/api/v1/push", newLoki(c)
		if c.Tenant != "" {
			s.header.Set("X-Scope-OrgID", c.Tenant)
		}
	case "elastic":
		path, content, s.scheme, s.dialect = "/_bulk", "application/x-ndjson", "ApiKey", newElastic(c)
	case "splunk":
		path, s.scheme, s.dialect = "/services/collector/event", "Splunk", newSplunk(c)
	default:
		return nil, fmt.Errorf("%q is no kind of receiver", kind)
	}
	s.header.Set("Content-Type", content)
	if strings.Trim(u.Path, "/") == "" {
		u.Path = path
	}
	s.address, s.host = u.String(), u.Host
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: dialTime, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	if u.Scheme == "https" {
		renew := tlsConfig(c)
		if transport.TLSClientConfig, err = renew(); err != nil {
			return nil, err
		}
		transport.TLSClientConfig.ServerName = "" // the URL's, or the proxy's
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			now, err := renew()
			if err != nil || len(now.Certificates) == 0 {
				return &tls.Certificate{}, err
			}
			return &now.Certificates[0], nil
		}
	}
	s.client = &http.Client{
		Timeout: answerTime, Transport: transport,
		// Who may be sent to stands in the configuration, and not in an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if _, err := readToken(s.token); err != nil {
		return nil, err
	}
	return s, nil
}

// settle has nothing to do: an answer settles its request.
func (s *server) settle(context.Context) error { return nil }

func (s *server) send(ctx context.Context, batch []record) error {
	body, err := s.dialect.request(nil, batch)
	if err != nil {
		return err
	}
	token, err := readToken(s.token) // anew, so that another token holds at once
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.address, bytes.NewReader(body))
	if err != nil {
		return errors.New("its address is no URL")
	}
	req.Header = s.header.Clone()
	switch {
	case token == "":
	case s.user != "":
		req.SetBasicAuth(s.user, token)
	default:
		req.Header.Set("Authorization", s.scheme+" "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", s.host, withoutURL(err))
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: its answer broke off: %w", s.host, err)
	}
	status := resp.StatusCode
	if status/100 == 2 || status == http.StatusBadRequest {
		err = s.dialect.answer(status, said, len(batch))
	} else {
		err = errAnswer
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, errAnswer) {
		err = s.judge(resp, said)
	}
	return hide(err, token)
}

// errAnswer is a dialect's that has nothing more to say than the status does.
var errAnswer = errors.New("the answer's status says it")

// judge is what an answer means by its status.
func (s *server) judge(resp *http.Response, said []byte) error {
	reason := fmt.Sprintf("%s answered %d %s", s.host, resp.StatusCode, http.StatusText(resp.StatusCode))
	if more := strings.TrimSpace(string(said)); more != "" {
		reason += ": " + text.Short(more, 300)
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return &rejected{reason}
	}
	return &later{errors.New(reason), retryAfter(resp.Header, time.Now())}
}

// retryAfter is how long a server wants to be left alone.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(v); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// withoutURL is an error without the address that net/url puts into it.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// hide takes a token out of what a server said.
func hide(err error, token string) error {
	if token == "" || !strings.Contains(err.Error(), token) {
		return err
	}
	clean := func(s string) string { return strings.ReplaceAll(s, token, "(the token)") }
	var no *rejected
	var l *later
	var part *partial
	switch {
	case errors.As(err, &no):
		return &rejected{clean(no.reason)}
	case errors.As(err, &l):
		return &later{errors.New(clean(l.Error())), l.after}
	case errors.As(err, &part):
		part.reason = clean(part.reason)
		for i, reason := range part.refused {
			part.refused[i] = clean(reason)
		}
		return part
	}
	return errors.New(clean(err.Error()))
}
