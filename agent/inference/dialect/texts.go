package dialect

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Texts are everything of a request that a model server would see and that isn't a protocol word, in order: strings, keys
// and numbers, wherever they are. Replacing them changes what Write writes; a replaced number is written as a string.
// Not among them are the model's name, which the router chooses, and the ids of tool calls, which ReadRequest renames.
func (r *Request) Texts() []*string {
	var out []*string
	if r.tree == nil {
		return nil
	}
	for i, k := range r.tree.keys {
		if k == "model" && r.tree.items[i].kind == text {
			continue
		}
		if !keywords[k] {
			out = append(out, &r.tree.keys[i])
		}
		if !r.tree.items[i].isSetting(k) {
			r.tree.items[i].texts(k, &out)
		}
	}
	return out
}

// Aside are those of Texts that are no part of the conversation: who asks and for what, for the server's books.
func (r *Request) Aside() map[*string]bool {
	var list []*string
	for _, k := range []string{"metadata", "client_metadata", "prompt_cache_key", "user", "safety_identifier"} {
		if v := r.tree.get(k); v != nil {
			v.texts(k, &list)
		}
	}
	out := make(map[*string]bool, len(list))
	for _, t := range list {
		out[t] = true
	}
	return out
}

// isSetting says whether v is one of the protocol's numbers (max_tokens, temperature, those of Ollama's options), where they
// belong and too short to be worth hiding something in.
func (v *value) isSetting(key string) bool {
	return v.kind == number && numberKeys[key] && len(v.text) <= 6
}

// texts appends what v says that isn't a protocol word; key is the key that it's under.
func (v *value) texts(key string, out *[]*string) {
	switch {
	case v.kind == object:
		for i, k := range v.keys {
			if !keywords[k] {
				*out = append(*out, &v.keys[i])
			}
			if (key == "options" || key == "thinking") && v.items[i].isSetting(k) {
				continue
			}
			v.items[i].texts(k, out)
		}
	case v.kind == array:
		for _, item := range v.items {
			item.texts(key, out)
		}
	case v.held != nil:
		v.held.texts("", out)
	case v.kind == text:
		if v.text != "" && !isWord(key, v.text) {
			*out = append(*out, &v.text)
		}
	case v.kind == number:
		*out = append(*out, &v.text)
	}
}

func isWord(key, s string) bool {
	return wordKeys[key] && words[s] || ids[key] && (isCallID(s) || isItemID(s))
}

func set(lists ...string) map[string]bool {
	m := map[string]bool{}
	for _, l := range lists {
		for _, w := range strings.Fields(l) {
			m[w] = true
		}
	}
	return m
}

