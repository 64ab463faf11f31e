package report

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/policy"
)

// collected is what a report is made of: counts of records, in bounded memory.
type collected struct {
	records, attempts uint64
	folded            uint64 // attempts that stand in a record of several
	various           uint64 // those whose objects were given up
	first, last       time.Time
	planes            map[policy.Plane]*verdicts
	hours             *table[int64, verdicts] // by Unix hour
	sandboxes         *table[string, boxSeen]
	access            *table[access, seen]
	defaulted         uint64 // denied by the default

	people   *table[deed, seen]
	answers  ring[answer]
	answered verdicts               // answers of persons
	given    *table[attempt, grant] // the last answer to each attempt
	silent   uint64                 // attempts that nobody answered
	granted  uint64                 // attempts allowed by an answer
	ended    uint64                 // answers that were taken back, or whose time was over
	policies ring[change]
	inForce  *table[inForce, seen]
	actions  map[string]uint64 // of the plane system

	models *table[modelKey, modelUse]
	found  *table[finding, seen]
	tools  *table[tool, seen]

	gpus gpuTimes

	lives     ring[note] // beginnings and ends of a sandbox
	commands  ring[note] // that were started from outside
	carried   ring[note] // files that a person put in or took out
	losses    ring[note]
	lostTotal uint64
}

// verdicts counts attempts by their verdict.
type verdicts [3]uint64

func (v *verdicts) add(w policy.Verdict, n uint64) {
	if int(w) < len(v) {
		v[w] += n
	}
}

func (v *verdicts) of(w policy.Verdict) uint64 { return v[w] }
func (v *verdicts) all() uint64                { return v[0] + v[1] + v[2] }

// seen is how often something was seen, and when.
type seen struct {
	n           uint64
	first, last time.Time
	seq         uint64 // of the first record
}

func (s *seen) add(d *policy.Decision, n uint64) {
	if s.n == 0 {
		s.first, s.last, s.seq = d.Time, d.Time, d.Seq
	}
	if d.Time.Before(s.first) {
		s.first = d.Time
	}
	if d.Time.After(s.last) {
		s.last = d.Time
	}
	s.n += n
}

type boxSeen struct {
	seen
	verdicts
}

// access is who accessed what, and why that was decided so.
type access struct {
	sandbox  string
	plane    policy.Plane
	action   string
	object   string
	exe      string
	rule     string
	revision string
	verdict  policy.Verdict
	granted  bool // by a person's answer
}

type inForce struct{ sandbox, revision string }

// attempt is what an answer is about.
type attempt struct{ sandbox, asked, object, exe string }

type modelKey struct {
	sandbox, model, route string
	verdict               policy.Verdict
}

type modelUse struct {
	seen
	in, out, cached      int64
	cost                 int64
	bytesIn, bytesOut    int64
	estimated, withFinds uint64
}

// finding is a class of what was found in requests, and where they went.
type finding struct {
	sandbox, class, route, model string
	verdict                      policy.Verdict
}

type tool struct {
	sandbox, name, action string
	failed                bool
}

func newCollected() *collected {
	c := &collected{
		planes: map[policy.Plane]*verdicts{}, actions: map[string]uint64{},
		hours: newTable[int64, verdicts](maxHours, 0), sandboxes: newTable[string, boxSeen](maxSandboxes, 0), access: newTable[access, seen](maxKinds, maxShare),
		people: newTable[deed, seen](maxPeople, 0), given: newTable[attempt, grant](maxKinds, maxShare), inForce: newTable[inForce, seen](maxPeople, maxShare),
		gpus:   newGPUTimes(),
		models: newTable[modelKey, modelUse](maxPeople, maxShare), found: newTable[finding, seen](maxPeople, maxShare), tools: newTable[tool, seen](maxKinds, maxShare),
	}
	for _, p := range policy.Planes() {
		c.planes[p] = &verdicts{}
	}
	return c
}

// between is what ends a word.
const between = " /:,;?&'\"()[]{}<>|\n\t"

// clip bounds a text that is kept. It is cut between words: of half a secret nobody can tell any more that it was one. It is called for
// each record, so what is in the text is looked at only when it is shown.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	head, tail := s[:most/2+1], s[len(s)-most/2:]
	n := max(strings.LastIndexAny(head[:most/2], between)+1, 8)
	for n > 0 && !utf8.RuneStart(head[n]) {
		n--
	}
	if i := strings.IndexAny(tail, between); i >= 0 {
		tail = tail[i:]
	} else {
		tail = ""
	}
	return head[:n] + "..." + tail
}

