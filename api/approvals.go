package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// A Request is something that a sandbox attempted and that a person may decide: what its policy asks about, and what the
// policy's default refused. What a rule denies is none. Equal attempts are one request with a count. Apart from Count, Held,
// Last, Until, Rule, State and Risks nothing of a request changes: who answers one answers what was shown.
type Request struct {
	ID      string       `json:"id"` // never used again
	Sandbox string       `json:"sandbox"`
	State   RequestState `json:"state"`

	Plane   string `json:"plane"`             // "network", "dns", "file", "exec", ...
	Action  string `json:"action"`            // "connect", "read", "exec", ..., as records say it
	Object  string `json:"object"`            // "name:port", "addr:port", a path: bytes from inside, as JSON can have them
	Program string `json:"program,omitempty"` // path of the executable that attempts it; "": not known
	Args    string `json:"args,omitempty"`    // its command line, of the first attempt
	PID     int    `json:"pid,omitempty"`     // on the host, of the first attempt
	Taint   string `json:"taint,omitempty"`   // what other code may run in the program by
	Rule    string `json:"rule"`              // that asked, "file:line", or "default"

	// Ancestors are the program's parents inside, the nearest first, as they were at the first attempt.
	Ancestors []Ancestor `json:"ancestors,omitempty"`

	// The true bytes, where they are not UTF-8 and JSON has others.
	RawObject []byte `json:"raw_object,omitempty"`
	RawArgs   []byte `json:"raw_args,omitempty"`

	First time.Time  `json:"first"`
	Last  time.Time  `json:"last"`
	Until *time.Time `json:"until,omitempty"` // while it is held: when it is denied without an answer
	Count uint64     `json:"count"`           // attempts
	Held  int        `json:"held"`            // of them, that wait now

	Risks     []Risk  `json:"risks,omitempty"`
	Dangerous bool    `json:"dangerous,omitempty"` // to allow it, Confirm is needed
	Offers    []Offer `json:"offers"`              // what an answer can be about; the first is exactly what was attempted

	Answer *Answered `json:"answer,omitempty"` // of one that is Approved or Rejected
}

// Ancestor is a process inside that has started others.
type Ancestor struct {
	PID  int    `json:"pid"`  // on the host
	Args string `json:"args"` // its command line: bytes from inside
}

// RequestState is where a request is.
type RequestState string

// The states. The last three are told to who follows the requests, and not listed any more.
const (
	Held      RequestState = "held"      // an attempt waits for the answer
	Refused   RequestState = "refused"   // none waits; an answer is for the next attempt
	Approved  RequestState = "approved"  // somebody allowed it
	Rejected  RequestState = "rejected"  // somebody denied it
	Withdrawn RequestState = "withdrawn" // it needs no answer any more: the policy has one, or the sandbox is gone
)

// A Risk is something that who answers should know.
type Risk struct {
	Code      string `json:"code"`                // for programs: "raw-ip", "credentials", ...
	Text      string `json:"text"`                // for people: one sentence
	Dangerous bool   `json:"dangerous,omitempty"` // allowing is asked twice for
}

// An Offer is what an answer can be about: what was attempted and nothing more, or something wider.
type Offer struct {
	ID     string  `json:"id"`     // "this", "host", "subdomains", "directory", ...
	Text   string  `json:"text"`   // for people: "this command to this host and port"
	Scopes []Scope `json:"scopes"` // that an answer about it can have
	YAML   string  `json:"yaml"`   // what "always" adds to the policy to allow it; "" where it can't be
	Deny   string  `json:"deny"`   // and to deny it
}

// Scope is how long an answer holds.
type Scope string

// The scopes.
const (
	ScopeOnce    Scope = "once"    // what waits now; where nothing waits, the next attempt
	ScopeSession Scope = "session" // until the sandbox stops
	ScopeFor     Scope = "for"     // a while
	ScopeAlways  Scope = "always"  // a revision of the policy
)

// NewAnswer is an answer to a request.
type NewAnswer struct {
	Verdict string `json:"verdict"`           // "allow" or "deny"
	Scope   Scope  `json:"scope,omitempty"`   // "": once
	For     string `json:"for,omitempty"`     // with ScopeFor: how long, such as "1h30m"
	Offer   string `json:"offer,omitempty"`   // what it is about; "": "this"
	Confirm bool   `json:"confirm,omitempty"` // what is Dangerous is allowed all the same
	DryRun  bool   `json:"dry_run,omitempty"` // say what the answer would do, and do nothing
	Restart bool   `json:"restart,omitempty"` // restart the sandbox where the revision can't be live
	By      string `json:"by,omitempty"`      // what the caller answers with, for the record: "console", "a chat bot"
}

