//go:build e2e

package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/trace/tracetest"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/fakenvml"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// prometheus starts a real one that scrapes a daemon each second, and returns what asks it: the values of an expression's series.
func prometheus(t *testing.T, at, daemon string) (query func(expr string) []string) {
	t.Helper()
	rules, err := filepath.Abs("../../deploy/prometheus-rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n  - job_name: nemoclaw\n    static_configs: [{targets: [%q]}]\n", rules, daemon)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(tool(t, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus said:\n%s", log.String())
		}
	})
	until(t, "Prometheus is ready", func() bool {
		r, err := http.Get("http://" + at + "/-/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return func(expr string) (values []string) {
		r, err := http.Get("http://" + at + "/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		var answer struct {
			Error string
			Data  struct {
				Result []struct{ Value [2]any }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil || answer.Error != "" {
			t.Fatalf("%s: %s, %v", expr, answer.Error, err)
		}
		for _, s := range answer.Data.Result { // of a share of nothing there is none
			if v := fmt.Sprint(s.Value[1]); v != "NaN" {
				values = append(values, v)
			}
		}
		return values
	}
}

// tool is a program that scripts/setup sees to.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; scripts/setup test gets it", err)
	}
	return path
}

// scrape reads a daemon's metrics as anybody would.
func scrape(t *testing.T, at string) string {
	t.Helper()
	r, err := http.Get("http://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", r.Status, err, text)
	}
	return string(text)
}

// boardQueries are the expressions of the committed dashboard, as Grafana would send them.
func boardQueries(t *testing.T) (list []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			list = append(list, strings.NewReplacer("$__rate_interval", "30s", "$sandbox", ".*").Replace(q.Expr))
		}
	}
	return list
}

