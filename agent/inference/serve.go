package inference

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// ServeHTTP serves one request from inside.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	who, _ := req.Context().Value(callerKey{}).(policy.Subject)
	rec := &record{r: r, rs: r.now.Load(), who: who, id: newID(), began: time.Now(), trace: r.begin(req.Context()), object: fmt.Sprintf("%.16s %.200s", req.Method, req.URL.Path)}
	d, op, known := dialect.Of(req.Method, req.URL.Path)
	if !known {
		d = dialect.OpenAIChat
	}
	if (op == dialect.ListModels || op == dialect.ShowModel) && d == dialect.OpenAIChat && req.Header.Get("Anthropic-Version") != "" {
		d = dialect.Anthropic // it has the same path as OpenAI's
	}
	err := r.serve(w, req, rec, d, op, known)
	var begun *streamError
	if err != nil && !errors.As(err, &begun) {
		why := asRefusal(err)
		status := why.status
		if status == 0 {
			status = http.StatusBadRequest
		}
		body := dialect.ErrorBody(d, status, "NemoClaw: "+why.message)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Nemoclaw", "refused")
		w.WriteHeader(status)
		n, _ := w.Write(body) // a caller that is gone hears nothing
		rec.out = int64(n)
	}
	rec.done(err)
}

// serve judges a request, has it answered, and says why not.
func (r *Router) serve(w http.ResponseWriter, req *http.Request, rec *record, d dialect.Dialect, op dialect.Operation, known bool) error {
	rs := rec.rs
	if rs.section == nil {
		return refuse("the policy of this sandbox has no section inference any more, so nothing answers here; the person who runs it can add one")
	}
	if host := req.Host; host != policy.InferenceName {
		if name, _, err := net.SplitHostPort(host); err != nil || name != policy.InferenceName {
			return refuse("the request is for %.80q, and this is %s", host, policy.InferenceName)
		}
	}
	if strings.EqualFold(req.Header.Get("Upgrade"), "websocket") {
		// Codex goes on over HTTP when it is told so, and gives up at a 400.
		return &refusal{status: http.StatusUpgradeRequired, message: policy.InferenceName + " speaks no WebSocket; the same path takes a POST, and streams"}
	}
	if !known {
		return refuse("%s answers the APIs of OpenAI (/v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings, /v1/models), Anthropic (/v1/messages) and Ollama (/api/chat, /api/generate, /api/embed, /api/tags), not %.16s %.100s", policy.InferenceName, req.Method, req.URL.Path)
	}
	switch op {
	case dialect.ListModels, dialect.ShowModel, dialect.Version, dialect.Greet:
		return r.tell(w, rec, d, op, strings.TrimPrefix(req.URL.Path, "/v1/models/"))
	}
	rec.trace.enter("receive")
	body, release, err := r.body(w, req)
	if err != nil {
		return err
	}
	defer release()
	rec.in = int64(len(body))
	many := int64(dialect.Values(body))
	if many > maxValues {
		return refuse("the request has more than the %d values that can be judged, so it was not sent anywhere; make it smaller", maxValues)
	}
	if err := r.values.Acquire(req.Context(), many); err != nil {
		return refuse("the request was given up while it waited for its turn")
	}
	room := release
	release = sync.OnceFunc(func() { r.values.Release(many); room() })
	defer release()
	if rs = r.now.Load(); rs.section == nil { // a body may take its time to come, and its turn too
		return refuse("the policy of this sandbox was changed while the request came, and has no section inference any more")
	}
	rec.rs = rs
	q, err := read(d, op, req, body)
	if err != nil {
		return err
	}
	rec.asked = strings.Clone(rec.told(text.Clip(q.Model, maxName)))
	beta := req.Header.Get("Anthropic-Beta")
	leftOut := rs.section.Unseen > policy.RouteCloud && q.LeaveOutOffers()
	rec.trace.enter("classify")
	rec.verdict, err = rs.judge(q, &r.memory, beta)
	rec.trace.classified(rec.verdict)
	rec.collect(q)
	if err != nil {
		return err
	}
	rec.verdict.leftOut = leftOut
	rec.trace.enter("decide")
	b, err := r.chosen(rs.section, q.Model)
	if err != nil {
		return err
	}
	rec.object, rec.model = b.String(), b.String()
	texts := q.Texts()
	return r.forward(req.Context(), w, rec, &exchange{request: q, caller: d, beta: beta, texts: texts, were: values(texts), release: release}, b)
}

// read reads a request; a fault of the reader is an error like any other.
func read(d dialect.Dialect, op dialect.Operation, req *http.Request, body []byte) (q *dialect.Request, err error) {
	defer func() {
		if recover() != nil {
			q, err = nil, refuse("the request could not be read, because of a fault in the router; please report it. It was not sent anywhere")
		}
	}()
	if q, err = dialect.ReadRequest(d, op, req.URL.RequestURI(), body); err != nil {
		return nil, refuse("the request could not be read (%v), so it was not sent anywhere", err)
	}
	return q, nil
}

// body reads what a request carries, when there is room for it.
func (r *Router) body(w http.ResponseWriter, req *http.Request) (body []byte, release func(), err error) {
	if e := req.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, nil, refuse("the body is encoded (%.40q), so it can't be judged and was not sent anywhere; send it as it is", e)
	}
	// curl says a form where nobody tells it otherwise, and Ollama's manual leaves it so. What is read is JSON, whatever is said.
	switch kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); {
	case err == nil && (kind == "application/json" || kind == "application/x-www-form-urlencoded"):
	case req.Header.Get("Content-Type") == "":
	default:
		return nil, nil, refuse("the body is %.80q, so it can't be judged and was not sent anywhere; send application/json", req.Header.Get("Content-Type"))
	}
	size := req.ContentLength
	if size > maxBody {
		return nil, nil, tooLarge()
	}
	if size < 0 {
		size = maxBody
	}
	if err := r.bodies.Acquire(req.Context(), size); err != nil {
		return nil, nil, refuse("the request was given up while it waited for its turn")
	}
	release = sync.OnceFunc(func() { r.bodies.Release(size) })
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(bodyTime))                            // a connection always can
	room := bytes.NewBuffer(make([]byte, 0, max(req.ContentLength, 0)+bytes.MinRead)) // what was said is reserved
	_, err = room.ReadFrom(http.MaxBytesReader(w, req.Body, maxBody))
	body = room.Bytes()
	_ = deadline.SetReadDeadline(time.Time{})
	if err != nil {
		release()
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, nil, tooLarge()
		}
		return nil, nil, refuse("the request's body did not come whole")
	}
	r.bodies.Release(size - int64(len(body))) // of one whose size was not said
	size = int64(len(body))
	return body, release, nil
}

func tooLarge() error {
	return refuse("the request is larger than the %d MiB that can be judged, so it was not sent anywhere; make it smaller", maxBody>>20)
}
