package dialect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// leaves calls f with each string, key and number of v, and with a function that replaces it.
func leaves(v *value, f func(what string, set func(string))) {
	switch v.kind {
	case text, number:
		old := *v
		f(v.text, func(s string) { v.kind, v.text = text, s })
		*v = old
	case object:
		for i, k := range v.keys {
			f(k, func(s string) { v.keys[i] = s })
			v.keys[i] = k
		}
	}
	for _, item := range v.items {
		leaves(item, f)
	}
}

// What stands anywhere in a request, in place of any string, key or number of it, is in Texts, or is gone from what is
// written, or makes the request be refused.
func TestTextsAreEverything(t *testing.T) {
	t.Parallel()
	const secret = "4111-1111-1111-1111"
	for _, d := range callers {
		n := 0
		for _, body := range requests(t, d) {
			tree, err := parse(body)
			if err != nil {
				t.Fatal(err)
			}
			n += everywhere(t, d, tree, secret)
		}
		if n < 80 {
			t.Errorf("%s: only %d places were tried", d, n)
		}
	}
}

// everywhere puts a secret into each place of a request.
func everywhere(t *testing.T, d Dialect, tree *value, secret string) (n int) {
	leaves(tree, func(what string, set func(string)) {
		for _, s := range []string{secret, `{"` + secret + `":"\u0034111"}`} {
			n++
			set(s)
			noTrace(t, d, what, tree.append(nil), secret)
		}
	})
	return n
}

// requests are those of a dialect in testdata: what is common, and what is rare.
func requests(t testing.TB, d Dialect) [][]byte {
	t.Helper()
	rich, err := os.ReadFile(filepath.Join("testdata", "requests", fileNames[d]+"-rich.json"))
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{fixture(t, "requests", d), rich}
}

// An unknown block, an unknown field, a nested result, long numbers: all are judged.
func TestTextsOfTheUnknown(t *testing.T) {
	t.Parallel()
	const secret = "4111-1111-1111-1111"
	for _, body := range []string{
		`{"model":"m","messages":[],"brand_new":["` + secret + `"]}`,
		`{"model":"m","messages":[],"brand_new":{"` + secret + `":true}}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"hologram","payload":{"deep":[["` + secret + `"]]}}]}]}`,
		`{"model":"m","messages":[{"role":"` + secret + `","content":"x"}]}`,
		`{"model":"m","messages":[{"role":"user","content":{"text":"` + secret + `"}}]}`,
		`{"model":"m","messages":[{"role":"user","content":"` + secret + `"}],"messages2":1}`,
		`{"model":"m","messages":[],"metadata":{"user_id":"` + secret + `"}}`,
		`{"model":"m","input":[],"messages":[],"prompt":"` + secret + `","suffix":"` + secret + `","template":"` + secret + `"}`,
		`{"model":"m","input":"` + secret + `","messages":[]}`,
		`{"model":"m","messages":[],"stop":["` + secret + `"],"stop_sequences":"` + secret + `"}`,
		`{"model":"m","messages":[],"top_k":["` + secret + `",["` + secret + `"]],"options":{"seed":{"` + secret + `":1}}}`,
		`{"model":"m","messages":[],"keep_alive":"` + secret + `","seed":"` + secret + `"}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://x/` + secret + `"}}]}]}`,
	} {
		for _, d := range callers {
			noTrace(t, d, body, []byte(body), secret)
		}
	}
}

