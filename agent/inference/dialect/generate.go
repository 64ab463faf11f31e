package dialect

// Ollama's /api/generate: one prompt instead of messages.

func readOllamaGenerate(r *Request, f *fields) error {
	if s := f.take("system").str(); s != "" {
		r.System = []Part{{Kind: Text, Text: s}}
	}
	m := Message{Role: User}
	if p := f.take("prompt").str(); p != "" {
		m.Parts = append(m.Parts, Part{Kind: Text, Text: p})
	}
	for _, i := range f.take("images").list() {
		m.Parts = append(m.Parts, ollamaImage(i))
	}
	if len(m.Parts) > 0 {
		r.Messages = []Message{m}
	}
	for _, k := range []string{"suffix", "template"} {
		if f.v.get(k).str() == "" {
			f.take(k)
		}
	}
	r.readOllamaSettings(f)
	return nil
}

func writeOllamaGenerate(r *Request) (*value, error) {
	if len(r.Messages) != 1 || r.Messages[0].Role != User || len(r.Tools) > 0 {
		return nil, has("a conversation or tools")
	}
	s, err := plain(r.System)
	if err != nil {
		return nil, err
	}
	p, images, err := ollamaContent(r.Messages[0].Parts)
	if err != nil {
		return nil, err
	}
	t := obj("model", r.Model, "prompt", p, "stream", r.Stream).set("images", images)
	if s != "" {
		t.set("system", s)
	}
	r.writeOllamaSettings(t)
	return t, nil
}
