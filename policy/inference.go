package policy

import (
	"net/netip"
	"net/url"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// InferenceName is the name at which the privacy router answers inside a sandbox, on the ports 80 and 443.
const InferenceName = "inference.local"

// InferenceSection is the section `inference`.
type InferenceSection struct {
	At
	Local     *LocalModel    `key:"local" doc:"The model that sensitive prompts go to. Left out: they are refused."`
	Cloud     *CloudModel    `key:"cloud" doc:"The model that answers everything else. Left out: the one of 'config set model', or else the local one."`
	Default   Value[Word]    `key:"default" one:"cloud local ask deny" doc:"Where a prompt goes in which nothing sensitive is found: cloud (default), local, what a person answers, or nowhere."`
	Classes   *ClassVerdicts `key:"classes" doc:"What happens to a prompt in which something sensitive is found. The most severe verdict counts: deny, local, ask, redact, cloud."`
	Unseen    Value[Word]    `key:"unseen" one:"local cloud ask deny" doc:"What happens to a prompt with something that can't be looked into: an image, a recording, a link that the server would follow. local when left out."`
	Custom    []CustomClass  `key:"custom" doc:"Classes of your own, by pattern or by words."`
	Residency []Value[Label] `key:"residency" some:"yes" doc:"Regions that a prompt may go to: a cloud model is used only if its region is one of them."`
	Models    []NamedModel   `key:"models" doc:"More models, each by a name of your own, which callers, config set model and fallbacks can choose."`
	Fallbacks []Value[Label] `key:"fallbacks" some:"yes" doc:"Names of models that are asked in this order when a cloud model does not answer; the local ones also when a local one does not."`
	Budgets   *BudgetSection `key:"budgets" doc:"Most that all models of the sandbox may take in a day (UTC)."`
	Log       Value[Word]    `key:"log" one:"counts matches" doc:"What records say of what is found: how often (default), or the texts themselves, shortened."`
}

// LocalModel is a model on this host, or on one that may see everything.
type LocalModel struct {
	At
	Model Value[ModelName] `key:"model" req:"yes" doc:"PROVIDER/MODEL, such as ollama/llama3.3:70b."`
	Endpoint
}

// CloudModel is a model at somebody else's.
type CloudModel struct {
	At
	Model Value[ModelName] `key:"model" req:"yes" doc:"PROVIDER/MODEL, such as nvidia/nemotron-3-super-120b."`
	Endpoint
	Terms
}

// Terms are what a model that is not on this host is used on.
type Terms struct {
	Region  Value[Label]   `key:"region" doc:"Where it runs, for residency: eu, us, a name of your own."`
	Classes *ClassVerdicts `key:"classes" doc:"What of the section's classes holds otherwise for what goes to this model."`
	Price   *PriceSection  `key:"price" doc:"What its tokens cost, for budgets.cost."`
}

// PriceSection is what a model costs.
type PriceSection struct {
	At
	Input  Value[Decimal] `key:"input" req:"yes" min:"0" max:"1000000" doc:"USD for a million tokens that the model reads."`
	Output Value[Decimal] `key:"output" req:"yes" min:"0" max:"1000000" doc:"USD for a million tokens that it writes."`
}

// BudgetSection is inference.budgets.
type BudgetSection struct {
	At
	Tokens Value[Number]  `key:"tokens" min:"1" doc:"Tokens, of prompts and answers, of every model."`
	Cost   Value[Decimal] `key:"cost" min:"0.000001" max:"1000000" doc:"USD. Each cloud model needs a price; those on this host cost nothing."`
}

// NamedModel is an entry of inference.models.
type NamedModel struct {
	Rule
	Name  Value[Label]     `key:"name" req:"yes" doc:"What it is chosen by."`
	Model Value[ModelName] `key:"model" req:"yes" doc:"PROVIDER/MODEL, such as ollama/llama3.2:3b."`
	Endpoint
	Terms
	Route Value[Word] `key:"route" one:"local cloud" doc:"local: it may see everything. Left out: local where it is on this host (ollama, vllm, llamacpp without a url), else cloud."`
}

// Endpoint is where a model answers, and how.
type Endpoint struct {
	URL Value[BaseURL] `key:"url" doc:"Where it answers. Known for the known providers."`
	API Value[Word]    `key:"api" one:"openai anthropic ollama gemini" doc:"What it speaks. Known for the known providers; openai is its chat completions."`
	Key *KeySource     `key:"key" doc:"Where its key is found, on the host. Left out: the sandbox's key, or with nemoclaw run the provider's variable of the caller."`
}

// KeySource says where a key is. It has one of its keys.
type KeySource struct {
	At
	File       Value[Path]  `key:"file" secret:"yes" doc:"A file that is root's alone."`
	Command    Value[Path]  `key:"command" secret:"yes" doc:"A program, changed by nobody but root, that prints it."`
	Credential Value[Label] `key:"credential" secret:"yes" doc:"A credential that systemd has given to the daemon (LoadCredential)."`
}

func (*KeySource) instead() string {
	return "put it into a file that is root's alone, and write key: {file: /etc/nemoclaw/nvidia.key}; keys here: file, command, credential"
}

// ClassVerdicts is inference.classes.
type ClassVerdicts struct {
	At
	Medical      Value[Word] `key:"medical" one:"local cloud redact ask deny" doc:"Diagnoses, drugs, medical records. local when left out."`
	Financial    Value[Word] `key:"financial" one:"local cloud redact ask deny" doc:"Cards, accounts, bank data. local when left out."`
	PII          Value[Word] `key:"pii" one:"local cloud redact ask deny" doc:"Names, addresses, numbers of persons. local when left out."`
	Credentials  Value[Word] `key:"credentials" one:"local cloud redact ask deny" doc:"Keys, tokens, passwords. local when left out."`
	Confidential Value[Word] `key:"confidential" one:"local cloud redact ask deny" doc:"What is marked as confidential. local when left out."`
}

// CustomClass is an entry of inference.custom.
type CustomClass struct {
	Rule
	Name    Value[Label]    `key:"name" req:"yes" doc:"What it is called, in records too."`
	Verdict Value[Word]     `key:"verdict" one:"local cloud redact ask deny" doc:"What happens to a prompt in which it is found. local when left out."`
	Pattern Value[Pattern]  `key:"pattern" doc:"A regular expression (RE2)."`
	Words   []Value[Phrase] `key:"words" some:"yes" doc:"Words or phrases, found in any case."`
}

// provider is what is known of who answers model calls.
type provider struct {
	api, url string
}

// providers are those that need neither url nor api.
var providers = map[string]provider{
	"nvidia":    {"openai", "https://integrate.api.nvidia.com"},
	"openai":    {"openai", "https://api.openai.com"},
	"anthropic": {"anthropic", "https://api.anthropic.com"},
	"google":    {"gemini", "https://generativelanguage.googleapis.com"},
	"ollama":    {"ollama", "http://127.0.0.1:11434"},
	"vllm":      {"openai", "http://127.0.0.1:8000"},
	"llamacpp":  {"openai", "http://127.0.0.1:8080"},
}

func (s *InferenceSection) check(d *decoder, key string) {
	if s.Local == nil && s.Cloud == nil && s.Default.V == "local" {
		d.add(s.Default.At, join(key, "default"), "there is no local model", "say which: local: {model: ollama/llama3.3:70b}")
	}
	seen := map[Label]bool{}
	for i := range s.Custom {
		c := &s.Custom[i]
		if builtinClass(string(c.Name.V)) || seen[c.Name.V] {
			d.add(c.Name.At, join(key, "custom"), "there is a class "+string(c.Name.V)+" already", "call it otherwise")
		}
		seen[c.Name.V] = true
	}
	s.checkModels(d, key)
}

func builtinClass(name string) bool {
	switch name {
	case "medical", "financial", "pii", "credentials", "confidential":
		return true
	}
	return false
}

func (m *LocalModel) check(d *decoder, key string) { m.Endpoint.check(d, m.Model, key) }

func (m *CloudModel) check(d *decoder, key string) {
	m.Endpoint.check(d, m.Model, key)
	m.Endpoint.checkEncrypted(d, key)
}

// check is not a method that decoder.mapping would find on its own: Endpoint is embedded.
func (e *Endpoint) check(d *decoder, model Value[ModelName], key string) {
	name, _, _ := strings.Cut(string(model.V), "/")
	if _, known := providers[name]; known || model.V == "" {
		return
	}
	if !e.URL.Set || !e.API.Set {
		d.add(model.At, join(key, "model"), "the provider "+cut(name)+" is not known here", "say its url and api; known are anthropic, google, llamacpp, nvidia, ollama, openai, vllm")
	}
}

func (e *Endpoint) checkEncrypted(d *decoder, key string) {
	if u := string(e.URL.V); strings.HasPrefix(u, "http://") && !onThisHost(u) {
		d.add(e.URL.At, join(key, "url"), "prompts and the key would cross the network unencrypted", "write https://")
	}
}

func (k *KeySource) check(d *decoder, key string) {
	n := 0
	for _, set := range []bool{k.File.Set, k.Command.Set, k.Credential.Set} {
		if set {
			n++
		}
	}
	if n != 1 {
		d.add(k.At, key, "expected one of file, command, credential", "write key: {file: /etc/nemoclaw/nvidia.key}")
	}
}

func (c *CustomClass) check(d *decoder, key string) {
	if !c.Pattern.Set && len(c.Words) == 0 {
		d.add(c.At, key, "nothing says how it is found", "give it a pattern, or words")
	}
}

// onThisHost reports whether a URL names the loopback.
func onThisHost(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}

var (
	modelForm = lazily(`^[a-z0-9][a-z0-9-]*/[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`)
	labelForm = lazily(`^[a-z0-9][a-z0-9._-]{0,62}$`)
)

func (v *ModelName) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p == nil && !modelForm.MatchString(s) {
		p = &problem{"expected PROVIDER/MODEL, found " + cut(s), "write it as ollama/llama3.3:70b"}
	}
	*v = ModelName(s)
	return p
}

