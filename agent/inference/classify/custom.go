package classify

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// pattern is a Pattern made ready.
type pattern struct {
	name  string
	class Class
	re    *regexp.Regexp
	words []string
}

// phrase is what a dictionary says of a word: it, or it with those behind it.
type phrase struct {
	name  string
	class Class
	rest  []string
}

// custom adds the rules of a policy.
func (c *Classifier) custom(r Rules) error {
	for _, p := range r.Patterns {
		if err := named(p.Name, p.Class); err != nil {
			return fmt.Errorf("pattern %w", err)
		}
		re, err := regexp.Compile(p.Regexp)
		if err != nil {
			return fmt.Errorf("pattern %s: %w", p.Name, err)
		}
		if re.MatchString("") {
			return fmt.Errorf("pattern %s: it finds a text without characters, so it would find something everywhere", p.Name)
		}
		words := make([]string, len(p.Words))
		for i, w := range p.Words {
			if words[i] = strings.ToLower(strings.TrimSpace(w)); words[i] == "" {
				return fmt.Errorf("pattern %s: an empty word", p.Name)
			}
		}
		c.patterns = append(c.patterns, pattern{p.Name, p.Class, re, words})
	}
	if len(r.Dictionaries) > 0 {
		c.words = c.words.clone()
	}
	for _, d := range r.Dictionaries {
		if err := named(d.Name, d.Class); err != nil {
			return fmt.Errorf("dictionary %w", err)
		}
		for _, entry := range d.Words {
			parts := strings.FieldsFunc(entry, func(r rune) bool { return r < 0x80 && !wordy(byte(r)) })
			if len(parts) == 0 {
				return fmt.Errorf("dictionary %s: %q has no letter or digit", d.Name, entry)
			}
			for i := range parts {
				parts[i] = strings.ToLower(parts[i])
			}
			for _, spelling := range spellings(parts[0]) {
				w := c.words.add(spelling, 0, aDict)
				w.dict = append(w.dict[:len(w.dict):len(w.dict)], phrase{d.Name, d.Class, parts[1:]})
			}
		}
	}
	return nil
}

func named(name string, class Class) error {
	switch {
	case name == "":
		return errors.New("without a name")
	case class == "":
		return fmt.Errorf("%s: without a class", name)
	}
	return nil
}

// phrases looks whether what a dictionary has stands here.
func (s *scanner) phrases(w *word, start int) {
	for i := range w.dict {
		p := &w.dict[i]
		at := start + len(w.text)
		for _, want := range p.rest {
			gap := at
			for gap < len(s.s) && gap < at+4 && !wordy(s.s[gap]) {
				gap++
			}
			to := gap
			for to < len(s.s) && wordy(s.s[to]) {
				to++
			}
			if gap == at || strings.ToLower(s.s[gap:to]) != want {
				at = -1
				break
			}
			at = to
		}
		if at > 0 && !s.c.off[p.class] {
			s.words = append(s.words, Match{Class: p.class, Kind: p.name, Start: start, End: at})
		}
	}
}

// matchPatterns finds what the expressions of a policy say.
func (c *Classifier) matchPatterns(s string) []Match {
	var found []Match
	for _, p := range c.patterns {
		if c.off[p.class] {
			continue
		}
		for _, at := range p.re.FindAllStringIndex(s, maxMatches+1) {
			if at[0] < at[1] && p.near(s, at[0], at[1]) {
				found = append(found, Match{Class: p.class, Kind: p.name, Start: at[0], End: at[1]})
			}
		}
	}
	return found
}

// near reports whether one of the words that a pattern wants is there.
func (p *pattern) near(s string, start, end int) bool {
	if len(p.words) == 0 {
		return true
	}
	const within = 80
	around := strings.ToLower(s[max(0, start-within):start] + "\x00" + s[end:min(len(s), end+within)])
	for _, w := range p.words {
		if strings.Contains(around, w) {
			return true
		}
	}
	return false
}
