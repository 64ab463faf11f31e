package dialect

import "testing"

func TestMaxOutput(t *testing.T) {
	const chat = `"model":"m","messages":[{"role":"user","content":"hi"}]`
	for _, c := range []struct {
		path, body string
		want       int
	}{
		{"/v1/chat/completions", `{` + chat + `}`, 0},
		{"/v1/chat/completions", `{` + chat + `,"max_tokens":100}`, 100},
		{"/v1/chat/completions", `{` + chat + `,"max_completion_tokens":100,"n":3}`, 300},
		{"/v1/chat/completions", `{` + chat + `,"max_tokens":-5,"n":-3}`, 0},
		{"/v1/chat/completions", `{` + chat + `,"max_tokens":9000000000000000,"n":9000000000000000}`, 128 << 20},
		{"/v1/completions", `{"model":"m","prompt":["a","b"],"max_tokens":100,"best_of":4}`, 800},
		{"/v1/messages", `{` + chat + `,"max_tokens":100}`, 100},
		{"/api/chat", `{` + chat + `,"options":{"num_predict":100}}`, 100},
		{"/api/chat", `{` + chat + `,"options":{"num_predict":-1}}`, 0},
	} {
		d, op, known := Of("POST", c.path)
		r, err := ReadRequest(d, op, c.path, []byte(c.body))
		if err != nil || !known || r.MaxOutput() != c.want {
			t.Errorf("%s %s: %v, want %d", c.path, c.body, err, c.want)
		}
	}
}
