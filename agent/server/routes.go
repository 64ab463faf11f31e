package server

import (
	"net/http"
	"path"
	"slices"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A route is one request that the daemon knows: what it needs, what it does, and what the OpenAPI document says of it.
type route struct {
	method, path string
	role         role   // that may
	root         bool   // only root may, and no group
	words        string // what it does, as in "may not ..."
	query        []param
	body         any    // a value of the body's type; nil: no JSON
	takes, gives string // media types of streams
	answer       any    // a value of the answer's type; nil: none
	do           func(*request) (any, error)
}

// A param is one of a query's.
type param struct {
	name, words string
	kind        string // as JSON Schema has it; "": string
	needed      bool
	many        bool
}

const (
	tarType   = "application/x-tar"
	linesType = "application/x-ndjson"
	boxes     = "/v1/sandboxes"
	box       = boxes + "/{name}"
	approvals = "/v1/approvals"
	approval  = approvals + "/{id}"
)

var pathParam = param{name: "path", words: "an absolute path of the sandbox", needed: true}

var routes []route

func init() { // not at the declaration: a handler's errors name its route, and so the table
	routes = []route{
		{method: http.MethodGet, path: "/v1/info", role: watch, words: "say what the daemon is", answer: api.Info{}, do: (*request).info},
		{method: http.MethodGet, path: "/v1/openapi.json", role: watch, words: "describe this interface", gives: "application/json", do: (*request).openAPI},
		{method: http.MethodGet, path: "/v1/gpus", role: watch, words: "say which GPUs the host has, and who uses them", answer: api.GPUs{}, do: (*request).gpus},
		{method: http.MethodGet, path: "/v1/events", role: watch, words: "read the records of the audit log, one a line",
			query: eventParams, gives: linesType, do: (*request).events},

		{method: http.MethodPost, path: "/v1/audit/erase", role: steer, root: true, words: "erase texts of the audit log",
			body: api.Erase{}, answer: api.Erased{}, do: (*request).eraseAudit},

		{method: http.MethodGet, path: approvals, role: watch, words: "list what a person may decide, or follow it",
			query: []param{
				{name: "sandbox", words: "only this sandbox's"},
				{name: "follow", words: "true: as lines, one a change, and go on with what comes; an empty line every 15 s is a sign of life", kind: "boolean"},
			}, answer: []api.Request{}, do: (*request).requests},
		{method: http.MethodGet, path: approval, role: watch, words: "describe a request", answer: api.Request{}, do: (*request).request},
		{method: http.MethodPost, path: approval + "/answer", role: steer, words: "answer a request",
			body: api.NewAnswer{}, answer: api.AnswerResult{}, do: (*request).answerRequest},

		{method: http.MethodGet, path: boxes, role: watch, words: "list the sandboxes", answer: []api.Sandbox{}, do: (*request).list},
		{method: http.MethodPost, path: boxes, role: steer, words: "create a sandbox", body: api.Create{}, answer: api.Sandbox{}, do: (*request).create},
		{method: http.MethodGet, path: box, role: watch, words: "describe a sandbox", answer: api.Sandbox{}, do: (*request).get},
		{method: http.MethodDelete, path: box, role: steer, words: "destroy a sandbox", do: (*request).destroy},
		{method: http.MethodPost, path: box + "/start", role: steer, words: "start a sandbox", answer: api.Sandbox{}, do: (*request).start},
		{method: http.MethodPost, path: box + "/stop", role: steer, words: "stop a sandbox", answer: api.Sandbox{}, do: (*request).stop},
		{method: http.MethodGet, path: box + "/usage", role: watch, words: "say what a sandbox takes", answer: api.Usage{}, do: (*request).usage},
		{method: http.MethodGet, path: box + "/changes", role: watch, words: "say which files of a sandbox were changed",
			query: []param{{name: "from", words: "only changes of this time and later (RFC 3339)"}, {name: "to", words: "only changes before this time (RFC 3339)"}}, answer: api.Changes{}, do: (*request).changes},
		{method: http.MethodGet, path: box + "/models", role: watch, words: "say which models answer a sandbox, and what they took", answer: api.Models{}, do: (*request).models},
		{method: http.MethodPost, path: box + "/exec", role: steer, words: "run a command in a sandbox", body: api.Exec{}, do: (*request).exec},

		{method: http.MethodGet, path: box + "/files", role: steer, words: "download files", query: []param{pathParam}, gives: tarType, do: (*request).download},
		{method: http.MethodPut, path: box + "/files", role: steer, words: "upload files", query: []param{pathParam}, takes: tarType, do: (*request).upload},

		{method: http.MethodGet, path: box + "/policy", role: watch, words: "read a policy",
			query:  []param{{name: "revision", words: "which; left out: the latest", kind: "integer"}},
			answer: api.PolicyText{}, do: (*request).policy},
		{method: http.MethodGet, path: box + "/policy/revisions", role: watch, words: "list a policy's revisions, newest first, without their text",
			answer: []api.PolicyText{}, do: (*request).revisions},
		{method: http.MethodPost, path: box + "/policy/changes", role: steer, words: "change a policy",
			body: api.PolicyChange{}, answer: api.PolicyResult{}, do: (*request).changePolicy},
		{method: http.MethodGet, path: box + "/policy/explain", role: watch, words: "ask what a policy says",
			query: []param{
				{name: "action", words: "read, write, exec, connect or gpu", needed: true},
				{name: "object", words: `a path, a command, "host:port", the path of a unix socket, or a GPU as devices.gpus has it`, needed: true},
				{name: "command", words: "the command that does it; left out: any"},
			}, answer: api.Answer{}, do: (*request).explain},
		{method: http.MethodGet, path: box + "/grants", role: watch, words: "list the answers in force", answer: []api.Grant{}, do: (*request).grants},
		{method: http.MethodDelete, path: box + "/grants/{id}", role: steer, words: "take an answer back", answer: api.Revoked{}, do: (*request).revoke},
		{method: http.MethodPatch, path: box + "/config", role: steer, words: "set values of a sandbox's configuration (an empty one takes it away)",
			body: map[string]string{}, answer: api.Sandbox{}, do: (*request).setConfig},

		{method: http.MethodGet, path: box + "/published", role: watch, words: "list a sandbox's published servers",
			answer: []api.Published{}, do: (*request).published},
		{method: http.MethodPost, path: box + "/published", role: steer, words: "publish a server of a sandbox",
			body: api.Published{}, answer: api.Published{}, do: (*request).publish},
		{method: http.MethodDelete, path: box + "/published", role: steer, words: "take back a published server",
			query: []param{{name: "host", words: "its address and port on the host", needed: true}}, do: (*request).unpublish},

		{method: http.MethodGet, path: box + "/snapshots", role: watch, words: "list a sandbox's snapshots", answer: []api.Snapshot{}, do: (*request).snapshots},
		{method: http.MethodPost, path: box + "/snapshots", role: steer, words: "take a snapshot",
			body: api.NewSnapshot{}, answer: api.Snapshot{}, do: (*request).snapshot},
		{method: http.MethodPost, path: box + "/snapshots/{id}/restore", role: steer, words: "bring a snapshot back", answer: api.Sandbox{}, do: (*request).restore},
		{method: http.MethodDelete, path: box + "/snapshots/{id}", role: steer, words: "delete a snapshot", do: (*request).deleteSnapshot},
	}
}

func (q *request) info() (any, error) {
	i := q.server.backend.Info()
	i.API, i.Role = "v1", q.peer.role.String()
	return i, nil
}

func (q *request) openAPI() (any, error) {
	q.began = true
	q.server.send(q.w, http.StatusOK, api.OpenAPI)
	return nil, nil
}

func (q *request) gpus() (any, error) { return q.server.backend.GPUs(q.Context()), nil }

func (q *request) eraseAudit() (any, error) {
	return with(q, func(e api.Erase) (any, error) {
		return value(q.server.backend.EraseAudit(q.Context(), q.who(), e))
	})
}

func (q *request) list() (any, error) {
	list := q.server.backend.List()
	for i := range list {
		list[i] = q.show(list[i])
	}
	return filled(list), nil
}

// filled is list as JSON should have it: one that is empty is not null.
func filled[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// show is a sandbox as the caller may see it: the values of its environment can be secrets, and are not for watching.
func (q *request) show(s api.Sandbox) api.Sandbox {
	if q.peer.role < steer {
		s.Env = namesOnly(s.Env)
	}
	return s
}

func (q *request) shown(s api.Sandbox, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return q.show(s), nil
}

// with decodes the body, and calls do with it.
func with[T any](q *request, do func(T) (any, error)) (any, error) {
	v, err := decode[T](q)
	if err != nil {
		return nil, err
	}
	return do(v)
}

// value is what a method that returns a value or an error gave.
func value[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// listed is value for a list.
func listed[T any](v []T, err error) (any, error) { return value(filled(v), err) }

func (q *request) create() (any, error) {
	return with(q, func(c api.Create) (any, error) {
		if err := policy.ValidName(c.Name); err != nil {
			return nil, invalid("%v", err)
		}
		return q.shown(q.server.backend.Create(q.Context(), q.who(), c))
	})
}

func (q *request) get() (any, error) { return q.shown(q.server.backend.Get(q.name)) }

func (q *request) destroy() (any, error) {
	return nil, q.server.backend.Destroy(q.Context(), q.who(), q.name)
}

func (q *request) start() (any, error) {
	return q.shown(q.server.backend.Start(q.Context(), q.who(), q.name))
}

func (q *request) stop() (any, error) {
	return q.shown(q.server.backend.Stop(q.Context(), q.who(), q.name))
}

func (q *request) usage() (any, error) { return value(q.server.backend.Usage(q.name)) }

func (q *request) changes() (any, error) {
	from, until, err := times(q.query)
	if err != nil {
		return nil, err
	}
	return value(q.server.backend.Changes(q.Context(), q.name, from, until))
}

func (q *request) models() (any, error) { return value(q.server.backend.Models(q.name)) }

func (q *request) policy() (any, error) {
	revision, err := number(q.query, "revision")
	if err != nil {
		return nil, err
	}
	return value(q.server.backend.Policy(q.name, revision))
}

func (q *request) revisions() (any, error) { return listed(q.server.backend.Revisions(q.name)) }

func (q *request) changePolicy() (any, error) {
	return with(q, func(c api.PolicyChange) (any, error) {
		if n := changes(c); n != 1 {
			return nil, invalid("a change of a policy has one of text, add, remove, preset, unpreset and rollback; this one has %d of them", n)
		}
		return value(q.server.backend.ChangePolicy(q.Context(), q.who(), q.name, c))
	})
}

func changes(c api.PolicyChange) (n int) {
	for _, is := range []bool{c.Text != "", c.Add != nil, c.Remove != nil, c.Preset != "", c.Unpreset != "", c.Rollback != 0} {
		if is {
			n++
		}
	}
	return n
}

func (q *request) explain() (any, error) {
	question, err := parseQuestion(q.query)
	if err != nil {
		return nil, err
	}
	a, err := q.server.backend.Explain(q.name, question)
	if err != nil {
		return nil, err
	}
	grants, err := q.server.backend.Grants(q.name)
	if err != nil {
		return nil, err
	}
	return api.Answer{
		Grants: slices.DeleteFunc(grants, func(g api.Grant) bool { return !about(g, question) }),
		Action: a.Query.Action.String(), Object: a.Query.Object(), Command: a.Query.Command, Verdict: a.Verdict.String(),
		Rule: a.Rule.Pos, RuleText: a.Rule.Text, Reason: a.Reason, Suggest: a.Suggest,
	}, nil
}

// about reports whether a grant is about what is asked. A command's name is a question about every program that is called so.
func about(g api.Grant, q policy.Query) bool {
	return g.Plane == string(q.Action.Plane()) && (g.Object == q.Object() || q.Action == policy.QueryExec && path.Base(g.Object) == q.Path)
}

func (q *request) setConfig() (any, error) {
	return with(q, func(set map[string]string) (any, error) {
		return q.shown(q.server.backend.SetConfig(q.Context(), q.who(), q.name, set))
	})
}

func (q *request) published() (any, error) {
	s, err := q.server.backend.Get(q.name)
	return listed(s.Publish, err)
}

func (q *request) publish() (any, error) {
	return with(q, func(p api.Published) (any, error) {
		return value(q.server.backend.Publish(q.Context(), q.who(), q.name, p))
	})
}

func (q *request) unpublish() (any, error) {
	return nil, q.server.backend.Unpublish(q.Context(), q.who(), q.name, q.query.Get("host"))
}

func (q *request) snapshots() (any, error) { return listed(q.server.backend.Snapshots(q.name)) }

func (q *request) snapshot() (any, error) {
	return with(q, func(n api.NewSnapshot) (any, error) {
		return value(q.server.backend.Snapshot(q.Context(), q.who(), q.name, n.Name))
	})
}

func (q *request) restore() (any, error) {
	return q.shown(q.server.backend.Restore(q.Context(), q.who(), q.name, q.PathValue("id")))
}

func (q *request) deleteSnapshot() (any, error) {
	return nil, q.server.backend.DeleteSnapshot(q.Context(), q.who(), q.name, q.PathValue("id"))
}
