package forward

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
)

// TestErasedWhileForwarding: texts are erased behind, before and where a receiver is, while it fails and while it takes. It gets every
// record in order, with the hash that it has in the log, and nothing of what was erased before it came there.
func TestErasedWhileForwarding(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{Rotate: 20_000})
	var g got
	var away, late atomic.Bool
	var refused atomic.Int64
	var erased [2000]atomic.Bool // by number: the call that erased it has returned
	read := func(g *got, body []byte) (int, string, []uint64, []string) {
		var p struct {
			Streams []struct{ Values [][]json.RawMessage }
		}
		var seqs []uint64
		var hashes []string
		if err := json.Unmarshal(body, &p); err != nil || len(p.Streams) != 1 {
			g.fault("loki: %v: %.300s", err, body)
			return 400, "", nil, nil
		}
		for _, v := range p.Streams[0].Values {
			var line string
			var meta map[string]string
			if json.Unmarshal(v[1], &line) != nil || json.Unmarshal(v[2], &meta) != nil {
				g.fault("loki: %s", v)
				continue
			}
			seq, _ := strconv.ParseUint(meta["seq"], 10, 64)
			if late.Load() && erased[seq].Load() && !strings.Contains(line, `"erased":"`) {
				g.fault("record %d comes with its texts: %s", seq, line)
			}
			seqs, hashes = append(seqs, seq), append(hashes, meta["hash"])
		}
		return 204, "", seqs, hashes
	}
	url := serve(t, &g, read, func() (int, int) {
		if away.Load() {
			refused.Add(1)
			return 503, 0
		}
		return 0, 0
	}).URL
	erase := func(first, last uint64) {
		t.Helper()
		e := audit.Erasure{Records: audit.Ranges{{First: first, Last: last}}, Reason: "r", By: "root"}
		if _, err := tr.Erase(t.Context(), e, tr.Recorder(), nil); err != nil {
			t.Fatal(err)
		}
		for seq := first; seq <= last; seq++ {
			erased[seq].Store(true)
		}
	}
	var n notes
	all := open(t, config.Forward{Loki: url}, t.TempDir(), &n)
	stop := start(t, all, tr.Writer)
	for range 4 {
		tr.write(100)
		erase(tr.Head().Seq-40, tr.Head().Seq-20) // where the receiver is
		if done := all.Forwarded(); done > 5 {
			erase(done-5, done)
		}
	}
	until(t, "all is there", func() bool { return all.Forwarded() == tr.Head().Seq })

	// It is away, and gets what is left by then.
	away.Store(true)
	from := tr.Head().Seq + 1
	tr.write(300)
	until(t, "it fails", func() bool { return refused.Load() > 0 })
	erase(from+10, from+200)
	was := refused.Load()
	until(t, "what was on its way is refused", func() bool { return refused.Load() > was+1 })
	late.Store(true)
	away.Store(false)
	until(t, "all is there", func() bool { return all.Forwarded() == tr.Head().Seq })
	stop()
	g.check(t, tr)
	if n.with("another one") > 0 || n.with("removed") > 0 {
		t.Errorf("%q", n.list)
	}
}
