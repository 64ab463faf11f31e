package forward

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
)

// strict reads JSON that has no other fields than what it is read into.
func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("more than one value")
	}
	return nil
}

// inner reads a record that was sent as JSON, and wants it to be what was written.
func (g *got) inner(seq uint64, body []byte) {
	var r struct {
		Seq           uint64
		Object, Plane string
	}
	if err := json.Unmarshal(body, &r); err != nil || r.Seq != seq {
		g.fault("%d came as %.200s: %v", seq, body, err)
	}
}

// A way reads a request of a kind, counts its records, and answers.
type way func(g *got, body []byte) (status int, answer string, seqs []uint64, hashes []string)

func readLoki(g *got, body []byte) (int, string, []uint64, []string) {
	var p struct {
		Streams []struct {
			Stream map[string]string   `json:"stream"`
			Values [][]json.RawMessage `json:"values"`
		} `json:"streams"`
	}
	if err := strict(body, &p); err != nil || len(p.Streams) != 1 || len(p.Streams[0].Stream) != 2 && p.Streams[0].Stream["early"] != "true" || p.Streams[0].Stream["service_name"] != "nemoclaw-agent" {
		g.fault("loki: %v: %.300s", err, body)
		return 400, "", nil, nil
	}
	var seqs []uint64
	var hashes []string
	for _, v := range p.Streams[0].Values {
		var at, line string
		var meta map[string]string
		if len(v) != 3 || strict(v[0], &at) != nil || strict(v[1], &line) != nil || strict(v[2], &meta) != nil || len(meta) != 5 {
			g.fault("loki: %s", v)
			continue
		}
		seq, _ := strconv.ParseUint(meta["seq"], 10, 64)
		if at != fmt.Sprint(decision(seq).Time.UnixNano()) {
			g.fault("%d has the time %s", seq, at)
		}
		g.inner(seq, []byte(line))
		seqs, hashes = append(seqs, seq), append(hashes, meta["hash"])
	}
	return 204, "", seqs, hashes
}

func readElastic(g *got, body []byte) (int, string, []uint64, []string) {
	var seqs []uint64
	var hashes []string
	var items []string
	in := bufio.NewScanner(bytes.NewReader(body))
	in.Buffer(nil, 4<<20)
	for in.Scan() {
		var a struct {
			Create struct {
				Index string `json:"_index"`
				ID    string `json:"_id"`
			} `json:"create"`
		}
		if err := strict(in.Bytes(), &a); err != nil || a.Create.Index != "logs" || !in.Scan() {
			g.fault("elastic: %v: %.300s", err, in.Bytes())
			break
		}
		number, hash, _ := strings.Cut(a.Create.ID, "-")
		seq, _ := strconv.ParseUint(number, 10, 64)
		if !bytes.HasPrefix(in.Bytes(), []byte(`{"@timestamp":"`)) {
			g.fault("elastic: %.100s", in.Bytes())
		}
		g.inner(seq, in.Bytes())
		seqs, hashes = append(seqs, seq), append(hashes, hash)
		items = append(items, `{"create":{"status":201}}`)
	}
	return 200, `{"took":1,"errors":false,"items":[` + strings.Join(items, ",") + `]}`, seqs, hashes
}

func readSplunk(g *got, body []byte) (int, string, []uint64, []string) {
	var seqs []uint64
	var hashes []string
	for d := json.NewDecoder(bytes.NewReader(body)); d.More(); {
		var e struct {
			Time, Source, Sourcetype, Host string
			Fields                         map[string]string
			Event                          json.RawMessage
		}
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil || e.Sourcetype != "nemoclaw:audit" || len(e.Fields) != 5 {
			g.fault("splunk: %v: %.300s", err, body)
			break
		}
		seq, _ := strconv.ParseUint(e.Fields["seq"], 10, 64)
		g.inner(seq, e.Event)
		seqs, hashes = append(seqs, seq), append(hashes, e.Fields["hash"])
	}
	return 200, `{"text":"Success","code":0}`, seqs, hashes
}

