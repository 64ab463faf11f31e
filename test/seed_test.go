//go:build e2e

package test

import (
	"context"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"github.com/nemoclaw/nemoclaw/test/registry/npm"
)

// The names that the seed's policy allows; in the world they lead to the test's own servers.
const (
	gitName = "pypi.org"
	npmName = "packages.npmjs.org"
)

func seedServers(t *testing.T) (gitServer *harness.Server, npmServers []*harness.Server) {
	t.Helper()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set(gitName, a4)
	gitServer = harness.W.HTTPS(t, a4, 443, harness.GitServer(t))
	n4, n6 := harness.W.Addr()
	harness.W.DNS.Set(npmName, n4, n6)
	for _, a := range []netip.Addr{n4, n6} {
		npmServers = append(npmServers, harness.W.HTTPS(t, a, 443, npm.Handler(npm.Samples)))
	}
	return gitServer, npmServers
}

// seedEnv is what a user adds for a private CA and a private registry, and who commits.
func seedEnv() []string {
	return append(harness.TrustCA(), "npm_config_registry=https://"+npmName+"/",
		"GIT_AUTHOR_NAME=agent", "GIT_AUTHOR_EMAIL=agent@nemoclaw.test", "GIT_COMMITTER_NAME=agent", "GIT_COMMITTER_EMAIL=agent@nemoclaw.test")
}

func TestSeedPolicyRunsRealPrograms(t *testing.T) {
	t.Parallel()
	gitServer, npmServers := seedServers(t)
	tests := []struct{ name, script, want string }{
		{"git clone and status", `git clone -q https://pypi.org/repo.git && cd repo && git status --short --branch`, "## main...origin/main"},
		{"git commit and push", `git clone -q https://pypi.org/repo.git && cd repo && echo more > more && git add more && git commit -qm more &&
			git push -q origin HEAD:more && git status --porcelain && git log --oneline --all | (read a b; echo "$b")`, "more"},
		{"python3 -c", `python3 -c 'import json, tempfile; f = tempfile.NamedTemporaryFile(); print(f.name.startswith("/tmp/"))'`, "True"},
		{"python3 over TLS", `python3 -c 'import urllib.request as u; r = u.urlopen("https://pypi.org/repo.git/HEAD"); print(r.status)'`, "200"},
		{"node", `node -p 'require("os").homedir() + " " + [1, 2].map(x => x * 2)'`, "/home/agent 2,4"},
		{"node over TLS", `node -e 'fetch("https://pypi.org/repo.git/HEAD").then(r => console.log(r.status))'`, "200"},
		{"npm install", `npm install --no-audit --no-fund left-padded >/dev/null && node -p 'require("left-padded")("x", 3) + require("fs").readFileSync("node_modules/space-maker/built.txt")'`, "  xbuilt by v"},
		{"npm uses its cache in HOME", `npm install --no-audit --no-fund left-padded >/dev/null && node -p 'require("fs").existsSync(process.env.HOME + "/.npm/_cacache")'`, "true"},
		{"npm run", `echo '{"scripts":{"hi":"node -p 6*7"}}' > package.json && npm run --silent hi`, "42"},
		{"a script with #!", `printf '#!/usr/bin/env python3\nprint("by env")\n' > s && python3 -c 'import os; os.chmod("s", 0o755)' && ./s`, "by env"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := harness.W.Run(t, harness.Box{Policy: seed(t), Env: seedEnv()}, "sh", "-c", tt.script)
			if r.Code != 0 || !strings.Contains(r.Out, tt.want) {
				t.Errorf("want %q and exit status 0\n%s", tt.want, r.Dump())
			}
			if d := r.Find("network", "deny", ""); len(d) > 0 {
				t.Errorf("something was refused: %v", d)
			}
		})
	}
	npmConns := npmServers[0].Conns() + npmServers[1].Conns()
	if gitServer.Conns() == 0 || npmConns == 0 {
		t.Errorf("git's server had %d connections, npm's %d: the programs did not talk to them", gitServer.Conns(), npmConns)
	}
}

func TestSeedPolicyRefusesTheRest(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("refused.seed.test", a4)
	server := harness.W.HTTPS(t, a4, 443, harness.Hello)
	tests := []struct{ name, script, want, object string }{
		{"git", `git clone -q https://refused.seed.test/repo.git`, "Failed to connect to refused.seed.test port 443", "refused.seed.test:443"},
		{"python3", `python3 -c 'import socket; socket.create_connection(("refused.seed.test", 443))'`, "PermissionError: [Errno 1]", "refused.seed.test:443"},
		{"node", `node -e 'require("net").connect(443, "refused.seed.test").on("error", e => console.error(e.code))'`, "EPERM", "refused.seed.test:443"},
		{"curl", `curl https://refused.seed.test`, "Permission denied", ""},
		{"another program", `/usr/bin/id`, "Permission denied", ""},
		{"a system file", `echo x > /etc/hostname`, "", ""},
		{"a secret", `read x < /etc/shadow`, "", ""},
		{"root's keys", `read x < /root/.ssh/id_rsa`, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := harness.W.Run(t, harness.Box{Policy: seed(t), Env: seedEnv()}, "sh", "-c", tt.script)
			if tt.object == "" && r.Code == 0 || !strings.Contains(r.Err, tt.want) {
				t.Errorf("want a failure that says %q\n%s", tt.want, r.Dump())
			}
			if tt.object != "" {
				e := once(t, r, "network", tt.object)
				if e.Rule != "default" || e.Subject.Exe == "" || e.Subject.PID == 0 {
					t.Errorf("the record lacks its rule or its subject: %+v", e)
				}
			}
		})
	}
	if n := harness.W.DNS.Asked("refused.seed.test"); n > 0 {
		t.Errorf("the name was asked upstream %d times", n)
	}
	if n := server.Conns(); n > 0 {
		t.Errorf("%d connections reached the server", n)
	}
	if p := harness.W.Packets(a4); len(p) > 0 {
		t.Errorf("packets left: %v", p)
	}
	quiet(t)
}

