package inference

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

func TestUnwrap(t *testing.T) {
	for _, c := range []struct{ name, params, want string }{
		{"exec", `{"command":"ls"}`, `exec {"command":"ls"}`},
		{"tool_call", `{"id":"exec","args":{"command":"ls"}}`, `tool_call>exec {"command":"ls"}`},
		{"tool_call", `{"id":"openclaw:core:exec","args":{"command":"ls"}}`, `tool_call>openclaw:core>exec {"command":"ls"}`},
		{"tool_call", `{"toolId":"mcp:github:create_issue","input":{"title":"x"}}`, `tool_call>mcp:github>create_issue {"title":"x"}`},
		{"tool_call", `{"name":"read","path":"/etc/passwd","args":{}}`, `tool_call>read {"path":"/etc/passwd"}`},
		{"tool_call", `{"id":"read","args.path":"/etc/passwd"}`, `tool_call>read {"path":"/etc/passwd"}`},
		{"tool_call", `{"args":{"id":"read","args":{"path":"a"}}}`, `tool_call>read {"path":"a"}`},
		{"tool_call", `{"id":"read","args":{"path":"a"},"extra":"kept"}`, `tool_call>read {"id":"read","args":{"path":"a"},"extra":"kept"}`},
		{"functions.tool_call", `{"id":"exec","args":"{\"command\":\"ls\"}"}`, `functions.tool_call>exec {"command":"ls"}`},
		{"use_mcp_tool", `{"server_name":"github","tool_name":"create_issue","arguments":"{\"title\":\"x\"}"}`, `use_mcp_tool>github>create_issue {"title":"x"}`},
		{"mcp__bridge__call-tool", `{"name":"tool_call","arguments":{"id":"exec","args":{"command":"ls"}}}`, `mcp__bridge__call-tool>tool_call>exec {"command":"ls"}`},
		{"anything", `{"tool":"exec","arguments":{"command":"ls"}}`, `anything>exec {"command":"ls"}`},
		{"anything", `{"tool":"hammer","arguments":"nail"}`, `anything {"tool":"hammer","arguments":"nail"}`},
		{"anything", `{"tool":"exec","arguments":{},"more":1}`, `anything {"tool":"exec","arguments":{},"more":1}`},
		{"create_contact", `{"name":"Jane","params":{"a":1}}`, `create_contact {"name":"Jane","params":{"a":1}}`},
		{"multi_tool_use.parallel", `{"tool_uses":[{"recipient_name":"functions.read","parameters":{"p":1}},{"recipient_name":"exec","parameters":{"c":2}}]}`,
			`multi_tool_use.parallel>read {"p":1}|multi_tool_use.parallel>exec {"c":2}`},
		{"batch", `{"tool_calls":[{"tool":"read","parameters":{}},7]}`, `batch {"tool_calls":[{"tool":"read","parameters":{}},7]}`},
		{"tool_call", `{"id":"tool_call","args":{"id":"tool_call","args":{"id":"tool_call","args":{"id":"tool_call","args":{"id":"exec","args":{}}}}}}`,
			`tool_call>tool_call>tool_call>tool_call>tool_call {"id":"exec","args":{}}`},
		{"tool_call", `{"id":" "}`, `tool_call {"id":" "}`},
		{"tool_call", `{"id":7,"args":{}}`, `tool_call {"id":7,"args":{}}`},
		{"tool_call", `not JSON`, `tool_call not JSON`},
		{"tool_call", `null`, `tool_call null`},
		{"tool_call", `[{"id":"exec"}]`, `tool_call [{"id":"exec"}]`},
	} {
		var got []string
		for _, u := range unwrap(call{name: c.name, params: c.params, size: int64(len(c.params))}) {
			got = append(got, strings.Join(append(u.through, u.name), ">")+" "+u.params)
			if u.size != int64(len(u.params)) {
				t.Errorf("%s %s: a size of %d", c.name, c.params, u.size)
			}
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, c.params, s, c.want)
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add("tool_call", `{"id":"exec","args":{"tool_uses":[{"tool":"a","args":{}}]}}`)
	f.Fuzz(func(t *testing.T, name, params string) {
		c := call{name: name, params: params, size: int64(len(params))}
		for _, u := range unwrap(c) {
			if len(u.through) > 3*maxDepth {
				t.Fatalf("wrapped in %q", u.through)
			}
		}
	})
}

// calling has the cloud ask for tools, in a stream or not.
func calling(list ...[2]string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, body string) {
		var calls []map[string]any
		for i, c := range list {
			calls = append(calls, map[string]any{"index": i, "id": fmt.Sprint("c", i), "type": "function", "function": map[string]string{"name": c[0], "arguments": c[1]}})
		}
		usage := map[string]any{"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "prompt_tokens_details": map[string]int{"cached_tokens": 5}}
		part, stop := "message", any("tool_calls")
		if strings.Contains(body, `"stream":true`) {
			part, stop = "delta", nil
		}
		answer := map[string]any{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage,
			"choices": []any{map[string]any{"index": 0, part: map[string]any{"role": "assistant", "tool_calls": calls}, "finish_reason": stop}}}
		b, _ := json.Marshal(answer)
		if part == "message" {
			_, _ = w.Write(b)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "data: %s\n\ndata: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n", b)
	}
}

// take are the records since the last take.
func (w *world) take() []policy.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.records
	w.records = nil
	return list
}

