package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

// TestEveryRoute calls every method of the client. Each route of the server must be met by one.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	b.record(3)
	var mu sync.Mutex
	met := map[string]bool{}
	r := serve(t, b, func(s *Server) {
		inner := s.mux
		s.mux = http.NewServeMux()
		s.mux.HandleFunc("/", func(w http.ResponseWriter, hr *http.Request) {
			_, pattern := inner.Handler(hr)
			mu.Lock()
			met[pattern] = true
			mu.Unlock()
			inner.ServeHTTP(w, hr)
		})
	})
	c, ctx := r.client, t.Context()
	check := func(what string, ok bool, err error) {
		t.Helper()
		if err != nil || !ok {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	info, err := c.Info(ctx)
	check("info", info.Version == "test" && info.API == "v1" && info.Role == "steer", err)
	gpus, err := c.GPUs(ctx)
	check("gpus", gpus.State == api.GPUsAbsent, err)
	doc, err := c.OpenAPI(ctx)
	check("openapi", bytes.Contains(doc, []byte("3.1")), err)
	made, err := c.Create(ctx, api.Create{Name: "two", Config: map[string]string{"model": "m"}, Env: []string{"A=b"}})
	check("create", made.Name == "two" && made.Config["model"] == "m" && slices.Equal(made.Env, []string{"A=b"}), err)
	list, err := c.List(ctx)
	check("list", len(list) == 2 && list[0].Name == "box", err)
	got, err := c.Start(ctx, "two")
	check("start", got.State == api.Running, err)
	got, err = c.Stop(ctx, "two")
	check("stop", got.State == api.Stopped, err)
	got, err = c.Get(ctx, "two")
	check("get", got.State == api.Stopped, err)
	check("destroy", true, c.Destroy(ctx, "two"))
	models, err := c.Models(ctx, "box")
	check("models", len(models.Models) == 1 && models.Models[0].Name == "fast", err)
	usage, err := c.Usage(ctx, "box")
	check("usage", usage.Processes == 3, err)
	since := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	changed, err := c.Changes(ctx, "box", since, time.Time{})
	check("changes", changed.Added == 1 && changed.Files[0].Time.Equal(since), err)
	p, err := c.Exec(ctx, "box", api.Exec{Args: []string{"true"}}, [3]*os.File{})
	check("exec", p != nil, err)
	status, err := p.Wait()
	check("exec's end", status == 0, err)
	p.Close()

	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	check("upload", true, c.Upload(ctx, "box", "/work", archive(t, "a", big)))
	var down bytes.Buffer
	check("download", true, c.Download(ctx, "box", "/work/a", &down))
	check("what came back", bytes.Contains(down.Bytes(), big), nil)

	text, err := c.Policy(ctx, "box", 7)
	check("policy", text.Revision == 7, err)
	texts, err := c.Revisions(ctx, "box")
	check("revisions", texts != nil && len(texts) == 0, err)
	result, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: "version: 1"})
	check("policy change", result.Live, err)
	answer, err := c.Explain(ctx, "box", "connect", "evil.example:443", "/usr/bin/curl")
	check("explain", answer.Verdict == "deny" && answer.Object == "evil.example:443" && answer.Action == "connect" && len(answer.Grants) == 1, err)
	answer, err = c.Explain(ctx, "box", "connect", "evil.example:80", "/usr/bin/curl")
	check("explain of what no grant is about", len(answer.Grants) == 0, err)
	requests, err := c.Requests(ctx, "box")
	check("requests", len(requests) == 1 && requests[0].ID == "1f", err)
	request, err := c.Request(ctx, "1f")
	check("request", request.ID == "1f", err)
	answered, err := c.Answer(ctx, "1f", api.NewAnswer{Verdict: "allow"})
	check("answer", answered.Request.ID == "1f" && answered.Request.Answer.Verdict == "allow" && answered.Request.Answer.Who != "", err)
	grants, err := c.Grants(ctx, "box")
	check("grants", len(grants) == 1 && grants[0].Sandbox == "box", err)
	revoked, err := c.Revoke(ctx, "box", "2e")
	check("revoke", revoked.Grant.ID == "2e" && revoked.Closed == 3, err)
	enough := errors.New("enough")
	var told []string
	err = c.FollowRequests(ctx, "box", func(r api.RequestChange) error {
		switch {
		case r.Reset:
			told = append(told, "reset")
		case r.Request != nil:
			told = append(told, r.Request.ID+" of "+r.Request.Sandbox)
		case r.Complete:
			return enough
		}
		return nil
	})
	check("follow", errors.Is(err, enough) && slices.Equal(told, []string{"reset", "1f of box"}), nil)
	got, err = c.SetConfig(ctx, "box", map[string]string{"a": "b"})
	check("config", got.Config["a"] == "b", err)
	published, err := c.Publish(ctx, "box", api.Published{Host: "127.0.0.1:8080", Port: 80})
	check("publish", published.Port == 80, err)
	all, err := c.Published(ctx, "box")
	check("published", len(all) == 1 && all[0].Host == "127.0.0.1:8080", err)
	check("unpublish", true, c.Unpublish(ctx, "box", "127.0.0.1:8080"))
	snapshot, err := c.Snapshot(ctx, "box", "first")
	check("snapshot", snapshot.Name == "first", err)
	snapshots, err := c.Snapshots(ctx, "box")
	check("snapshots", len(snapshots) == 0, err)
	_, err = c.Restore(ctx, "box", snapshot.ID)
	check("restore", true, err)
	check("delete snapshot", true, c.DeleteSnapshot(ctx, "box", snapshot.ID))
	erased, err := c.EraseAudit(ctx, api.Erase{Records: "7", Reason: "asked for"})
	var refused *api.Error
	if root := os.Getuid() == 0; root {
		check("erase", erased.Records == "7", err)
	} else {
		check("erase", errors.As(err, &refused) && refused.Code == api.Forbidden, nil)
	}
	check("events", len(collect(t, c, api.Events{})) == 3, nil)

	for _, route := range routes {
		if !met[route.method+" "+route.path] {
			t.Errorf("no method of the client asks %s %s", route.method, route.path)
		}
	}
	if met["/"] {
		t.Error("a method of the client asks what no route is for")
	}
	if who := strings.SplitN(b.history[0], ":", 2)[0]; who != (Caller{UID: uint32(os.Getuid())}).name() {
		t.Errorf("the history says that %q created a sandbox", who)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	r := serve(t, newBackend("box"), nil)
	c, ctx := r.client, t.Context()
	large := strings.Repeat("a", maxBody)
	for name, test := range map[string]struct {
		err  error
		code api.Code
		says string
	}{
		"no sandbox":     {second(c.Get(ctx, "nobody")), api.NotFound, "no sandbox nobody"},
		"name":           {second(c.Get(ctx, "Box")), api.Invalid, "lower-case"},
		"path as name":   {second(c.Get(ctx, "../../etc/passwd")), api.NotFound, "no request"},
		"dots as name":   {second(c.Get(ctx, "..")), api.NotFound, "no request"},
		"no name":        {second(c.Start(ctx, "")), api.NotFound, "no request"},
		"new name":       {second(c.Create(ctx, api.Create{Name: "a/b"})), api.Invalid, "lower-case"},
		"there already":  {second(c.Create(ctx, api.Create{Name: "box"})), api.Conflict, "there is a sandbox"},
		"empty change":   {second(c.ChangePolicy(ctx, "box", api.PolicyChange{})), api.Invalid, "has 0 of them"},
		"double change":  {second(c.ChangePolicy(ctx, "box", api.PolicyChange{Preset: "a", Rollback: 1})), api.Invalid, "has 2 of them"},
		"large change":   {second(c.ChangePolicy(ctx, "box", api.PolicyChange{Text: large})), api.TooLarge, "more than 1048576 bytes"},
		"action":         {second(c.Explain(ctx, "box", "eat", "/a", "")), api.Invalid, "read, write, exec, connect and gpu"},
		"object":         {second(c.Explain(ctx, "box", "read", "a", "")), api.Invalid, "absolute path"},
		"no object":      {second(c.Explain(ctx, "box", "read", "", "")), api.Invalid, "object is needed"},
		"snapshot":       {c.DeleteSnapshot(ctx, "box", "a b"), api.Invalid, "is no id"},
		"revision":       {second(c.Policy(ctx, "box", -1)), api.Invalid, "not a number"},
		"relative path":  {c.Upload(ctx, "box", "work", bytes.NewReader(nil)), api.Invalid, "not an absolute path"},
		"no path":        {c.Download(ctx, "box", "", nil), api.Invalid, "path is needed"},
		"no file":        {c.Download(ctx, "box", "/none", nil), api.NotFound, "no file"},
		"no archive":     {c.Upload(ctx, "box", "/work", strings.NewReader(large)), api.Invalid, "tar"},
		"nothing to run": {third(c.Exec(ctx, "box", api.Exec{}, [3]*os.File{})), api.Invalid, "no command"},
		"run nowhere":    {third(c.Exec(ctx, "nobody", api.Exec{Shell: true}, [3]*os.File{})), api.NotFound, "no sandbox"},
		"both":           {third(c.Exec(ctx, "box", api.Exec{Shell: true, Args: []string{"a"}}, [3]*os.File{})), api.Invalid, "args must be empty"},
	} {
		var e *api.Error
		if !errors.As(test.err, &e) || e.Code != test.code || !strings.Contains(e.Message, test.says) {
			t.Errorf("%s: got %#v, want %s saying %q", name, test.err, test.code, test.says)
		}
	}
}

