package metrics

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/histogram"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// source is a daemon that has everything there can be.
type source struct{ Snapshot }

func (s *source) Metrics() Snapshot { return s.Snapshot }

func box(h *hub.Hub, name string) Sandbox {
	waited := histogram.New(time.Second, time.Minute)
	var bounds []time.Duration // as the router has them, each the root of two times the one before
	for i := range 41 {
		bounds = append(bounds, time.Duration(float64(time.Millisecond)*math.Pow(2, float64(i)/2)))
	}
	took := histogram.New(bounds...)
	for range 5 {
		took.Observe(time.Second)
	}
	waited.Observe(3 * time.Second)
	r := h.Sandbox(name)
	r.Record(policy.Decision{Plane: policy.PlaneNetwork, Verdict: policy.Deny, Count: 3})
	return Sandbox{
		Name: name, State: api.Running, Records: r,
		Approvals: approvals.Counts{Held: 1, Open: 2, Waited: map[approvals.Outcome]histogram.Snapshot{approvals.Allowed: waited.Snapshot()}},
		Running: &Running{
			Started: time.Unix(1700000000, 500_000_000),
			Proxy: dnsproxy.Stats{
				Conns: map[dnsproxy.ConnOutcome]uint64{dnsproxy.ConnRelayed: 7}, Setup: waited.Snapshot(), Queries: map[dnsproxy.DNSOutcome]uint64{dnsproxy.DNSBlocked: 4},
			},
			Models: []inference.Measured{{Model: inference.RefusedModel}, {Model: "ollama/one", Snapshot: inference.Snapshot{
				Requests: map[policy.Route]map[inference.Outcome]uint64{policy.RouteLocal: {inference.Answered: 5}}, Input: 10, Output: 20,
				Latency: took.Snapshot(),
			}}},
			GPUs:  []api.SandboxGPU{{Index: 1, UUID: "GPU-1", GPUUse: api.GPUUse{Memory: pointer(int64(1 << 30)), Busy: pointer(60)}}},
			Usage: sandbox.Usage{Memory: 1 << 20, MemoryLimit: 1 << 30, Tasks: 3, TaskLimit: 10, Disk: &sandbox.DiskUse{Read: 1, Written: 2}},
		},
	}
}

func pointer[T any](v T) *T { return &v }

func whole(names ...string) *source {
	h := hub.New(nil)
	s := &source{Snapshot{
		Version: "1", Level: "static", Strays: map[loader.Hook]uint64{loader.HookExec: 1}, Maps: []loader.MapUse{{Name: "rules", Entries: 1, Capacity: 2}},
		Tracing: true, Traces: trace.State{Sent: 9, Full: 2, Refused: 1},
		Receivers: []api.Forward{{Name: "siem", Kind: "syslog", Seq: 5, Lag: 2, Behind: 1.5, Refused: 3, Removed: 4, Error: "down"}},
		Programs:  []loader.ProgramUse{{Name: "connect4", Runs: 1, Time: time.Millisecond}}, Lost: 6,
		GPUs: api.GPUs{State: api.GPUsReady, Driver: "570.124.06", GPUs: []api.GPU{{
			Index: 1, UUID: "GPU-1", Name: "NVIDIA H200", Memory: api.GPUMemory{Total: 1 << 37, Used: 1 << 30}, Busy: pointer(37), MemoryBusy: pointer(12),
			Power: pointer(int64(120500)), PowerLimit: pointer(int64(700000)), Temperature: pointer(41), ECC: &api.GPUECC{Enabled: true, Corrected: 2}, Health: "warning", XIDs: []api.GPUXID{{Code: 79, Times: 1}, {Code: -1, Times: 5}},
		}}},
	}}
	for _, n := range names {
		s.Sandboxes = append(s.Sandboxes, box(h, n))
	}
	return s
}