// Numbers are texts too, and a replaced one is written as a string.
func TestTextsOfNumbers(t *testing.T) {
	t.Parallel()
	r, err := ReadRequest(Anthropic, Generate, "/v1/messages",
		[]byte(`{"model":"m","max_tokens":4111111111111111,"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"pay","input":{"card":4111111111111111,"cents":12}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, s := range r.Texts() {
		if *s == "4111111111111111" {
			seen++
			*s = "[CARD]"
		}
	}
	_, body, err := r.Write(Anthropic)
	want := `{"model":"m","max_tokens":"[CARD]","messages":[{"role":"assistant","content":[{"type":"tool_use","id":"call00001","name":"pay","input":{"card":"[CARD]","cents":12}}]}]}`
	numbers, err2 := ReadRequest(Anthropic, Generate, "/v1/messages", []byte(`{"model":"m","messages":[{"n":4111,"content":[{"seed":1111}]}],"top_k":[1111,{"n":1111}],"n":1}`))
	if err2 != nil || len(numbers.Texts()) != 4 {
		t.Errorf("%v, %d numbers", err2, len(numbers.Texts()))
	}
	if seen != 2 || err != nil || string(body) != want {
		t.Errorf("%d times, %v, %s", seen, err, body)
	}
}

// noTrace replaces the secret in all texts and looks for it in what is written.
func noTrace(t *testing.T, d Dialect, what string, body []byte, secret string) {
	t.Helper()
	r, err := ReadRequest(d, Generate, Path(d, Generate), body)
	if err != nil {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s, %s: the error repeats what the request says: %v", d, what, err)
		}
		return
	}
	r.Model = "m"
	for _, s := range r.Texts() {
		*s = strings.ReplaceAll(*s, secret, "GONE")
	}
	for _, to := range servers {
		path, out, err := r.Write(to)
		if strings.Contains(path, secret) || strings.Contains(string(out), secret) || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s to %s, in place of %q: it gets out: %s %s %v", d, to, what, path, out, err)
		}
	}
}

// Every string of a request is in Texts or one of the protocol's own words.
func TestTextsAgainstWords(t *testing.T) {
	t.Parallel()
	for _, d := range callers {
		for _, body := range requests(t, d) {
			r, err := ReadRequest(d, Generate, Path(d, Generate), body)
			if err != nil {
				t.Fatal(err)
			}
			judged := map[string]bool{}
			for _, s := range r.Texts() {
				judged[*s] = true
			}
			notWords(t, r, "", r.tree, judged)
		}
	}
}

func notWords(t *testing.T, r *Request, key string, v *value, judged map[string]bool) {
	t.Helper()
	if v.held != nil {
		v, key = v.held.value, ""
	}
	if v.kind == text && v.text != "" && !judged[v.text] && !(key == "model" && v.text == r.Model) &&
		!(wordKeys[key] && words[v.text]) && !(ids[key] && (isCallID(v.text) || isItemID(v.text))) {
		t.Errorf("%s: %q: %q is not judged", r.Dialect, key, v.text)
	}
	for i, item := range v.items {
		k := key
		if v.kind == object {
			if k = v.keys[i]; !keywords[k] && !judged[k] {
				t.Errorf("%s: the key %q is not judged", r.Dialect, k)
			}
		}
		notWords(t, r, k, item, judged)
	}
}

func TestUnseen(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}]}`:                                                         "",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}`: "image link",
		`{"model":"m","messages":[{"role":"user","content":"x","images":["aGk="]}]}`:                                        "image",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","data":"x"}}]}]}`:    "",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","data":"x"}}]}]}`:  "document",
		`{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"url":"https://x","images":["y"]}}]}],"tools":[{"name":"t","input_schema":{"properties":{"prompt":{"type":"string"},"file_id":{"type":"string"}}}}]}`: "",
		`{"model":"m","messages":[],"prompt":{"id":"pmpt_1"}}`:                                                                                                                   "stored",
		`{"model":"m","messages":[],"previous_response_id":"resp_1"}`:                                                                                                            "stored",
		`{"model":"m","messages":[],"context":[1,2,3]}`:                                                                                                                          "tokens",
		`{"model":"m","messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}`:                                                                               "server",
		`{"model":"m","messages":[],"input":[{"type":"reasoning","encrypted_content":"x"},{"type":"item_reference","id":"i"}]}`:                                                  "stored encrypted",
		`{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x","format":"wav"}},{"type":"file","file":{"file_id":"f"}}]}],"n":[1]}`: "audio stored",
	} {
		r, err := ReadRequest(OpenAIChat, Generate, "/v1/chat/completions", []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range r.Unseen() {
			got = append(got, string(u))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: got %q, want %q", body, s, want)
		}
	}
}

// A tool that the server would run is left out where it is only an offer beside others.
func TestLeaveOutOffers(t *testing.T) {
	t.Parallel()
	const own, offer = `{"type":"function","name":"f","parameters":{}}`, `{"type":"web_search","external_web_access":true}`
	for body, want := range map[string]bool{
		`"tools":[` + own + `,` + offer + `],"tool_choice":"auto"`: true,
		`"tools":[` + own + `]`:   false,
		`"tools":[` + offer + `]`: false,
		`"tools":[` + own + `,` + offer + `],"tool_choice":{"type":"web_search"}`: false,
		`"tools":[` + own + `,{"type":"mcp","server_url":"https://example.com"}]`: false,
	} {
		r, err := ReadRequest(OpenAIResponses, Generate, "/v1/responses", []byte(`{"model":"m","input":"x",`+body+`}`))
		if err != nil {
			t.Fatal(err)
		}
		unseen := len(r.Unseen())
		if got := r.LeaveOutOffers(); got != want || want && (unseen != 1 || len(r.Unseen()) != 0) {
			t.Errorf("%s: %v, before %d unseen, then %v", body, got, unseen, r.Unseen())
		}
		if _, out, err := r.Write(OpenAIResponses); err != nil || want && strings.Contains(string(out), "web_search") {
			t.Errorf("%s: %v %s", body, err, out)
		}
	}
}