// Answered is an answer that was given.
type Answered struct {
	Verdict string        `json:"verdict"`
	Scope   Scope         `json:"scope"`
	Offer   string        `json:"offer"`
	Until   *time.Time    `json:"until,omitempty"` // ScopeFor
	Who     string        `json:"who"`             // account, uid, terminal, and what it was given with
	When    time.Time     `json:"when"`
	Waited  time.Duration `json:"waited_ns"` // since First
}

// AnswerResult is what an answer did, or would do.
type AnswerResult struct {
	Request Request       `json:"request"`
	Grant   *Grant        `json:"grant,omitempty"`  // that it made; once for what waits makes none
	Policy  *PolicyResult `json:"policy,omitempty"` // of ScopeAlways, and of what is wider than one object
}

// A Grant is an answer that holds for a time. It stands before the rules that ask and before the default, not before those that
// deny.
type Grant struct {
	ID      string     `json:"id"`
	Sandbox string     `json:"sandbox"`
	Verdict string     `json:"verdict"`
	Plane   string     `json:"plane"`
	Action  string     `json:"action"`
	Object  string     `json:"object"`
	Program string     `json:"program,omitempty"`
	Taint   string     `json:"taint,omitempty"`
	Scope   Scope      `json:"scope"`
	Until   *time.Time `json:"until,omitempty"` // nil: until the sandbox stops
	Who     string     `json:"who"`
	When    time.Time  `json:"when"`
}

// Revoked is what taking a grant back did.
type Revoked struct {
	Grant  Grant `json:"grant"`
	Closed int   `json:"closed"` // connections that it had allowed, and that were closed
}

// RequestChange is a line of a stream of requests.
type RequestChange struct {
	// Reset says that what was told before holds no more: what follows up to Complete is all there is.
	Reset    bool     `json:"reset,omitempty"`
	Complete bool     `json:"complete,omitempty"`
	Request  *Request `json:"request,omitempty"`
	// Unlisted is, of a sandbox, how many attempts were denied and are in no request, because there were too many.
	Unlisted map[string]uint64 `json:"unlisted,omitempty"`
}

func approval(id string) string { return "approvals/" + url.PathEscape(id) }

// Requests returns what waits for an answer, of one sandbox or, for "", of all: what is held first, then the latest first.
func (c *Client) Requests(ctx context.Context, sandbox string) ([]Request, error) {
	return get[[]Request](ctx, c, query("approvals", "sandbox", sandbox))
}

// Request returns one request. id may be shortened as long as it is one's alone.
func (c *Client) Request(ctx context.Context, id string) (Request, error) {
	return get[Request](ctx, c, approval(id))
}

// Answer answers a request.
func (c *Client) Answer(ctx context.Context, id string, a NewAnswer) (AnswerResult, error) {
	return post[AnswerResult](ctx, c, approval(id)+"/answer", a)
}

// Grants returns the answers that hold in a sandbox.
func (c *Client) Grants(ctx context.Context, name string) ([]Grant, error) {
	return get[[]Grant](ctx, c, of(name, "grants"))
}

// Revoke takes a grant back at once.
func (c *Client) Revoke(ctx context.Context, name, id string) (r Revoked, err error) {
	err = c.call(ctx, http.MethodDelete, of(name, "grants", id), nil, &r)
	return r, err
}

// FollowRequests calls f with each change of the requests of one sandbox or, for "", of all, beginning with all that there
// are. It goes on until ctx ends or f fails, also when the daemon is restarted: then everything is told again, after a Reset.
// Many changes of one request in a short time are told as one.
func (c *Client) FollowRequests(ctx context.Context, sandbox string, f func(RequestChange) error) error {
	return c.follow(ctx, false, func() string { return query("approvals", "sandbox", sandbox, "follow", "true") }, func(line []byte) error {
		var change RequestChange
		if err := json.Unmarshal(line, &change); err != nil {
			return fmt.Errorf("the daemon sent a request that can't be read: %w: %.200q", err, line)
		}
		return f(change)
	})
}