// serve serves a source as a daemon does, but for the listener.
func serve(t *testing.T, c config.Config, s Source, log io.Writer) *httptest.Server {
	t.Helper()
	m, err := New(c, s, CountErrors(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = &m.http
	server.Start()
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got.StatusCode, string(text)
}

// TestEachMetricOfTheListIsShown, and nothing that is not on it.
func TestEachMetricOfTheListIsShown(t *testing.T) {
	t.Parallel()
	s := serve(t, config.Config{}, whole("a", "b"), io.Discard)
	_, text := get(t, s.URL+Path)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range List() {
		f := families[m.Name]
		if f == nil {
			t.Errorf("%s is not shown", m.Name)
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != string(m.Kind) {
			t.Errorf("%s is a %s, want %s", m.Name, got, m.Kind)
		}
		for _, one := range f.GetMetric() {
			var labels []string
			for _, l := range one.GetLabel() {
				labels = append(labels, l.GetName())
			}
			if want := slices.Sorted(slices.Values(m.Labels)); !slices.Equal(labels, want) {
				t.Errorf("%s has the labels %v, want %v", m.Name, labels, want)
			}
		}
		delete(families, m.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not on the list", name)
		}
	}
	for _, want := range []string{
		`nemoclaw_decisions_total{plane="network",sandbox="a",verdict="deny"} 3`, `nemoclaw_approval_wait_seconds_bucket{outcome="allowed",sandbox="b",le="60"} 1`,
		`nemoclaw_inference_requests_total{model="ollama/one",outcome="answered",route="local",sandbox="a"} 5`, `nemoclaw_inference_tokens_total{direction="output",model="ollama/one",sandbox="b"} 20`,
		`nemoclaw_inference_seconds_bucket{model="ollama/one",sandbox="a",le="0.512"} 0`, `nemoclaw_inference_seconds_bucket{model="ollama/one",sandbox="a",le="1.024"} 5`,
		`nemoclaw_forward_lost_records_total{cause="refused",receiver="siem"} 3`, `nemoclaw_forward_up{receiver="siem"} 0`, `nemoclaw_forward_lag_seconds{receiver="siem"} 1.5`,
		`nemoclaw_proxy_connections_total{outcome="relayed",sandbox="a"} 7`, `nemoclaw_sandbox_start_time_seconds{sandbox="a"} 1.7000000005e+09`,
		`nemoclaw_gpu_utilisation_ratio{gpu="1",uuid="GPU-1"} 0.37`, `nemoclaw_gpu_power_watts{gpu="1",uuid="GPU-1"} 120.5`, `nemoclaw_gpu_health{gpu="1",health="warning",uuid="GPU-1"} 1`,
		`nemoclaw_gpu_health{gpu="1",health="ok",uuid="GPU-1"} 0`, `nemoclaw_gpu_ecc_errors_total{gpu="1",kind="corrected",uuid="GPU-1"} 2`,
		`nemoclaw_gpu_xid_errors_total{gpu="1",uuid="GPU-1",xid="79"} 1`, `nemoclaw_gpu_xid_errors_total{gpu="1",uuid="GPU-1",xid="other"} 5`,
		`nemoclaw_sandbox_gpu_utilisation_ratio{gpu="1",sandbox="b",uuid="GPU-1"} 0.6`, `nemoclaw_audit_records_lost_total 6`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is not in %d lines", want, strings.Count(text, "\n"))
		}
	}
}

// TestASandboxThatIsGoneHasNoSeries: there are as many as there are sandboxes, whatever there was.
func TestASandboxThatIsGoneHasNoSeries(t *testing.T) {
	t.Parallel()
	from := whole("stays", "goes")
	s := serve(t, config.Config{}, from, io.Discard)
	if _, text := get(t, s.URL+Path); !strings.Contains(text, `"goes"`) {
		t.Fatal(text)
	}
	from.Sandboxes = from.Sandboxes[:1]
	if _, text := get(t, s.URL+Path); strings.Contains(text, `"goes"`) || !strings.Contains(text, `"stays"`) {
		t.Error(text)
	}
}

// TestWhatAGPUDoesNotKnowIsNoSeries, nor is anything of a host without a driver, which is no error either.
func TestWhatAGPUDoesNotKnowIsNoSeries(t *testing.T) {
	t.Parallel()
	from := whole("a")
	from.GPUs.GPUs = []api.GPU{{Index: 0, Health: "failed"}, {Index: 1, UUID: "GPU-1", Health: "ok", ECC: &api.GPUECC{}}}
	from.Sandboxes[0].Running.GPUs = []api.SandboxGPU{{Index: 1, UUID: "GPU-1"}}
	s := serve(t, config.Config{}, from, io.Discard)
	series := func() (list []string) {
		_, text := get(t, s.URL+Path)
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") && strings.Contains(line, "gpu") {
				list = append(list, strings.TrimSpace(line))
			}
		}
		return list
	}
	if got := strings.Join(series(), "\n"); strings.Count(got, "\n")+1 != 8 || !strings.Contains(got, `nemoclaw_gpu_health{gpu="0",health="failed",uuid=""} 1`) {
		t.Errorf("of two GPUs that say only how they are:\n%s", got)
	}
	from.GPUs, from.Sandboxes[0].Running.GPUs = api.GPUs{State: api.GPUsAbsent}, nil
	if got := series(); len(got) > 0 {
		t.Errorf("without a driver: %v", got)
	}
	if _, text := get(t, s.URL+Path); !strings.Contains(text, "nemoclaw_unread 0\n") {
		t.Error("that there is no driver is taken for an error")
	}
}