func readOTLP(g *got, body []byte) (int, string, []uint64, []string) {
	var all logs.LogsData
	if err := proto.Unmarshal(body, &all); err != nil || len(all.GetResourceLogs()) != 1 || len(all.ProtoReflect().GetUnknown()) > 0 {
		g.fault("otlp: %v", err)
		return 400, "", nil, nil
	}
	var seqs []uint64
	var hashes []string
	for _, r := range all.GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords() {
		at := map[string]*common.AnyValue{}
		for _, a := range r.GetAttributes() {
			at[a.GetKey()] = a.GetValue()
		}
		seq := uint64(at["seq"].GetIntValue())
		g.inner(seq, []byte(r.GetBody().GetStringValue()))
		seqs, hashes = append(seqs, seq), append(hashes, at["hash"].GetStringValue())
	}
	return 200, "", seqs, hashes
}

var kinds = map[string]struct {
	read way
	c    func(url, token string) config.Forward
	auth string
	path string
}{
	"loki": {readLoki, func(u, _ string) config.Forward { return config.Forward{Loki: u, Tenant: "ops"} }, "", "/loki/api/v1/push"},
	"elastic": {readElastic, func(u, t string) config.Forward {
		return config.Forward{Elastic: u, Index: "logs", Server: config.Server{Token: config.Token{File: t}}}
	}, "ApiKey s3cret", "/_bulk"},
	"splunk": {readSplunk, func(u, t string) config.Forward {
		return config.Forward{Splunk: u, Server: config.Server{Token: config.Token{File: t}}}
	}, "Splunk s3cret", "/services/collector/event"},
	"otlp": {readOTLP, func(u, t string) config.Forward {
		return config.Forward{OTLP: u, Server: config.Server{User: "me", Token: config.Token{File: t}}}
	}, "Basic bWU6czNjcmV0", "/v1/logs"},
}

// serve answers requests. mood may answer instead, before or after the records count: 0 lets it be, a negative one breaks the connection.
func serve(t *testing.T, g *got, read way, mood func() (before, after int)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method == http.MethodPut {
			return
		}
		before, after := 0, 0
		if mood != nil {
			before, after = mood()
		}
		if before == 0 {
			status, answer, seqs, hashes := read(g, body)
			for i := range seqs {
				g.add(seqs[i], hashes[i])
			}
			if after == 0 {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, answer)
				return
			}
		}
		if status := max(before, after); status > 0 {
			http.Error(w, "not now", status)
			return
		}
		panic(http.ErrAbortHandler)
	}))
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func lokiServer(t *testing.T, g *got, status func() int) string {
	t.Helper()
	return serve(t, g, readLoki, func() (int, int) {
		if status == nil || status() == 204 {
			return 0, 0
		}
		return status(), 0
	}).URL
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(name, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestOutages: each kind of receiver fails in every way that a server fails, while records come and files are rotated and compressed; in
// the end it has the log, in order.
func TestOutages(t *testing.T) {
	t.Parallel()
	for kind, k := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			tr := newTrail(t, audit.Options{Rotate: 200_000})
			var g got
			var n notes
			var calm atomic.Bool
			s := serve(t, &g, k.read, func() (int, int) {
				if calm.Load() {
					return 0, 0
				}
				switch rand.IntN(6) {
				case 0:
					return 503, 0
				case 1:
					return -1, 0
				case 2:
					return 0, -1 // it has the records, and breaks off before it says so
				case 3:
					return 0, 500
				case 4:
					return 429, 0
				}
				return 0, 0
			})
			all := open(t, k.c(s.URL, tokenFile(t, "s3cret")), t.TempDir(), &n)
			defer start(t, all, tr.Writer)()
			for range 20 {
				tr.write(150)
				time.Sleep(5 * time.Millisecond)
			}
			calm.Store(true)
			until(t, "all is there", func() bool { return all.Forwarded() == tr.Head().Seq })
			g.check(t, tr)
			if s := all.States()[0]; s.Refused+s.Removed > 0 || s.Error != "" {
				t.Errorf("%+v", s)
			}
			t.Logf("%d of %d came more than once", g.dups, g.count())
		})
	}
}

// TestDownAtTheStart, and long: nothing is lost, the state says why, and it is recorded once.
func TestDownAtTheStart(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{Rotate: 20_000, Keep: 1})
	tr.write(500)
	var n notes
	c := config.Forward{Loki: "http://" + nowhere(t)}
	all := open(t, c, t.TempDir(), &n)
	stop := start(t, all, tr.Writer)
	until(t, "it is recorded", func() bool { return n.with("records don't arrive; the log keeps them until they do: ") == 1 })
	if s := all.States()[0]; !strings.Contains(s.Error, "connection refused") || s.Behind == 0 || s.Seq != 0 {
		t.Errorf("%+v", s)
	}
	stop()
	if len(n.list) != 1 {
		t.Errorf("%q", n.list)
	}
}

