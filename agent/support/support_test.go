package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// planted are texts with a secret in each, and the secret. They are made up, and put together here so that no scanner of
// sources takes them for real.
var planted = []struct{ text, secret string }{
	{"NVIDIA_API_KEY=nvapi-" + "Zq3v9TqLxkPp0aaBBccDDeeFF11", "Zq3v9TqLxkPp0aaBBccDDeeFF11"},
	{"OPENAI_API_KEY: sk-" + "proj-abcdEFGH1234ijklMNOP5678", "abcdEFGH1234"},
	{"the key is sk-" + "ant-api03-Qwertyuiop1234567890", "Qwertyuiop1234567890"},
	{"git clone https://x-user:hunter2pass@git.example.com/a.git", "hunter2pass"},
	{"curl -H 'Authorization: Bearer abc.def-ghi_jkl'", "abc.def-ghi_jkl"},
	{"Proxy-Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"},
	{"mysql --password hunter3 -u root", "hunter3"},
	{"tool --api-key=hunter4 --verbose", "hunter4"},
	{"tool --token 'hunter5 with blanks'", "hunter5"},
	{`{"client_secret": "hunter6"}`, "hunter6"},
	{`{"client_secret":"hun\"ter7 rest"}`, "ter7"},
	{"GET https://example.com/cb?code=hunter8&state=1", "hunter8"},
	{"ghp_" + "1234567890abcdefABCDEF1234567890abcd", "1234567890abcdef"},
	{"AKIA" + "IOSFODNN7EXAMPLE is the id", "IOSFODNN7EXAMPLE"},
	{"eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJzdWIiOiIxMjM0In0"},
	{"/bot123456789:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1/sendMessage", "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw1"},
	{"-----BEGIN " + "OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "b3BlbnNzaC1rZXk"},
	{"session_cookie=hunter9; path=/", "hunter9"},
	{"what may be one: Xk29dkQ0slW8vnZp71mTyR4c", "Xk29dkQ0slW8vnZp71mTyR4c"},
	{"hooks:\n- webhook: https://hooks.example.com/services/T0/B1/hunter11", "hunter11"},
	{"PGPASSWORD='hunter10' psql", "hunter10"},
}

func TestTextTakesSecretsOut(t *testing.T) {
	t.Parallel()
	for _, p := range planted {
		if got := Text(p.text); strings.Contains(got, p.secret) || !strings.Contains(got, redacted) {
			t.Errorf("%q became %q", p.text, got)
		}
		clean, err := JSON(fmt.Appendf(nil, `{"reason": %s, "subject": {"args": %s}}`, quote(p.text), quote(p.text)))
		if err != nil || strings.Contains(string(clean), p.secret) {
			t.Errorf("in JSON, %q became %s (%v)", p.text, clean, err)
		}
	}
}

func quote(s string) []byte {
	b, _ := json.Marshal(s)
	return b
}

// TestTextKeepsWhatAReportNeeds: names, paths, versions, hashes of ours.
func TestTextKeepsWhatAReportNeeds(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"api.openai.com:443", "/usr/lib/python3.11/site-packages/requests/adapters.py", "Linux 6.12.57+deb13-cloud-amd64", "seed.yaml:14",
		"revision 9f86d081884c7d65", strings.Repeat("0123456789abcdef", 4), "nemoclaw-agent.service: enabled, active (running)",
		"tool --verbose --output-directory-of-the-results /tmp/x", "sandbox my-assistant-3f2a91bc is running", "2026-11-22T17:20:01.123456789Z",
	} {
		if got := Text(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

func TestJSONTakesValuesOfEnvironmentsAndSettings(t *testing.T) {
	t.Parallel()
	got, err := JSON([]byte(`{"name":"a","env":["LANG=C","X=short"],"config":{"model":"m","deep":{"a":1}},"inference":{"model":"m","key":"verified"},"key":"short","count":3}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"config":{"deep":"[redacted]","model":"[redacted]"},"count":3,"env":["LANG=[redacted]","X=[redacted]"],"inference":{"key":"verified","model":"m"},"key":"[redacted]","name":"a"}`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestNoSourceLeaks plants every secret in every source that a person's words can come into, and looks for them in the archive.
func TestJSONTakesConversations(t *testing.T) {
	const record = `{"plane":"inference","inference":{"model":"corp/big","classes":{"pii":1},"matches":[{"class":"pii","text":"Jane Doe"}],"tool":{"params":"{\"to\":\"Jane\"}","result":"Doe"}}}`
	got, err := JSON([]byte(record))
	if err != nil || strings.Contains(string(got), "Jane") || strings.Contains(string(got), "Doe") || !strings.Contains(string(got), `"pii":1`) || !strings.Contains(string(got), "corp/big") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestNoSourceLeaks(t *testing.T) {
	dir := t.TempDir()
	c := config.Default()
	c.Socket, c.AuditDir, c.StateDir, c.RunDir = filepath.Join(dir, "s"), filepath.Join(dir, "audit"), filepath.Join(dir, "state"), filepath.Join(dir, "run")
	var all, lines strings.Builder
	for _, p := range planted {
		all.WriteString(p.text + "\n")
		fmt.Fprintf(&lines, `{"seq":1,"sandbox":"box","plane":"exec","object":%s,"subject":{"exe":"/usr/bin/curl","args":%s},"reason":%s}`+"\n",
			quote("/usr/bin/curl"), quote(p.text), quote(p.text))
		fmt.Fprintf(&lines, "no JSON: %s\n", p.secret)
	}
	must(t, os.Mkdir(c.AuditDir, 0o700))
	must(t, os.WriteFile(filepath.Join(c.AuditDir, "box.jsonl"), []byte(lines.String()), 0o600))

	// What systemd says, by programs that say what was planted.
	for _, name := range []string{"systemctl", "journalctl"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\ncat <<'END'\n"+all.String()+"END\n"), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

	// What a daemon says.
	listener, err := net.Listen("unix", c.Socket)
	must(t, err)
	var env []string
	for _, p := range planted {
		env = append(env, "NAME="+p.secret)
	}
	answers := map[string]any{
		"/v1/info":      map[string]any{"version": "1", "level_reason": all.String()},
		"/v1/sandboxes": []any{map[string]any{"name": "box", "env": env, "config": map[string]string{"x": all.String()}, "reason": all.String(), "warnings": []string{all.String()}}},
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answers[r.URL.Path])
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	files := Gather(context.Background(), Options{Config: c, Version: map[string]string{"version": "1"}, Records: 1000}, "1")
	var archive bytes.Buffer
	must(t, Write(&archive, "debug", time.Now(), files))
	text := unpack(t, &archive)
	for _, want := range []string{"debug/README", "debug/doctor.json", "debug/daemon.json", "debug/sandboxes.json", "debug/audit/box.jsonl", "debug/journal.txt", "debug/unit.txt", "debug/kernel.txt", "debug/config.yaml", "NAME=" + redacted, "/usr/bin/curl"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in the archive", want)
		}
	}
	for _, p := range planted {
		if at := strings.Index(text, p.secret); at >= 0 {
			t.Errorf("%q of %q is in the archive: ...%q...", p.secret, p.text, text[max(0, at-200):min(len(text), at+100)])
		}
	}
}

// unpack returns the names and contents of an archive, one after the other.
func unpack(t *testing.T, r io.Reader) string {
	t.Helper()
	packed, err := gzip.NewReader(r)
	must(t, err)
	var s strings.Builder
	for archive := tar.NewReader(packed); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return s.String()
		}
		must(t, err)
		s.WriteString(h.Name + "\n")
		_, err = io.Copy(&s, io.LimitReader(archive, 1<<20))
		must(t, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
