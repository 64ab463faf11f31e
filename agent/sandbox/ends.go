package sandbox

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// end is what rules say from a moment on at which some of them end.
type end struct {
	at   time.Time
	said said
}

// age is how long the times of rules have been running.
func (s *Sandbox) age() time.Duration { return time.Since(s.spec.Started) }

// ends lists what rules come to say when some of them end.
func (s *Sandbox) ends(c *policy.Compiled, rules *said) (list []end) {
	for _, age := range c.Ends(s.age()) {
		list = append(list, end{s.spec.Started.Add(age), rules.at(c.At(age))})
	}
	return list
}

// at is what rules say when the policy has become another by some of them having ended: the places are the same.
func (s *said) at(c *policy.Compiled) said {
	later := said{baseline: s.baseline, askExec: s.askExec}
	for _, e := range s.entries {
		if e.ruled {
			r, there := c.Files.Rule(e.written)
			if !there {
				continue
			}
			if e.denied = r.Denied; !e.alias {
				e.access, e.asked, e.own = r.Access|r.Asked, r.Asked, r.Denied == 0
			}
			for i := range e.by {
				e.by[i] = r.RuleFor(1 << i)
			}
		}
		later.entries = append(later.entries, e)
	}
	return later
}

// say says what rules say of a place, now and later. What is allowed again, or for the first time, when a rule ends is not said:
// whoever put the rules into force does that anew then.
func (j *judging) say(p *Judged) {
	var denied policy.Access
	p.Access, p.Ask, denied, p.By = j.judged(p.Path)
	rule, named := j.named[p.Path]
	if named {
		about := policy.Execute
		if rule.Script {
			about |= (p.Access | p.Ask) & policy.Read
		}
		for i := range p.By {
			if about&(1<<i) != 0 {
				p.By[i] = rule.Rule
			}
		}
		if p.Access, p.Ask = p.Access&^about, p.Ask&^about; rule.Ask {
			p.Ask |= about
		}
	}
	// What the baseline shows may be mapped to be executed unless it may be written; beside it, what may be executed.
	listed := j.baseline && underAny(p.Path, policy.BaselineRead) && (p.Access|p.Ask)&policy.Write == 0 && denied&policy.Execute == 0
	p.Map = (p.Access|p.Ask)&policy.Read != 0 && (listed || (p.Access|p.Ask)&policy.Execute != 0)
	p.Later = p.Access
	for i := range j.ends {
		access, _, _, _ := j.ends[i].said.judged(p.Path)
		p.lessFrom(j.ends[i].at, access)
	}
}

// judged is what may be done at a path without a question, what with one, and what rules deny.
func (s *said) judged(at string) (access, ask, denied policy.Access, by [3]policy.RuleID) {
	access, denied, by = s.decide(at)
	ask = s.asked(at)
	access &^= ask
	if s.askExec && (access|denied)&policy.Execute == 0 {
		ask |= policy.Execute
	}
	return access, ask, denied, by
}

// lessFrom takes away what is not allowed any more from a moment on.
func (p *Judged) lessFrom(at time.Time, access policy.Access) {
	if p.Later&^access == 0 {
		return
	}
	if p.Until.IsZero() {
		p.Until = at
	}
	p.Later &= access
}

// addEnding adds a place for each program that may be executed for a time only. BPF LSM judges it by that, and not by the list of
// programs, which knows no time. Helpers are not among them: who starts those is in that list only, and ends with their command.
func (s *Sandbox) addEnding(places []Judged, list []Program) ([]Judged, error) {
	for _, p := range list {
		if p.Until == 0 || p.Kind == KindHelper || p.Kind == KindAsked {
			continue
		}
		i := slices.IndexFunc(places, func(x Judged) bool { return x.Path == p.Path && x.Name == "" })
		if i < 0 {
			fd, err := unix.FcntlInt(p.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return places, fmt.Errorf("sandbox: %s: %w", p.Path, err)
			}
			around := nearest(places, p.Path)
			places = append(places, Judged{Path: p.Path, File: os.NewFile(uintptr(fd), p.Path), Access: around.Access, Ask: around.Ask, Map: around.Map, Until: around.Until, Later: around.Later, By: around.By})
			i = len(places) - 1
		}
		x := &places[i]
		if x.Access&policy.Execute != 0 && x.Later&policy.Execute != 0 {
			continue // a rule for files says so, for longer
		}
		if x.Access&policy.Execute == 0 {
			x.By[2] = p.Rule
		}
		x.Access |= policy.Execute
		x.Ask &^= policy.Execute
		x.Later &^= policy.Execute
		if at := s.spec.Started.Add(p.Until); x.Until.IsZero() || at.Before(x.Until) {
			x.Until = at
		}
		x.Anchor = false
	}
	return places, nil
}

// nearest is the place that decides on a path.
func nearest(places []Judged, at string) (best Judged) {
	for _, p := range places {
		if !p.Anchor && under(at, p.Path) && len(p.Path) >= len(best.Path) {
			best = p
		}
	}
	return best
}
