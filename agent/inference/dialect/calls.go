package dialect

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// The ids of tool calls only tie a result to its call. What a program sends as one could be anything, and what a server has
// made up looks like a credential; so ReadRequest numbers them, each as itself wherever it stands. Nine letters and digits
// suit every server, Mistral's included. So it does with the ids of the items of OpenAI's responses.

const callPrefix = "call"

func isCallID(s string) bool {
	return len(s) == 9 && strings.HasPrefix(s, callPrefix) && strings.Trim(s[len(callPrefix):], "0123456789") == ""
}

// newCallID makes an id for a call of a server that gives none.
func newCallID() string { return "call_" + random() }

// random is a part of an id that no other has.
func random() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b[:])
}

func (r *Request) renameCalls() {
	names := map[string]string{}
	rename := func(v *value) {
		if !v.is(text) || v.text == "" {
			return
		}
		if names[v.text] == "" {
			names[v.text] = fmt.Sprintf("%s%05d", callPrefix, len(names)+1)
		}
		v.text = names[v.text]
	}
	for _, m := range r.tree.get("messages").list() {
		rename(m.get("tool_call_id"))
		for _, c := range m.get("tool_calls").list() {
			rename(c.get("id"))
		}
		for _, p := range m.get("content").list() {
			switch p.get("type").str() {
			case "tool_use":
				rename(p.get("id"))
			case "tool_result":
				rename(p.get("tool_use_id"))
			}
		}
	}
	stored := r.Dialect != OpenAIResponses || !r.tree.raw("store").is(boolean) || r.tree.get("store").isTrue()
	for n, i := range r.tree.get("input").list() {
		rename(i.get("call_id"))
		if id := i.get("id"); !stored && id.is(text) {
			id.text = itemID(id.text, n)
		}
	}
}

// The ids of items, where the server stores none: all it looks at is what they begin with.
var itemPrefixes = []string{"msg_", "rs_", "fc_", "fco_", "ctc_", "ctco_", "ws_", "ig_", "mcp_", "item_"}

func itemID(s string, n int) string {
	for _, p := range itemPrefixes {
		if strings.HasPrefix(s, p) {
			return fmt.Sprintf("%s%05d", p, n)
		}
	}
	return fmt.Sprintf("item_%05d", n)
}

func isItemID(s string) bool {
	p, digits, _ := strings.Cut(s, "_")
	return slices.Contains(itemPrefixes, p+"_") && len(digits) == 5 && strings.Trim(digits, "0123456789") == ""
}

// pairCalls gives the calls and results that came without ids ones: a result belongs to the first call of its name that has
// none yet.
func (r *Request) pairCalls() {
	var open []*Part
	n := 0
	for i := range r.Messages {
		for j := range r.Messages[i].Parts {
			switch p := &r.Messages[i].Parts[j]; {
			case p.Kind == ToolCall:
				if n++; p.ID == "" {
					p.ID = fmt.Sprintf("%s%05d", callPrefix, 50000+n)
				}
				open = append(open, p)
			case p.Kind == ToolResult:
				for k, c := range open {
					if p.ID == c.ID || p.ID == "" && (p.Name == c.Name || p.Name == "") {
						p.ID, p.Name = c.ID, c.Name
						open = append(open[:k:k], open[k+1:]...)
						break
					}
				}
			}
		}
	}
}

// nameResults tells each result the name of its tool, for the dialects that want it.
func (r *Request) nameResults() {
	names := map[string]string{}
	for i := range r.Messages {
		for j := range r.Messages[i].Parts {
			switch p := &r.Messages[i].Parts[j]; p.Kind {
			case ToolCall:
				names[p.ID] = p.Name
			case ToolResult:
				if p.Name == "" {
					p.Name = names[p.ID]
				}
			}
		}
	}
}
