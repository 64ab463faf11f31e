package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/otlp"
	"github.com/nemoclaw/nemoclaw/agent/sink"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

const maxSaid = 500 // bytes of what a receiver says that are kept

// server is a receiver of HTTP requests. The dialect says what is in one, and what an answer means.
type server struct {
	client  *sink.Client
	dialect dialect

	prepared bool
}

// A dialect is what a kind of receiver says.
type dialect interface {
	// request appends the body of a request.
	request(dst []byte, batch []record) ([]byte, error)
	// answer judges the body of an answer whose status is a success, or 400.
	answer(status int, body []byte, n int) error
}

// A preparer is a dialect with a request of its own before all others, a PUT. address is that of the others.
type preparer interface {
	prepare(address string) (at string, body []byte, ok bool)
}

// newHTTP makes a receiver that is no syslog server.
func newHTTP(c config.Forward) (receiver, error) {
	kind, where := c.Kind()
	o := sink.Options{URL: where, Server: c.Server, Scheme: "Bearer", Header: http.Header{"Content-Type": {"application/json"}}}
	var s server
	switch kind {
	case "otlp":
		o.Path, s.dialect = "/v1/logs", newOTLP(c)
		o.Header.Set("Content-Type", otlp.ContentType)
	case "loki":
		o.Path, s.dialect = "/loki/api/v1/push", newLoki(c)
		if c.Tenant != "" {
			o.Header.Set("X-Scope-OrgID", c.Tenant)
		}
	case "elastic":
		o.Path, o.Scheme, s.dialect = "/_bulk", "ApiKey", newElastic(c)
		o.Header.Set("Content-Type", "application/x-ndjson")
	case "splunk":
		o.Path, o.Scheme, s.dialect = "/services/collector/event", "Splunk", newSplunk(c)
	default:
		return nil, fmt.Errorf("%q is no kind of receiver", kind)
	}
	var err error
	s.client, err = sink.Open(o)
	return &s, err
}

// settle has nothing to do: an answer settles its request.
func (s *server) settle(context.Context) error { return nil }

func (s *server) send(ctx context.Context, batch []record) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	body, err := s.dialect.request(nil, batch)
	if err != nil {
		return err
	}
	a, err := s.client.Post(ctx, body)
	if err != nil {
		return err
	}
	if a.Status/100 == 2 || a.Status == http.StatusBadRequest {
		err = s.dialect.answer(a.Status, a.Body, len(batch))
	} else {
		err = errAnswer
	}
	if errors.Is(err, errAnswer) {
		err = judge(a)
	}
	return tidy(err, a)
}

// prepare does what comes before all records, until the receiver has answered it. What it answers is its affair: it may have been
// prepared already, or by somebody who may do so.
func (s *server) prepare(ctx context.Context) error {
	d, ok := s.dialect.(preparer)
	if !ok || s.prepared {
		return nil
	}
	if address, body, ok := d.prepare(s.client.Address()); ok {
		a, err := s.client.PutJSON(ctx, address, body)
		if err != nil {
			return err
		}
		if a.Status == http.StatusTooManyRequests || a.Status == http.StatusServiceUnavailable {
			return tidy(judge(a), a)
		}
	}
	s.prepared = true
	return nil
}

// errAnswer is a dialect's that has nothing more to say than the status does.
var errAnswer = errors.New("the answer's status says it")

// judge is what an answer means by its status.
func judge(a *sink.Answer) error {
	switch a.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return &rejected{a.Reason()}
	}
	return &later{errors.New(a.Reason()), a.RetryAfter(time.Now())}
}

// tidy has an error say only what may be told of what a server said, and little of it: there is one for each record, maybe.
func tidy(err error, a *sink.Answer) error {
	if err == nil {
		return nil
	}
	short := func(said string) string { return text.Clip(a.Hide(said), maxSaid) }
	var no *rejected
	var l *later
	var part *partial
	switch {
	case errors.As(err, &no):
		return &rejected{short(no.reason)}
	case errors.As(err, &l):
		return &later{errors.New(short(l.Error())), l.after}
	case errors.As(err, &part):
		part.reason = short(part.reason)
		for i, reason := range part.refused {
			part.refused[i] = short(reason)
		}
		return part
	}
	return errors.New(short(err.Error()))
}
