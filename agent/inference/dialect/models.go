package dialect

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Model is one of a list of models.
type Model struct {
	Name    string
	Created time.Time // zero if the server doesn't say
	Owner   string
}

// ReadModels reads the answer to ListModels.
func ReadModels(d Dialect, body []byte) ([]Model, error) {
	t, err := parse(body)
	if err != nil {
		return nil, err
	}
	key, name := "data", "id"
	switch d {
	case OllamaChat, OllamaGenerate, Gemini:
		key, name = "models", "name"
	}
	l := t.get(key)
	if !l.is(array) {
		return nil, errors.New("the answer has no list of models")
	}
	var out []Model
	for _, v := range l.items {
		m := Model{Name: strings.TrimPrefix(v.get(name).str(), "models/"), Owner: v.get("owned_by").str()}
		if n := v.get("created").int(); n > 0 {
			m.Created = time.Unix(int64(n), 0).UTC()
		}
		for _, k := range []string{"created_at", "modified_at"} {
			if at, err := time.Parse(time.RFC3339, v.get(k).str()); err == nil {
				m.Created = at.UTC()
			}
		}
		if m.Name != "" {
			out = append(out, m)
		}
	}
	return out, nil
}

// WriteModels writes the answer to ListModels.
func WriteModels(d Dialect, models []Model) ([]byte, error) {
	l := arr()
	for _, m := range models {
		v := m.tree(d)
		if v == nil {
			return nil, fmt.Errorf("lists of models are not written in %s", d)
		}
		l.add(v)
	}
	switch d {
	case OpenAIChat, OpenAIResponses, OpenAICompletions:
		return obj("object", "list", "data", l).marshal()
	case Anthropic:
		t := obj("data", l, "has_more", false, "first_id", nothing, "last_id", nothing)
		if n := len(models); n > 0 {
			t.set("first_id", models[0].Name).set("last_id", models[n-1].Name)
		}
		return t.marshal()
	}
	return obj("models", l).marshal()
}

// tree is a model as an element of a list.
func (m Model) tree(d Dialect) *value {
	at := m.Created.Format(time.RFC3339)
	switch d {
	case OpenAIChat, OpenAIResponses, OpenAICompletions:
		return obj("id", m.Name, "object", "model", "created", int(max(m.Created.Unix(), 0)), "owned_by", m.Owner)
	case Anthropic:
		return obj("type", "model", "id", m.Name, "display_name", m.Name, "created_at", at)
	case OllamaChat, OllamaGenerate:
		return obj("name", m.Name, "model", m.Name, "modified_at", at, "size", 0, "digest", "", "details", ollamaDetails())
	}
	return nil
}

func ollamaDetails() *value {
	return obj("parent_model", "", "format", "", "family", "", "families", arr(), "parameter_size", "", "quantization_level", "")
}

// WriteModel writes the answer to ShowModel. What Ollama tells of a model beside its name nobody here knows; that it takes tools
// and images says no more than that such requests are passed on.
func WriteModel(d Dialect, m Model) ([]byte, error) {
	if d == OllamaChat {
		return obj("modified_at", m.Created.Format(time.RFC3339), "license", "", "modelfile", "", "parameters", "", "template", "",
			"details", ollamaDetails(), "model_info", obj("general.basename", m.Name),
			"capabilities", arr(str("completion"), str("tools"), str("vision"))).marshal()
	}
	v := m.tree(d)
	if v == nil {
		return nil, fmt.Errorf("models are not written in %s", d)
	}
	return v.marshal()
}

// ollamaVersion is the version of Ollama whose API is spoken here. Its clients look for the least that they need.
const ollamaVersion = "0.13.0"

// WriteVersion writes the answer to Version.
func WriteVersion() []byte { return obj("version", ollamaVersion).append(nil) }

// ReadTokenCount reads the answer to CountTokens.
func ReadTokenCount(d Dialect, body []byte) (int, error) {
	t, err := parse(body)
	if err != nil {
		return 0, err
	}
	key := map[Dialect]string{Anthropic: "input_tokens", Gemini: "totalTokens"}[d]
	if n := t.get(key); n.is(number) {
		return n.int(), nil
	}
	return 0, errors.New("the answer has no count of tokens")
}

// WriteTokenCount writes the answer to CountTokens: of those that programs speak, only Anthropic has it.
func WriteTokenCount(n int) []byte { return obj("input_tokens", n).append(nil) }
