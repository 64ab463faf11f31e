package forward

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// mapped is an index of Elastic's that decides by the first value of a field what the field is, as one does for which nobody said
// anything: a string that looks like a date makes it one, and what is none is refused from then on.
type mapped struct {
	mu    sync.Mutex
	made  bool
	dates bool            // strings are looked at
	date  map[string]bool // of a field that there is
	has   int
	puts  []string
}

var looksLikeDate = regexp.MustCompile(`^\d{4}-\d\d-\d\d`)

func (m *mapped) fits(path string, v any) (misfit string) {
	switch v := v.(type) {
	case map[string]any:
		for k, in := range v {
			if misfit := m.fits(path+"."+k, in); misfit != "" {
				return misfit
			}
		}
	case []any:
		for _, in := range v {
			if misfit := m.fits(path, in); misfit != "" {
				return misfit
			}
		}
	case string:
		is := looksLikeDate.MatchString(v)
		date, there := m.date[path]
		if !there {
			m.date[path] = is && m.dates
		} else if date && !is {
			return path
		}
	}
	return ""
}

func (m *mapped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Method == http.MethodPut {
		var p struct {
			Mappings struct {
				Dates *bool `json:"date_detection"`
			}
		}
		m.puts = append(m.puts, r.URL.Path)
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || m.made || p.Mappings.Dates == nil {
			http.Error(w, `{"error":{"type":"resource_already_exists_exception"}}`, http.StatusBadRequest)
			return
		}
		m.made, m.dates = true, *p.Mappings.Dates
		return
	}
	m.made = true
	in := bufio.NewScanner(r.Body)
	in.Buffer(nil, 4<<20)
	var items []string
	for action := true; in.Scan(); action = !action {
		if action {
			continue
		}
		var doc map[string]any
		_ = json.Unmarshal(in.Bytes(), &doc)
		if misfit := m.fits("", doc); misfit != "" {
			items = append(items, fmt.Sprintf(`{"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"failed to parse field [%s] of type [date]"}}}`, misfit))
			continue
		}
		m.has++
		items = append(items, `{"create":{"status":201}}`)
	}
	fmt.Fprintf(w, `{"errors":false,"items":[%s]}`, strings.Join(items, ","))
}

// TestWhatIsADate: a program inside whose words look like dates does not decide what all others are to look like. Elastic takes the first
// value of a field for its kind.
func TestWhatIsADate(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "ocsf"} {
		tr := newTrail(t, audit.Options{})
		for range 50 {
			d := decision(tr.Head().Seq + 1)
			if d.Plane, d.Object = policy.PlaneDNS, "example.org"; d.Seq%10 == 1 {
				d.Object, d.Subject.Args = "2026-01-01", "2026-01-01 x"
				d.Inference = &policy.ModelCall{Asked: "2026-01-01", Tool: &policy.ToolUse{Result: "2026-01-01"}}
			}
			if err := tr.Append(d); err != nil {
				t.Fatal(err)
			}
		}
		m := &mapped{dates: true, date: map[string]bool{}}
		s := httptest.NewServer(m)
		defer s.Close()
		var n notes
		dir := t.TempDir()
		for range 2 { // as for the next daemon, which finds the index
			all := open(t, config.Forward{Elastic: s.URL, Index: "logs", Format: format}, dir, &n)
			stop := start(t, all, tr.Writer)
			until(t, "all is there", func() bool { return all.Forwarded() == tr.Head().Seq })
			stop()
			if s := all.States()[0]; s.Refused != 0 {
				t.Errorf("%s: %+v, %q", format, s, n.list)
			}
			tr.write(1)
		}
		if m.has != 51 || len(m.puts) != 2 || m.puts[0] != "/logs" {
			t.Errorf("%s: %d came; %q", format, m.has, m.puts)
		}
	}
}

// answerSize is as much as is read of an answer.
const answerSize = 4 << 20

// TestManyItems: an answer of as many bytes as are read of one takes little more to understand, whatever it is made of.
func TestManyItems(t *testing.T) { //nolint:paralleltest // it counts what is allocated
	for what, one := range map[string]string{"empty": `{}`, "nested": `{"a":{}}`, "other": `{"create":{"x":{"y":[{}]}}}`} {
		body := []byte(`{"items":[` + strings.Repeat(one+",", answerSize/(len(one)+1)) + one + `]}`)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := (&elastic{}).answer(200, body, 1)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 16*answerSize {
			t.Errorf("%s items: %d MiB, %v", what, n>>20, err)
		}
	}
}

// TestElasticRefusesManyInARow, and is busy with others between them: all others are there, none is counted twice.
func TestElasticRefusesManyInARow(t *testing.T) {
	t.Parallel()
	const bad = 620
	tr := newTrail(t, audit.Options{})
	tr.write(1000)
	var g got
	var mu sync.Mutex
	busy := map[uint64]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPut {
			return
		}
		_, _, seqs, hashes := readElastic(&g, body)
		mu.Lock()
		defer mu.Unlock()
		var items []string
		for i, seq := range seqs {
			status := 201
			switch {
			case seq <= bad && seq%97 != 0:
				status = 400
			case seq%97 == 0 && !busy[seq]:
				busy[seq] = true
				status = 429
			default:
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
	until(t, "all is there", func() bool { return all.Forwarded() == 1000 })
	stop()
	if s := all.States()[0]; s.Refused != bad-bad/97 || g.count() != 1000-bad+bad/97 || len(g.bad) > 0 {
		t.Errorf("%+v, %d came, %q", s, g.count(), g.bad)
	}
}