// TestMetricsInPrometheus: a real Prometheus scrapes a daemon whose sandboxes are at work; each query of the dashboard has data, the
// numbers are those of what was done, and a sandbox that is destroyed is shown no more.
func TestMetricsInPrometheus(t *testing.T) {
	t.Parallel()
	const at = "127.0.0.21:9464"
	d, host := harness.W.PrepareDaemon(t, "--metrics", at), harness.W.GPUHost(t)
	d.On = host
	forwardTo(t, d, "{name: siem, elastic: \""+newElastic(t).URL+"\"}")
	traceTo(t, d, "endpoint: \""+tracetest.New(t, nil).URL+"\"")
	d.Start(t)
	c, _ := dial(t, d)
	// Programs are measured as long as this is open; the daemon never has the kernel do so.
	measuring, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer measuring.Close()

	allowed, _ := name(t, "allowed.metrics.test")
	asked, _ := name(t, "asked.metrics.test")
	const dead = "dead.metrics.test" // nobody listens there
	nobody, _ := harness.W.Addr()
	harness.W.DNS.Set(dead, nobody)
	policy := "hold: 1m\n" + harness.Base + "network:\n  allow:\n    - " + rule(allowed) + "\n    - " + rule(dead) + "\n  ask:\n    - " + rule(asked) + "\n  deny:\n    - domain: bad.metrics.test\n"
	probeBox(t, d, "busy", policy)
	create(t, d, "idle", shell)

	model := newModels(t)
	create(t, d, "thinker", harness.Files+"process:\n  allow: [{command: sh}, {command: curl}]\ninference:\n  local: {model: ollama/one, url: \""+model.URL+"\"}\n")

	create(t, d, "trainer", shell+"devices: {gpus: [0]}\n")
	trains := fmt.Sprintf("process pid=%d used=1073741824 sm=60", get(t, c, "trainer").PID)
	host.Say(t, slices.Insert(slices.Clone(fakenvml.Devices), 1, trains, "xid code=31 times=1")...)

	query := prometheus(t, "127.0.0.21:9090", at)
	until(t, "the first scrape", func() bool { return len(query("nemoclaw_audit_ok")) > 0 })
	done := make(chan bool, 1)
	work := func() {
		if !reaches(t, d, "busy", allowed) || reaches(t, d, "busy", dead) {
			t.Error("what is allowed is not reached, or what is dead is")
		}
		probe(t, d, "busy", "reach bad.metrics.test 443 eA==", "reach unlisted.metrics.test 443 eA==")
		answered := reaching(t, d, "busy", asked)
		answer(t, c, request(t, c, asked+":7000"), api.NewAnswer{Verdict: "allow", Scope: api.ScopeOnce, Confirm: true})
		if !<-answered {
			t.Error("what was allowed is not reached")
		}
		d.Do(t, "thinker", "exec", "--", "curl", "-sS", "-d", `{"model":"x","stream":true,"messages":[{"role":"user","content":"hello"}]}`, "https://inference.local/v1/chat/completions")
	}
	for range 3 {
		work()
		time.Sleep(1500 * time.Millisecond) // so that there is a rate
	}
	go func() { done <- <-reaching(t, d, "busy", asked) }()
	held := request(t, c, asked+":7000")

	for _, expr := range boardQueries(t) {
		until(t, "data for "+expr, func() bool { return len(query(expr)) > 0 })
	}
	for expr, want := range map[string]string{
		`nemoclaw_proxy_connections_total{sandbox="busy",outcome="relayed"}`:                              "6",
		`nemoclaw_proxy_connections_total{sandbox="busy",outcome="failed"}`:                               "3",
		`nemoclaw_approval_wait_seconds_count{sandbox="busy",outcome="allowed"}`:                          "3",
		`nemoclaw_approvals_held{sandbox="busy"}`:                                                         "1",
		`nemoclaw_proxy_connections_total{sandbox="thinker",outcome="local"}`:                             "3",
		`nemoclaw_sandbox_state{sandbox="idle",state="running"}`:                                          "1",
		`nemoclaw_decisions_total{sandbox="idle",plane="network",verdict="deny"}`:                         "0",
		`sum(nemoclaw_inference_requests_total{sandbox="thinker",model="ollama/one",outcome="answered"})`: "3",
		`nemoclaw_inference_first_token_seconds_count{sandbox="thinker",model="ollama/one"}`:              "3",
		`nemoclaw_inference_model_up{sandbox="thinker",model="ollama/one"}`:                               "1",
		`nemoclaw_gpu_temperature_celsius{gpu="0"}`:                                                       "41",
		`nemoclaw_gpu_power_watts{uuid="` + fakenvml.First + `"}`:                                         "120.5",
		`sum(nemoclaw_gpu_memory_size_bytes)`:                                                             "452264460288",
		`nemoclaw_gpu_ecc_errors_total{gpu="1",kind="corrected"}`:                                         "2",
		`nemoclaw_gpu_xid_errors_total{gpu="0",xid="31"}`:                                                 "1",
		`nemoclaw_sandbox_gpu_memory_bytes{sandbox="trainer"}`:                                            "1073741824",
		`nemoclaw_sandbox_gpu_utilisation_ratio{sandbox="trainer"}`:                                       "0.6",
		`count(nemoclaw_gpu_utilisation_ratio)`:                                                           "2",
		`nemoclaw_audit_ok`:                                                                               "1",
		`up{job="nemoclaw"}`:                                                                              "1",
	} {
		until(t, expr+" is "+want, func() bool { got := query(expr); return len(got) == 1 && got[0] == want })
	}
	if n := query(`sum(nemoclaw_decisions_total{sandbox="busy",plane=~"network|dns",verdict="deny"})`); len(n) != 1 || n[0] == "0" {
		t.Errorf("%v refusals", n)
	}
	answer(t, c, held, api.NewAnswer{Verdict: "deny"})
	<-done
	until(t, "the denial is counted", func() bool {
		return strings.Contains(scrape(t, at), `nemoclaw_approval_wait_seconds_count{outcome="denied",sandbox="busy"} 1`)
	})

	text := scrape(t, at)
	lint := exec.Command(tool(t, "promtool"), "check", "metrics")
	lint.Stdin = strings.NewReader(text)
	if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if series := regexp.MustCompile(`(?m)^nemoclaw_.*(metrics\.test|/workspace/probe)`).FindString(text); series != "" {
		t.Errorf("what the inside chose is a label: %s", series)
	}
	d.Do(t, "destroy", "--yes", "busy")
	if text := scrape(t, at); strings.Contains(text, `"busy"`) || !strings.Contains(text, `"idle"`) {
		t.Error("a destroyed sandbox is shown, or one that there is is not")
	}
}