// The protocol's own words. They are the same wherever they stand, so skipping them hides nothing.
var (
	wordKeys = set(`type role object effort mode format detail status finish_reason stop_reason done_reason media_type
		mimeType mime_type tool_choice reasoning_effort verbosity truncation summary service_tier function_call think
		modalities include responseMimeType required ttl display phase responseModalities syntax`)
	words = set(`text user assistant system developer tool function model message messages image image_url input_text
		output_text input_image input_file input_audio file audio document base64 url tool_use tool_result thinking
		redacted_thinking function_call function_call_output custom custom_tool_call custom_tool_call_output namespace reasoning
		summary_text reasoning_text refusal json json_object json_schema auto none any required low medium high minimal
		xhigh max enabled disabled adaptive ephemeral object string number integer boolean array null concise detailed
		completed in_progress incomplete default 5m 1h grammar lark regex stop length tool_calls content_filter end_turn
		max_tokens stop_sequence image/png image/jpeg image/gif image/webp application/pdf text/plain application/json
		reasoning.encrypted_content OBJECT STRING NUMBER INTEGER BOOLEAN ARRAY AUTO NONE ANY TEXT chat.completion list
		embedding float original`)
	numberKeys = set(`max_tokens max_completion_tokens max_output_tokens temperature top_p top_k top_logprobs n seed
		frequency_penalty presence_penalty budget_tokens num_ctx num_predict num_keep num_gpu num_thread num_batch
		repeat_penalty repeat_last_n min_p typical_p tfs_z mirostat mirostat_tau mirostat_eta keep_alive dimensions
		max_tool_calls`)  // not everywhere, see isSetting
	keywords = set(`model messages role content type text name tool_calls tool_call_id id function arguments tools
		description parameters properties required items enum additionalProperties strict input_schema cache_control
		system max_tokens max_completion_tokens max_output_tokens temperature top_p top_k stream stream_options
		include_usage stop stop_sequences seed n user metadata user_id tool_choice parallel_tool_calls
		disable_parallel_tool_use response_format json_schema schema format options image_url url detail source
		media_type data tool_use_id is_error input thinking signature budget_tokens output_config effort reasoning
		reasoning_effort summary encrypted_content instructions call_id output include store prompt_cache_key verbosity
		logprobs top_logprobs frequency_penalty presence_penalty logit_bias service_tier safety_identifier images
		tool_name think keep_alive prompt suffix template context raw num_ctx num_predict encoding_format dimensions
		truncate truncation previous_response_id file file_data filename file_id input_audio refusal annotations title
		citations contents parts systemInstruction system_instruction functionCall functionResponse functionDeclarations
		args response inlineData mimeType fileData fileUri generationConfig toolConfig functionCallingConfig mode
		allowedFunctionNames maxOutputTokens stopSequences topP topK thought thoughtSignature thinkingConfig
		thinkingBudget includeThoughts responseMimeType responseJsonSchema parametersJsonSchema requests taskType
		status prompt_cache_retention background modalities reasoning_content budget ttl display display_name logit
		$schema anyOf oneOf allOf default minimum maximum minItems maxItems minLength maxLength pattern eager_input_streaming
		num_keep num_gpu num_thread num_batch repeat_penalty repeat_last_n min_p typical_p tfs_z mirostat mirostat_tau
		mirostat_eta penalize_newline numa use_mmap use_mlock grammar syntax definition custom speed namespace`)
	ids = set(`id tool_call_id tool_use_id call_id`)
)

// Unseen is something that a model would see and that Texts can't show.
type Unseen string

// What can't be judged from the request alone.
const (
	UnseenImage     Unseen = "image"     // the pixels of an image
	UnseenAudio     Unseen = "audio"     // a recording
	UnseenDocument  Unseen = "document"  // a file in another form than text
	UnseenLink      Unseen = "link"      // what a URL leads to, that the server would fetch
	UnseenStored    Unseen = "stored"    // what the server keeps under an id: files, earlier answers, prompts
	UnseenEncrypted Unseen = "encrypted" // reasoning that only its maker can read
	UnseenTokens    Unseen = "tokens"    // texts as the numbers of a tokenizer
	UnseenServer    Unseen = "server"    // what a tool that the server runs would fetch
)

// Unseen says which kinds of things a model would see of this request that Texts doesn't show, each once.
func (r *Request) Unseen() []Unseen {
	seen := map[Unseen]bool{}
	r.tree.unseen("", 0, seen)
	var out []Unseen
	for _, u := range []Unseen{UnseenImage, UnseenAudio, UnseenDocument, UnseenLink, UnseenStored, UnseenEncrypted,
		UnseenTokens, UnseenServer} {
		if seen[u] {
			out = append(out, u)
		}
	}
	return out
}

// unseenKeys and unseenTypes are in small letters: see fold.
var unseenKeys = map[string]Unseen{
	"previous_response_id": UnseenStored, "conversation": UnseenStored, "file_id": UnseenStored,
	"cachedcontent": UnseenStored, "container": UnseenStored, "vector_store_ids": UnseenStored,
	"encrypted_content": UnseenEncrypted, "signature": UnseenEncrypted, "thoughtsignature": UnseenEncrypted,
	"fileuri": UnseenLink, "file_uri": UnseenLink, "file_url": UnseenLink, "server_url": UnseenLink,
	"mcp_servers": UnseenServer, "images": UnseenImage, "inlinedata": UnseenImage, "inline_data": UnseenImage,
	"input_audio": UnseenAudio, "file_data": UnseenDocument, "context": UnseenTokens, "container_id": UnseenStored,
	// vLLM's and its like's:
	"prompt_embeds": UnseenTokens, "input_embeds": UnseenTokens, "image_embeds": UnseenImage, "audio_embeds": UnseenAudio,
	"video_url": UnseenImage, "audio_url": UnseenAudio, "multi_modal_data": UnseenDocument,
}

