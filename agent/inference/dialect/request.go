package dialect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ReadRequest reads a request. What isn't one, or could be read in two ways, is an error.
func ReadRequest(d Dialect, op Operation, path string, body []byte) (*Request, error) {
	r := &Request{Dialect: d, Operation: op}
	path, query, _ := strings.Cut(path, "?")
	r.beta = d == Anthropic && query == "beta=true"
	if op == ListModels {
		if len(body) > 0 {
			return nil, errors.New("a request for the list of models has no body")
		}
		return r, nil
	}
	t, err := parse(body)
	if err != nil {
		return nil, err
	}
	if t.kind != object {
		return nil, errors.New("the request is not a JSON object")
	}
	// Servers written in Go read a key in any case, so another spelling of the router's own would be a second opinion.
	for _, k := range t.keys {
		for _, own := range []string{"model", "stream", "messages"} {
			if k != own && strings.EqualFold(k, own) {
				return nil, fmt.Errorf("the request has a key that differs from %q only in case", own)
			}
		}
	}
	for _, k := range t.keys { // OpenRouter's and LiteLLM's
		if k := fold(k); k == "models" || k == "fallbacks" {
			return nil, fmt.Errorf("the request has %q: which models stand in for its own is not the caller's to say", k)
		}
	}
	if r.one = path == oneEmbedding; r.one {
		t.rename("prompt", "input")
	}
	t.unwrap("")
	r.tree = t
	if r.Model = t.get("model").str(); r.Model == "" {
		return nil, errors.New("the request names no model")
	}
	s := t.get("stream")
	if s != nil && s.kind != boolean {
		return nil, fmt.Errorf("stream is %s, not a boolean", kindNames[s.kind])
	}
	switch {
	case op != Generate:
	case d == OllamaChat || d == OllamaGenerate:
		r.Stream = s == nil || s.isTrue() // Ollama streams unless it is told not to
	default:
		r.Stream = s.isTrue()
	}
	r.renameCalls()
	return r, r.read()
}

// read fills the neutral form from the tree.
func (r *Request) read() error {
	r.System, r.Messages, r.Tools, r.Inputs, r.unsaid = nil, nil, nil, nil, nil
	r.settings = settings{}
	f := r.open(r.tree, "")
	f.take("model", "stream")
	if r.Operation == Embed {
		return r.readEmbed(f)
	}
	read := map[Dialect]func(*Request, *fields) error{OpenAIChat: readOpenAIChat, OpenAIResponses: readOpenAIResponses,
		Anthropic: readAnthropic, OllamaChat: readOllamaChat, OllamaGenerate: readOllamaGenerate, OpenAICompletions: readOpenAICompletions}[r.Dialect]
	if read == nil {
		return fmt.Errorf("requests of %s are not read", r.Dialect)
	}
	if err := read(r, f); err != nil {
		return err
	}
	f.rest()
	return nil
}

// Write writes the request in a dialect: its path, and the body with the model's name and the replaced texts.
func (r *Request) Write(d Dialect) (path string, body []byte, err error) {
	if path, err = r.path(d); err != nil || r.Operation == ListModels {
		return path, nil, err
	}
	var t *value
	if d == r.Dialect || r.Operation == Embed && Path(d, Embed) != "" && Path(d, Embed) == Path(r.Dialect, Embed) {
		t = r.same()
	} else if t, err = r.translate(d); err != nil {
		return "", nil, err
	}
	body, err = t.marshal()
	return path, body, err
}

func (r *Request) path(d Dialect) (string, error) {
	if d == Gemini && r.Operation != ListModels {
		return geminiPath(r)
	}
	p := Path(d, r.Operation)
	if p == "" {
		return "", fmt.Errorf("%s has no way to %s", d, r.Operation)
	}
	if d == Anthropic && r.beta {
		p += "?beta=true"
	}
	return p, nil
}

// same is the tree that was read, with what was changed.
func (r *Request) same() *value {
	t := r.tree.shallow()
	t.set("model", r.Model)
	if r.Operation != Generate {
		return t
	}
	ollama := r.Dialect == OllamaChat || r.Dialect == OllamaGenerate
	if s := t.get("stream"); r.Stream != (s.isTrue() || s == nil && ollama) {
		t.set("stream", r.Stream)
	}
	if r.Dialect.openAI() && r.Stream {
		askUsage(t)
	}
	return t
}

// mostTokens is the largest limit of an answer that goes on into another dialect. Agents ask for as much as their own model can
// say (Claude Code for 128,000), and servers refuse a limit that is more than theirs can.
const mostTokens = 16384