// TestGPUMetrics: what the driver says is shown, and what happens to it: a GPU that fails, a helper that crashes, a driver that hangs.
// Nothing of it takes the other metrics away, and a host without a driver has no series and nothing to say.
func TestGPUMetrics(t *testing.T) {
	t.Parallel()
	const at, without = "127.0.0.25:9464", "127.0.0.26:9464"
	d, host := harness.W.PrepareDaemon(t, "--metrics", at), harness.W.GPUHost(t)
	d.On = host
	d.Start(t)
	create(t, d, "part", shell+"devices: {gpus: ["+fakenvml.Part+"]}\n")
	c, _ := dial(t, d)
	create(t, d, "trainer", shell+"devices: {gpus: [0]}\n")
	lines := slices.Insert(slices.Clone(fakenvml.Devices), 1, fmt.Sprintf("process pid=%d used=1073741824 sm=60", get(t, c, "trainer").PID))
	process := fmt.Sprintf("process pid=%d used=268435456 gi=7 ci=0", get(t, c, "part").PID)
	shows := func(what string, lines ...string) {
		t.Helper()
		until(t, what, func() bool {
			text := scrape(t, at)
			return strings.Contains(text, "nemoclaw_audit_ok 1\n") && !slices.ContainsFunc(lines, func(l string) bool {
				l, no := strings.CutPrefix(l, "no ")
				return strings.Contains(text, l) == no
			})
		})
	}
	host.Say(t, append(slices.Insert(lines, 1, "xid code=79 times=2"), process)...)
	shows("an instance and who uses it", `nemoclaw_sandbox_gpu_memory_bytes{gpu="2",sandbox="part",uuid="`+fakenvml.Part+`"} 2.68435456e+08`, `no nemoclaw_sandbox_gpu_utilisation_ratio{gpu="2"`,
		`nemoclaw_sandbox_gpu_utilisation_ratio{gpu="0",sandbox="trainer",uuid="`+fakenvml.First+`"} 0.6`,
		`no nemoclaw_gpu_utilisation_ratio{gpu="2"`, `nemoclaw_gpu_xid_errors_total{gpu="0",uuid="`+fakenvml.First+`",xid="79"} 2`, `nemoclaw_gpu_info{driver="`+fakenvml.Version+`",gpu="0",name="NVIDIA H200",uuid="`+fakenvml.First+`"} 1`, "nemoclaw_unread 0\n")
	host.Say(t, "gpu uuid="+fakenvml.First+" name=NVIDIA_H200 minor=0 ecc=1 corrected=9 uncorrected=3", "gpu minor=1", "gpu uuid="+fakenvml.Third+" minor=2 hot=1 temp=92")
	shows("GPUs that are not well", `nemoclaw_gpu_health{gpu="0",health="failed",uuid="`+fakenvml.First+`"} 1`, `nemoclaw_gpu_ecc_errors_total{gpu="0",kind="uncorrected",uuid="`+fakenvml.First+`"} 3`,
		`nemoclaw_gpu_health{gpu="1",health="failed",uuid=""} 1`, `nemoclaw_gpu_health{gpu="2",health="warning",uuid="`+fakenvml.Third+`"} 1`, `nemoclaw_gpu_temperature_celsius{gpu="2",uuid="`+fakenvml.Third+`"} 92`)
	for _, fault := range []string{"count crash", "count hang"} {
		host.Say(t, fault)
		shows("the rest after "+fault, "no nemoclaw_gpu_", "nemoclaw_unread 1\n", `nemoclaw_sandbox_state{sandbox="part",state="running"} 1`)
	}

	harness.W.StartDaemon(t, "--metrics", without)
	if text := scrape(t, without); strings.Contains(text, "gpu") || !strings.Contains(text, "nemoclaw_unread 0\n") {
		t.Errorf("a host without a driver:\n%s", regexp.MustCompile("(?m)^.*(gpu|unread).*$").FindAllString(text, -1))
	}
}

// TestAlertRules: promtool takes the rules, and each comes when it should and not before.
func TestAlertRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", "../../deploy/prometheus-rules.yml"}, {"test", "rules", "../../deploy/prometheus-rules-test.yml"}} {
		if out, err := exec.Command(tool(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", args, err, out)
		}
	}
}

