package audit

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/policy"
)

// AppendJSON appends d as one JSON object to dst and returns it. The fields, their order and what is left out when
// empty are those of the struct tags of policy.Decision. It differs from encoding/json in what it lets through: every
// character that isn't printable (C1 controls and bidi overrides included) is written as \uXXXX, so the log can be
// shown on a terminal, and a byte that isn't UTF-8 is kept, as the four characters \xNN, where encoding/json loses it.
func AppendJSON(dst []byte, d *policy.Decision) []byte {
	var texts [maxTexts]text
	dst, _ = appendRecord(dst, texts[:0], d)
	return dst
}

// appendRecord is AppendJSON, and appends to texts where they are in dst: what cutTexts would find.
func appendRecord(dst []byte, texts []text, d *policy.Decision) ([]byte, []text) {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, d.Seq, 10)
	dst = append(dst, `,"time":"`...)
	dst = d.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	dst = field(dst, "sandbox", d.Sandbox)
	dst = field(dst, "plane", string(d.Plane))
	dst = field(dst, "action", d.Action)
	dst, texts = textField(dst, texts, "object", d.Object)
	dst = append(dst, `,"subject":{`...)
	start, first := len(dst), len(texts)
	if d.Subject.PID != 0 {
		dst = append(dst, `,"pid":`...)
		dst = strconv.AppendInt(dst, int64(d.Subject.PID), 10)
	}
	if d.Subject.Exe != "" {
		dst, texts = textField(dst, texts, "exe", d.Subject.Exe)
	}
	if d.Subject.Args != "" {
		dst, texts = textField(dst, texts, "args", d.Subject.Args)
	}
	if d.Subject.Taint != "" {
		dst = field(dst, "taint", d.Subject.Taint)
	}
	if len(dst) > start { // the first field has no comma before it
		dst = append(dst[:start], dst[start+1:]...)
		for i := first; i < len(texts); i++ {
			texts[i].start--
			texts[i].end--
		}
	}
	dst = append(dst, '}')
	if d.Asked != "" {
		dst = field(dst, "asked", d.Asked)
	}
	dst = field(dst, "verdict", d.Verdict.String())
	dst = field(dst, "rule", d.Rule)
	if d.Reason != "" {
		dst, texts = textField(dst, texts, "reason", d.Reason)
	}
	if d.Inference != nil {
		in := scan{at: len(dst) + len(`,"inference":{`), texts: texts}
		dst = appendCall(dst, d.Inference)
		in.b = dst
		in.object(ofInference) // appendCall has written it
		texts = in.texts
	}
	dst = field(dst, "revision", d.Revision)
	if d.Count != 0 {
		dst = append(dst, `,"count":`...)
		dst = strconv.AppendUint(dst, d.Count, 10)
	}
	return append(dst, '}'), texts
}

// textField is field for what can be erased.
func textField(dst []byte, texts []text, key, value string) ([]byte, []text) {
	at := len(dst) + len(`,"":`) + len(key)
	dst = field(dst, key, value)
	return dst, append(texts, text{at, len(dst), aText})
}

func field(dst []byte, key, value string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, key...)
	return quoted(append(dst, '"', ':'), value)
}

// quoted appends a value as a JSON string.
func quoted(dst []byte, value string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(value); {
		plain := i
		for plain < len(value) && isPlain(value[plain]) {
			plain++
		}
		if plain > i {
			dst = append(dst, value[i:plain]...)
			i = plain
			continue
		}
		r, n := utf8.DecodeRuneInString(value[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, '\\', '\\', 'x', digits[value[i]>>4], digits[value[i]&0xf])
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case unicode.IsPrint(r):
			dst = append(dst, value[i:i+n]...)
		case r > 0xffff:
			hi, lo := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			dst = unit(unit(dst, hi), lo)
		default:
			dst = unit(dst, r)
		}
		i += n
	}
	return append(dst, '"')
}

// isPlain reports whether a byte stands for itself in a JSON string.
func isPlain(c byte) bool { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\' }

const digits = "0123456789abcdef"

// unit appends one UTF-16 code unit as JSON writes it.
func unit(dst []byte, u rune) []byte {
	return append(dst, '\\', 'u', digits[u>>12&0xf], digits[u>>8&0xf], digits[u>>4&0xf], digits[u&0xf])
}
