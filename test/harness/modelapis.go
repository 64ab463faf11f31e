package harness

import (
	"fmt"
	"strings"
)

// What each API looks like. The models' own oddities are among it: Anthropic's pings and signed thinking, Gemini's thought
// signatures, the null usage of OpenAI's chunks, and calls of Ollama's that come whole.

func (a *reply) openAI() {
	stop, calls := "stop", "null"
	if a.tool != "" {
		stop = "tool_calls"
		calls = fmt.Sprintf(`[{"id":"call_9Zx","type":"function","function":{"name":%q,"arguments":%s}}]`, a.tool, quoted(a.args))
	}
	const usage = `{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}`
	if !a.stream {
		a.json(`{"id":"chatcmpl-1","object":"chat.completion","created":1741476542,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%s,"tool_calls":%s},"finish_reason":%q}],"usage":%s}`,
			quoted(a.text), calls, stop, usage)
		return
	}
	chunk := func(choices, usage string) {
		a.event("", `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1741476542,"model":"m","choices":[%s],"usage":%s}`, choices, usage)
	}
	delta := func(delta, stop string) { chunk(`{"index":0,"delta":`+delta+`,"finish_reason":`+stop+`}`, "null") }
	delta(`{"role":"assistant","content":""}`, "null")
	for _, p := range pieces(a.text) {
		delta(`{"content":`+quoted(p)+`}`, "null")
	}
	if a.tool != "" {
		delta(fmt.Sprintf(`{"tool_calls":[{"index":0,"id":"call_9Zx","type":"function","function":{"name":%q,"arguments":""}}]}`, a.tool), "null")
		for _, p := range pieces(a.args) {
			delta(`{"tool_calls":[{"index":0,"function":{"arguments":`+quoted(p)+`}}]}`, "null")
		}
	}
	delta(`{}`, `"`+stop+`"`)
	chunk("", usage)
	a.event("", "[DONE]")
}

func (a *reply) completions() {
	object := func(text, stop string) string {
		return fmt.Sprintf(`{"id":"cmpl-1","object":"text_completion","created":1741476542,"model":"m","choices":[{"index":0,"text":%s,"logprobs":null,"finish_reason":%s}]}`, quoted(text), stop)
	}
	if !a.stream {
		a.json("%s", object(a.text, `"stop"`))
		return
	}
	for _, p := range pieces(a.text) {
		a.event("", "%s", object(p, "null"))
	}
	a.event("", "%s", object("", `"stop"`))
	a.event("", "[DONE]")
}

func (a *reply) responses() {
	const usage = `{"input_tokens":19,"input_tokens_details":{"cached_tokens":0},"output_tokens":10,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":29}`
	response := func(status, output, usage string) string {
		return fmt.Sprintf(`{"id":"resp_1","object":"response","created_at":1741476542,"status":%q,"error":null,"incomplete_details":null,"model":"m","output":[%s],"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":%s,"metadata":{}}`,
			status, output, usage)
	}
	message := `{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":` + quoted(a.text) + `,"annotations":[]}]}`
	call := ""
	kind, key := "function_call", "arguments"
	text := strings.HasPrefix(a.args, `"`) // a tool that takes a text
	if text {
		kind, key = "custom_tool_call", "input"
	}
	item := func(args, status string) string {
		return fmt.Sprintf(`{"id":"fc_1","type":%q,"status":%q,%q:%s,"call_id":"call_9Zx","name":%q,"namespace":%q}`, kind, status, key, args, a.tool, a.space)
	}
	args := quoted(a.args)
	if text {
		args = a.args
	}
	output := message
	if a.tool != "" {
		call = item(args, "completed")
		output += "," + call
	}
	if !a.stream {
		a.json("%s", response("completed", output, usage))
		return
	}
	put := func(kind, rest string, values ...any) {
		a.event(kind, `{"type":%q,"sequence_number":%d,`+rest+`}`, append([]any{kind, a.n}, values...)...)
	}
	put("response.created", `"response":%s`, response("in_progress", "", "null"))
	put("response.in_progress", `"response":%s`, response("in_progress", "", "null"))
	put("response.output_item.added", `"output_index":0,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}`)
	put("response.content_part.added", `"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}`)
	for _, p := range pieces(a.text) {
		put("response.output_text.delta", `"item_id":"msg_1","output_index":0,"content_index":0,"delta":%s`, quoted(p))
	}
	put("response.output_text.done", `"item_id":"msg_1","output_index":0,"content_index":0,"text":%s`, quoted(a.text))
	put("response.content_part.done", `"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":%s,"annotations":[]}`, quoted(a.text))
	put("response.output_item.done", `"output_index":0,"item":%s`, message)
	if a.tool != "" {
		put("response.output_item.added", `"output_index":1,"item":%s`, item(`""`, "in_progress"))
		put("response."+kind+"_"+key+".delta", `"item_id":"fc_1","output_index":1,"delta":%s`, args)
		put("response."+kind+"_"+key+".done", `"item_id":"fc_1","output_index":1,%q:%s`, key, args)
		put("response.output_item.done", `"output_index":1,"item":%s`, call)
	}
	put("response.completed", `"response":%s`, response("completed", output, usage))
}

