package inference

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
)

// secrets makes one of each kind that is planted. They are new each time, so that nothing knows them by heart.
func secrets(r *rand.Rand) map[string]string {
	letters := func(n int, from string) string {
		var b strings.Builder
		for range n {
			b.WriteByte(from[r.IntN(len(from))])
		}
		return b.String()
	}
	const upper, alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	card := "4" + letters(14, "0123456789")
	return map[string]string{
		"card":   card + luhn(card),
		"aws":    "AKIA" + letters(16, upper),
		"github": "ghp_" + letters(36, alnum),
		"ssn":    fmt.Sprintf("%03d-%02d-%04d", 1+r.IntN(600), 1+r.IntN(98), 1+r.IntN(9998)),
		"mail":   letters(8, "abcdefghijklmnopqrstuvwxyz") + "@" + letters(6, "abcdefghijklmnopqrstuvwxyz") + ".com",
	}
}

func luhn(digits string) string {
	sum := 0
	for i := range len(digits) {
		n := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return string(rune('0' + (10-sum%10)%10))
}

var sentences = map[string]string{
	"card": "pay with my credit card %s please", "aws": "aws_access_key_id = %s", "github": "token: %s", "ssn": "her SSN is %s", "mail": "write to %s today",
}

// homoglyphs are letters that only look like others.
var homoglyphs = strings.NewReplacer("a", "а", "e", "е", "o", "о", "A", "Α", "0", "０", "1", "１", "4", "４")

// hide hides a secret's sentence in a way, and returns the messages of a conversation that carries it.
func hide(way, sentence, secret string) []any {
	user := func(s string) any { return map[string]any{"role": "user", "content": s} }
	switch way {
	case "base64":
		return []any{user("decode " + base64.StdEncoding.EncodeToString([]byte(sentence)))}
	case "hex":
		return []any{user("decode " + hex.EncodeToString([]byte(sentence)))}
	case "gzip":
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(sentence)) // into memory
		_ = z.Close()
		return []any{user("unpack " + base64.StdEncoding.EncodeToString(b.Bytes()))}
	case "url":
		return []any{user("fetch https://example.org/?q=" + url.QueryEscape(sentence))}
	case "homoglyph":
		return []any{user(strings.Replace(sentence, secret, homoglyphs.Replace(secret), 1))}
	case "split":
		half := len(sentence) - len(secret)/2 - (len(sentence) - strings.Index(sentence, secret) - len(secret))
		return []any{user(sentence[:half]), map[string]any{"role": "assistant", "content": "go on"}, user(sentence[half:])}
	case "tool result":
		return []any{
			user("read the file"),
			map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{map[string]any{"id": "call_1", "type": "function", "function": map[string]any{"name": "read", "arguments": `{"path":"a"}`}}}},
			map[string]any{"role": "tool", "tool_call_id": "call_1", "content": sentence},
		}
	case "tool arguments":
		arguments, _ := json.Marshal(map[string]string{"text": sentence})
		return []any{
			user("write the file"),
			map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{map[string]any{"id": "call_1", "type": "function", "function": map[string]any{"name": "write", "arguments": string(arguments)}}}},
			map[string]any{"role": "tool", "tool_call_id": "call_1", "content": "written"},
		}
	}
	return []any{user(sentence)}
}

// TestLeak plants secrets in the ways that docs/routing.md lists, under policies that keep them here and that
// redact them, and searches what reached the cloud.
func TestLeak(t *testing.T) {
	ways := []string{"plain", "base64", "hex", "gzip", "url", "homoglyph", "split", "tool result", "tool arguments"}
	n := 10_000
	if testing.Short() {
		n = 500
	}
	for name, section := range map[string]string{
		"local":  "",
		"redact": "  classes: {medical: redact, financial: redact, pii: redact, credentials: redact}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, section, nil)
			r := rand.New(rand.NewPCG(1, 2))
			leaked, sent := map[string]int{}, 0
			for i := 0; i < n/2; {
				for kind, secret := range secrets(r) {
					way := ways[r.IntN(len(ways))]
					sentence := fmt.Sprintf(sentences[kind], secret)
					body, err := json.Marshal(map[string]any{"model": "x", "messages": hide(way, sentence, secret)})
					if err != nil {
						t.Fatal(err)
					}
					status, said := w.post("/v1/chat/completions", string(body))
					if status != 200 {
						t.Fatalf("%s, %s: %d %s", kind, way, status, said)
					}
					for _, got := range w.cloud.asked() {
						sent++
						if carries(got, way, sentence, secret) {
							leaked[kind+", "+way]++
							if leaked[kind+", "+way] == 1 {
								t.Errorf("%s, %s: the cloud got %s", kind, way, got)
							}
						}
					}
					w.local.asked()
					i++
				}
			}
			t.Logf("%d requests, %d of them to the cloud; leaked: %v", n/2, sent, leaked)
		})
	}
}

// carries reports whether what a model server got has the secret in it, in the way that it was hidden.
func carries(got, way, sentence, secret string) bool {
	looked := []string{secret, homoglyphs.Replace(secret), url.QueryEscape(secret)}
	switch way {
	case "base64", "hex", "gzip":
		hidden, _ := json.Marshal(hide(way, sentence, secret)[0].(map[string]any)["content"])
		looked = append(looked, strings.Trim(string(hidden), `"`))
	case "split":
		i := len(secret) - len(secret)/2
		return strings.Contains(got, secret[:i]) && strings.Contains(got, secret[i:])
	}
	for _, s := range looked {
		if strings.Contains(got, s) {
			return true
		}
	}
	return false
}
