package classify

import (
	"math"
	"strings"
)

// pem finds a private key in its armour, to its end or to that of the text.
func (s *scanner) pem(i int) int {
	t := s.s[i:]
	if !strings.HasPrefix(t, "-----BEGIN ") && !strings.HasPrefix(t, "---- BEGIN ") {
		return i
	}
	head := t[:min(len(t), 80)]
	if n := strings.Index(head[11:], "----"); n < 0 || !strings.Contains(head[:11+n], "PRIVATE KEY") {
		return i
	}
	end := len(t)
	if n := strings.Index(t, "-END "); n >= 0 {
		end = n + 5
		for end < len(t) && end < n+80 && t[end] != '-' && t[end] != '\n' {
			end++
		}
		for end < len(t) && t[end] == '-' {
			end++
		}
	}
	s.took(Credentials, "private-key", i, i+end)
	return i + end - 1
}

// userinfo is the password in https://user:password@host.
func (s *scanner) userinfo(i int) {
	t := s.s
	start := i + 3
	colon := -1
	for j := start; j < len(t) && j-start < 300; j++ {
		switch b := t[j]; {
		case b == '@':
			if colon < 0 || j-colon < 4 || s.standsFor(t[colon+1:j]) {
				return
			}
			s.add(Credentials, "url-password", start, j)
			s.done = max(s.done, j)
			return
		case b == ':' && colon < 0:
			colon = j
		case b <= ' ' || b == '/' || b == '"' || b == '\'' || b == '<' || b == '?' || b == '`' && colon < 0:
			return
		}
	}
}

// A format is a kind of token, by what it begins with.
type format struct {
	prefix string
	kind   string
	min    int  // characters behind the prefix
	dots   bool // they may be among them
}

// formats are what the givers of keys write in front of them.
var formats = []format{
	{"sk-ant-", "anthropic-key", 20, false}, {"sk-proj-", "openai-key", 20, false}, {"sk-svcacct-", "openai-key", 20, false},
	{"sk-or-", "openrouter-key", 20, false}, {"sk-", "openai-key", 20, false},
	{"sk_live_", "stripe-key", 16, false}, {"sk_test_", "stripe-key", 16, false}, {"rk_live_", "stripe-key", 16, false},
	{"rk_test_", "stripe-key", 16, false}, {"whsec_", "stripe-key", 20, false},
	{"ghp_", "github-token", 30, false}, {"gho_", "github-token", 30, false}, {"ghu_", "github-token", 30, false},
	{"ghs_", "github-token", 30, false}, {"ghr_", "github-token", 30, false}, {"github_pat_", "github-token", 30, false},
	{"glpat-", "gitlab-token", 18, true}, {"gldt-", "gitlab-token", 18, false}, {"glrt-", "gitlab-token", 18, false}, {"glptt-", "gitlab-token", 18, false},
	{"xoxb-", "slack-token", 16, false}, {"xoxp-", "slack-token", 16, false}, {"xoxa-", "slack-token", 16, false}, {"xoxr-", "slack-token", 16, false},
	{"xoxs-", "slack-token", 16, false}, {"xapp-", "slack-token", 16, false},
	{"nvapi-", "nvidia-key", 24, false}, {"hf_", "huggingface-token", 24, false}, {"npm_", "npm-token", 30, false}, {"pypi-", "pypi-token", 40, false},
	{"dop_v1_", "digitalocean-token", 40, false}, {"shpat_", "shopify-token", 30, false}, {"gsk_", "groq-key", 30, false}, {"xai-", "xai-key", 40, false},
	{"r8_", "replicate-token", 30, false}, {"SG.", "sendgrid-key", 40, true}, {"ya29.", "google-token", 20, true}, {"dckr_pat_", "docker-token", 20, false},
	{"glsa_", "grafana-token", 30, false}, {"sntrys_", "sentry-token", 30, true}, {"lin_api_", "linear-key", 30, false}, {"figd_", "figma-token", 30, false},
	{"hvs.", "vault-token", 20, true}, {"tvly-", "tavily-key", 20, false}, {"pplx-", "perplexity-key", 30, false}, {"sq0csp-", "square-key", 30, false},
	{"AGE-SECRET-KEY-1", "private-key", 50, false}, {"EAACEdEose0cBA", "facebook-token", 10, false}, {"secret-token:", "secret", 10, true},
}

// token looks for a token that begins with this word.
func (s *scanner) token(start, end int) {
	t := s.s
	if end >= len(t) || t[end] != '-' && t[end] != '_' && t[end] != '.' && t[end] != ':' || start > 0 && alnum(t[start-1]) {
		return
	}
	for i := range formats {
		f := &formats[i]
		if !strings.HasPrefix(t[start:], f.prefix) {
			continue
		}
		from := start + len(f.prefix)
		if to := f.end(t, from, from+tokenHead); to-from >= f.min && random(t[from:to]) {
			s.took(Credentials, f.kind, start, f.end(t, to, len(t)))
			return
		}
	}
}

