package audit

import (
	"maps"
	"slices"
	"strconv"

	"github.com/nemoclaw/nemoclaw/policy"
)

// appendCall appends the field inference. Names of classes and tools may come from inside, as may every text in it.
func appendCall(dst []byte, c *policy.ModelCall) []byte {
	dst = append(dst, `,"inference":`...)
	start := len(dst)
	for _, f := range []struct{ key, value string }{{"id", c.ID}, {"asked", c.Asked}, {"model", c.Model}} {
		dst = optional(dst, f.key, f.value)
	}
	dst = optional(list(dst, "instead", c.Instead), "route", c.Route)
	if len(c.Classes) > 0 {
		at := len(dst)
		for _, class := range slices.Sorted(maps.Keys(c.Classes)) {
			dst = strconv.AppendInt(append(quoted(append(dst, ','), class), ':'), int64(c.Classes[class]), 10)
		}
		dst = enclose(dst, at, `,"classes":{`, '}')
	}
	dst = list(dst, "unseen", c.Unseen)
	dst = flag(dst, "sticky", c.Sticky)
	if len(c.Matches) > 0 {
		at := len(dst)
		for _, m := range c.Matches {
			one := len(dst)
			dst = field(field(dst, "class", m.Class), "kind", m.Kind)
			dst = field(optional(dst, "via", m.Via), "text", m.Text)
			dst = enclose(dst, one, ",{", '}')
		}
		dst = enclose(dst, at, `,"matches":[`, ']')
	}
	for _, n := range []struct {
		key   string
		value int64
	}{
		{"bytes_in", c.BytesIn}, {"bytes_out", c.BytesOut}, {"tokens_in", c.TokensIn}, {"tokens_cached", c.TokensCached},
		{"tokens_out", c.TokensOut}, {"tokens_reasoning", c.TokensReasoning},
	} {
		dst = number(dst, n.key, n.value)
	}
	dst = number(flag(dst, "tokens_estimated", c.Estimated), "cost_microusd", c.Cost)
	dst = number(number(dst, "first_ms", c.FirstMS), "ms", c.MS)
	if t := c.Tool; t != nil {
		at := len(dst)
		dst = optional(list(dst, "through", t.Through), "params", t.Params)
		dst = optional(number(dst, "params_bytes", t.ParamsBytes), "result", t.Result)
		dst = flag(flag(number(dst, "result_bytes", t.ResultBytes), "failed", t.Failed), "withheld", t.Withheld)
		dst = enclose(dst, at, `,"tool":{`, '}')
	}
	return enclose(dst, start, "{", '}')
}

// enclose puts what begins at a place, with a comma before it, between an opening and a closing.
func enclose(dst []byte, at int, open string, closing byte) []byte {
	if at < len(dst) {
		dst = slices.Delete(dst, at, at+1)
	}
	return append(slices.Insert(dst, at, []byte(open)...), closing)
}

func optional(dst []byte, key, value string) []byte {
	if value == "" {
		return dst
	}
	return field(dst, key, value)
}

func list(dst []byte, key string, values []string) []byte {
	if len(values) == 0 {
		return dst
	}
	at := len(dst)
	for _, s := range values {
		dst = quoted(append(dst, ','), s)
	}
	return enclose(dst, at, `,"`+key+`":[`, ']')
}

func flag(dst []byte, key string, is bool) []byte {
	if !is {
		return dst
	}
	return append(append(append(dst, ',', '"'), key...), `":true`...)
}

func number(dst []byte, key string, n int64) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendInt(append(append(append(dst, ',', '"'), key...), '"', ':'), n, 10)
}
