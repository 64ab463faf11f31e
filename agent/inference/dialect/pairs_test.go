package dialect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// Every dialect that programs speak with every one that servers do: the request, with its tools, images and results of tools, the
// answer, and the answer as a stream, arrive as they were said.
func TestPairs(t *testing.T) {
	t.Parallel()
	for _, caller := range callers {
		for _, server := range servers {
			if promptOnly(server) && caller != server {
				continue // it takes a prompt alone: nobody else's requests go there
			}
			t.Run(fileNames[caller]+" to "+fileNames[server], func(t *testing.T) {
				t.Parallel()
				requestArrives(t, caller, server)
				if promptOnly(caller) && caller != server {
					return // it knows no tools, and the recorded answers have calls: those are refused, see the goldens
				}
				answerArrives(t, caller, server)
				streamArrives(t, caller, server)
			})
		}
	}
}

func requestArrives(t *testing.T, caller, server Dialect) {
	t.Helper()
	body := fixture(t, "requests", caller)
	if server == OpenAIResponses {
		body = bytes.Replace(body, []byte(`"stop":`), []byte(`"include":`), 1) // it has no stop sequences
	}
	r, err := ReadRequest(caller, Generate, Path(caller, Generate), body)
	if err != nil {
		t.Fatal(err)
	}
	path, out, err := r.Write(server)
	if err != nil {
		t.Fatal(err)
	}
	var back *Request
	if server == Gemini {
		back = readGemini(t, out)
	} else if back, err = ReadRequest(server, Generate, path, out); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, want := outline(back), outline(r); got != want {
		t.Errorf("the request:\ngot  %s\nwant %s", got, want)
	}
}

// readGemini reads what only servers read.
func readGemini(t *testing.T, body []byte) *Request {
	t.Helper()
	v, err := parse(body)
	if err != nil {
		t.Fatal(err)
	}
	r := &Request{}
	parts := func(c *value) (out []Part) {
		for _, p := range c.get("parts").list() {
			call, result := p.get("functionCall"), p.get("functionResponse")
			switch {
			case call != nil:
				out = append(out, Part{Kind: ToolCall, Name: call.get("name").str(), Arguments: call.get("args").json()})
			case result != nil:
				failed := result.get("response", "error")
				said := result.get("response", "output").str() + failed.str()
				out = append(out, Part{Kind: ToolResult, Failed: failed != nil, Parts: []Part{{Kind: Text, Text: said}}})
			case p.get("inlineData") != nil:
				out = append(out, Part{Kind: Image, Data: p.get("inlineData", "data").str()})
			default:
				out = append(out, Part{Kind: Text, Text: p.get("text").str()})
			}
		}
		return out
	}
	r.System = parts(v.get("systemInstruction"))
	for _, c := range v.get("contents").list() {
		r.Messages = append(r.Messages, Message{Parts: parts(c)})
	}
	for _, tool := range v.get("tools").list() {
		for _, f := range tool.get("functionDeclarations").list() {
			r.Tools = append(r.Tools, Tool{Name: f.get("name").str()})
		}
	}
	return r
}

func answerArrives(t *testing.T, caller, server Dialect) {
	t.Helper()
	a, err := ReadAnswer(server, fixture(t, "answers", server))
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.Write(caller, request(t, caller))
	if err != nil {
		t.Fatal(err)
	}
	back, err := ReadAnswer(caller, out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, want := told(back), told(a); got != want {
		t.Errorf("the answer:\ngot  %s\nwant %s", got, want)
	}
}

func streamArrives(t *testing.T, caller, server Dialect) {
	t.Helper()
	stream := fixture(t, "streams", server)
	var out bytes.Buffer
	r := request(t, caller)
	r.wantUsage = true
	if err := pipe(NewDecoder(server, bytes.NewReader(stream)), NewEncoder(caller, &out, r)); err != nil {
		t.Fatal(err)
	}
	if got, want := told(whole(t, caller, out.Bytes())), told(whole(t, server, stream)); got != want {
		t.Errorf("the stream:\ngot  %s\nwant %s\n%s", got, want, out.Bytes())
	}
}

// whole is the answer that a stream says.
func whole(t *testing.T, d Dialect, stream []byte) *Answer {
	t.Helper()
	dec := NewDecoder(d, bytes.NewReader(stream))
	a := &Answer{}
	for {
		ev, err := dec.Next()
		if errors.Is(err, io.EOF) {
			return a
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, stream)
		}
		for _, x := range ev.Deltas {
			switch x.Kind {
			case Opened:
				a.Parts = append(a.Parts, Part{Kind: x.Part, Name: x.Name})
			case More:
				p := &a.Parts[x.Block]
				if p.Kind == ToolCall {
					p.Arguments += x.Said()
				} else {
					p.Text += x.Said()
				}
			case Finished:
				a.Stop = x.Stop
			case Counted:
				a.Usage = x.Usage
			}
		}
	}
}

// told is what an answer says, whoever says it how. Not every dialect has a word for cached tokens and for those of thinking, and
// one has none for what is thought in secret.
func told(a *Answer) string {
	var b strings.Builder
	for _, p := range a.Parts {
		switch {
		case p.Kind == ToolCall:
			args, _ := parse([]byte(p.arguments()))
			fmt.Fprintf(&b, "%s%s;", p.Name, args.json())
		case p.Text != "":
			fmt.Fprintf(&b, "%d %s;", p.Kind, p.Text)
		}
	}
	fmt.Fprintf(&b, "%s;%d in, %d out", a.stop(), a.Usage.Input, a.Usage.Output)
	return b.String()
}

// outline is what a conversation says, whoever says it how.
func outline(r *Request) string {
	var b strings.Builder
	var parts func([]Part)
	parts = func(ps []Part) {
		for _, p := range ps {
			switch p.Kind {
			case Thinking:
			case ToolCall:
				args, _ := parse([]byte(p.arguments()))
				b.WriteString(p.Name + args.json() + ";")
			case ToolResult:
				if p.Failed {
					b.WriteString("The tool failed: ;")
				}
				parts(p.Parts)
			case Image:
				b.WriteString("image " + p.Data + ";")
			case File:
				b.WriteString(p.fileText() + p.Data + ";")
			default:
				b.WriteString(p.Text + ";")
			}
		}
	}
	parts(r.System)
	for _, m := range r.Messages {
		parts(m.Parts)
	}
	for _, t := range r.Tools {
		b.WriteString(t.Name + ";")
	}
	said := strings.Split(strings.NewReplacer("\n", ";", " ", "", "failed: ", "failed:;").Replace(b.String()), ";")
	said = slices.DeleteFunc(said, func(s string) bool { return s == "" })
	slices.Sort(said) // Ollama has the images of a message apart from its text
	return strings.Join(said, ";")
}
