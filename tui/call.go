package tui

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// call adds what a model call has.
func (s *sheet) call(c *policy.ModelCall) {
	s.field("request", text.Escape(c.ID))
	s.field("asked for", text.Escape(c.Asked))
	s.field("model", text.Escape(c.Model))
	s.field("route", text.Escape(c.Route))
	for _, class := range slices.Sorted(maps.Keys(c.Classes)) {
		s.field("found", fmt.Sprintf("%s %d", text.Escape(class), c.Classes[class]))
	}
	s.field("not seen", text.Escape(strings.Join(c.Unseen, ", ")))
	for _, m := range c.Matches {
		s.styled("match", fmt.Sprintf("%s %s %s: %s", text.Escape(m.Class), text.Escape(m.Kind), text.Escape(m.Via), value(m.Text)), s.theme.warn)
	}
	if t := c.Tool; t != nil {
		s.field("through", text.Escape(strings.Join(t.Through, ", ")))
		s.field("parameters", value(t.Params))
		s.field("result", value(t.Result))
		s.field("sizes", fmt.Sprintf("parameters of %d bytes, a result of %d", t.ParamsBytes, t.ResultBytes))
		if t.Failed {
			s.styled("", "the tool failed", s.theme.warn)
		}
		if t.Withheld {
			s.field("", "they are not written down: the request was sensitive, or something is in them")
		}
		return
	}
	s.field("sizes", fmt.Sprintf("%d bytes in, %d out", c.BytesIn, c.BytesOut))
	s.field("tokens", fmt.Sprintf("%d in (%d cached), %d out (%d of reasoning)", c.TokensIn, c.TokensCached, c.TokensOut, c.TokensReasoning))
	s.field("took", fmt.Sprintf("%d ms, the first token after %d", c.MS, c.FirstMS))
}