// tokenHead is how much of a token is asked whether it was drawn.
const tokenHead = maxPassword

// end is where a token ends, not beyond far.
func (f *format) end(t string, to, far int) int {
	for to < len(t) && to < far && (alnum(t[to]) || t[to] == '-' || t[to] == '_' || f.dots && t[to] == '.' && to+1 < len(t) && alnum(t[to+1])) {
		to++
	}
	return to
}

// opaque looks at a long run of letters, digits and the signs of base64: tokens, keys, addresses of money, encoded text. Where
// characters outside ASCII are in it, what stands between them is looked at.
func (s *scanner) opaque(start, end int) {
	t := s.s
	for end < len(t) && (class[t[end]]&bBlob != 0 || t[end] == '=') {
		end++
	}
	if start < s.blobs0 {
		return
	}
	s.blobs0 = end
	for start < end {
		to := start
		for to < end && t[to] < 0x80 {
			to++
		}
		if to-start >= minBlob {
			s.opaqueRun(start, to)
		}
		start = to + 1
	}
}

func (s *scanner) opaqueRun(start, end int) {
	for i := start; i+minBlob <= end; {
		to := i
		for to < end && alnum(s.s[to]) {
			to++
		}
		if to-i >= 8 && i >= s.done {
			s.opaqueWord(i, to)
		}
		i = to + 1
	}
	s.encoded(start, end)
}

// opaqueWord tries what is told by its first letters.
func (s *scanner) opaqueWord(i, end int) {
	t := s.s
	w := t[i:end]
	n := len(w)
	switch {
	case n == 20 && (w[:4] == "AKIA" || w[:4] == "ASIA" || w[:4] == "ABIA" || w[:4] == "ACCA") && isUpper(w):
		s.took(Credentials, "aws-key", i, end)
	case w[:4] == "AIza":
		to := end
		for to < len(t) && (alnum(t[to]) || t[to] == '-' || t[to] == '_') {
			to++
		}
		if to-i >= 39 {
			s.took(Credentials, "google-key", i, to)
		}
	case w[:3] == "eyJ":
		s.jwt(i)
	case w[:3] == "EAA" && n > 60 && random(w):
		s.took(Credentials, "facebook-token", i, end)
	default:
		s.coin(i, end)
	}
}

// jwt is three parts of base64 with dots between, the first of which is JSON.
func (s *scanner) jwt(i int) {
	t := s.s
	head := max(i, s.jwtHead)
	for head < len(t) && (alnum(t[head]) || t[head] == '-' || t[head] == '_') {
		head++
	}
	if head == s.jwtHead {
		return // what begins before it was looked at, and was none
	}
	s.jwtHead = head
	if head-i < 8 {
		return
	}
	dots, to, part := 0, head, i
	for to < len(t) && to-head < 16<<10 && (alnum(t[to]) || t[to] == '-' || t[to] == '_' || t[to] == '.' && dots < 4) {
		if t[to] == '.' {
			if to-part < 8 && dots < 2 {
				return
			}
			dots++
			part = to + 1
		}
		to++
	}
	if dots >= 2 && to-i > 40 {
		s.took(Credentials, "jwt", i, to)
	}
}

// assigned is a secret behind its name: password = x, "api_key": "x", --token x, Authorization: Bearer x.
func (s *scanner) assigned(w *word, start, end int) {
	t := s.s
	i := end
	for i < len(t) && (alnum(t[i]) || t[i] == '_' || t[i] == '-') && i-end < 40 { // the rest of a name
		i++
	}
	quoted, sign, spaces := false, false, 0
	for ; i < len(t) && i-end < 60; i++ {
		switch t[i] {
		case ' ', '\t':
			spaces++
			continue
		case '"', '\'', '`':
			quoted = sign || t[i] == '`'
			continue
		case ':', '=', '>', '(':
			sign = true
			quoted = false
			continue
		case '\\':
			continue
		}
		break
	}
	if i == end {
		return
	}
	if !sign {
		// "the password is x", "token x" of a command line, "Bearer x"
		switch {
		case i+3 < len(t) && sameFold("is", t[i:i+2]) && t[i+2] == ' ':
			i += 3
			for i < len(t) && (t[i] == ' ' || t[i] == '"' || t[i] == '\'' || t[i] == '`' || t[i] == ':') {
				i++
			}
		case w.act&aBearer != 0, start >= 2 && t[start-1] == '-':
		default:
			return
		}
	}
	// "Authorization: Bearer x", "password: the x"
	value := s.value(i, quoted, tokenHead+1)
	if value == "" || w.act&aPassword != 0 && len(value) > maxPassword || s.standsFor(value) {
		return
	}
	kind := "secret"
	for j := range formats {
		if f := &formats[j]; strings.HasPrefix(value, f.prefix) && len(value) >= len(f.prefix)+f.min && random(value) {
			s.took(Credentials, f.kind, i, i+len(s.value(i, quoted, maxValue)))
			return
		}
	}
	switch {
	case w.act&aPassword != 0:
		if !passwordLike(value, quoted) {
			return
		}
		kind = "password"
	case w.act&aBearer != 0:
		if len(value) < 12 || !random(value) && entropy(value) < 3 {
			return
		}
	default:
		if len(value) < 12 || !random(value) {
			return
		}
	}
	if i < s.done {
		return
	}
	s.took(Credentials, kind, i, i+len(s.value(i, quoted, maxValue)))
}

