package policy

import (
	"slices"
	"strings"
	"testing"
)

var presetTries = map[string]struct{ allowed, denied string }{
	"anthropic":   {"api.anthropic.com:443", "api.anthropic.com:80 anthropic.com:443 statsig.anthropic.com:443 x.api.anthropic.com:443 console.anthropic.com:443"},
	"apt":         {"mirror.debian.org:80 mirror.debian.org:443 mirror.ubuntu.com:80 apt-get /usr/lib/apt/methods/http", "debian.org:80 a.mirror.debian.org:80 mirror.debian.org:21 ppa.launchpadcontent.net:443 apt"},
	"brave":       {"api.search.brave.com:443", "search.brave.com:443 api.search.brave.com:80"},
	"brew":        {"formulae.brew.sh:443 ghcr.io:443 bash /home/linuxbrew/.linuxbrew/bin/brew", "brew.sh:443 gist.github.com:443 api.github.com:443 /home/linuxbrew/x"},
	"cargo":       {"index.crates.io:443 static.crates.io:443 cargo rustc /usr/libexec/gcc/x86_64-linux-gnu/14/collect2", "crates.io:443 github.com:443 rustup"},
	"discord":     {"discord.com:443 gateway.discord.gg:443 cdn.discordapp.com:443", "discord.gg:443 a.b.discord.gg:443 canary.discord.com:443 discord.com:80"},
	"docker":      {"registry-1.docker.io:443 auth.docker.io:443", "hub.docker.com:443 ghcr.io:443 index.docker.io:443 r2.cloudflarestorage.com:443 docker"},
	"duckduckgo":  {"html.duckduckgo.com:443 api.duckduckgo.com:443", "duckduckgo.com:443 improving.duckduckgo.com:443"},
	"github":      {"github.com:443 api.github.com:443 raw.githubusercontent.com:443 git /usr/lib/git-core/git-remote-https", "gist.github.com:443 github.com:22 ghcr.io:443 user.github.io:443 camo.githubusercontent.com:443 gh"},
	"gmail":       {"gmail.googleapis.com:443 oauth2.googleapis.com:443", "www.googleapis.com:443 drive.googleapis.com:443 accounts.google.com:443 imap.gmail.com:993"},
	"go":          {"modules.golang.org:443 go /usr/local/go/pkg/tool/linux_amd64/compile", "golang.org:443 github.com:443 go.dev:443 cc /usr/local/go/bin/go"},
	"google":      {"generativelanguage.googleapis.com:443", "us-central1-aiplatform.googleapis.com:443 storage.googleapis.com:443 www.google.com:443"},
	"grafana":     {"grafana.internal:3000 127.0.0.1:3000", "grafana.internal:80 127.0.0.1:22 127.0.0.2:3000 x.grafana.net:443"},
	"huggingface": {"huggingface.co:443 cas-bridge.xethub.hf.co:443", "x.hf.space:443 router.huggingface.co:443 hf.co:443"},
	"jira":        {"api.atlassian.com:443 auth.atlassian.com:443", "anybody.atlassian.net:443 atlassian.com:443 id.atlassian.com:443"},
	"npm":         {"packages.npmjs.org:443 node npm npx sh", "npmjs.org:443 a.b.npmjs.org:443 www.npmjs.com:443 packages.npmjs.org:80 bash"},
	"nvidia":      {"integrate.api.nvidia.com:443 ai.api.nvidia.com:443", "nvidia.com:443 api.ngc.nvidia.com:443 nvcr.io:443"},
	"ollama":      {"ollama.internal:11434 127.0.0.1:11434", "ollama.internal:80 127.0.0.1:22 [::1]:11434 registry.ollama.ai:443"},
	"openai":      {"api.openai.com:443", "chatgpt.com:443 auth.openai.com:443 x.api.openai.com:443"},
	"otel":        {"otel.internal:4317 otel.internal:4318", "otel.internal:8888 127.0.0.1:8888 api.honeycomb.io:443"},
	"outlook":     {"graph.microsoft.com:443 login.microsoftonline.com:443", "outlook.office365.com:993 outlook.office.com:443 smtp.office365.com:587"},
	"prometheus":  {"prometheus.internal:9090", "prometheus.internal:9091 127.0.0.1:9100"},
	"pypi":        {"pypi.org:443 files.pythonhosted.org:443 python3 pip", "upload.pypi.org:443 test.pypi.org:443 pythonhosted.org:443"},
	"slack":       {"slack.com:443 wss-primary.slack.com:443", "hooks.slack.com:443 x.slack.com:443 slack.com:80"},
	"teams":       {"smba.trafficmanager.net:443 graph.microsoft.com:443", "x.trafficmanager.net:443 x.sharepoint.com:443 teams.microsoft.com:443"},
	"telegram":    {"api.telegram.org:443", "telegram.org:443 t.me:443 api.telegram.org:80"},
	"weather":     {"wttr.in:443 api.open-meteo.com:443 api.weather.gov:443", "wttr.in:80 open-meteo.com:443 api.openweathermap.org:443"},
}

// What each preset is for is allowed, and what looks like it is not: another port, a name beside, below or above, plain
// HTTP, a place where anybody can publish, the host's loopback. Words with a slash or without a colon are programs.
func TestPresetsAreNarrow(t *testing.T) {
	for name, tt := range presetTries {
		c := compile(t, "extends: ["+name+"]\n")
		ask := func(words string, want Verdict) {
			for _, word := range strings.Fields(words) {
				action := QueryExec
				if !strings.HasPrefix(word, "/") && strings.Contains(word, ":") {
					action = QueryConnect
				}
				q, err := NewQuery(action, word, "")
				if err != nil {
					t.Fatal(err)
				}
				if a := c.Explain(q); a.Verdict != want {
					t.Errorf("%s: %s", name, a)
				}
			}
		}
		ask(tt.allowed, Allow)
		ask(tt.denied, Deny)
		if tt.allowed == "" || tt.denied == "" {
			t.Errorf("%s is not tried both ways", name)
		}
	}
	for _, name := range Presets() {
		if _, tried := presetTries[name]; !tried {
			t.Errorf("preset %s is not tried here", name)
		}
	}
}

// A preset says at its top what it is for and what it leaves out, and all of them go together in one policy.
func TestPresetsSayWhatTheyAre(t *testing.T) {
	for _, name := range Presets() {
		src, err := PresetSource(name)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(src), "\nnetwork:")
		if !strings.HasPrefix(head, "# "+name+": ") || !strings.Contains(head, "Left out: ") {
			t.Errorf("preset %s starts with %q", name, head)
		}
		for i, line := range strings.Split(head, "\n") {
			if !strings.HasPrefix(line, "# ") {
				t.Errorf("preset %s: line %d is %q", name, i+1, line)
			}
		}
	}
	c := compile(t, "extends: ["+strings.Join(Presets(), ", ")+"]\n")
	if slices.ContainsFunc(c.Network.Rules, func(r NetRule) bool { return r.Verdict != Allow }) {
		t.Error("a preset asks or denies")
	}
}
