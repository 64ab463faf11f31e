package server

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxLast is how many records "the last so many" can be: the daemon may have to hold them.
const maxLast = 100_000

var (
	planes   = []string{string(policy.PlaneNetwork), string(policy.PlaneDNS), string(policy.PlaneFile), string(policy.PlaneExec), string(policy.PlaneDevice), string(policy.PlaneInference), string(policy.PlaneSystem)}
	verdicts = []string{policy.Allow.String(), policy.Ask.String(), policy.Deny.String()}
)

var eventParams = []param{
	{name: "since", words: "only records after this sequence number", kind: "integer"},
	{name: "from", words: "only records of this time and later (RFC 3339)"},
	{name: "to", words: "only records of this time and earlier (RFC 3339)"},
	{name: "sandbox", words: "only this sandbox's records"},
	{name: "plane", words: "only this plane's records: " + strings.Join(planes, ", "), many: true},
	{name: "verdict", words: "only records with this verdict: " + strings.Join(verdicts, ", "), many: true},
	{name: "last", words: "only the last so many", kind: "integer"},
	{name: "follow", words: "true: go on with the records to come; an empty line every 15 s is a sign of life", kind: "boolean"},
}

// parseEvents reads a selection of records from a query that checkQuery has seen.
func parseEvents(q url.Values) (e api.Events, err error) {
	if v := q.Get("since"); v != "" {
		if e.Since, err = strconv.ParseUint(v, 10, 64); err != nil {
			return e, invalid("since=%.40q is not a sequence number", v)
		}
	}
	if e.From, e.To, err = times(q); err != nil {
		return e, err
	}
	if e.Sandbox, err = sandboxOf(q); err != nil {
		return e, err
	}
	if e.Planes, err = words(q, "plane", planes); err != nil {
		return e, err
	}
	if e.Verdict, err = words(q, "verdict", verdicts); err != nil {
		return e, err
	}
	if e.Last, err = number(q, "last"); err != nil {
		return e, err
	}
	if e.Last > maxLast {
		return e, invalid("last=%d is too much: at most %d; without it all are sent", e.Last, maxLast)
	}
	e.Follow, err = follows(q)
	return e, err
}

// times reads the two ends of a time; zero where there is none.
func times(q url.Values) (from, to time.Time, err error) {
	for name, t := range map[string]*time.Time{"from": &from, "to": &to} {
		if v := q.Get(name); v != "" {
			if *t, err = time.Parse(time.RFC3339Nano, v); err != nil {
				return from, to, invalid("%s=%.40q is not a time as 2026-11-22T17:00:00Z", name, v)
			}
		}
	}
	return from, to, nil
}

// sandboxOf reads the name of a sandbox, "" where there is none.
func sandboxOf(q url.Values) (string, error) {
	name := q.Get("sandbox")
	if name == "" {
		return "", nil
	}
	if err := policy.ValidName(name); err != nil {
		return "", invalid("%v", err)
	}
	return name, nil
}

// follows reads whether what comes is to follow.
func follows(q url.Values) (bool, error) {
	v := q.Get("follow")
	if v == "" {
		return false, nil
	}
	yes, err := strconv.ParseBool(v)
	if err != nil {
		return false, invalid("follow=%.40q is neither true nor false", v)
	}
	return yes, nil
}

// words reads a parameter that can be there several times, and whose values are known.
func words(q url.Values, name string, known []string) ([]string, error) {
	for _, v := range q[name] {
		if !slices.Contains(known, v) {
			return nil, invalid("%s=%.40q is not known: %s are", name, v, strings.Join(known, ", "))
		}
	}
	return q[name], nil
}

// number reads a number that isn't negative; 0 when there is none.
func number(q url.Values, name string) (int, error) {
	v := q.Get(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return 0, invalid("%s=%.40q is not a number that can be", name, v)
	}
	return int(n), nil
}

// parseQuestion reads a question to a policy.
func parseQuestion(q url.Values) (policy.Query, error) {
	for _, a := range []policy.Action{policy.QueryRead, policy.QueryWrite, policy.QueryExec, policy.QueryConnect, policy.QueryGPU} {
		if a.String() == q.Get("action") {
			question, err := policy.NewQuery(a, q.Get("object"), q.Get("command"))
			if err != nil {
				return question, invalid("%v", err)
			}
			return question, nil
		}
	}
	return policy.Query{}, invalid("action=%.40q is not known: read, write, exec, connect and gpu are", q.Get("action"))
}

// namesOnly takes the values off NAME=VALUE.
func namesOnly(env []string) []string {
	names := make([]string, len(env))
	for i, v := range env {
		names[i], _, _ = strings.Cut(v, "=")
	}
	return names
}