func (v *BaseURL) read(n *yaml.Node, _ *field) *problem {
	const hint = "write it as https://llm.example.org or http://127.0.0.1:11434"
	s, p := text(n)
	if p != nil {
		return p
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == InferenceName {
		return &problem{"expected where a server answers, found " + cut(s), hint}
	}
	*v = BaseURL(strings.TrimRight(s, "/"))
	return nil
}

func (v *Label) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p == nil && !labelForm.MatchString(s) {
		p = &problem{"expected lower-case letters, digits and hyphens, found " + cut(s), ""}
	}
	*v = Label(s)
	return p
}

func (v *Pattern) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p != nil {
		return p
	}
	re, err := regexp.Compile(s)
	switch {
	case err != nil:
		return &problem{"the pattern " + cut(s) + " is broken", "it is RE2: no look-around, no back-references"}
	case re.MatchString(""):
		return &problem{"the pattern " + cut(s) + " finds the empty text, so everything", "make it need a character"}
	}
	*v = Pattern(s)
	return nil
}

func (v *Phrase) read(n *yaml.Node, _ *field) *problem {
	s, p := text(n)
	if p == nil && strings.TrimSpace(s) == "" {
		p = &problem{"the text is empty", ""}
	}
	*v = Phrase(s)
	return p
}