// maxValue is how far what is assigned is followed.
const maxValue = 4096

// value reads what is assigned, so far.
func (s *scanner) value(i int, quoted bool, far int) string {
	t := s.s
	j := i
	for j < len(t) && j-i < far {
		b := t[j]
		if b < ' ' || b == '"' || b == '`' || b == '\'' && quoted || !quoted && (b == ' ' || b == '\'' || b == ',' || b == ';' || b == '<' || b == ')' || b == '&') || b == '\\' && j+1 < len(t) && (t[j+1] == '"' || t[j+1] == 'n' || t[j+1] == 'r') {
			break
		}
		j++
	}
	v := t[i:j]
	if !quoted {
		v = strings.TrimRight(v, ".?!:]}")
	}
	return v
}

// standsFor reports whether a value only stands for a secret: ${TOKEN}, <password>, ****, os.environ, changeme.
func (s *scanner) standsFor(v string) bool {
	if v == "" || strings.ContainsAny(v, "<>{}[]") || v[0] == '$' || v[0] == '%' || v[0] == '*' || strings.Contains(v, "(") || strings.Contains(v, "...") {
		return true
	}
	low := asciiLower(v)
	for _, p := range []string{"process.env", "os.environ", "env.", "secrets.", "config.", "settings.", "self.", "this.", "req.", "request.", "var.", "data.", "args.", "options.", "your", "my_", "my-", "example", "placeholder", "redacted", "xxxx", "null", "none", "true", "false", "undefined", "string", "required", "optional", "unknown", "changeme", "change_me", "dummy", "test_", "nil", "empty"} {
		if strings.HasPrefix(low, p) {
			return true
		}
	}
	return strings.Trim(low, "x*.•-_#") == ""
}

// maxPassword is how long a password is. A token that stands for one is told by its own form.
const maxPassword = 128

// passwordLike refuses what is a word of a sentence or of a program.
func passwordLike(v string, quoted bool) bool {
	if len(v) < 4 {
		return false
	}
	letters, digits, signs, upper := 0, 0, 0, 0
	for i := range len(v) {
		switch k := class[v[i]]; {
		case k&bDigit != 0:
			digits++
		case k&bLetter != 0:
			letters++
			if k&bUpper != 0 && i > 0 {
				upper++
			}
		case v[i] == '_' || v[i] == '.' || v[i] == '-' || v[i] == '/':
		default:
			signs++
		}
	}
	switch {
	case digits > 0 && letters+signs > 0 && len(v) >= 6, signs > 0 && letters > 0 && len(v) >= 6:
		return true
	case quoted:
		return len(v) >= 6 && !strings.ContainsAny(v, " ")
	}
	return digits == 0 && letters == 0 && signs > 3 || digits == len(v) && digits >= 6
}

// random reports whether a text was drawn rather than written: letters and digits of several kinds in no order.
func random(v string) bool {
	kinds := uint8(0)
	for i := range len(v) {
		kinds |= class[v[i]]
	}
	if kinds&bDigit == 0 || kinds&bLetter == 0 {
		return len(v) >= 32 && entropy(v) > 4.3 && kinds&bUpper != 0
	}
	return entropy(v) >= min(3, math.Log2(float64(len(v)))-0.9)
}

// entropy is bits a character.
func entropy(v string) float64 {
	var count [256]uint16
	sum := 0.0
	for i := range len(v) {
		c := &count[v[i]]
		sum += entropyStep[min(int(*c), len(entropyStep)-1)]
		*c++
	}
	n := float64(len(v))
	return math.Log2(n) - sum/n
}

// entropyStep is how much n*log2(n) grows by one more.
var entropyStep = func() (t [512]float64) {
	for n := 1; n < len(t); n++ {
		t[n] = float64(n+1)*math.Log2(float64(n+1)) - float64(n)*math.Log2(float64(n))
	}
	return t
}()