// TestHeaders: who asks is said as each kind wants it, to the path that it has; the token is in nothing that is told.
func TestHeaders(t *testing.T) {
	t.Parallel()
	for kind, k := range kinds {
		seen := make(chan *http.Request, 100)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPut {
				seen <- r
			}
			http.Error(w, "what is s3cret?", http.StatusForbidden)
		}))
		defer s.Close()
		r, err := newReceiver(k.c(s.URL, tokenFile(t, "s3cret")))
		if err != nil {
			t.Fatal(err)
		}
		err = r.send(t.Context(), []record{recordOf(t, 1, "json")})
		if err == nil || strings.Contains(err.Error(), "s3cret") != (k.auth == "") || !strings.Contains(err.Error(), "403 Forbidden") {
			t.Errorf("%s: %v", kind, err)
		}
		got := <-seen
		if got.Header.Get("Authorization") != k.auth || got.URL.Path != k.path || got.Method != http.MethodPost || kind == "loki" && got.Header.Get("X-Scope-OrgID") != "ops" {
			t.Errorf("%s: %s %s %v", kind, got.Method, got.URL, got.Header)
		}
	}
}

func recordOf(t *testing.T, seq uint64, format string) record {
	t.Helper()
	d := decision(seq)
	line := audit.AppendJSON(nil, d)
	line = append(line[:len(line)-1], fmt.Sprintf(`,"prev":"%064d","hash":"%064d"}`, seq-1, seq)...)
	e, ok := audit.ReadEntry(line)
	if !ok || e.Hash == "" {
		t.Fatalf("%s", line)
	}
	return newRecord(e, line, format)
}

// partialAnswer is one of OTLP's.
func partialAnswer(refused uint64, reason string) []byte {
	var p []byte
	p = protowire.AppendVarint(protowire.AppendTag(p, 1, protowire.VarintType), refused)
	p = protowire.AppendString(protowire.AppendTag(p, 2, protowire.BytesType), reason)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), p)
}

// TestAnswers: what each kind's answers mean.
func TestAnswers(t *testing.T) {
	t.Parallel()
	refused := func(n uint64, reason string) string { return string(partialAnswer(n, reason)) }
	item := func(status int) string {
		return fmt.Sprintf(`{"create":{"status":%d,"error":{"type":"t","reason":"r"}}}`, status)
	}
	items := func(status ...int) string {
		var list []string
		for _, s := range status {
			list = append(list, item(s))
		}
		return `{"errors":true,"items":[` + strings.Join(list, ",") + `]}`
	}
	for _, c := range []struct {
		kind   string
		status int
		body   string
		want   string // ok, later, rejected, partial or error
	}{
		{"loki", 204, "", "ok"}, {"loki", 200, "x", "ok"}, {"loki", 400, "too old", "rejected"}, {"loki", 413, "", "rejected"}, {"loki", 404, "", "later"}, {"loki", 401, "", "later"},
		{"loki", 302, "", "later"}, {"loki", 429, "", "later"}, {"loki", 500, "", "later"},
		{"otlp", 200, "", "ok"}, {"otlp", 200, refused(0, "a warning"), "ok"}, {"otlp", 200, refused(1, "x"), "partial"}, {"otlp", 200, refused(3, "x"), "rejected"}, {"otlp", 200, "<html>", "error"},
		{"otlp", 400, "", "rejected"}, {"otlp", 503, "", "later"},
		{"splunk", 200, `{"text":"Success","code":0}`, "ok"}, {"splunk", 200, "<html>", "error"}, {"splunk", 200, `{}`, "error"}, {"splunk", 200, `{"code":9}`, "later"},
		{"splunk", 400, `{"text":"Invalid data format","code":6,"invalid-event-number":1}`, "rejected"}, {"splunk", 400, `{"text":"Incorrect index","code":7}`, "later"},
		{"splunk", 400, `{"text":"Data channel is missing","code":10}`, "later"}, {"splunk", 400, "", "error"}, {"splunk", 403, `{"code":4}`, "later"}, {"splunk", 503, `{"code":9}`, "later"}, {"splunk", 413, "", "rejected"},
		{"elastic", 200, items(201, 201, 409), "ok"}, {"elastic", 200, items(201, 400, 201), "partial"}, {"elastic", 200, items(201, 429, 201), "partial"}, {"elastic", 200, items(429, 429, 503), "partial"},
		{"elastic", 200, items(400, 400, 400), "partial"}, {"elastic", 200, items(404, 403, 429), "partial"}, {"elastic", 200, items(201), "error"}, {"elastic", 200, "", "error"},
		{"elastic", 200, `{"items":[{"index":{"status":201}},{"index":{"status":201}},{"index":{"status":201}}]}`, "error"}, {"elastic", 400, "", "rejected"}, {"elastic", 413, "", "rejected"}, {"elastic", 401, "", "later"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}))
		r, err := newReceiver(kinds[c.kind].c(s.URL, tokenFile(t, "s3cret")))
		if err != nil {
			t.Fatal(err)
		}
		err = r.send(t.Context(), []record{recordOf(t, 1, "json"), recordOf(t, 2, "json"), recordOf(t, 3, "json")})
		s.Close()
		is := "error"
		switch err.(type) { //nolint:errorlint // what it is itself
		case nil:
			is = "ok"
		case *later:
			is = "later"
		case *rejected:
			is = "rejected"
		case *partial:
			is = "partial"
		}
		if is != c.want {
			t.Errorf("%s: %d %.60q is %s, want %s: %v", c.kind, c.status, c.body, is, c.want, err)
		}
	}
}

