//go:build e2e

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// What an agent would have run in the place of a command: it asks $TARGET for /$WHAT.
const (
	tappedC = `#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/socket.h>
unsigned la_version(unsigned v) { return v; }
__attribute__((constructor)) static void run(void) {
	char b[4096];
	struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *a;
	int s, n;
	if (!getenv("WHAT") || getaddrinfo(getenv("TARGET"), "80", &hint, &a)) return;
	s = socket(a->ai_family, SOCK_STREAM, 0);
	n = snprintf(b, sizeof b, "GET /%s HTTP/1.0\r\nHost: only.test\r\n\r\n", getenv("WHAT"));
	if (connect(s, a->ai_addr, a->ai_addrlen) || write(s, b, n) < 0) return;
	while (read(s, b, sizeof b) > 0);
	close(s);
}
`
	tappedJS = `const {TARGET, WHAT} = process.env;
require('http').get({host: TARGET, path: '/' + WHAT, headers: {Host: 'only.test'}}, r => r.resume()).on('error', () => {});
`
	tappedPython = `import http.client, os
try:
    c = http.client.HTTPConnection(os.environ['TARGET']); c.request('GET', '/' + os.environ['WHAT'], headers={'Host': 'only.test'}); c.getresponse().read()
except OSError:
    pass
`
	tappedOpenSSL = "openssl_conf = a\n[a]\nengines = b\n[b]\ntapped = c\n[c]\nengine_id = tapped\ndynamic_path = %s/tapped.so\ninit = 0\n"
)

// TestTaint has curl, node and python3 run what is not theirs, in the ways that their environments have, to use what only they may
// connect to.
func TestTaint(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("only.test", a4)
	server := harness.W.HTTP(t, a4, 80, harness.Hello)
	asked := func() (paths []string) {
		for _, r := range server.Requests() {
			paths = append(paths, strings.TrimPrefix(r.Path, "/"))
		}
		return paths
	}
	dir, err := os.MkdirTemp(harness.W.Dir, "taint-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ws := harness.W.NewWorkspace(t, dir)
	for name, text := range map[string]string{
		"tapped.c": tappedC, "tapped.js": tappedJS, "sitecustomize.py": tappedPython, "startup.py": tappedPython,
		"openssl.cnf": fmt.Sprintf(tappedOpenSSL, "/workspace"), "native.cnf": fmt.Sprintf(tappedOpenSSL, ws),
	} {
		if err := os.WriteFile(filepath.Join(ws, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", ws+"/tapped.so", ws+"/tapped.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}

	ways := []struct{ variable, value, run string }{
		{"LD_PRELOAD", "{ws}/tapped.so", "curl --version"},
		{"LD_AUDIT", "{ws}/tapped.so", "curl --version"},
		{"OPENSSL_CONF", "{ws}/openssl.cnf", "curl --version"},
		{"NODE_OPTIONS", "--require={ws}/tapped.js", "node -p 1"},
		{"PYTHONPATH", "{ws}", "/usr/bin/python3 -c pass"},
		{"PYTHONSTARTUP", "{ws}/startup.py", "/usr/bin/python3 -i"},
	}
	var names, script []string
	for _, w := range ways {
		run := func(target, ws string) string {
			return fmt.Sprintf("TARGET=%s WHAT=%s %s=%s %s >/dev/null </dev/null", target, w.variable, w.variable, strings.ReplaceAll(w.value, "{ws}", ws), w.run)
		}
		natively := strings.ReplaceAll(run(a4.String(), ws), "openssl.cnf", "native.cnf")
		if out, err := exec.Command("sh", "-c", natively).CombinedOutput(); err != nil {
			t.Errorf("natively %s: %v\n%s", w.variable, err, out)
		}
		names = append(names, w.variable)
		script = append(script, run("only.test", "/workspace"))
	}
	if got := asked(); !slices.Equal(got, names) {
		t.Fatalf("natively the server was asked for %q, want %q", got, names)
	}

	// Then without them: what the rule is for.
	script = append(script, "LD_PRELOAD= curl -s http://only.test/curl >/dev/null", "export NODE_OPTIONS=",
		"node -e 'require(\"http\").get(\"http://only.test/node\", r => r.resume())'",
		"python3 -c 'import urllib.request as u; u.urlopen(\"http://only.test/python\").read()'", "echo end")
	policy := harness.Files + "process:\n  allow: [{command: sh}, {command: curl}, {command: node}, {command: python3}]\n" +
		"network:\n  allow:\n    - {domain: only.test, ports: [80], protocol: http, commands: [curl, node, python3]}\n"
	r := harness.W.Run(t, harness.Box{Policy: policy, Workspace: ws}, "sh", "-c", strings.Join(script, "\n"))
	if got, want := asked()[len(names):], []string{"curl", "node", "python"}; !slices.Equal(got, want) || r.Out != "end\n" {
		t.Errorf("the server was asked for %q, want %q\n%s", got, want, r.Dump())
	}
	var tainted []string
	for _, e := range r.Find("network", "deny", "only.test:80") {
		if !strings.HasSuffix(e.Rule, "policy.yaml:9") || !strings.Contains(e.Reason, e.Subject.Taint+" was set") {
			t.Errorf("the record says %s: %s", e.Rule, e.Reason)
		}
		tainted = append(tainted, e.Subject.Taint)
	}
	if !slices.Equal(tainted, names) {
		t.Errorf("records of %q, want %q\n%s", tainted, names, r.Dump())
	}
	if !strings.Contains(r.Err, "LD_PRELOAD was set when it was started, so that other code may run as it; start it without") {
		t.Errorf("the summary does not say why:\n%s", r.Err)
	}
}