func second[T any](_ T, err error) error    { return err }
func third(_ *api.Process, err error) error { return err }

// within waits for something that comes by itself.
func within(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// TestJSON sends bodies that are not what they should be.
func TestJSON(t *testing.T) {
	t.Parallel()
	r := serve(t, newBackend("box"), nil)
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.socket)
	}}}
	defer web.CloseIdleConnections()
	for _, test := range []struct{ method, path, body, says string }{
		{"POST", "/v1/sandboxes", `{"name":"a","colour":"red"}`, `unknown field \"colour\"`},
		{"POST", "/v1/sandboxes", `{"name":1}`, `cannot unmarshal number`},
		{"POST", "/v1/sandboxes", `{"name":"a"} {}`, `goes on after`},
		{"POST", "/v1/sandboxes", `{"name":"a"`, `unexpected EOF`},
		{"POST", "/v1/sandboxes", ``, `needs a JSON body`},
		{"POST", "/v1/sandboxes", "{\"name\":\"\xff\"}", `not UTF-8`},
		{"POST", "/v1/sandboxes", strings.Repeat(`{"name":`, 20000), `exceeded max depth`},
		{"POST", "/v1/sandboxes/box/start", `{}`, `takes no body`},
		{"GET", "/v1/sandboxes?name=a", ``, `\"name\" is not known`},
		{"GET", "/v1/sandboxes?%zz", ``, `query can't be read`},
		{"GET", "/v1/sandboxes/box/policy?revision=1&revision=2", ``, `is there 2 times`},
		{"GET", "/v1/events?plane=air", ``, `network, dns`},
		{"GET", "/v1/events?since=-1", ``, `not a sequence number`},
		{"GET", "/v1/events?from=today", ``, `not a time`},
		{"GET", "/v1/events?follow=perhaps", ``, `neither true nor false`},
		{"GET", "/v1/events?last=9999999", ``, `too much`},
		{"GET", "/v1/sandboxes/box/policy/explain?action=read&object=%2Fa%00", ``, `NUL`},
		{"POST", "/v1/sandboxes/box/exec", `{"args":["true"]}`, `Upgrade`},
		{"PUT", "/v1/info", ``, `no request that this daemon knows`},
		{"GET", "/v2/info", ``, `no request that this daemon knows`},
		{"GET", "/v1/sandboxes/../info", ``, `no request that this daemon knows`},
		{"GET", "/v1//info", ``, `no request that this daemon knows`},
		{"GET", "/v1/sandboxes/a%2fb", ``, `lower-case`},
		{"GET", "/v1/sandboxes/box%00", ``, `lower-case`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test.method, "http://d", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		path, query, _ := strings.Cut(test.path, "?")
		req.URL.Opaque, req.URL.RawQuery = path, query
		resp, err := web.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", test.method, test.path, err)
			continue
		}
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		resp.Body.Close()
		code := api.Invalid
		if strings.Contains(test.says, "no request") {
			code = api.NotFound
		}
		if err != nil || resp.StatusCode != code.Status() || !strings.Contains(b.String(), test.says) || !strings.HasPrefix(b.String(), `{"code":"`+string(code)) {
			t.Errorf("%s %s %.80q: %d %s, %v; want %d saying %s", test.method, test.path, test.body, resp.StatusCode, b.String(), err, code.Status(), test.says)
		}
	}
}
