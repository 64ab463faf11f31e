package inference

import (
	"net/http"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/policy"
)

// tell answers what the router knows by itself, in the caller's dialect: the models that there are, for instance. Nothing is sent.
func (r *Router) tell(w http.ResponseWriter, rec *record, d dialect.Dialect, op dialect.Operation, asked string) error {
	var body []byte
	var err error
	kind := "application/json"
	switch list := r.models(rec.rs.section); op {
	case dialect.ListModels:
		body, err = dialect.WriteModels(d, list)
	case dialect.ShowModel:
		if len(list) == 0 {
			return refuse("there is no model")
		}
		m := list[0]
		if d != dialect.OllamaChat {
			m.Name = asked // any name may be asked for
		}
		body, err = dialect.WriteModel(d, m)
	case dialect.Version:
		body = dialect.WriteVersion()
	case dialect.Greet:
		kind, body = "text/plain; charset=utf-8", []byte(policy.InferenceName+" is here\n")
	}
	if err != nil {
		return err
	}
	return say(w, rec, kind, body)
}

// models are those that may answer.
func (r *Router) models(f *policy.Inference) []dialect.Model {
	var names []string
	if b, err := r.chosen(f, policy.CloudName); err == nil {
		names = append(names, b.String())
	}
	if b := f.Local; b != nil && (len(names) == 0 || names[0] != b.String()) {
		names = append(names, b.String())
	}
	names = append(names, f.Names()...)
	var list []dialect.Model
	for _, n := range names {
		owner, _, _ := strings.Cut(n, "/")
		list = append(list, dialect.Model{Name: n, Owner: owner, Created: r.began})
	}
	return list
}

// counts reports whether a backend's API can count the tokens of a request.
func counts(b *policy.Backend) bool { return b.API == "anthropic" || b.API == "gemini" }

// bytesPerToken is what English has with most tokenizers.
const bytesPerToken = 4

// estimate answers how many tokens a request has, for a backend that can't count them, and says in a header that it is one.
func estimate(w http.ResponseWriter, rec *record, q *dialect.Request) error {
	n := 0
	for _, t := range q.Texts() {
		n += len(*t)
	}
	w.Header().Set("X-Nemoclaw", "estimate")
	return say(w, rec, "application/json", dialect.WriteTokenCount((n+bytesPerToken-1)/bytesPerToken))
}

// say writes an answer of the router's own.
func say(w http.ResponseWriter, rec *record, kind string, body []byte) error {
	w.Header().Set("Content-Type", kind)
	n, _ := w.Write(body) // a caller that is gone hears nothing
	rec.out = int64(n)
	return nil
}
