package server

import (
	"context"
	"encoding/json"

	"github.com/nemoclaw/nemoclaw/api"
)

// requests lists what can be answered, or sends its changes until the caller goes away.
func (q *request) requests() (any, error) {
	sandbox, err := sandboxOf(q.query)
	if err != nil {
		return nil, err
	}
	follow, err := follows(q.query)
	if err != nil {
		return nil, err
	}
	if !follow {
		return listed(q.server.backend.Requests(sandbox))
	}
	return nil, q.lines(true, func(ctx context.Context, out *output) error {
		return q.server.backend.FollowRequests(ctx, sandbox, func(c api.RequestChange) error {
			line, err := json.Marshal(c)
			if err != nil {
				return err
			}
			return out.add(0, line)
		})
	})
}

func (q *request) request() (any, error) { return value(q.server.backend.Request(q.PathValue("id"))) }

func (q *request) answerRequest() (any, error) {
	return with(q, func(a api.NewAnswer) (any, error) {
		return value(q.server.backend.Answer(q.Context(), q.who(), q.PathValue("id"), a))
	})
}

func (q *request) grants() (any, error) { return listed(q.server.backend.Grants(q.name)) }

func (q *request) revoke() (any, error) {
	return value(q.server.backend.Revoke(q.who(), q.name, q.PathValue("id")))
}
