package dialect

// A PartKind is what a part of a message is.
type PartKind uint8

// The kinds of parts.
const (
	Text       PartKind = iota + 1 // Text
	Image                          // Data and MediaType, or URL
	Audio                          // Data and MediaType
	File                           // Name and Data and MediaType, or URL, or Text
	ToolCall                       // ID, Name, Arguments
	ToolResult                     // ID, Name, Parts, Failed
	Thinking                       // Text and Signature
	Refusal                        // Text
	CustomCall                     // of streams: a tool call of OpenAI's "custom" kind, whose text is no JSON
	Unknown                        // Type: a part that the dialect has and the neutral form doesn't
)

// A Role is who speaks.
type Role string

// The roles. A tool's result is a part of a message of User's.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// A Part is one part of a message.
type Part struct {
	Kind            PartKind
	Text            string
	ID, Name        string
	Arguments       string // of a tool call: JSON, as a rule an object; of a custom tool: its input
	Custom          bool   // a tool call of OpenAI's "custom" kind, that takes a text
	Data, MediaType string // Data is in base64
	URL             string
	Signature       string // what the maker of a Thinking wants to see again with it
	Parts           []Part // what a tool gave
	Failed          bool   // the tool failed
	Type            string // of Unknown: what its dialect calls it
}

// A Message is what one of the speakers said.
type Message struct {
	Role  Role
	Parts []Part
}

// A Tool is a function that the model may ask for.
type Tool struct {
	Name, Description string
	Namespace         string // of OpenAI's responses: Name then is this, two underscores, and the name in it
	Custom            bool   // takes a text, not arguments
	Schema            *value // JSON schema of the arguments
	strict            *value
}

// Usage counts tokens. Input includes Cached.
type Usage struct {
	Input, Cached, Output, Reasoning int
}

// A Stop says why a model stopped.
type Stop string

// The reasons to stop.
const (
	StopEnd     Stop = "end"
	StopLength  Stop = "length"
	StopTools   Stop = "tools"   // it waits for results of tools
	StopRefused Stop = "refused" // by the model or a filter
)

// settings are how a model is to answer; numbers are kept as they were written.
type settings struct {
	maxTokens, temperature, topP, topK, seed, presence, frequency *value
	stop                                                          []string
	choice                                                        string // "", auto, none, required, or tool
	choiceTool                                                    string
	parallel                                                      *value // whether tools may be called in parallel
	format                                                        string // "", json, or schema
	schemaName                                                    string
	schema                                                        *value
	effort                                                        string // none, minimal, low, medium, high, xhigh, max
	wantUsage                                                     bool   // OpenAI chat: a last chunk with the usage
	dimensions                                                    *value
	base64                                                        bool // embeddings as bytes, not as numbers
}

// Request is what a program asks of a model. System, Messages and Tools are what was read: to change a text, use Texts.
type Request struct {
	Dialect   Dialect
	Operation Operation
	Model     string // may be changed
	Stream    bool   // may be changed
	System    []Part
	Messages  []Message
	Tools     []Tool
	Inputs    []string // of Embed

	settings
	tree   *value
	beta   bool // Anthropic's SDK marks the requests of its beta interface in the query
	one    bool // Ollama's older way to embed: one text, and its vector alone in the answer
	unsaid []string
}

// Answer is what a model answered. Parts are what was read: to change a text, use Texts.
type Answer struct {
	ID, Model string
	Parts     []Part
	Stop      Stop
	StopText  string // the stop sequence, where the server says which
	Usage     Usage

	dialect Dialect
	tree    *value
	unsaid  []string
}

// Texts are all that an answer says, in order. Replacing them changes what Write writes.
func (a *Answer) Texts() []*string {
	var out []*string
	if a.tree != nil {
		a.tree.texts("", &out)
	}
	return out
}
