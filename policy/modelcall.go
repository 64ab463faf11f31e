package policy

import "maps"

// ModelCall is what a record of the plane inference has beside its other fields: of a request all that follows but Tool, of a tool
// call or its result who asked which model, and Tool. In a record that stands for several the numbers are sums, and what
// differs is left out.
type ModelCall struct {
	ID      string         `json:"id,omitempty"`      // the same in the records of one request
	Asked   string         `json:"asked,omitempty"`   // the model that the caller named
	Model   string         `json:"model,omitempty"`   // the one that it was for, PROVIDER/MODEL
	Instead []string       `json:"instead,omitempty"` // those that were asked before it, and why they did not answer
	Route   string         `json:"route,omitempty"`   // cloud, redact, ask, local, deny
	Classes map[string]int `json:"classes,omitempty"` // of what was found, how often
	Unseen  []string       `json:"unseen,omitempty"`  // kinds of what could not be looked into
	Sticky  bool           `json:"sticky,omitempty"`  // its conversation was sensitive before
	Matches []Matched      `json:"matches,omitempty"` // what was found, where the policy has it logged

	BytesIn         int64 `json:"bytes_in,omitempty"`
	BytesOut        int64 `json:"bytes_out,omitempty"`
	TokensIn        int64 `json:"tokens_in,omitempty"` // cached ones too
	TokensCached    int64 `json:"tokens_cached,omitempty"`
	TokensOut       int64 `json:"tokens_out,omitempty"` // of reasoning too
	TokensReasoning int64 `json:"tokens_reasoning,omitempty"`
	Estimated       bool  `json:"tokens_estimated,omitempty"` // the model's server did not say all of them
	Cost            int64 `json:"cost_microusd,omitempty"`
	FirstMS         int64 `json:"first_ms,omitempty"` // until the first of the answer was passed on
	MS              int64 `json:"ms,omitempty"`       // until the last

	Tool *ToolUse `json:"tool,omitempty"`
}

// Matched is one of the texts that a class was found in, shortened.
type Matched struct {
	Class string `json:"class"`
	Kind  string `json:"kind"`
	Via   string `json:"via,omitempty"` // how it was hidden
	Text  string `json:"text"`
}

// ToolUse is a tool call that a model asked for, or what its caller returned of one. The tool's name is the record's object.
type ToolUse struct {
	Through     []string `json:"through,omitempty"` // the tools and servers that it was wrapped in, the outermost first
	Params      string   `json:"params,omitempty"`  // shortened
	ParamsBytes int64    `json:"params_bytes,omitempty"`
	Result      string   `json:"result,omitempty"` // shortened
	ResultBytes int64    `json:"result_bytes,omitempty"`
	Failed      bool     `json:"failed,omitempty"`   // the tool did
	Withheld    bool     `json:"withheld,omitempty"` // neither is written down, because of what is in them or was in the request
}

// Sum is the call that stands for both. Neither is changed.
func (m *ModelCall) Sum(o *ModelCall) *ModelCall {
	if m == nil || o == nil {
		return nil // they have nothing in common
	}
	s := ModelCall{
		Classes: maps.Clone(m.Classes), BytesIn: m.BytesIn + o.BytesIn, BytesOut: m.BytesOut + o.BytesOut,
		TokensIn: m.TokensIn + o.TokensIn, TokensCached: m.TokensCached + o.TokensCached,
		TokensOut: m.TokensOut + o.TokensOut, TokensReasoning: m.TokensReasoning + o.TokensReasoning,
		Estimated: m.Estimated || o.Estimated, Cost: m.Cost + o.Cost, FirstMS: m.FirstMS + o.FirstMS, MS: m.MS + o.MS,
	}
	for class, n := range o.Classes {
		if s.Classes == nil {
			s.Classes = map[string]int{}
		}
		s.Classes[class] += n
	}
	for _, same := range []struct {
		to   *string
		a, b string
	}{{&s.Asked, m.Asked, o.Asked}, {&s.Model, m.Model, o.Model}, {&s.Route, m.Route, o.Route}} {
		if same.a == same.b {
			*same.to = same.a
		}
	}
	if m.Tool != nil && o.Tool != nil {
		s.Tool = &ToolUse{ParamsBytes: m.Tool.ParamsBytes + o.Tool.ParamsBytes, ResultBytes: m.Tool.ResultBytes + o.Tool.ResultBytes}
	}
	return &s
}
