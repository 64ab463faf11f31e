package report

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/audit/export"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// go test ./agent/report -run TestGolden -update writes the reports anew.
var update = flag.Bool("update", false, "write the golden files")

const goldenLog = "testdata/agent.jsonl"

// aDay is what the golden log was made of: some of everything that a report has, in a day.
func aDay() (list []policy.Decision) {
	at := noon.Add(-4 * time.Hour)
	add := func(after time.Duration, d policy.Decision) {
		at = at.Add(after)
		d.Time, d.Sandbox, d.Revision = at, "my-assistant", "f870ccda94cf4d06"
		if d.Rule == "" {
			d.Rule, d.Verdict = "builtin", policy.Allow
		}
		list = append(list, d)
	}
	system := func(after time.Duration, action, object, reason string) {
		add(after, policy.Decision{Plane: policy.PlaneSystem, Action: action, Object: object, Reason: reason})
	}
	connect := func(after time.Duration, object, exe string, v policy.Verdict, rule, reason string, n uint64) {
		add(after, policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: object, Subject: policy.Subject{PID: 4711, Exe: exe}, Verdict: v, Rule: rule, Reason: reason, Count: n})
	}
	h200, memory := gpu.GivenGPU{Name: "NVIDIA H200"}, int64(37<<30)
	const uuid = "GPU-10101010-1010-1010-1010-101010101010"
	system(0, "create", "my-assistant", "by alice (uid 1000)")
	system(time.Second, "start", "my-assistant", "level full, workspace /home/alice/project, policy agent.yaml revision 1")
	system(0, gpu.Action, uuid, gpu.Granted(h200))
	system(time.Minute, "command", "node agent.js --task 'summarise the backlog'", "started by alice (uid 1000)")
	for i := range 5 {
		connect(20*time.Minute, "registry.example:443", "/usr/bin/node", policy.Allow, "agent.yaml:7", "", uint64(30*i))
		connect(time.Minute, "api.example.com:443", "/usr/bin/node", policy.Allow, "agent.yaml:9", "", uint64(10+i))
		used := api.GPUTime{From: at.Add(-15 * time.Minute), To: at, Given: 9e11, Measured: 9e11, Busy: int64(i) * 2e11, Memory: &memory}
		if i == 3 {
			used.Measured, used.Busy = 6e11, 5e11
		}
		system(0, gpu.Action, uuid, gpu.Used(h200, used))
	}
	connect(time.Minute, "telemetry.a-rather-long-name-of-a-host-that-fills-the-chart.eu-central-1.example.net:443", "/usr/bin/node", policy.Deny, "default", "no rule allows it", 412)
	connect(time.Second, "169.254.169.254:80", "/usr/bin/curl", policy.Deny, "builtin", "the cloud's metadata", 0)
	add(time.Second, policy.Decision{Plane: policy.PlaneDNS, Action: "resolve", Object: "xn--pypl-53d.example", Verdict: policy.Deny, Rule: "default"})
	connect(time.Second, "asked.example:443", "/usr/bin/git", policy.Ask, "agent.yaml:12", "", 0)
	add(4*time.Second, policy.Decision{Plane: policy.PlaneSystem, Action: "answer", Asked: "network connect", Object: "asked.example:443", Subject: policy.Subject{Exe: "/usr/bin/git"}, Verdict: policy.Allow, Rule: "agent.yaml:12", Reason: "alice (uid 1000) allowed it (once) after 4s: connect asked.example:443"})
	connect(0, "asked.example:443", "/usr/bin/git", policy.Allow, "agent.yaml:12", "approved by a person", 0)
	for _, p := range []string{"/usr/bin/node", "/usr/bin/git", "/usr/bin/curl"} {
		add(time.Second, policy.Decision{Plane: policy.PlaneExec, Action: "exec", Object: p, Verdict: policy.Allow, Rule: "agent.yaml:20", Count: 7})
	}
	add(time.Second, policy.Decision{Plane: policy.PlaneExec, Action: "exec", Object: "/tmp/\u202egnp.exe\x1b[2J", Verdict: policy.Deny, Rule: "default"})
	add(time.Second, policy.Decision{Plane: policy.PlaneFile, Action: "open", Object: "/home/alice/.ssh/id_ed25519", Subject: policy.Subject{Exe: "/usr/bin/node"}, Verdict: policy.Deny, Rule: "builtin", Reason: "a key"})
	add(time.Second, policy.Decision{Plane: policy.PlaneDevice, Action: "open", Object: "/dev/nvidia1 (c 195:1 rw)", Verdict: policy.Deny, Rule: "agent.yaml:30"})
	for _, m := range []policy.ModelCall{
		{Model: "corp/big", Route: "cloud", TokensIn: 120_000, TokensOut: 9_000, TokensCached: 40_000, Cost: 512_300}, {Model: "ollama/small", Route: "local", TokensIn: 30_000, TokensOut: 12_000, Estimated: true, Classes: map[string]int{"email": 2}},
	} {
		add(time.Minute, policy.Decision{Plane: policy.PlaneInference, Action: "request", Object: m.Model, Verdict: policy.Allow, Rule: "agent.yaml:40", Inference: &m})
	}
	system(time.Minute, "upload", "/workspace/data.csv", "1 files, 20480 bytes by alice (uid 1000)")
	system(time.Minute, "policy", "f870ccda94cf4d06", "network: added: allow api.example.com:443, by alice (uid 1000)")
	system(time.Minute, "lost", "my-assistant", "3 events that the kernel could not hand over")
	system(time.Hour, "stop", "my-assistant", "")
	return list
}

