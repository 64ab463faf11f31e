//go:build e2e

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// preset is a policy of one preset, the workspace, and programs that a user would add.
func preset(name string, commands ...string) string {
	p := "extends: [" + name + "]\n" + harness.Files + "process:\n  allow:\n"
	for _, c := range append(commands, "sh") {
		p += "    - command: " + c + "\n"
	}
	return p
}

// TestEveryPresetLeadsToItsHosts: with nothing but a preset and curl, each of its hosts answers over TLS, and a name below one
// of them does not.
func TestEveryPresetLeadsToItsHosts(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	server := harness.W.HTTPS(t, a4, 443, harness.Hello)
	out, err := exec.Command(harness.W.Bin, "policy", "presets", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var presets []struct{ Name string }
	if err := json.Unmarshal(out, &presets); err != nil {
		t.Fatal(err)
	}
	domain := regexp.MustCompile(`- domain: "?([^" #\n]+)`)
	for _, p := range presets {
		src, err := exec.Command(harness.W.Bin, "policy", "presets", p.Name).Output()
		if err != nil {
			t.Fatal(err)
		}
		var hosts []string
		for _, m := range domain.FindAllStringSubmatch(string(src), -1) {
			host := strings.Replace(m[1], "*", "any-"+p.Name, 1)
			local := strings.HasSuffix(host, ".internal") // see TestLocalServicePresets
			if !local && !slices.Contains(taken, host) && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
				harness.W.DNS.Set(host, a4)
			}
		}
		if len(hosts) == 0 {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			script := "r=0; for h in " + strings.Join(hosts, " ") + "; do curl -sS https://$h/ || r=1; echo; done; curl -sS https://below." + hosts[0] + "/ && r=1; exit $r"
			r := harness.W.Run(t, harness.Box{Policy: preset(p.Name, "curl"), Env: harness.TrustCA()}, "sh", "-c", script)
			if r.Code != 0 {
				t.Errorf("not all of %v answered\n%s", hosts, r.Dump())
			}
			for _, h := range hosts {
				if !strings.Contains(r.Out, "hello from "+h+"\n") {
					t.Errorf("%s did not answer\n%s", h, r.Dump())
				}
			}
			once(t, r, "network", "below."+hosts[0]+":443")
		})
	}
	if server.Conns() == 0 {
		t.Error("nothing reached the server")
	}
}