// said is what records say, in short.
func inShort(list []policy.Decision) (out []string) {
	for _, d := range list {
		s := d.Action + " " + d.Object + " " + d.Verdict.String()
		if u := d.Inference.Tool; u != nil {
			s += fmt.Sprint(" ", u.Through, u.Params, u.ParamsBytes, " ", u.Result, u.ResultBytes)
			if u.Failed {
				s += " failed"
			}
			if u.Withheld {
				s += " withheld"
			}
		}
		if d.Count > 0 {
			s += fmt.Sprint(" x", d.Count)
		}
		out = append(out, s)
	}
	return out
}

// TestRecord has a request's record say all there is to say of it, in fields.
func TestRecord(t *testing.T) {
	for _, streams := range []bool{false, true} {
		w := newWorld(t, "  classes: {pii: cloud}\n", nil)
		w.cloud.say = calling([2]string{"tool_call", `{"id":"exec","args":{"command":"ls"}}`}, [2]string{"mail", `{"to":"jane.doe@example.com"}`})
		body := chat("write to jane.doe@example.com")
		if streams {
			body = strings.Replace(body, "{", `{"stream":true,`, 1)
		}
		w.post("/v1/chat/completions", body)
		list := w.take()
		want := []string{"request corp/big allow", `tool-call exec allow [tool_call]{"command":"ls"}16 0`, "tool-call mail allow []29 0 withheld"}
		if got := inShort(list); !reflect.DeepEqual(got, want) {
			t.Fatalf("streams %v: %q", streams, got)
		}
		c := list[0].Inference
		if c.Asked != "gpt-whatever" || c.Model != "corp/big" || c.Route != "cloud" || c.Classes["pii"] != 1 || c.Matches != nil ||
			c.BytesIn != int64(len(body)) || c.BytesOut == 0 || c.TokensIn != 11 || c.TokensCached != 5 || c.TokensOut != 7 || len(c.ID) != 16 {
			t.Errorf("streams %v: %+v", streams, c)
		}
		for _, d := range list {
			if d.Inference.ID != c.ID || d.Revision == "" || strings.Contains(fmt.Sprintf("%+v %+v", d, d.Inference.Tool), "jane") {
				t.Errorf("the record is %+v %+v", d, d.Inference)
			}
		}
	}
}

// TestLogMatches has a policy want the texts.
func TestLogMatches(t *testing.T) {
	w := newWorld(t, "  log: matches\n", nil)
	w.post("/v1/chat/completions", chat(card, "bXkgY2FyZCBpcyA0MTExIDExMTEgMTExMSAxMTExLCBleHBpcmVzIDA0LzI5", strings.Repeat("AKIAZ7Q4XN2PLM5TWE3R is the key; ", 40)))
	list := w.take()
	if len(list) != 1 || len(list[0].Inference.Matches) != maxMatches || list[0].Inference.Matches[0] != (policy.Matched{Class: "financial", Kind: "card", Text: "4111 1111 1111 1111"}) {
		t.Fatalf("%+v", list[0].Inference)
	}
	if m := list[0].Inference.Matches[1]; m.Via != "base64" || len(m.Text) > maxMatch+3 {
		t.Errorf("%+v", m)
	}
}

