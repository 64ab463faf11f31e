package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Selection says whose texts are to be erased. What it leaves out selects all.
type Selection struct {
	Filter         // its Last and Text are not used
	Records Ranges // only these
	Match   string // only those with this in one of their texts, whatever the case

	Tell func(seq, last uint64) // is told which record is looked at, of all up to the last; nil: nobody
}

// A Survey is what a Selection finds in a chain.
type Survey struct {
	Path    string       // of the chain
	Records Ranges       // whose texts can be erased
	Files   []SurveyFile // they are in, in order
	Already uint64       // selected by number, and erased before
	Old     uint64       // of version 1, whose texts can't be erased: they go with their file
	Keeps   uint64       // records of what was erased, which stay
	Named   uint64       // that have Match in what stays of a record: a sandbox, a rule, a model
}

// A SurveyFile is a file, and how many of the records are in it.
type SurveyFile struct {
	Name    string `json:"file"`
	Records uint64 `json:"records"`
}

// Find looks for the records of a chain that are selected, and calls fn with the line of each that can be erased.
func Find(ctx context.Context, dir, chain string, sel Selection, fn func(line []byte)) (Survey, error) {
	return find(ctx, files{filepath.Clean(dir), chain}, sel, fn)
}

func find(ctx context.Context, f files, sel Selection, fn func(line []byte)) (s Survey, err error) {
	s.Path = f.live()
	flt := sel.Filter
	flt.Last, flt.Text = 0, ""
	end, err := f.lastRecord()
	if err != nil {
		return s, err
	}
	if sel.Records != nil {
		first, last := sel.Records[0].First, sel.Records[len(sel.Records)-1].Last
		if last > end {
			return s, fmt.Errorf("audit log %s: there is no record %d: its last one is %d", f.live(), last, end)
		}
		flt.Since, end = max(flt.Since, first-1), last
	}
	match := strings.ToLower(sel.Match)
	r := &reader{files: f, flt: flt, end: end}
	r.fn = func(seq uint64, line []byte) error {
		if sel.Tell != nil {
			sel.Tell(seq, end)
		}
		if sel.Records != nil && !sel.Records.Has(seq) {
			return nil
		}
		is, err := s.look(line, match)
		if err != nil {
			return fmt.Errorf("audit log %s: record %d %w; `nemoclaw audit verify` says more. Nothing was erased: what was changed is evidence", r.in.Name(), seq, err)
		}
		if !is {
			return nil
		}
		s.Records = s.Records.add(seq)
		if n := len(s.Files); n == 0 || s.Files[n-1].Name != r.in.Name() {
			s.Files = append(s.Files, SurveyFile{Name: r.in.Name()})
		}
		s.Files[len(s.Files)-1].Records++
		if fn != nil {
			fn(line)
		}
		return nil
	}
	defer r.close()
	if err := r.start(ctx); err != nil {
		return s, err
	}
	return s, r.read(ctx)
}

// look reports whether a line's texts are to be erased, and can be.
func (s *Survey) look(line []byte, match string) (bool, error) {
	if match != "" {
		inTexts, elsewhere := has(line, match)
		if elsewhere {
			s.Named++
		}
		if !inTexts {
			return false, nil
		}
	}
	l, err := parseLine(line)
	switch {
	case err != nil:
		return false, err
	case !l.own:
		return false, errors.New("was changed: its content does not give its own hash")
	case !l.sealed:
		s.Old++
		return false, nil
	case l.erased:
		s.Already++
		return false, nil
	}
	if bytes.Contains(line, keyErase) {
		if what, _ := saysOf(line); what != nil {
			s.Keeps++ // without it what it speaks of would be blanked lines
			return false, nil
		}
	}
	return true, nil
}

// has reports whether a record has a text in lower case, in what can be erased of it or elsewhere.
func has(line []byte, match string) (inTexts, elsewhere bool) {
	var d policy.Decision
	if json.Unmarshal(line, &d) != nil { // of a later version, perhaps: rather too much than too little
		quoted := quoted(nil, match)
		return bytes.Contains(bytes.ToLower(line), quoted[1:len(quoted)-1]), false
	}
	in := func(list ...string) bool {
		for _, s := range list {
			if strings.Contains(strings.ToLower(s), match) {
				return true
			}
		}
		return false
	}
	inTexts = in(d.Object, d.Subject.Exe, d.Subject.Args, d.Reason)
	elsewhere = in(d.Sandbox, d.Action, d.Subject.Taint, d.Asked, d.Rule)
	if c := d.Inference; c != nil {
		inTexts = inTexts || in(c.Asked) || in(c.Instead...)
		for _, m := range c.Matches {
			inTexts = inTexts || in(m.Class, m.Kind, m.Via, m.Text)
		}
		if t := c.Tool; t != nil {
			inTexts = inTexts || in(t.Params, t.Result) || in(t.Through...)
		}
		elsewhere = elsewhere || in(c.ID, c.Model) || in(c.Unseen...)
		for class := range c.Classes {
			elsewhere = elsewhere || in(class)
		}
	}
	return inTexts, elsewhere
}
