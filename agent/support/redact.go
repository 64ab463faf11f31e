package support

import (
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// redacted stands where something was taken away.
const redacted = "[redacted]"

// secretName is what the name of a secret has in it.
const secretName = `(?:[\w.-]*(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key|apikey|auth(?:orization)?|credential|cookie|session|private|access[_-]?key)[\w.-]*|[\w.-]*[_-]key|key)`

// rules take secrets out of a text, by the names before them and by their own form. Each keeps its first group.
// They are made when they are needed: every command of nemoclaw would wait for them.
var rules = sync.OnceValue(func() []*regexp.Regexp {
	return []*regexp.Regexp{
		// Keys in PEM, to their end or to that of the text.
		regexp.MustCompile(`(?s)()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`),
		// Authorization: Bearer X, also without the name.
		regexp.MustCompile(`(?i)(\b(?:authorization|proxy-authorization)["']?\s*[:=]\s*["']?)[^\r\n"']+`),
		regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}`),
		// https://user:password@host, and what follows ? in an address.
		regexp.MustCompile(`(://)[^/\s@"']+@`),
		regexp.MustCompile(`(\b[a-z][a-z0-9+.-]*://[^\s"'?]*\?)[^\s"']+`),
		// Who knows the address of a webhook may send to it.
		regexp.MustCompile(`(\bwebhook["']?\s*[=:]\s*["']?[a-z]+://[^/\s"']+/)[^\s"']+`),
		// NAME=value, "name": "value", --name value, name: value.
		regexp.MustCompile(`(?i)(\b` + secretName + `["']?\s*[=:]\s*)(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"',;&]+)`),
		regexp.MustCompile(`(?i)(--?` + secretName + `\s+)(?:"[^"]*"|'[^']*'|[^\s"']+)`),
		// What the givers of keys write in front of them.
		regexp.MustCompile(`()\b(?:nvapi-|sk-|sk_|pk_|rk_|ghp_|gho_|ghu_|ghs_|github_pat_|glpat-|xox[a-z]-|hf_|npm_|pypi-|dop_v1_|AKIA|ASIA|AIza|ya29\.|SG\.)[\w.-]{8,}`),
		regexp.MustCompile(`()\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?`),
		regexp.MustCompile(`()\b\d{6,12}:[\w-]{30,}`), // a bot's, of Telegram
	}
})

// long finds words that may be keys by their length; hash says which are ours.
var (
	long = regexp.MustCompile(`[A-Za-z0-9_+=-]{24,}`)
	hash = regexp.MustCompile(`^(?:[0-9a-f]{16}|[0-9a-f]{64})$`) // a policy's revision, a line of an audit log
)

// Text takes out of a text what looks like a secret. It takes too much rather than too little.
func Text(s string) string {
	for _, r := range rules() {
		s = r.ReplaceAllString(s, "${1}"+redacted)
	}
	return long.ReplaceAllStringFunc(s, func(word string) string {
		if hash.MatchString(word) || !looksRandom(word) {
			return word
		}
		return redacted
	})
}

// looksRandom tells keys from long names: in a key small letters, capitals and digits take turns.
func looksRandom(s string) bool {
	changes, before := 0, ""
	for _, r := range s {
		kind := ""
		switch {
		case unicode.IsDigit(r):
			kind = "digit"
		case unicode.IsUpper(r):
			kind = "capital"
		case unicode.IsLower(r):
			kind = "small"
		}
		if kind != "" && before != "" && kind != before {
			changes++
		}
		if kind != "" {
			before = kind
		}
	}
	return changes*5 >= len(s)
}

// valuesOf are fields of JSON whose every value goes, names kept.
var valuesOf = map[string]bool{"env": true, "config": true, "set": true}

// contents are fields that may have a piece of a conversation with a model, or what a tool gave.
var contents = map[string]bool{"matches": true, "params": true, "result": true}

// JSON redacts every text in a JSON document, and the values of environments and settings whatever they look like.
func JSON(src []byte) ([]byte, error) {
	var v any
	if err := json.Unmarshal(src, &v); err != nil {
		return nil, err
	}
	return json.Marshal(walk("", v))
}

func walk(key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if valuesOf[key] || contents[k] || secretField.MatchString(k) {
				v[k] = hide(e)
				continue
			}
			v[k] = walk(k, e)
		}
		return v
	case []any:
		for i, e := range v {
			if s, isText := e.(string); isText && valuesOf[key] {
				name, _, _ := strings.Cut(s, "=")
				v[i] = name + "=" + redacted
				continue
			}
			v[i] = walk(key, e)
		}
		return v
	case string:
		if key == "args" {
			return arguments(v)
		}
		return Text(v)
	}
	return v
}

var secretField = regexp.MustCompile(`(?i)^` + secretName + `$`)

// hide redacts a value, whatever is in it; that there is none stays.
func hide(v any) any {
	if s, isText := v.(string); isText && (s == "" || states[s]) {
		return s
	}
	return redacted
}

// states are what the daemon says of a key instead of the key.
var states = map[string]bool{"none": true, "unverified": true, "verified": true}

// arguments keeps of a command line its words that are flags' names, paths and short; a value behind = goes.
func arguments(s string) string {
	words := strings.Fields(Text(s))
	for i, w := range words {
		name, _, assigned := strings.Cut(w, "=")
		switch {
		case w == redacted:
		case assigned:
			words[i] = name + "=" + redacted
		case len(w) > 40 && !strings.HasPrefix(w, "/"):
			words[i] = redacted
		}
	}
	return strings.Join(words, " ")
}