// goldenChanges is what was found of its files.
func goldenChanges() api.Changes {
	c := api.Changes{Added: 61, Changed: 3, Touched: 1, Removed: 1, Bytes: 7 << 20, Looked: 5120, Places: []string{"/home/agent", "/tmp", "/workspace"}, Missed: []string{"/data: permission denied"}}
	for i, f := range []struct {
		path, kind string
		what       api.ChangeKind
		size       int64
	}{
		{"/workspace/report.md", "file", api.Modified, 18_432}, {"/workspace/src/index.js", "file", api.Modified, 2_048}, {"/workspace/new\nline\u202e.txt", "file", api.Added, 3}, {"/workspace/run.sh", "file", api.Touched, 120},
		{"/workspace/old", "directory", api.Removals, 4096}, {"/home/agent/.cache/node/a-very-long-directory-name/which-goes-on/and-on/until-nobody-reads-it/index.json", "file", api.Added, 6 << 20}, {"/tmp/socket", "socket", api.Added, 0},
	} {
		c.Files = append(c.Files, api.Changed{Path: f.path, Kind: f.kind, What: f.what, Size: f.size, Time: noon.Add(-time.Duration(i) * time.Minute)})
	}
	return c
}

// TestGolden: the whole reports of a log are what they were. Whoever changes a report reads the difference.
func TestGolden(t *testing.T) {
	t.Parallel()
	if *update {
		writeGoldenLog(t)
	}
	did := NewActivity("my-assistant", noon.Add(-12*time.Hour), noon.Add(12*time.Hour))
	err := audit.Query(context.Background(), filepath.Dir(goldenLog), "agent", audit.Filter{}, func(_ uint64, line []byte) error {
		d, err := export.Parse(line)
		did.Add(&d)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	did.Changed(goldenChanges(), nil)
	soc2, _, err := Audit(context.Background(), "soc2", &Source{Logs: []string{goldenLog}, NoOwn: "this test has no key"}, noon, "test")
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*Document{"activity": did.Document(&api.Sandbox{Name: "my-assistant", State: api.Stopped, Workspace: "/home/alice/project"}, noon, "test"), "soc2": soc2} {
		for form, write := range Formats {
			file := filepath.Join("testdata", name+"."+form)
			var got bytes.Buffer
			if err := write(&got, d); err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(file); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s is another report now, %v; go test ./agent/report -run TestGolden -update writes it", file, err)
			}
		}
	}
}

func writeGoldenLog(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	w, err := audit.OpenChain(dir, "agent", "", audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range aDay() {
		d.Seq = uint64(i + 1)
		if err := w.Append(&d); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "agent.jsonl"))
	if err == nil {
		err = os.MkdirAll("testdata", 0o755)
	}
	if err == nil {
		err = os.WriteFile(goldenLog, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