// add takes a record. Records come in the order of the log.
func (c *collected) add(d *policy.Decision) {
	n := max(d.Count, 1)
	c.records++
	if n > 1 {
		c.folded += n
	}
	if c.first.IsZero() || d.Time.Before(c.first) {
		c.first = d.Time
	}
	if d.Time.After(c.last) {
		c.last = d.Time
	}
	if d.Revision != "" {
		if v := c.inForce.at(inForce{clip(d.Sandbox, maxWord), clip(d.Revision, maxWord)}, d.Sandbox, n); v != nil {
			v.add(d, n)
		}
	}
	if d.Plane == policy.PlaneSystem {
		c.system(d, n)
		return
	}
	c.attempts += n
	if p := c.planes[d.Plane]; p != nil {
		p.add(d.Verdict, n)
	}
	if v := c.hours.at(d.Time.Unix()/3600, "", n); v != nil {
		v.add(d.Verdict, n)
	}
	if v := c.sandboxes.at(clip(d.Sandbox, maxWord), "", n); v != nil {
		v.seen.add(d, n)
		v.verdicts.add(d.Verdict, n)
	}
	c.decided(d, n)
	if d.Inference != nil {
		c.called(d, n)
	}
}

// byPerson reports whether a record says that an answer allowed the attempt: one to it, or one before it that holds.
func byPerson(d *policy.Decision) bool {
	return d.Verdict == policy.Allow && (strings.HasPrefix(d.Reason, "granted by a person") || strings.HasPrefix(d.Reason, "approved by a person"))
}

func (c *collected) decided(d *policy.Decision, n uint64) {
	k := access{
		sandbox: clip(d.Sandbox, maxWord), plane: d.Plane, action: clip(d.Action, maxWord), object: clip(d.Object, maxObject), exe: clip(d.Subject.Exe, maxWord),
		rule: clip(d.Rule, maxWord), revision: clip(d.Revision, maxWord), verdict: d.Verdict, granted: byPerson(d),
	}
	switch {
	case k.granted:
		c.granted += n
	case d.Verdict == policy.Deny && d.Rule == "default":
		c.defaulted += n
	}
	if d.Verdict == policy.Deny && strings.HasPrefix(d.Reason, "it was asked about, and nobody answered") {
		c.silent += n
	}
	if d.Object == "(various)" && d.Rule == "builtin" {
		c.various += n
	}
	if d.Plane == policy.PlaneInference && d.Action != "request" {
		return // what a model asked a tool for is counted beside
	}
	if v := c.access.at(k, string(d.Plane)+" "+d.Verdict.String()+" "+k.sandbox, n); v != nil {
		v.add(d, n)
	}
}

// called takes a model call.
func (c *collected) called(d *policy.Decision, n uint64) {
	m, box := d.Inference, clip(d.Sandbox, maxWord)
	if m.Tool != nil {
		if v := c.tools.at(tool{box, clip(d.Object, maxWord), clip(d.Action, maxWord), m.Tool.Failed}, box, n); v != nil {
			v.add(d, n)
		}
		return
	}
	if d.Action != "request" {
		return // `send` says that it leaves; what became of it is a record of its own
	}
	model, route := clip(m.Model, maxWord), clip(m.Route, maxWord)
	if v := c.models.at(modelKey{box, model, route, d.Verdict}, box, n); v != nil {
		v.add(d, n)
		v.in, v.out, v.cached, v.cost = v.in+m.TokensIn, v.out+m.TokensOut, v.cached+m.TokensCached, v.cost+m.Cost
		v.bytesIn, v.bytesOut = v.bytesIn+m.BytesIn, v.bytesOut+m.BytesOut
		if m.Estimated {
			v.estimated += n
		}
		if len(m.Classes) > 0 {
			v.withFinds += n
		}
	}
	for class, times := range m.Classes {
		if times > 0 {
			if v := c.found.at(finding{box, clip(class, maxWord), route, model, d.Verdict}, box, n); v != nil {
				v.add(d, n)
			}
		}
	}
}

// total is how many attempts there were of a verdict.
func (c *collected) total(w policy.Verdict) (n uint64) {
	for _, v := range c.planes {
		n += v.of(w)
	}
	return n
}
