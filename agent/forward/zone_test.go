package forward

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// sent is what a request to Loki has.
type sent struct {
	labels int
	seqs   []uint64
	hashes []string
}

func readSent(r *http.Request) (p sent, err error) {
	var body struct {
		Streams []struct {
			Stream map[string]string `json:"stream"`
			Values [][3]any          `json:"values"`
		} `json:"streams"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return p, err
	}
	p.labels = len(body.Streams[0].Stream)
	for _, v := range body.Streams[0].Values {
		meta, _ := v[2].(map[string]any)
		seq, err := strconv.ParseUint(fmt.Sprint(meta["seq"]), 10, 64)
		if err != nil {
			return p, err
		}
		p.seqs, p.hashes = append(p.seqs, seq), append(p.hashes, fmt.Sprint(meta["hash"]))
	}
	return p, nil
}

// strictLoki refuses what Loki does: samples that are too old, and such as are far behind the newest one of their stream. As Loki does, it
// takes the rest of a request that it refuses.
func strictLoki(t *testing.T, g *got, oldest, behind uint64) string {
	t.Helper()
	var mu sync.Mutex
	newest := map[int]uint64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := readSent(r)
		if err != nil {
			g.fault("%v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		why := ""
		for i, seq := range p.seqs {
			switch {
			case seq < oldest:
				why = fmt.Sprintf("%d has timestamp too old", seq)
			case seq+behind < newest[p.labels]:
				why = fmt.Sprintf("%d: entry too far behind", seq)
			default:
				newest[p.labels] = max(newest[p.labels], seq)
				if p.labels == 2 {
					g.add(seq, p.hashes[i])
				}
			}
		}
		if why != "" {
			http.Error(w, why, http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestAllOfTheOldIsRefused: a receiver that takes nothing older than so much, of a log that begins long before, gets all the rest, and what
// it refuses is counted; it is not sent the newest so that the ones between are too far behind.
func TestAllOfTheOldIsRefused(t *testing.T) {
	t.Parallel()
	const oldest, all = 520, 1100
	tr := newTrail(t, audit.Options{Rotate: 200_000})
	tr.write(all)
	var g got
	var n notes
	streams := open(t, config.Forward{Loki: strictLoki(t, &g, oldest, 300)}, t.TempDir(), &n)
	stop := start(t, streams, tr.Writer)
	until(t, "the rest is there", func() bool { return streams.Forwarded() == all })
	stop()
	old := make([]uint64, 0, oldest)
	for seq := uint64(1); seq < oldest; seq++ {
		old = append(old, seq)
	}
	g.check(t, tr, old...)
	// Of what it took together with something too old, some is too far behind when it comes again, and counted as well.
	if s := streams.States()[0]; s.Refused < oldest-1 || s.Error != "" || n.with("the record 1 is refused for ever") != 1 {
		t.Errorf("%+v, %q", s, n.list)
	}
}

// TestAllIsRefusedForLong: a receiver that takes nothing at all loses nothing, however much there is; and none is counted twice when it
// fails in the middle of what it refuses.
func TestAllIsRefusedForLong(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	tr.write(260)
	var g got
	var n notes
	var right atomic.Bool
	var asked atomic.Uint64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := readSent(r)
		switch {
		case err != nil:
			g.fault("%v", err)
		case right.Load() && asked.Add(1)%120 == 0:
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		case !right.Load() || slices.Min(p.seqs) <= 200:
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		for i := range p.seqs {
			g.add(p.seqs[i], p.hashes[i])
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	streams := open(t, config.Forward{Loki: s.URL}, t.TempDir(), &n)
	stop := start(t, streams, tr.Writer)
	until(t, "it is recorded", func() bool { return n.with("takes none that is later, so something may be wrong there") == 1 })
	if s := streams.States()[0]; s.Refused != 0 || s.Seq != 0 {
		t.Errorf("%+v", s)
	}
	right.Store(true)
	until(t, "the rest is there", func() bool { return streams.Forwarded() == 260 })
	stop()
	if s := streams.States()[0]; s.Refused != 200 || g.count() != 60 {
		t.Errorf("%+v, %d came", s, g.count())
	}
	for seq := range maps.Keys(g.hashes) {
		if seq <= 200 {
			t.Errorf("%d came", seq)
		}
	}
}

// TestFloodOfPoison: a program inside that makes one record after the other that a receiver refuses, the last of all too, and of any
// length, holds nothing up: what the daemon itself recorded shows that it is they.
func TestFloodOfPoison(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	for i := range 120 {
		d := decision(tr.Head().Seq + 1)
		d.Plane, d.Object = policy.PlaneFile, "/poison"+strings.Repeat("x", 80_000*(i%20/10))
		if i == 90 {
			d.Plane, d.Object = policy.PlaneSystem, "daemon"
		}
		if err := tr.Append(d); err != nil {
			t.Fatal(err)
		}
	}
	var n notes
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), "poison") {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	streams := open(t, config.Forward{Loki: s.URL}, t.TempDir(), &n)
	stop := start(t, streams, tr.Writer)
	until(t, "the daemon's own record is there", func() bool { return streams.Forwarded() >= 91 })
	until(t, "the rest waits for a later one", func() bool { return n.with("takes none that is later") == 1 })
	tr.write(1) // of seq 121
	until(t, "all is there", func() bool { return streams.Forwarded() == 121 })
	if s := streams.States()[0]; s.Refused != 119 {
		t.Errorf("%+v", s)
	}
	if n.with("the record 1 is refused for ever") != 1 || n.with("for ever") != 1 {
		t.Errorf("%q", n.list)
	}
	stop()
	// An hour later the others are counted in a record, though none is refused any more.
	streams[0].tellEvery = 0
	defer start(t, streams, tr.Writer)()
	until(t, "the others are counted", func() bool { return n.with("118 more records were refused for ever since") == 1 })
}