// poison refuses requests with certain records.
func poison(t *testing.T, g *got, status int, bad func(seq uint64) bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _, seqs, hashes := readLoki(g, body)
		if slices.ContainsFunc(seqs, bad) {
			http.Error(w, "too old", status)
			return
		}
		for i := range seqs {
			g.add(seqs[i], hashes[i])
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestPoison: what is refused for ever is found, counted and recorded, once an hour; all else arrives, in order.
func TestPoison(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 413, 422} {
		tr := newTrail(t, audit.Options{})
		tr.write(1200)
		bad := []uint64{1, 2, 77, 499, 500, 501, 777, 1000}
		var g got
		var n notes
		all := open(t, config.Forward{Loki: poison(t, &g, status, func(seq uint64) bool { return slices.Contains(bad, seq) })}, t.TempDir(), &n)
		stop := start(t, all, tr.Writer)
		until(t, "all else is there", func() bool { return all.Forwarded() == 1200 })
		stop()
		g.check(t, tr, bad...)
		if s := all.States()[0]; s.Refused != uint64(len(bad)) || s.Error != "" || n.with("the record 1 is refused for ever") != 1 || n.with("for ever") != 1 {
			t.Errorf("%+v, %q", s, n.list)
		}
	}
}

// TestAllIsRefused: a receiver that takes nothing has something wrong with it, whatever it says of records; nothing is given up. Nor is
// it when it is set right, but for what it refuses then.
func TestAllIsRefused(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	tr.write(30)
	var g got
	var n notes
	var right atomic.Bool
	all := open(t, config.Forward{Loki: poison(t, &g, 400, func(seq uint64) bool { return !right.Load() || seq == 9 })}, t.TempDir(), &n)
	stop := start(t, all, tr.Writer)
	until(t, "it is recorded", func() bool { return n.with("takes none that is later, so something may be wrong there") == 1 })
	if s := all.States()[0]; s.Refused != 0 || s.Seq != 0 {
		t.Errorf("%+v", s)
	}
	right.Store(true)
	until(t, "all else is there", func() bool { return all.Forwarded() == 30 })
	stop()
	g.check(t, tr, 9)
	if s := all.States()[0]; s.Refused != 1 {
		t.Errorf("%+v", s)
	}
}

// TestTheLastIsRefused: it is given up when a later one is taken, and not before.
func TestTheLastIsRefused(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	tr.write(10)
	var g got
	var n notes
	all := open(t, config.Forward{Loki: poison(t, &g, 400, func(seq uint64) bool { return seq >= 9 && seq <= 10 })}, t.TempDir(), &n)
	defer start(t, all, tr.Writer)()
	until(t, "it is held", func() bool { return all.States()[0].Error != "" && all.Forwarded() == 8 })
	if s := all.States()[0]; s.Refused != 0 {
		t.Errorf("%+v", s)
	}
	tr.write(1)
	until(t, "it goes on", func() bool { return all.Forwarded() == 11 })
	g.check(t, tr, 9, 10)
}

// TestElasticItems: each record's own result counts.
func TestElasticItems(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	tr.write(300)
	var g got
	busy := map[uint64]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPut {
			return
		}
		_, _, seqs, hashes := readElastic(&g, body)
		var items []string
		for i, seq := range seqs {
			status := 201
			switch {
			case seq%50 == 7:
				status = 400
			case seq%20 == 3 && busy[seq] < 2:
				busy[seq]++
				status = 429
			case seq%30 == 0:
				status = 409
			}
			if status != 400 && status != 429 {
				g.add(seq, hashes[i])
			}
			items = append(items, fmt.Sprintf(`{"create":{"status":%d}}`, status))
		}
		fmt.Fprintf(w, `{"errors":true,"items":[%s]}`, strings.Join(items, ","))
	}))
	defer s.Close()
	var n notes
	all := open(t, config.Forward{Elastic: s.URL, Index: "logs"}, t.TempDir(), &n)
	stop := start(t, all, tr.Writer)
	until(t, "all is there", func() bool { return all.Forwarded() == 300 })
	stop()
	slices.Sort(g.order) // those that were to come again came later
	g.check(t, tr, 7, 57, 107, 157, 207, 257)
	if s := all.States()[0]; s.Refused != 6 {
		t.Errorf("%+v, %q", s, n.list)
	}
}