func (a *reply) anthropic() {
	stop := "end_turn"
	blocks := `{"type":"thinking","thinking":"Hm.","signature":"` + signature + `"},{"type":"text","text":` + quoted(a.text) + `}`
	if a.tool != "" {
		stop = "tool_use"
		blocks += fmt.Sprintf(`,{"type":"tool_use","id":"toolu_9Zx","name":%q,"input":%s}`, a.tool, a.args)
	}
	message := func(content, stop string, out int) string {
		return fmt.Sprintf(`{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[%s],"stop_reason":%s,"stop_sequence":null,"usage":{"input_tokens":15,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":%d}}`,
			content, stop, out)
	}
	if !a.stream {
		a.json("%s", message(blocks, `"`+stop+`"`, 10))
		return
	}
	block := func(i int, start, kind, key string, pieces []string) {
		a.event("content_block_start", `{"type":"content_block_start","index":%d,"content_block":%s}`, i, start)
		for _, p := range pieces {
			a.event("content_block_delta", `{"type":"content_block_delta","index":%d,"delta":{"type":%q,%q:%s}}`, i, kind, key, quoted(p))
		}
		if kind == "thinking_delta" {
			a.event("content_block_delta", `{"type":"content_block_delta","index":%d,"delta":{"type":"signature_delta","signature":%q}}`, i, signature)
		}
		a.event("content_block_stop", `{"type":"content_block_stop","index":%d}`, i)
	}
	a.event("message_start", `{"type":"message_start","message":%s}`, message("", "null", 1))
	block(0, `{"type":"thinking","thinking":"","signature":""}`, "thinking_delta", "thinking", []string{"Hm."})
	a.event("ping", `{"type":"ping"}`)
	block(1, `{"type":"text","text":""}`, "text_delta", "text", pieces(a.text))
	if a.tool != "" {
		block(2, fmt.Sprintf(`{"type":"tool_use","id":"toolu_9Zx","name":%q,"input":{}}`, a.tool), "input_json_delta", "partial_json", pieces(a.args))
	}
	a.event("message_delta", `{"type":"message_delta","delta":{"stop_reason":%q,"stop_sequence":null},"usage":{"output_tokens":10}}`, stop)
	a.event("message_stop", `{"type":"message_stop"}`)
}

func (a *reply) ollama() {
	line := func(message, end string) {
		a.w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprintf(a.w, `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant",%s},%s}`+"\n", message, end)
	}
	const done = `"done":true,"done_reason":"stop","total_duration":5,"load_duration":1,"prompt_eval_count":19,"prompt_eval_duration":2,"eval_count":10,"eval_duration":2`
	calls := ""
	if a.tool != "" {
		calls = fmt.Sprintf(`,"tool_calls":[{"function":{"name":%q,"arguments":%s}}]`, a.tool, a.args)
	}
	if !a.stream {
		line(`"content":`+quoted(a.text)+calls, done)
		return
	}
	for _, p := range pieces(a.text) {
		line(`"content":`+quoted(p), `"done":false`)
	}
	if calls != "" {
		line(`"content":""`+calls, `"done":false`)
	}
	line(`"content":""`, done)
}

func (a *reply) gemini() {
	const usage = `"usageMetadata":{"promptTokenCount":19,"candidatesTokenCount":8,"totalTokenCount":29,"thoughtsTokenCount":2},"modelVersion":"gemini-3-pro-preview","responseId":"mAit"`
	answer := func(parts, stop string) string {
		return `{"candidates":[{"content":{"parts":[` + parts + `],"role":"model"},` + stop + `"index":0}],` + usage + `}`
	}
	call := ""
	if a.tool != "" {
		call = fmt.Sprintf(`,{"functionCall":{"name":%q,"args":%s},"thoughtSignature":"CiQB"}`, a.tool, a.args)
	}
	if !a.stream {
		a.json("%s", answer(`{"text":`+quoted(a.text)+`}`+call, `"finishReason":"STOP",`))
		return
	}
	for _, p := range pieces(a.text) {
		a.event("", "%s", answer(`{"text":`+quoted(p)+`}`, ""))
	}
	a.event("", "%s", answer(strings.TrimPrefix(call, ","), `"finishReason":"STOP",`))
}