// TestNpmInstallFromTheRealRegistry installs a project with some seventy dependencies through the machine's own network. Where no
// registry answers, TestSeedPolicyRunsRealPrograms has shown the same with a local one.
func TestNpmInstallFromTheRealRegistry(t *testing.T) {
	t.Parallel()
	registry := reachableRegistry(t)
	if registry == "" {
		t.Log("no npm registry answers here: only the local one was used")
		return
	}
	u, err := url.Parse(registry)
	if err != nil {
		t.Fatal(err)
	}
	policy := seed(t)
	if !strings.HasSuffix(u.Hostname(), ".npmjs.org") {
		policy = strings.Replace(policy, "  allow:\n", "  allow:\n    - {domain: "+u.Hostname()+", ports: [443], protocol: https}\n", 1)
	}
	dir := t.TempDir()
	ws := harness.W.NewWorkspace(t, dir)
	project := `{"name":"real","version":"1.0.0","private":true,"dependencies":{"express":"^4"}}`
	if err := os.WriteFile(filepath.Join(ws, "package.json"), []byte(project), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `npm install --no-audit --no-fund && node -p 'typeof require("express")().listen'`
	r := harness.W.Run(t, harness.Box{
		Policy: policy, Workspace: ws, HostNet: true, Timeout: 3 * time.Minute,
		Env: []string{"npm_config_registry=" + registry},
	}, "sh", "-c", script)
	if r.Code != 0 || !strings.Contains(r.Out, "function") {
		t.Errorf("npm install of a real project failed\n%s", r.Dump())
	}
	if _, err := os.Stat(filepath.Join(ws, "node_modules/express/package.json")); err != nil {
		t.Errorf("the installed package is not in the workspace: %v", err)
	}
}

// reachableRegistry asks the installed client which registry it uses, and the registry whether it answers.
func reachableRegistry(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("npm", "config", "get", "registry").Output()
	if err != nil {
		t.Fatalf("npm config get registry: %v", err)
	}
	registry := strings.TrimSpace(string(out))
	err = harness.W.InHostNet(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		return exec.CommandContext(ctx, "curl", "-fsS", "-o", os.DevNull, registry+"express/latest").Run()
	})
	if err != nil {
		t.Logf("the registry does not answer: %v", err)
		return ""
	}
	return registry
}

func TestProgramsThatKnowNothingOfProxies(t *testing.T) {
	t.Parallel()
	a4, a6 := harness.W.Addr()
	harness.W.DNS.Set("stubborn.test", a4, a6)
	harness.W.HTTPS(t, a4, 443, harness.Hello)
	harness.W.HTTPS(t, a6, 443, harness.Hello)
	policy := harness.Files + "process:\n  allow:\n    - {command: /workspace/probe}\n    - {command: curl}\n    - {command: python3}\n    - {command: sh}\n" +
		"network:\n  allow:\n    - {domain: stubborn.test, ports: [443], protocol: https}\n"
	for name, argv := range map[string][]string{
		"a static Go binary":  {"/workspace/probe", "get https://stubborn.test/"},
		"curl":                {"curl", "-sS", "https://stubborn.test/"},
		"curl over IPv6":      {"curl", "-6sS", "https://stubborn.test/"},
		"curl --noproxy":      {"curl", "-sS", "--noproxy", "*", "https://stubborn.test/"},
		"curl through proxy":  {"curl", "-sS", "--proxy", "http://proxy.nemoclaw.internal:3128", "https://stubborn.test/"},
		"python3 raw sockets": {"python3", "-c", rawPython},
	} {
		t.Run(name, func(t *testing.T) {
			r := harness.W.Run(t, harness.Box{Policy: policy, Env: harness.TrustCA()}, argv...)
			if r.Code != 0 || !strings.Contains(r.Out, "hello from stubborn.test") {
				t.Errorf("no answer\n%s", r.Dump())
			}
		})
	}
}

const rawPython = `
import socket, ssl, struct
q = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08stubborn\x04test\x00\x00\x01\x00\x01"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
ns = [l.split()[1] for l in open("/etc/resolv.conf") if l.startswith("nameserver")][0]
s.sendto(q, (ns, 53))
answer, peer = s.recvfrom(512)
assert peer == (ns, 53), peer
addr = socket.inet_ntoa(answer[-4:])
c = ssl.create_default_context().wrap_socket(socket.create_connection((addr, 443)), server_hostname="stubborn.test")
c.sendall(b"GET / HTTP/1.0\r\nHost: stubborn.test\r\n\r\n")
data = b""
while (b := c.recv(4096)): data += b
print(data.decode())
`
