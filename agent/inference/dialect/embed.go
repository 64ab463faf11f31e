package dialect

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// Embeddings: OpenAI's /v1/embeddings, Ollama's /api/embed, Gemini's batchEmbedContents.

func (r *Request) readEmbed(f *fields) error {
	in := f.take("input")
	switch {
	case in.is(text):
		r.Inputs = []string{in.text}
	case in.is(array):
		for _, i := range in.items {
			if !i.is(text) {
				r.unsay("an input in tokens")
				continue
			}
			r.Inputs = append(r.Inputs, i.text)
		}
	default:
		return errors.New("there is no input to embed")
	}
	r.base64 = f.take("encoding_format").str() == "base64"
	r.dimensions = f.take("dimensions")
	if o := f.take("options"); o != nil {
		r.open(o, "options: ").rest()
	}
	f.rest()
	return nil
}

func (r *Request) writeEmbed(d Dialect) (*value, error) {
	in := arr()
	for _, s := range r.Inputs {
		in.add(str(s))
	}
	switch d {
	case OpenAIChat, OpenAIResponses:
		return obj("model", r.Model, "input", in, "encoding_format", "float").set("dimensions", r.dimensions), nil
	case OllamaChat, OllamaGenerate:
		return obj("model", r.Model, "input", in).set("dimensions", r.dimensions), nil
	case Gemini:
		// https://ai.google.dev/api/embeddings
		rs := arr()
		for _, s := range r.Inputs {
			rs.add(obj("model", "models/"+r.Model, "content", obj("parts", arr(obj("text", s)))).set("outputDimensionality", r.dimensions))
		}
		return obj("requests", rs), nil
	}
	return nil, fmt.Errorf("%s has no embeddings", d)
}

// Embeddings are the answer to a request to Embed.
type Embeddings struct {
	Model   string
	Vectors [][]float64
	Usage   Usage

	dialect Dialect
	tree    *value
}

// ReadEmbeddings reads the answer to a request to Embed.
func ReadEmbeddings(d Dialect, body []byte) (*Embeddings, error) {
	t, err := parse(body)
	if err != nil {
		return nil, err
	}
	e := &Embeddings{Model: t.get("model").str(), dialect: d, tree: t}
	var vectors []*value
	switch d {
	case OpenAIChat, OpenAIResponses:
		e.Usage = openAIUsage(t.get("usage"))
		for _, x := range t.get("data").list() {
			vectors = append(vectors, x.get("embedding"))
		}
	case OllamaChat, OllamaGenerate:
		e.Usage = ollamaUsage(t)
		vectors = t.get("embeddings").list()
	case Gemini:
		for _, x := range t.get("embeddings").list() {
			vectors = append(vectors, x.get("values"))
		}
	}
	if len(vectors) == 0 {
		return nil, errors.New("the answer has no embeddings")
	}
	for _, v := range vectors {
		x, err := vector(v)
		if err != nil {
			return nil, err
		}
		e.Vectors = append(e.Vectors, x)
	}
	return e, nil
}

// vector reads numbers, or OpenAI's base64 of little-endian 32-bit floats.
func vector(v *value) ([]float64, error) {
	var out []float64
	if v.is(text) {
		b, err := base64.StdEncoding.DecodeString(v.text)
		if err != nil || len(b)%4 != 0 {
			return nil, errors.New("an embedding is not base64 of 32-bit floats")
		}
		for ; len(b) > 0; b = b[4:] {
			out = append(out, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
		}
		return out, nil
	}
	if !v.is(array) {
		return nil, errors.New("an embedding is not an array")
	}
	for _, n := range v.items {
		if n.kind != number {
			return nil, errors.New("an embedding has something that is not a number")
		}
		x, err := strconv.ParseFloat(n.text, 64)
		if err != nil {
			return nil, errors.New("an embedding has something that is not a number")
		}
		out = append(out, x)
	}
	return out, nil
}

// Write writes the answer to r in the dialect of its caller.
func (e *Embeddings) Write(d Dialect, r *Request) ([]byte, error) {
	switch {
	case r.one && len(e.Vectors) > 0:
		return obj("embedding", floats(e.Vectors[0], false)).marshal()
	case Path(d, Embed) == Path(e.dialect, Embed):
		return e.tree.marshal()
	}
	model := e.Model
	if model == "" {
		model = r.Model
	}
	vs := arr()
	for i, v := range e.Vectors {
		x := floats(v, r.base64)
		if d == OpenAIChat || d == OpenAIResponses {
			x = obj("object", "embedding", "index", i, "embedding", x)
		}
		vs.add(x)
	}
	switch d {
	case OpenAIChat, OpenAIResponses:
		return obj("object", "list", "data", vs, "model", model, "usage",
			obj("prompt_tokens", e.Usage.Input, "total_tokens", e.Usage.Input)).marshal()
	case OllamaChat, OllamaGenerate:
		return obj("model", model, "embeddings", vs, "total_duration", 0, "load_duration", 0, "prompt_eval_count", e.Usage.Input).marshal()
	}
	return nil, fmt.Errorf("%s has no embeddings", d)
}

func floats(v []float64, bytes bool) *value {
	if bytes {
		var b []byte
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)))
		}
		return str(base64.StdEncoding.EncodeToString(b))
	}
	out := arr()
	for _, x := range v {
		out.add(&value{kind: number, text: strconv.FormatFloat(x, 'g', -1, 64)})
	}
	return out
}