var unseenTypes = map[string]Unseen{
	"image": UnseenImage, "image_url": UnseenImage, "input_image": UnseenImage, "input_audio": UnseenAudio,
	"redacted_thinking": UnseenEncrypted, "item_reference": UnseenStored, "web_search": UnseenServer,
	"web_search_preview": UnseenServer, "file_search": UnseenServer, "mcp": UnseenServer, "url": UnseenLink,
	"code_interpreter": UnseenServer, "document": UnseenDocument, "compaction": UnseenEncrypted,
	"image_generation": UnseenServer, "video": UnseenImage, "video_url": UnseenImage, "input_video": UnseenImage,
	"audio": UnseenAudio, "audio_url": UnseenAudio,
}

// fold is a key or a type as servers written in Go know it, in any case: theirs is Unicode's, which has two more letters that are an
// s and a k.
func fold(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return strings.ToLower(strings.ToUpper(s))
		}
	}
	return strings.ToLower(s)
}

// unseen looks at every object, wherever it is: to see too much only keeps a request at home.
func (v *value) unseen(key string, depth int, seen map[Unseen]bool) {
	if v == nil {
		return
	}
	if v.kind == text {
		unseenText(key, v.text, seen)
	}
	if v.kind == object && depth == 0 && v.get("prompt").is(object) {
		seen[UnseenStored] = true
	}
	skip := v.asText()
	for i, item := range v.items {
		k := key
		if v.kind == object {
			k = fold(v.keys[i])
			if slices.Contains(skip, v.keys[i]) {
				continue
			}
		}
		if u, ok := unseenKeys[k]; ok && item.says() && (k != "context" || item.numbers()) {
			seen[u] = true
		}
		if k == "web_search_options" && item.is(object) { // says nothing, and searches
			seen[UnseenServer] = true
		}
		if (k == "input" || k == "prompt") && depth == 0 && (item.numbers() || slices.ContainsFunc(item.list(), (*value).numbers)) {
			seen[UnseenTokens] = true
		}
		item.unseen(k, depth+1, seen)
	}
}

// unseenText is what a text is beside a text.
func unseenText(key, s string, seen map[Unseen]bool) {
	switch {
	case (key == "url" || key == "image_url") && strings.Contains(s, "://"):
		seen[UnseenLink] = true
	case key == "type":
		kind := fold(s)
		u, known := unseenTypes[kind]
		switch {
		case known:
			seen[u] = true
		case kind == "base64" && !seen[UnseenImage] && !seen[UnseenDocument]: // of what nobody here knows
			seen[UnseenDocument] = true
		case strings.HasPrefix(kind, "web_") || strings.HasPrefix(kind, "code_execution"):
			seen[UnseenServer] = true
		}
	}
	if strings.Contains(s, "<img src=\"data:") { // NVIDIA's models have images in texts
		seen[UnseenImage] = true
	}
	if !seen[UnseenImage] && !seen[UnseenDocument] && !seen[UnseenAudio] && isData(s) {
		seen[UnseenDocument] = true
	}
}

// isData says whether all of a text is the address of what it has in it, which whatever key it is under a server may take for a file.
func isData(s string) bool {
	s = strings.TrimSpace(s)
	return len(s) > 5 && strings.EqualFold(s[:5], "data:") && strings.Contains(strings.ToLower(s[:min(len(s), 4096)]), ";base64,")
}

// asText are the members of an object that a model sees as text, whatever they look like: arguments and schemas of tools, and
// documents of plain text.
func (v *value) asText() []string {
	switch v.get("type").str() {
	case "tool_use", "server_tool_use", "mcp_tool_use":
		return []string{"input"}
	case "document":
		if v.get("source", "type").str() == "text" {
			return []string{"type"}
		}
	}
	return []string{"arguments", "parameters", "input_schema", "schema"}
}

// numbers says whether v is an array of numbers.
func (v *value) numbers() bool { return v.is(array) && len(v.items) > 0 && v.items[0].kind == number }

// says is whether there is anything in v.
func (v *value) says() bool {
	return v != nil && v.kind != null && (v.text != "" || len(v.items) > 0) && v.text != "false"
}
