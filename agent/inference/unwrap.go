package inference

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// maxDepth is how many tools a call may be wrapped in for its record to name the innermost.
const maxDepth = 4

// wrappers are tools that call the tool named in their parameters. The names are without what stands before the last "__", "."
// or ":", in lower case and with underscores.
var wrappers = map[string]bool{
	"tool_call": true, "call_tool": true, "use_tool": true, "run_tool": true, "execute_tool": true, "invoke_tool": true, "tool_invoke": true,
	"use_mcp_tool": true, "call_mcp_tool": true, "mcp_call": true, "mcp_call_tool": true, "mcp_tool_call": true, "mcp": true,
}

// What the parameters of a wrapper are called. vague says nothing where the tool is no known wrapper: "name" may be a person's.
var (
	selectors = []string{"tool", "tool_name", "toolName", "tool_id", "toolId", "tool_slug", "recipient_name"}
	vague     = []string{"id", "name"}
	arguments = []string{"arguments", "args", "parameters", "params", "input", "tool_input", "tool_args"}
	servers   = []string{"server", "server_name", "serverName"}
	batches   = []string{"tool_uses", "tool_calls", "calls", "invocations"}
)

// unwrap returns the calls that a call stands for: itself, or what it hands on to other tools, as OpenClaw's tool_call, the
// bridges of MCP and calls in a batch do. Nothing of the parameters is left out: what has no place in what a wrapper is known to
// have makes the whole of them the inner call's.
func unwrap(c call) []call { return c.unwrap(maxDepth) }

func (c call) unwrap(depth int) []call {
	if depth == 0 || c.size > maxKept {
		return []call{c}
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(c.params), &fields) != nil {
		return []call{c}
	}
	if list := c.batch(fields); list != nil {
		var out []call
		for _, one := range list {
			out = append(out, one.unwrap(depth-1)...)
		}
		return out
	}
	names, known := selectors, wrappers[base(c.name)]
	if known {
		names = slices.Concat(selectors, vague)
	}
	if inner, ok := c.inner(fields, c.params, names, known); ok {
		return inner.unwrap(depth - 1)
	}
	return []call{c}
}

// inner is the call that some fields, whose text is whole, ask for.
func (c call) inner(fields map[string]json.RawMessage, whole string, names []string, known bool) (call, bool) {
	left := maps.Clone(fields)
	name, _ := takeString(left, names)
	through := append(slices.Clone(c.through), c.name)
	if server, ok := takeString(left, servers); ok {
		through = append(through, server)
	}
	params, object := takeObject(left)
	switch {
	case name == "" && known && object && len(left) == 0:
		return made(c.name, params, c.through), true // all of it is one deeper
	case name == "", !known && (!object || len(left) > 0):
		return call{}, false
	case len(left) > 0 && (params == "" || params == "{}"):
		params = flattened(left)
	case len(left) > 0:
		params = whole
	}
	name = strings.TrimPrefix(strings.TrimSpace(name), "functions.")
	if server, tool, ok := catalogued(name); ok {
		through, name = append(through, server), tool
	}
	return made(name, params, through), true
}

func made(name, params string, through []string) call {
	return call{name: name, params: params, size: int64(len(params)), through: through}
}

// batch are the calls of a tool that makes several at once.
func (c call) batch(fields map[string]json.RawMessage) (out []call) {
	var list []json.RawMessage
	if len(fields) != 1 {
		return nil
	}
	for _, key := range batches {
		if json.Unmarshal(fields[key], &list) == nil {
			break
		}
	}
	names := append(slices.Clone(selectors), "name")
	for _, one := range list {
		var of map[string]json.RawMessage
		if json.Unmarshal(one, &of) != nil {
			return nil
		}
		inner, ok := c.inner(of, string(one), names, true)
		if !ok {
			return nil
		}
		out = append(out, inner)
	}
	return out
}

// catalogued splits a tool's id as OpenClaw's catalogue has it: SOURCE:SERVER:NAME.
func catalogued(id string) (server, tool string, ok bool) {
	source, rest, _ := strings.Cut(id, ":")
	server, tool, ok = strings.Cut(rest, ":")
	return source + ":" + server, tool, ok && tool != "" && slices.Contains([]string{"openclaw", "mcp", "client"}, source)
}

// base is a tool's name without the server that it is of.
func base(name string) string {
	name = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), "-", "_")
	for _, before := range []string{"__", ".", ":", "/"} {
		if i := strings.LastIndex(name, before); i >= 0 {
			name = name[i+len(before):]
		}
	}
	return name
}

// takeString takes the first of some fields that is a text out.
func takeString(fields map[string]json.RawMessage, names []string) (s string, ok bool) {
	for _, n := range names {
		if json.Unmarshal(fields[n], &s) == nil && strings.TrimSpace(s) != "" {
			delete(fields, n)
			return s, true
		}
	}
	return "", false
}

// takeObject takes the arguments out. object: they are one, or the text of one; another text may be what a tool takes.
func takeObject(fields map[string]json.RawMessage) (params string, object bool) {
	for _, n := range arguments {
		raw, is := fields[n]
		if !is {
			continue
		}
		delete(fields, n)
		params = string(raw)
		_ = json.Unmarshal(raw, &params) // the text, where it is one
		var o map[string]json.RawMessage
		return params, json.Unmarshal([]byte(params), &o) == nil
	}
	return "", false
}

// flattened are arguments that stand beside the tool's name.
func flattened(fields map[string]json.RawMessage) string {
	out := map[string]json.RawMessage{}
	for key, value := range fields {
		out[strings.TrimPrefix(key, "args.")] = value
	}
	text, err := json.Marshal(out)
	if err != nil {
		return "" // it was read as JSON: can't be
	}
	return string(text)
}
