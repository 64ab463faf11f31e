// Package dialect reads and writes what programs and model servers say to each other: requests, answers, streams and
// errors of the OpenAI, Anthropic, Ollama and Gemini APIs, and translates between them.
//
// A request or answer is kept as the JSON tree that was read. Written in the dialect that it came in, it is that tree
// with the model's name and the replaced texts, so what this package doesn't know survives. Written in another, it goes
// through the neutral form of [Request] and [Answer]; what the other dialect can't say is an error that names it.
//
// [Request.Texts] is everything of a request that isn't a protocol word: it is found by walking the tree, not by knowing
// the fields, so a field that this package has never heard of is judged too.
//
// The package never opens a connection or a file, never decides where a request goes, and puts nothing of a request into
// an error but keys and types that look like the APIs' own.
package dialect

import "strings"

// A Dialect is one API that programs speak to models.
type Dialect uint8

// The dialects. OpenAI's embeddings and lists of models are in OpenAIChat.
const (
	OpenAIChat        Dialect = iota + 1 // POST /v1/chat/completions
	OpenAIResponses                      // POST /v1/responses
	Anthropic                            // POST /v1/messages
	OllamaChat                           // POST /api/chat
	OllamaGenerate                       // POST /api/generate
	Gemini                               // POST /v1beta/models/MODEL:generateContent; to servers only
	OpenAICompletions                    // POST /v1/completions
)

var dialectNames = [...]string{"unknown API", "OpenAI chat completions", "OpenAI responses", "Anthropic messages",
	"Ollama chat", "Ollama generate", "Gemini", "OpenAI completions"}

// openAI reports whether streams are those of OpenAI's chat or its elder: chunks, with the usage where it's asked for, and [DONE].
func (d Dialect) openAI() bool { return d == OpenAIChat || d == OpenAICompletions }

func (d Dialect) String() string {
	if int(d) >= len(dialectNames) {
		d = 0
	}
	return dialectNames[d]
}

// An Operation is what a request asks a model server to do.
type Operation uint8

// The operations.
const (
	Generate Operation = iota + 1
	Embed
	ListModels
	CountTokens
	ShowModel // one of the list; the path or the body names it
	Version   // of Ollama
	Greet     // whether anybody is there
)

var operationNames = [...]string{"unknown operation", "generate", "embed", "list models", "count tokens", "show a model",
	"tell the version", "greet"}

func (o Operation) String() string {
	if int(o) >= len(operationNames) {
		o = 0
	}
	return operationNames[o]
}

type endpoint struct {
	Dialect
	Operation
	method, path string
}

// The endpoints: Gemini's others have the model's name in their path. Anthropic's list of models has the path of OpenAI's:
// who sends the header anthropic-version wants Anthropic's.
//
// https://platform.openai.com/docs/api-reference, https://docs.anthropic.com/en/api, https://docs.ollama.com/api
var endpoints = []endpoint{
	{OpenAIChat, Generate, "POST", "/v1/chat/completions"},
	{OpenAIChat, Embed, "POST", "/v1/embeddings"},
	{OpenAIChat, ListModels, "GET", "/v1/models"},
	{OpenAICompletions, Generate, "POST", "/v1/completions"},
	{OpenAIResponses, Generate, "POST", "/v1/responses"},
	{OpenAIResponses, Embed, "POST", "/v1/embeddings"},
	{OpenAIResponses, ListModels, "GET", "/v1/models"},
	{Anthropic, Generate, "POST", "/v1/messages"},
	{Anthropic, CountTokens, "POST", "/v1/messages/count_tokens"},
	{Anthropic, ListModels, "GET", "/v1/models"},
	{OllamaChat, Generate, "POST", "/api/chat"},
	{OllamaChat, Embed, "POST", "/api/embed"},
	{OllamaChat, Embed, "POST", oneEmbedding},
	{OllamaChat, ListModels, "GET", "/api/tags"},
	{OllamaGenerate, Generate, "POST", "/api/generate"},
	{OllamaGenerate, Embed, "POST", "/api/embed"},
	{OllamaGenerate, ListModels, "GET", "/api/tags"},
	{OpenAIChat, ShowModel, "GET", modelPath},
	{OllamaChat, ShowModel, "POST", "/api/show"},
	{OllamaChat, Version, "GET", "/api/version"},
	{OllamaChat, Greet, "GET", "/"},
	{OllamaChat, Greet, "HEAD", "/"},
	{Anthropic, Greet, "HEAD", "/api/hello"}, // Claude Code's
	{Anthropic, Greet, "GET", "/api/hello"},
	{Gemini, ListModels, "GET", geminiModels}, // Gemini is spoken to servers, not by programs
}

// oneEmbedding is where Ollama's clients embedded one text before there was /api/embed.
const oneEmbedding = "/api/embeddings"

// modelPath is followed by a model's name, of which Anthropic's has the same as OpenAI's.
const modelPath = "/v1/models/"

// Of says which dialect and operation a request line is. A query in the path is not looked at.
func Of(method, path string) (Dialect, Operation, bool) {
	path, _, _ = strings.Cut(path, "?")
	for _, e := range endpoints {
		if e.method == method && e.Dialect != Gemini && e.at(path) {
			return e.Dialect, e.Operation, true
		}
	}
	return 0, 0, false
}

func (e endpoint) at(path string) bool {
	if e.path == modelPath {
		return len(path) > len(modelPath) && strings.HasPrefix(path, modelPath)
	}
	return e.path == path
}

// Path is where a dialect takes an operation that has no model in its path; "" when it takes it nowhere.
func Path(d Dialect, op Operation) string {
	for _, e := range endpoints {
		if e.Dialect == d && e.Operation == op {
			return e.path
		}
	}
	return ""
}