// TestHostileNames end no line, begin no series, and cost nobody the scrape. No sandbox can have such a name; the endpoint does not
// depend on it.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	names := []string{"a\"} 1\nnemoclaw_audit_ok 0\n#", "b\\", "c\xff\xfe", "d\x00\r\n", "", strings.Repeat("e", 1<<16), "f{}=,"}
	s := serve(t, config.Config{}, whole(names...), io.Discard)
	status, text := get(t, s.URL+Path)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if status != http.StatusOK || err != nil {
		t.Fatalf("%d, %v", status, err)
	}
	if f := families[auditOK.Name].GetMetric(); len(f) != 1 || f[0].GetGauge().GetValue() != 1 {
		t.Errorf("a name has made series: %v", f)
	}
	if n := len(families[held.Name].GetMetric()); n != len(names) {
		t.Errorf("%d series of %d sandboxes", n, len(names))
	}
}

// TestWhoMayLook: with a token only who has it; without one nobody by a name that a web page could have.
func TestWhoMayLook(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/token"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("0123456789abcdef\n")
	var log strings.Builder
	closed := serve(t, config.Config{MetricsToken: file}, whole(), &log)
	open := serve(t, config.Config{}, whole(), io.Discard)
	for _, tt := range []struct {
		s      *httptest.Server
		path   string
		header []string
		status int
	}{
		{open, Path, nil, 200},
		{open, "/", nil, 404},
		{open, "/debug/pprof/", nil, 404},
		{open, Path, []string{"Host", "localhost:9464"}, 200},
		{open, Path, []string{"Host", "[::1]:9464"}, 200},
		{open, Path, []string{"Host", "rebound.example.org"}, 403},
		{open, Path, []string{"Host", "127.0.0.1.example.org:9464"}, 403},
		{closed, Path, nil, 401},
		{closed, "/nowhere", nil, 401},
		{closed, Path, []string{"Authorization", "Bearer 0123456789abcde"}, 401},
		{closed, Path, []string{"Authorization", "Bearer 0123456789abcdef0"}, 401},
		{closed, Path, []string{"Authorization", "Basic 0123456789abcdef"}, 401},
		{closed, Path, []string{"Authorization", "Bearer "}, 401},
		{closed, Path, []string{"Authorization", "Bearer 0123456789abcdef"}, 200},
		{closed, Path, []string{"Authorization", "Bearer 0123456789abcdef", "Host", "metrics.example.org"}, 200},
	} {
		if status, text := get(t, tt.s.URL+tt.path, tt.header...); status != tt.status || status != 200 && strings.Contains(text, "nemoclaw_") {
			t.Errorf("%s %q: %d, want %d\n%.200s", tt.path, tt.header, status, tt.status, text)
		}
	}
	write("another-0123456789abcdef")
	if status, _ := get(t, closed.URL+Path, "Authorization", "Bearer 0123456789abcdef"); status != 401 {
		t.Errorf("the token of before: %d", status)
	}
	write("")
	for _, header := range []string{"Bearer ", "Bearer 0123456789abcdef"} {
		if status, _ := get(t, closed.URL+Path, "Authorization", header); status != 403 {
			t.Errorf("%q, and no token is in the file: %d", header, status)
		}
	}
	if n := strings.Count(log.String(), "nobody can be let in"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

// TestSecretsAreNotEverybodys: files that the endpoint would rest on are looked at.
func TestSecretsAreNotEverybodys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"0123456789abcdef", 0o640, ""},
		{"0123456789abcdef", 0o644, "chmod 640"},
		{"0123456789abcdef", 0o660, "chmod 640"},
		{"short", 0o600, "at least 16"},
		{"two lines 0123456789\n0123456789", 0o600, "one line"},
		{strings.Repeat("x", 1<<20), 0o600, "too long"},
	} {
		file := dir + "/token"
		_ = os.Remove(file)
		if err := errors.Join(os.WriteFile(file, []byte(tt.text), 0o600), os.Chmod(file, tt.mode)); err != nil {
			t.Fatal(err)
		}
		err := Check(config.Config{MetricsToken: file})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.20q, mode %o: %v, want %q", tt.text, tt.mode, err, tt.want)
		}
	}
	if err := Check(config.Config{MetricsToken: dir}); err == nil {
		t.Error("a directory is a token")
	}
	// One that nobody writes to would hold who asks for ever, and so all of the endpoint's places.
	pipe := dir + "/pipe"
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(chan error, 1)
	go func() { said <- Check(config.Config{MetricsToken: pipe}) }()
	select {
	case err := <-said:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("a pipe is a token: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("a pipe is waited for")
	}
	if os.Geteuid() == 0 { // who can give a file away
		file := dir + "/token"
		if err := errors.Join(os.WriteFile(file, []byte("0123456789abcdef"), 0o600), os.Chmod(file, 0o600), os.Chown(file, 65534, 0)); err != nil {
			t.Fatal(err)
		}
		if err := Check(config.Config{MetricsToken: file}); err == nil || !strings.Contains(err.Error(), "chown root") {
			t.Errorf("another account's file is a token: %v", err)
		}
	}
	if err := Check(config.Config{MetricsCert: dir + "/none", MetricsKey: dir + "/none"}); err == nil {
		t.Error("a certificate that is not there is one")
	}
}