// TestOTLPRefusesSome: nothing of the request is sent again, and so many are counted.
func TestOTLPRefusesSome(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	tr.write(40)
	var g got
	s := serve(t, &g, func(g *got, body []byte) (int, string, []uint64, []string) {
		_, _, seqs, hashes := readOTLP(g, body)
		return 200, string(partialAnswer(3, "")), seqs, hashes
	}, nil)
	var n notes
	all := open(t, config.Forward{OTLP: s.URL}, t.TempDir(), &n)
	stop := start(t, all, tr.Writer)
	until(t, "all is there", func() bool { return all.Forwarded() == 40 })
	stop()
	if s := all.States()[0]; s.Refused != 3 || g.dups != 0 || n.with("one of the records 1 to 40 is refused") != 1 {
		t.Errorf("%+v, %d, %q", s, g.dups, n.list)
	}
}

// TestWhoIsTrusted: a server whose certificate does not verify gets nothing.
func TestWhoIsTrusted(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(http.StatusNoContent) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		c    config.Forward
		good bool
	}{
		{config.Forward{Loki: s.URL}, false}, {config.Forward{Loki: s.URL, Server: config.Server{CA: ca}}, true},
		{config.Forward{Loki: strings.Replace(s.URL, "127.0.0.1", "localhost", 1), Server: config.Server{CA: ca}}, false}, // another's name
	} {
		r, err := newReceiver(c.c)
		if err != nil {
			t.Fatal(err)
		}
		before := asked.Load()
		err = r.send(t.Context(), []record{recordOf(t, 1, "json")})
		if (err == nil) != c.good || asked.Load()-before > 0 != c.good {
			t.Errorf("%+v: %v", c.c, err)
		}
	}
}

// TestSecretsAreNotEverybodys, and no error has any of one.
func TestSecretsAreNotEverybodys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		mode os.FileMode
		want string
	}{{"s3cret", 0o600, ""}, {"s3cret", 0o640, "chmod 600"}, {"s3 cret", 0o600, "one line of visible"}, {"", 0o600, "one line"}, {"s3cret\x01", 0o600, "one line"}, {strings.Repeat("s3cret", 1<<14), 0o600, "too long"}} {
		file := tokenFile(t, c.text)
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		err := Check([]config.Forward{{Name: "a", Splunk: "http://127.0.0.1:1", Server: config.Server{Token: config.Token{File: file}}}})
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(strings.ReplaceAll(err.Error(), " ", ""), "s3cret")) {
			t.Errorf("%.10q %o: %v", c.text, c.mode, err)
		}
	}
}