// translate says the request in another dialect.
func (r *Request) translate(d Dialect) (*value, error) {
	n := &Request{Dialect: r.Dialect, Operation: r.Operation, tree: r.tree}
	if err := n.read(); err != nil {
		return nil, err
	}
	n.Model, n.Stream = r.Model, r.Stream
	if d != Anthropic && n.maxTokens.int() > mostTokens {
		n.maxTokens = nil
	}
	if len(n.unsaid) > 0 {
		return nil, fmt.Errorf("the request has %s, and that can't be said in %s", strings.Join(n.unsaid, ", "), d)
	}
	if r.Operation == Embed {
		return n.writeEmbed(d)
	}
	write := map[Dialect]func(*Request) (*value, error){OpenAIChat: writeOpenAIChat, OpenAIResponses: writeOpenAIResponses,
		Anthropic: writeAnthropic, OllamaChat: writeOllamaChat, OllamaGenerate: writeOllamaGenerate, Gemini: writeGemini}[d]
	if write == nil {
		return nil, fmt.Errorf("requests are not written in %s", d)
	}
	t, err := write(n)
	if err != nil {
		return nil, fmt.Errorf("%w, and that can't be said in %s", err, d)
	}
	return t, nil
}

// has is the error of a writer that has no words for something.
func has(format string, args ...any) error {
	return fmt.Errorf("the request has "+format, args...)
}

// fields are the members of an object that is being read. What nobody takes can't be translated.
type fields struct {
	r     *Request
	v     *value
	where string
	taken [2]uint64 // by place; members behind that count as not understood
}

func (r *Request) open(v *value, where string) *fields {
	return &fields{r: r, v: v, where: where}
}

// take marks members as understood and gives the first that is there.
func (f *fields) take(keys ...string) *value {
	var found *value
	for _, k := range keys {
		v := f.v.get(k)
		if found == nil {
			found = v
		}
		if v == nil {
			continue
		}
		if i := slices.Index(f.v.keys, k); i < 64*len(f.taken) {
			f.taken[i/64] |= 1 << (i % 64)
		}
	}
	return found
}

func (f *fields) took(i int) bool { return i < 64*len(f.taken) && f.taken[i/64]&(1<<(i%64)) != 0 }

// The members that are left out by every translation, because they change nothing of what the model is asked: who pays and
// how, what the server keeps, how it caches, whom it blames, what it reports beside the answer, and hints about length,
// thinking and order of calls that a server may ignore anyway. False, null and empty members are left out too.
var harmless = set(`cache_control prompt_cache_key prompt_cache_retention prompt_cache_options prompt_cache_breakpoint
	service_tier store metadata user safety_identifier user_profile_id workspace_id client_metadata stream_options include
	keep_alive truncation truncate verbosity detail strict seed numa num_gpu main_gpu num_thread num_batch use_mmap use_mlock
	low_vram num_ctx eager_input_streaming input_examples status phase annotations citations logprobs display speed
	summary background defer_loading encoding_format refusal audio obfuscation internal_chat_message_metadata_passthrough`)

// rest notes what nobody took and isn't harmless.
func (f *fields) rest() {
	if !f.v.is(object) {
		return
	}
	for i, k := range f.v.keys {
		item := f.v.items[i]
		if f.took(i) || harmless[k] && !(k == "audio" && item.kind == object) || item.kind == null || item.text == "false" && item.kind == boolean ||
			(item.kind == array || item.kind == object) && len(item.items) == 0 {
			continue
		}
		f.r.unsay(f.where + nameOf(k))
	}
}

func (r *Request) unsay(what string) {
	if !slices.Contains(r.unsaid, what) && len(r.unsaid) < 8 {
		r.unsaid = append(r.unsaid, what)
	}
}

// said adds what one of the speakers said. What the system says first is not a message.
func (r *Request) said(f *fields, m Message) {
	f.rest()
	if m.Role == System && len(r.Messages) == 0 {
		r.System = append(r.System, m.Parts...)
		return
	}
	r.Messages = append(r.Messages, m)
}

// readParts reads content that is a text or a list of what read knows; what is what the dialect calls its elements.
func (r *Request) readParts(v *value, what string, read func(*fields) Part) []Part {
	if v.is(text) {
		return []Part{{Kind: Text, Text: v.text}}
	}
	if v != nil && v.kind != array {
		r.unsay("a message whose content is " + kindNames[v.kind])
	}
	out := make([]Part, 0, len(v.list()))
	for _, item := range v.list() {
		f := r.open(item, "content: ")
		p := read(f)
		if p.Kind == Unknown {
			r.unsay(what + " of the type " + nameOf(p.Type))
		} else {
			f.rest()
		}
		out = append(out, p)
	}
	return out
}

// nameOf is how an error may call a key or type: one that the APIs wouldn't use may be anything, so it isn't repeated.
func nameOf(k string) string {
	if len(k) > 32 || k == "" || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz_") != "" && !keywords[k] {
		return "an unknown field"
	}
	return fmt.Sprintf("%q", k)
}

// MaxOutput is how many tokens the request allows its answers together; 0: it does not say. No model writes more than the most.
func (r *Request) MaxOutput() int {
	const most, mostAnswers = 1 << 20, 128
	answers := 1
	if r.Dialect.openAI() {
		each := max(r.tree.get("n").int(), r.tree.get("best_of").int(), 1)
		answers = min(each, mostAnswers) * min(max(len(r.tree.get("prompt").list()), 1), mostAnswers)
	}
	return min(answers, mostAnswers) * min(max(r.maxTokens.int(), 0), most)
}
