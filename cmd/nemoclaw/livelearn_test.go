package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/policy/learn"
)

// TestWeigh: what nobody approved and looks like something else is never accepted with the rest.
func TestWeigh(t *testing.T) {
	was := api.PolicyText{Text: "network:\n  allow:\n    - {domain: api.openai.com, ports: [443], protocol: https}\nprocess: {allow: [{command: curl}]}\n"}
	was.Name = "box.yaml"
	s, err := learn.NewSession(learn.SessionOptions{File: was.Name, Text: []byte(was.Text), Refused: true})
	if err != nil {
		t.Fatal(err)
	}
	record := func(object string, v policy.Verdict) {
		err := s.Add(&policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: object, Rule: "default", Verdict: v, Subject: policy.Subject{Exe: "/usr/bin/curl"}})
		if err != nil {
			t.Fatal(err)
		}
	}
	record("api.0penai.com:443", policy.Deny)
	record("api.openal.com:443", policy.Allow)
	record("example.com:443", policy.Deny)
	found, err := s.Proposals()
	if err != nil {
		t.Fatal(err)
	}
	list, err := weigh(was, found.List)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d, %v", len(list), err)
	}
	for i, want := range []struct {
		name         string
		risk, danger bool
	}{{"api.openal.com", true, false}, {"api.0penai.com", true, true}, {"example.com", false, false}} {
		if x := list[i]; x.Add.Domain != want.name || len(x.risks) > 0 != want.risk || x.danger != want.danger {
			t.Errorf("%s: %q, danger %t, want %+v", x.Add.Domain, x.risks, x.danger, want)
		}
	}
	if why := strings.Join(list[1].why(), "\n"); !strings.Contains(why, "# REFUSED once") || !strings.Contains(why, "\n! ") {
		t.Error(why)
	}
}

// TestRevisions: of revisions that mean the same the one of a record's time counts, and what a policy does not mean any more is nobody's.
func TestRevisions(t *testing.T) {
	const text = "process: {allow: [{command: sh}]}\n"
	parsed, err := policy.Parse("box.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(parsed)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1000, 0)
	texts := []string{text, "# a comment\n" + text, "# which means the same\n\n" + text, "process: {}\n"}
	r := revisions{get: func(n int) (api.PolicyText, error) {
		if n == 9 {
			return api.PolicyText{}, errors.New("the daemon is gone")
		}
		p := api.PolicyText{Text: texts[n-1]}
		p.Name = "box.yaml"
		return p, nil
	}}
	for _, n := range []int{4, 3, 2, 1} {
		p := api.PolicyText{When: at.Add(time.Duration(n) * time.Minute)}
		p.Revision, p.Hash = n, c.Revision
		r.list = append(r.list, p)
	}
	for minute, line := range map[int]string{0: "", 1: "box.yaml:1", 2: "box.yaml:2", 3: "box.yaml:3", 4: ""} {
		got, err := r.find(c.Revision, at.Add(time.Duration(minute)*time.Minute+time.Second))
		if err != nil || (got == nil) != (line == "") || got != nil && got.Rule(got.Exec.Allow[0].ID).Pos != line {
			t.Errorf("minute %d: %v, %v, want %q", minute, got, err, line)
		}
	}
	if got, err := r.find("another", at.Add(time.Hour)); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if list, err := r.since(at.Add(3*time.Minute + time.Second)); err != nil || len(list) != 2 {
		t.Errorf("%d policies since the third minute, %v", len(list), err)
	}
	r.list[0].Revision = 9
	if _, err := r.find(c.Revision, at.Add(time.Hour)); err == nil {
		t.Error("the daemon's error is lost")
	}
}