// TestLocalServicePresets: a service on the host's own loopback is reached by its name, and by nothing else.
func TestLocalServicePresets(t *testing.T) {
	t.Parallel()
	loopback := netip.MustParseAddr("127.0.0.1")
	for name, port := range map[string]uint16{"ollama": 11434, "grafana": 3000, "prometheus": 9090, "otel": 4318} {
		server := harness.W.HTTP(t, loopback, port, harness.Hello)
		t.Run(name, func(t *testing.T) {
			hosts := filepath.Join(t.TempDir(), "hosts")
			if err := os.WriteFile(hosts, []byte("127.0.0.1 "+name+".internal\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			script := fmt.Sprintf(`curl -sS http://%[1]s.internal:%[2]d/api; echo; curl -sS http://127.0.0.1:%[2]d/; curl -sS http://%[1]s.internal:22/`, name, port)
			r := harness.W.Run(t, harness.Box{Policy: preset(name, "curl"), Flags: []string{"--hosts-file", hosts}}, "sh", "-c", script)
			if want := fmt.Sprintf("hello from %s.internal:%d\n", name, port); r.Out != want {
				t.Errorf("want %q\n%s", want, r.Dump())
			}
			if n := len(server.Requests()); n != 1 {
				t.Errorf("%d requests reached the host's service, want one", n)
			}
			once(t, r, "network", name+".internal:22")
		})
	}
}

// taken are the names that lead to the servers of other tests.
var taken = []string{gitName, githubName, pipName, botName, discordName}

const (
	githubName  = "github.com"
	pipName     = "files.pythonhosted.org"
	goName      = "modules.golang.org"
	aptName     = "mirror.debian.org"
	botName     = "api.telegram.org"
	discordName = "discord.com"
	gatewayName = "gateway.discord.gg"
)

// TestPresetsWithRealClients: each preset lets the client that it is for do its work, against a server of the test's own.
func TestPresetsWithRealClients(t *testing.T) {
	t.Parallel()
	serve := func(name string, h http.Handler) *harness.Server {
		a4, _ := harness.W.Addr()
		harness.W.DNS.Set(name, a4)
		return harness.W.HTTPS(t, a4, 443, h)
	}
	goroot := goRoot(t)
	tests := []struct {
		name, policy, script, want string
		env                        []string
		server                     *harness.Server
	}{
		{"github: git", preset("github"), "git clone -q https://github.com/repo.git && cd repo && git log --format=%s", "The first commit",
			nil, serve(githubName, harness.GitServer(t))},
		{"pypi: pip", preset("pypi"), "pip3 install -q --target lib --index-url https://" + pipName + "/simple/ padder && PYTHONPATH=lib python3 -c 'import padder; print(padder.pad(\"x\", 3))'", "  x",
			[]string{"PIP_CERT=/workspace/ca.pem", "REQUESTS_CA_BUNDLE=/workspace/ca.pem", "PIP_DISABLE_PIP_VERSION_CHECK=1"}, serve(pipName, pipIndex(t))},
		{"go: go mod download", preset("go", goroot+"/bin/go") + "", "printf 'module m\\nrequire example.test/padder v1.0.0\\n' > go.mod && " + goroot + "/bin/go mod download -x example.test/padder && ls $HOME/go/pkg/mod/example.test", "padder@v1.0.0",
			[]string{"GOPROXY=https://" + goName, "GONOSUMDB=*", "GOTOOLCHAIN=local", "GOFLAGS=-modcacherw"}, serve(goName, goProxy(t))},
		{"telegram: node", preset("telegram", "node"), "node -e \"fetch('https://api.telegram.org/bot123:abc/getMe').then(r => r.json()).then(j => console.log(j.result.username))\"", "claw_bot",
			nil, serve(botName, telegram)},
		{"discord: node's WebSocket", preset("discord", "node"), "node gateway.js", "hello op 10",
			nil, serve(gatewayName, discordGateway)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ws := harness.W.NewWorkspace(t, t.TempDir())
			if err := os.WriteFile(filepath.Join(ws, "gateway.js"), []byte(gatewayClient), 0o644); err != nil {
				t.Fatal(err)
			}
			policy := tt.policy
			if strings.HasPrefix(tt.name, "go:") {
				policy = strings.Replace(policy, "    - command: sh\n", "    - command: sh\n    - command: ls\n", 1)
				policy = strings.Replace(policy, "  allow:\n", "  allow:\n    - {path: "+goroot+", permissions: [read]}\n", 1)
			}
			r := harness.W.Run(t, harness.Box{Policy: policy, Workspace: ws, Env: append(harness.TrustCA(), tt.env...)}, "sh", "-c", tt.script)
			if r.Code != 0 || !strings.Contains(r.Out, tt.want) {
				t.Errorf("want %q\n%s", tt.want, r.Dump())
			}
			if d := r.Find("network", "deny", ""); len(d) > 0 {
				t.Errorf("something was refused: %v", d)
			}
			if tt.server.Conns() == 0 {
				t.Error("the client did not talk to the server")
			}
		})
	}
}

// TestAptPreset: apt-get updates its lists and downloads a package, in directories of the workspace.
func TestAptPreset(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set(aptName, a4)
	server := harness.W.HTTP(t, a4, 80, aptArchive(t))
	script := `mkdir -p apt/lists/partial apt/cache/archives/partial apt/etc/apt.conf.d apt/etc/preferences.d && : > apt/status &&
		echo 'deb [trusted=yes] http://` + aptName + `/debian stable main' > apt/etc/sources.list &&
		echo 'Dir { Etc "/workspace/apt/etc"; State "/workspace/apt"; State::status "/workspace/apt/status"; Cache "/workspace/apt/cache"; }; APT::Architecture "amd64";' > apt.conf &&
		apt-get update && apt-get download padder && cat padder_1.0_all.deb`
	r := harness.W.Run(t, harness.Box{Policy: preset("apt", "mkdir", "cat"), Env: []string{"APT_CONFIG=/workspace/apt.conf"}}, "sh", "-c", script)
	if r.Code != 0 || !strings.Contains(r.Out, debText) {
		t.Errorf("the package was not downloaded\n%s", r.Dump())
	}
	if server.Conns() == 0 {
		t.Error("apt-get did not talk to the server")
	}
}

// TestBotClientsFromTheRealRegistry installs grammY and discord.js where a registry answers, and lets them talk to servers of the
// test's own. TestPresetsWithRealClients has shown the same calls with node alone.
func TestBotClientsFromTheRealRegistry(t *testing.T) {
	t.Parallel()
	registry := reachableRegistry(t)
	if registry == "" {
		t.Log("no npm registry answers here: node's own HTTP client was used only")
		return
	}
	ws := harness.W.NewWorkspace(t, t.TempDir())
	var said bytes.Buffer
	install := exec.Command("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--registry", registry, "grammy", "discord.js")
	install.Dir, install.Stdout, install.Stderr = ws, &said, &said
	if err := harness.W.InHostNet(install.Run); err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	// Names of the presets, but not the hosts that other tests have taken.
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("telegram-for-grammy.test", a4)
	harness.W.DNS.Set(discordName, a4)
	harness.W.DNS.Set("gateway-for-js.discord.gg", a4)
	server := harness.W.HTTPS(t, a4, 443, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Host {
		case discordName:
			discordAPI.ServeHTTP(w, r)
		case "gateway-for-js.discord.gg":
			discordGateway.ServeHTTP(w, r)
		default:
			telegram.ServeHTTP(w, r)
		}
	}))
	for name, script := range map[string]string{
		"grammy": `const { Bot } = require("grammy");
			new Bot("123:abc", { client: { apiRoot: "https://telegram-for-grammy.test" } }).api.getMe().then(me => console.log("telegram says", me.username))`,
		"discord.js": `const { Client, Events, GatewayIntentBits } = require("discord.js");
			const c = new Client({ intents: [GatewayIntentBits.Guilds] });
			c.once(Events.ClientReady, r => { console.log("discord says", r.user.username); process.exit(0) });
			c.login("MTIz.abc.def").catch(e => { console.error(e); process.exit(1) })`,
	} {
		if err := os.WriteFile(filepath.Join(ws, name+".cjs"), []byte(script), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	policy := "extends: [discord]\n" + network(`{domain: telegram-for-grammy.test, ports: [443], protocol: https}`)
	policy = strings.Replace(policy, harness.Exec, "process:\n  allow:\n    - command: node\n", 1)
	for script, want := range map[string]string{"grammy": "telegram says claw_bot", "discord.js": "discord says claw_bot"} {
		r := harness.W.Run(t, harness.Box{Policy: policy, Workspace: ws, Env: harness.TrustCA(), Timeout: 90 * time.Second}, "node", script+".cjs")
		if r.Code != 0 || !strings.Contains(r.Out, want) {
			t.Errorf("%s: want %q\n%s", script, want, r.Dump())
		}
	}
	if server.Conns() == 0 {
		t.Error("nothing reached the servers")
	}
}

func goRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