// TestErrorsAreCounted, whatever was made of the log.
func TestErrorsAreCounted(t *testing.T) {
	t.Parallel()
	e := CountErrors(slog.NewTextHandler(io.Discard, nil))
	log := slog.New(e).With("a", 1).WithGroup("g")
	log.Info("x")
	log.Warn("x")
	log.Error("x")
	log.Error("x")
	if e.warnings.Load() != 1 || e.errors.Load() != 2 || time.Since(time.Unix(e.last.Load(), 0)) > time.Hour {
		t.Errorf("%d warnings, %d errors, last %d", e.warnings.Load(), e.errors.Load(), e.last.Load())
	}
}

// TestWhatCantBeReadIsSaidOnce: a scrape shows the rest, and the journal is not filled.
func TestWhatCantBeReadIsSaidOnce(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	from := whole("a")
	from.Unread = []error{errors.New("no map")}
	s := serve(t, config.Config{}, from, &log)
	for range 3 {
		if _, text := get(t, s.URL+Path); !strings.Contains(text, "nemoclaw_unread 1\n") || !strings.Contains(text, `"a"`) {
			t.Error(text)
		}
	}
	lines := 0
	for in := bufio.NewScanner(strings.NewReader(log.String())); in.Scan(); lines++ {
		if !strings.Contains(in.Text(), "no map") {
			t.Error(in.Text())
		}
	}
	if lines != 1 {
		t.Errorf("%d lines", lines)
	}
}
