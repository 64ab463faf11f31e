package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// sendTime is how long a server has to answer: Standard Webhooks recommends 15 to 30 seconds.
const sendTime = 20 * time.Second

// maxAnswer bounds what is read of an answer. Nothing is done with it: read, it leaves the connection for the next message.
const maxAnswer = 64 << 10

// webhook is a server that messages are sent to, as Standard Webhooks says (https://www.standardwebhooks.com, version 1.0.0).
type webhook struct {
	address string
	keys    [][]byte
	client  *http.Client
}

func newWebhook(c config.Hook) (w *webhook, name string, err error) {
	u, err := url.Parse(c.Webhook)
	if err != nil {
		return nil, "webhook", errors.New("its address is no URL")
	}
	name = "webhook " + u.Host // the rest may be a secret
	w = &webhook{address: c.Webhook}
	if w.keys, err = readKeys(c.SecretFile); err != nil {
		return nil, name, err
	}
	w.client = &http.Client{
		Timeout: sendTime,
		// Who may be sent to stands in the configuration, and not in an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: sendTime, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute},
	}
	return w, name, nil
}

func (w *webhook) send(ctx context.Context, m *message) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.address, bytes.NewReader(m.body))
	if err != nil {
		return bare(err)
	}
	now := time.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "nemoclaw-agent")
	req.Header.Set("webhook-id", m.id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	signatures := make([]string, len(w.keys))
	for i, k := range w.keys {
		signatures[i] = sign(k, m.id, now, m.body)
	}
	req.Header.Set("webhook-signature", strings.Join(signatures, " "))
	resp, err := w.client.Do(req)
	if err != nil {
		return &again{error: bare(err)}
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // what it says is no matter, and that it broke off neither
	code := resp.StatusCode
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusTooManyRequests || code >= 500:
		return &again{answer(code), retryAfter(resp.Header)}
	case code >= 300 && code < 400:
		return fmt.Errorf("%w, to go elsewhere; give the hook the address that it leads to", answer(code))
	}
	return answer(code)
}

func answer(code int) error {
	return fmt.Errorf("the server answered %d %s", code, http.StatusText(code))
}

// bare is an error without the address that net/url puts into it.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// retryAfter is how long a server wants to be left alone. As a date it is not read: our own waits are long enough.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(longest/time.Second))) * time.Second
}