// toolTurn is a conversation in which tools were called and gave something.
func toolTurn(first string, results ...string) string {
	var list []any
	list = append(list, map[string]string{"role": "user", "content": first})
	for i, r := range results {
		id := fmt.Sprint("id-", len(results), "-", i)
		call := map[string]any{"id": id, "type": "function", "function": map[string]string{"name": "exec", "arguments": `{"command":"date"}`}}
		list = append(list, map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{call}},
			map[string]string{"role": "tool", "tool_call_id": id, "content": r})
	}
	b, _ := json.Marshal(map[string]any{"model": "m", "messages": list})
	return string(b)
}

// TestResults records each result once, whatever a caller repeats or leaves out.
func TestResults(t *testing.T) {
	w := newWorld(t, "", nil)
	one := func(result string) string {
		return fmt.Sprintf(`tool-result exec allow []{"command":"date"}18 %s%d`, result, len(result))
	}
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"the first", toolTurn("a", "monday"), []string{one("monday")}},
		{"again", toolTurn("a", "monday"), nil},
		{"the next one", toolTurn("a", "monday", "tuesday"), []string{one("tuesday")}},
		{"the same as before", toolTurn("a", "monday", "tuesday", "tuesday"), []string{one("tuesday")}},
		{"history left out", toolTurn("a", "tuesday", "tuesday", "friday"), []string{one("friday")}},
		{"another conversation", toolTurn("b", "monday"), []string{one("monday")}},
		{"a card", toolTurn("b", "monday", card), []string{"tool-result exec allow []18 45 withheld"}},
		{"sticky", toolTurn("b", "monday", card, "sunday"), []string{"tool-result exec allow []18 6 withheld"}},
		{"nobody asked for it", `{"model":"m","messages":[{"role":"user","content":"c"},{"role":"tool","tool_call_id":"x","content":"y"}]}`, []string{"tool-result  allow []0 y1"}},
	} {
		if status, body := w.post("/v1/chat/completions", c.body); status != 200 {
			t.Fatalf("%s: %d %s", c.name, status, body)
		}
		if got := inShort(w.take())[1:]; !reflect.DeepEqual(got, c.want) && len(got)+len(c.want) > 0 {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	w.post("/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"d"},{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"use_mcp_tool","input":{"server_name":"fs","tool_name":"read","arguments":{"p":"/x"}}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","is_error":true,"content":[{"type":"text","text":"no"}]}]}]}`)
	if got := inShort(w.take())[1:]; !reflect.DeepEqual(got, []string{`tool-result read allow [use_mcp_tool fs]{"p":"/x"}10 no2 failed`}) {
		t.Errorf("Anthropic's: %q", got)
	}
	w.cloud.Close()
	for range 2 {
		w.post("/v1/chat/completions", toolTurn("e", "monday"))
	}
	if got := inShort(w.take()); len(got) != 3 || !strings.HasPrefix(got[1], "tool-result exec deny") {
		t.Errorf("refused twice: %q", got)
	}
}

// TestHostileModel has a model ask for what would fill the log, or say the key in it.
func TestHostileModel(t *testing.T) {
	w := newWorld(t, "", nil)
	var many [][2]string
	for i := range 1000 {
		many = append(many, [2]string{fmt.Sprint("t", i), `{}`})
	}
	batch := `{"tool_uses":[` + strings.TrimSuffix(strings.Repeat(`{"recipient_name":"x","parameters":{}},`, 1000), ",") + `]}`
	for _, streams := range []bool{false, true} {
		for _, c := range []struct {
			name  string
			calls [][2]string
			count int
			first string
		}{
			{"control bytes", [][2]string{{"e\x1b[2J\u202e", "\x00\x1b]0;x\x07"}}, 1, "e\x1b[2J\u202e"},
			{"a long name", [][2]string{{strings.Repeat("n", 1<<20), "{}"}}, 1, strings.Repeat("n", 50) + "..." + strings.Repeat("n", 50)},
			{"long parameters", [][2]string{{"write", `{"a":"` + strings.Repeat("xy ", 15<<20/3) + `"}`}}, 1, "write"},
			{"deep parameters", [][2]string{{"tool_call", strings.Repeat(`{"args":`, 5000) + "1" + strings.Repeat("}", 5000)}}, 1, "tool_call"},
			{"many", many, maxCalls + 1, "t0"},
			{"many in one", [][2]string{{"multi", batch}}, maxCalls + 1, "x"},
		} {
			w.cloud.say = calling(c.calls...)
			body := chat("hi " + c.name)
			if streams {
				body = strings.Replace(body, "{", `{"stream":true,`, 1)
			}
			if status, said := w.post("/v1/chat/completions", body); status != 200 {
				t.Fatalf("%s: %d %.200s", c.name, status, said)
			}
			list := w.take()[1:]
			if len(list) != c.count || list[0].Object != c.first {
				t.Errorf("%s: %d records, the first of %.200q", c.name, len(list), list[0].Object)
			}
			size, total := 0, uint64(0)
			for _, d := range list {
				total += max(d.Count, 1)
				if u := d.Inference.Tool; u != nil {
					size += len(d.Object) + len(u.Params) + len(strings.Join(u.Through, ""))
				}
			}
			if size > len(list)*2000 {
				t.Errorf("%s: %d bytes in %d records", c.name, size, len(list))
			}
			if c.count > 1 && total != 1000 {
				t.Errorf("%s: %d are counted", c.name, total)
			}
		}
	}
}

// TestHostileCaller has a caller return what would fill the log.
func TestHostileCaller(t *testing.T) {
	w := newWorld(t, "", nil)
	results := make([]string, 10000)
	for i := range results {
		results[i] = fmt.Sprint("result number ", i, "\x1b[2J")
	}
	flood := toolTurn("a", results...)
	for i, want := range []int{maxCalls + 2, 1} { // again: none is new
		w.post("/v1/chat/completions", flood)
		list := w.take()
		if len(list) != want {
			t.Errorf("flood %d: %d records", i, len(list))
		}
		if i == 0 && (list[1].Object != "(various)" || list[1].Count != 10000-maxCalls || !strings.Contains(list[len(list)-1].Inference.Tool.Result, "9999")) {
			t.Errorf("%+v, then %+v", list[1], list[len(list)-1].Inference.Tool)
		}
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { w.post("/v1/chat/completions", toolTurn("b", "the same", "the same")) })
	}
	all.Wait()
	if list := w.take(); len(list) != 102 {
		t.Errorf("repeated: %d records", len(list))
	}
	w.post("/v1/chat/completions", toolTurn("c", strings.Repeat("x", 12<<20)))
	if u := w.last().Inference.Tool; len(u.Result) > maxResult+3 || u.ResultBytes != 12<<20 {
		t.Errorf("a long result: %.200v", u)
	}
	w.take()
	// One call with long parameters, and ten thousand results of it: none looks through them again.
	long := `{"model":"m","messages":[{"role":"user","content":"e"},{"role":"assistant","content":null,"tool_calls":[{"id":"x","type":"function","function":{"name":"exec","arguments":"{\"a\":\"` +
		strings.Repeat("x y ", 3<<20) + `\"}"}}]}` + strings.Repeat(`,{"role":"tool","tool_call_id":"x","content":"y"}`, 10000) + `]}`
	w.post("/v1/chat/completions", long)
	if list := w.take(); len(list) != maxCalls+2 || list[1].Count != 10000-maxCalls {
		t.Errorf("results of one call: %d records", len(list))
	}
	// What a caller chooses stands in records: the model's name, the path, the host.
	secret := "AKIAZ7Q4XN2PLM5TWE3R"
	w.post("/v1/chat/completions", strings.Replace(chat("hi"), "gpt-whatever", secret, 1))
	w.post("/"+secret, "{}")
	w.post("/v1/chat/completions", `{"model":"m","messages":[{"role":"`+secret+`","content":"x"}]}`)
	w.post("/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"x"}]}`, "Content-Encoding", secret)
	w.post("/v1/chat/completions", toolTurn("d", "x")[:40]+secret)
	for _, d := range w.take() {
		if b, _ := json.Marshal(d); strings.Contains(string(b), secret) {
			t.Errorf("a record says too much: %s", b)
		}
	}
}
