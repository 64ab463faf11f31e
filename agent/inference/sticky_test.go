package inference

import (
	"strings"
	"testing"
)

// TestSticky shows which requests are known to go on with a conversation that was sensitive: those that have something of it from
// the sensitive message on. What an agent begins every conversation with is nothing of it.
func TestSticky(t *testing.T) {
	w := newWorld(t, "", nil)
	const (
		prompt = `{"role":"user","content":"You share a workspace with the user, and this is what you should know of it."}`
		ask    = `{"role":"user","content":"What is in the file that is called notes.txt, and why?"}`
		call   = `{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"read","arguments":"{\"path\":\"notes.txt\"}"}}]}`
		result = `{"role":"tool","tool_call_id":"call_1","content":"` + card + `"}`
		answer = `{"role":"assistant","content":"The file has a number in it that I had better not repeat here."}`
		short  = `{"role":"user","content":"go on"}`
		pays   = `{"role":"assistant","content":null,"tool_calls":[{"id":"call_2","type":"function","function":{"name":"pay","arguments":"{\"how\":\"` + card + `\"}"}}]}`
		paid   = `{"role":"tool","tool_call_id":"call_2","content":"paid"}`
	)
	for _, c := range []struct {
		name     string
		messages []string
		local    int
		beside   string
	}{
		{"before it", []string{prompt, ask}, 0, ""},
		{"the tool gives it", []string{prompt, ask, call, result}, 1, ""},
		{"it goes on", []string{prompt, ask, call, result, answer, short}, 1, ""},
		{"it goes on without the sensitive message", []string{prompt, ask, answer, short}, 1, ""},
		{"it begins anew", []string{prompt, ask}, 0, ""},
		{"another one of the same agent", []string{prompt, short}, 0, ""},
		{"in the parameters of a tool", []string{prompt, pays, paid}, 1, ""},
		{"another one again", []string{prompt, ask}, 0, ""},
		{"beside the conversation", []string{prompt, ask}, 1, `"metadata":{"note":"` + card + `"},`},
		{"which it is no part of", []string{prompt, ask}, 0, ""},
		{"where nobody can say in which message", []string{`{"role":"system","content":"` + card + `"}`, prompt, short}, 1, ""},
		{"so its whole beginning is known", []string{prompt, short}, 1, ""},
	} {
		w.post("/v1/chat/completions", `{"model":"x",`+c.beside+`"messages":[`+strings.Join(c.messages, ",")+`]}`)
		if local, cloud := len(w.local.asked()), len(w.cloud.asked()); local != c.local || local+cloud != 1 {
			t.Errorf("%s: %d went to the local model, %d to the cloud: %s", c.name, local, cloud, w.last().Reason)
		}
	}
}