// TestMetricsAreNotInside: no way out of a sandbox leads to the endpoint, not by a name of the host's loopback, nor through the proxy
// for programs that insist on one.
func TestMetricsAreNotInside(t *testing.T) {
	t.Parallel()
	const at = "127.0.0.22"
	d := harness.W.StartDaemon(t, "--metrics", at+":9464")
	scrape(t, at+":9464")                                     // it is there
	beside := harness.W.TCP(t, netip.MustParseAddr(at), 9465) // counts who comes, by the same ways
	harness.W.DNS.Set("home.metrics.test", netip.MustParseAddr(at))
	create(t, d, "box", harness.Files+"process:\n  allow: [{command: sh}, {command: curl}]\nnetwork:\n  allow:\n"+
		"    - {domain: home.metrics.test, ports: [9464, 9465], protocol: http}\n    - {cidr: 192.0.2.0/24, ports: [9464, 9465], protocol: tcp}\n")
	const proxy = "-x http://proxy.nemoclaw.internal:3128 "
	for _, way := range []string{
		"http://127.0.0.1:P/metrics", "http://" + at + ":P/metrics", "http://[::ffff:" + at + "]:P/metrics", "http://0.0.0.0:P/metrics", "http://[::1]:P/metrics",
		"http://home.metrics.test:P/metrics", "-H 'Host: localhost' http://home.metrics.test:P/metrics", "http://192.0.2.1:P/metrics",
		proxy + "http://" + at + ":P/metrics", proxy + "http://localhost:P/metrics", "-p " + proxy + "http://home.metrics.test:P/metrics", "-p " + proxy + "http://127.0.0.1:P/metrics",
		"--resolve x:P:198.18.0.1 http://x:P/metrics", "--unix-socket /run/nemoclaw/agent.sock http://x:P/metrics",
	} {
		for _, port := range []string{"9464", "9465"} {
			_, out, _ := d.Call(t, "box", "exec", "--", "sh", "-c", "curl -sS --max-time 5 "+strings.ReplaceAll(way, "P/", port+"/"))
			if strings.Contains(out, "nemoclaw_audit_ok") {
				t.Errorf("%s shows the metrics inside:\n%.300s", way, out)
			}
		}
	}
	if n := beside.Conns(); n != 0 {
		t.Errorf("%d connections from inside came to the host's loopback", n)
	}
}

// TestSlowClientsOfMetrics: who connects and says nothing, or half of it, does not keep others from the metrics, or the daemon from its end.
func TestSlowClientsOfMetrics(t *testing.T) {
	t.Parallel()
	const at = "127.0.0.23:9464"
	d := harness.W.StartDaemon(t, "--metrics", at)
	for i := range 32 {
		slow, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		if i%2 == 0 {
			fmt.Fprint(slow, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: ")
		}
	}
	scrape(t, at) // those before are given up, and it is its turn
	d.End(syscall.SIGTERM)
	d.Start(t)
	scrape(t, at)
}

// TestMetricsPortIsTaken: another program that has the port keeps no sandbox from running; when it goes the metrics come.
func TestMetricsPortIsTaken(t *testing.T) {
	t.Parallel()
	const at = "127.0.0.24:9464"
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := harness.W.StartDaemon(t, "--metrics", at)
	create(t, d, "box", shell)
	until(t, "the journal says so", func() bool { return strings.Contains(d.Log(), "metrics can't be served") })
	l.Close()
	until(t, "metrics are served", func() bool {
		// A connection proves nothing: a process that another test is about to start may hold the old socket for a moment.
		r, err := http.Get("http://" + at + "/metrics")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	if text := scrape(t, at); !strings.Contains(text, `nemoclaw_errors_total{severity="error"} 1`) {
		t.Error("the error is not counted")
	}
}

// TestMetricsBehindTLS: off loopback the endpoint wants a token and TLS; Prometheus's way in and no other leads to it.
func TestMetricsBehindTLS(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	at := net.JoinHostPort(a4.String(), "9464")
	dir := t.TempDir()
	empty := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(harness.W.AgentBin, "--check", "--config", empty, "--metrics", at).CombinedOutput(); err == nil || !strings.Contains(string(out), "is not on loopback") {
		t.Errorf("%v: %s", err, out)
	}
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("a-token-of-this-test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := harness.W.CA.Files(t, dir, "agent.metrics.test")
	d := harness.W.StartDaemon(t, "--metrics", at, "--metrics-token", token, "--metrics-cert", cert, "--metrics-key", key)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: harness.W.CA.Client("agent.metrics.test")}, Timeout: patience}
	ask := func(url, authorization string) (int, string, error) {
		r, err := http.NewRequest(http.MethodGet, url+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", authorization)
		got, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer got.Body.Close()
		text, err := io.ReadAll(got.Body)
		return got.StatusCode, string(text), err
	}
	if status, text, err := ask("https://"+at, "Bearer a-token-of-this-test"); err != nil || status != 200 || !strings.Contains(text, "nemoclaw_audit_ok 1") {
		t.Errorf("%d, %v: %.200s\n%s", status, err, text, d.Log())
	}
	for _, auth := range []string{"", "Bearer wrong", "Bearer A-token-of-this-test"} {
		if status, text, err := ask("https://"+at, auth); err != nil || status != 401 || strings.Contains(text, "nemoclaw_") {
			t.Errorf("%q: %d, %v", auth, status, err)
		}
	}
	if status, text, err := ask("http://"+at, "Bearer a-token-of-this-test"); err == nil && (status == 200 || strings.Contains(text, "nemoclaw_")) {
		t.Errorf("without TLS: %d", status)
	}
	if strings.Contains(d.Log(), "a-token") {
		t.Error("the token is in the journal")
	}
}
