package dialect

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	answers := map[Dialect]string{
		OpenAIChat: `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1]},{"object":"embedding","index":1,"embedding":"AACAPgAAAEA="}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}`,
		OllamaChat: `{"model":"m","embeddings":[[0.5,-1],[0.25,2]],"prompt_eval_count":3}`,
		Gemini:     `{"embeddings":[{"values":[0.5,-1]},{"values":[0.25,2]}]}`,
	}
	questions := map[Dialect]string{
		OpenAIChat: `{"model":"m","input":["one","two"],"encoding_format":"base64","dimensions":2,"user":"u"}`,
		OllamaChat: `{"model":"m","input":["one","two"],"dimensions":2,"truncate":true}`,
	}
	for from, q := range questions {
		for to, a := range answers {
			r, err := ReadRequest(from, Embed, Path(from, Embed), []byte(q))
			if err != nil {
				t.Fatal(err)
			}
			path, body, err := r.Write(to)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "embeddings/"+fileNames[from]+"--"+fileNames[to], []byte(path+"\n"+string(body)+"\n"))
			e, err := ReadEmbeddings(to, []byte(a))
			if err != nil {
				t.Fatal(err)
			}
			out, err := e.Write(from, r.Receipt())
			if err != nil {
				t.Fatal(err)
			}
			back, err := ReadEmbeddings(from, out)
			if want := [][]float64{{0.5, -1}, {0.25, 2}}; err != nil || !reflect.DeepEqual(back.Vectors, want) {
				t.Errorf("%s from %s: %v, %s", from, to, err, out)
			}
		}
	}
	r, err := ReadRequest(OllamaChat, Embed, "/api/embeddings", []byte(`{"model":"m","prompt":"one"}`))
	if err != nil {
		t.Fatal(err)
	}
	path, body, err := r.Write(OllamaChat)
	if err != nil || path != "/api/embed" || string(body) != `{"model":"m","input":"one"}` {
		t.Errorf("the older way: %s %s, %v", path, body, err)
	}
	for to, a := range answers {
		e, err := ReadEmbeddings(to, []byte(a))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := e.Write(OllamaChat, r); err != nil || string(out) != `{"embedding":[0.5,-1]}` {
			t.Errorf("the older way, from %s: %s, %v", to, out, err)
		}
	}
	r, err = ReadRequest(OpenAIChat, Embed, "/v1/embeddings", []byte(`{"model":"m","input":[[1,2,3]]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Write(OllamaChat); err == nil || fmt.Sprint(r.Unseen()) != "[tokens]" || len(r.Texts()) != 3 {
		t.Errorf("%v, %v, %d", err, r.Unseen(), len(r.Texts()))
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, d := range callers {
		body, err := WriteModels(d, []Model{{Name: "a", Created: at}, {Name: "b"}})
		if err != nil {
			t.Fatal(err)
		}
		ms, err := ReadModels(d, body)
		if err != nil || len(ms) != 2 || ms[0].Name != "a" || !ms[0].Created.Equal(at) {
			t.Errorf("%s: %v %v", d, ms, err)
		}
	}
	for d, want := range map[Dialect]string{
		OpenAIChat: `{"id":"a/b","object":"model","created":1767323045,"owned_by":"us"}`,
		Anthropic:  `{"type":"model","id":"a/b","display_name":"a/b","created_at":"2026-01-02T03:04:05Z"}`,
		OllamaChat: `"capabilities":["completion","tools","vision"]`,
	} {
		if one, err := WriteModel(d, Model{Name: "a/b", Owner: "us", Created: at}); err != nil || !strings.Contains(string(one), want) {
			t.Errorf("%s: %s, %v", d, one, err)
		}
	}
	ms, err := ReadModels(Gemini, []byte(`{"models":[{"name":"models/gemini-2.5-flash"}]}`))
	if err != nil || len(ms) != 1 || ms[0].Name != "gemini-2.5-flash" {
		t.Errorf("%v %v", ms, err)
	}
}

func TestCountTokens(t *testing.T) {
	t.Parallel()
	r, err := ReadRequest(Anthropic, CountTokens, "/v1/messages/count_tokens", []byte(`{"model":"m","system":"s","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Model = "gemini-2.5-flash"
	path, body, err := r.Write(Gemini)
	want := `/v1beta/models/gemini-2.5-flash:countTokens {"generateContentRequest":{"contents":[{"role":"user","parts":[{"text":"hi"}]}],"systemInstruction":{"parts":[{"text":"s"}]},"model":"models/gemini-2.5-flash"}}`
	if got := path + " " + string(body); err != nil || got != want {
		t.Errorf("%v %s", err, got)
	}
	for _, d := range []Dialect{OpenAIChat, OpenAIResponses, OllamaChat} {
		if _, _, err := r.Write(d); err == nil {
			t.Errorf("%s counts tokens", d)
		}
	}
	n, err := ReadTokenCount(Gemini, []byte(`{"totalTokens":7}`))
	if err != nil || n != 7 || string(WriteTokenCount(n)) != `{"input_tokens":7}` {
		t.Error(n, err)
	}
}
