package gpu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/fakenvml"
)

var built struct {
	dir, err string
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gpu-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = build(dir)
	}
	if err != nil {
		built.err = err.Error()
	}
	built.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build builds the helper and the libraries.
func build(dir string) error {
	// Nobody has to get there, where the tests are root's.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, Program), "../../cmd/nemoclaw-gpu")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// helper makes one whose driver says lines.
func helper(t *testing.T, lines ...string) (*Helper, func(lines ...string)) {
	t.Helper()
	if built.err != "" {
		t.Fatal("building the helper and the libraries: ", built.err)
	}
	dir := t.TempDir()
	for p := dir; p != os.TempDir(); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := fakenvml.Build(dir, dir); err != nil {
		t.Fatal(err)
	}
	say := func(lines ...string) {
		t.Helper()
		if err := fakenvml.Say(dir, lines...); err != nil {
			t.Fatal(err)
		}
	}
	say(lines...)
	h := &Helper{Path: filepath.Join(built.dir, Program), Env: []string{"LD_LIBRARY_PATH=" + dir}, signs: []string{dir}}
	t.Cleanup(h.Close)
	return h, say
}

// again forgets what was said, and that a failure has to be waited for.
func (h *Helper) anew(t *testing.T) api.GPUs {
	t.Helper()
	h.mu.Lock()
	h.said, h.when = api.GPUs{}, h.when.Add(-2*fresh)
	h.mu.Unlock()
	h.turn.Lock()
	h.again = h.again.Add(-mostWait)
	h.turn.Unlock()
	return h.Look(context.Background())
}

func TestInventory(t *testing.T) {
	t.Parallel()
	lines := slices.Insert(slices.Clone(fakenvml.Devices), 1, "process pid=4711 used=536870912 sm=35", "process pid=4712", "process pid=4713 used=1048576 graphics=1")
	lines = append(lines, "process pid=4714 used=1073741824 gi=7 ci=0")
	h, _ := helper(t, lines...)
	g := h.Look(context.Background())
	if g.State != api.GPUsReady || g.Driver != fakenvml.Version || g.CUDA != "12.8" || len(g.GPUs) != 3 {
		t.Fatalf("%+v", g)
	}
	first := g.GPUs[0]
	if first.UUID != fakenvml.First || first.Name != "NVIDIA H200" || first.Bus != "00000000:01:00.0" || first.Capability != "9.0" || first.Memory != (api.GPUMemory{Total: 150754820096, Used: 1 << 30}) ||
		*first.Busy != 37 || *first.MemoryBusy != 12 || *first.Power != 120500 || *first.PowerLimit != 700000 || *first.Temperature != 41 || !first.ECC.Enabled || first.Health != "ok" {
		t.Errorf("%+v", first)
	}
	if len(first.Processes) != 3 || first.Processes[0].PID != 4711 || *first.Processes[0].Memory != 1<<29 || *first.Processes[0].Busy != 35 ||
		first.Processes[1].Memory != nil || *first.Processes[1].Busy != 0 || !first.Processes[2].Graphics {
		t.Errorf("%+v", first.Processes)
	}
	parted := g.GPUs[2]
	if !parted.MIG || len(parted.Instances) != 2 || parted.Instances[0].UUID != fakenvml.Part || parted.Instances[1].GPUInstance != 8 || parted.Busy != nil {
		t.Errorf("%+v", parted)
	}
	if p := parted.Processes; len(p) != 1 || p[0].Instance != fakenvml.Part || p[0].Busy != nil {
		t.Errorf("%+v", p)
	}
}

// TestUnified asks a device that shares the host's memory and knows little of itself.
func TestUnified(t *testing.T) {
	t.Parallel()
	h, _ := helper(t, "gpu uuid="+fakenvml.First+" name=NVIDIA_GB10 minor=0 busy=4 membusy=0 power=9800 temp=38")
	g := h.Look(context.Background())
	if g.State != api.GPUsReady || len(g.GPUs) != 1 {
		t.Fatalf("%+v", g)
	}
	spark := g.GPUs[0]
	if !spark.Memory.Unified || spark.Memory.Total < 1<<28 || spark.Memory.Used <= 0 || spark.Memory.Used > spark.Memory.Total {
		t.Errorf("memory %+v, want the host's", spark.Memory)
	}
	if spark.ECC != nil || spark.PowerLimit != nil || spark.MIG || spark.Health != "ok" {
		t.Errorf("%+v", spark)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	h, _ := helper(t,
		"gpu uuid="+fakenvml.First+" minor=0 ecc=1 corrected=9 uncorrected=3",
		"gpu uuid="+fakenvml.Second+" minor=1 hot=1",
		"gpu minor=2", // lost
		"gpu uuid="+fakenvml.Third+" minor=3 remapfail=1 hot=1",
	)
	g := h.Look(context.Background())
	if len(g.GPUs) != 4 {
		t.Fatalf("%+v", g)
	}
	for i, want := range []struct{ health, problems string }{
		{"failed", "3 errors of its memory could not be corrected since the driver was loaded"},
		{"warning", "it is slowed down because it is too hot"},
		{"failed", "it does not answer: GPU is lost (15)"},
		{"failed", "a bad row of its memory could not be replaced; it is slowed down because it is too hot"},
	} {
		if got := g.GPUs[i]; got.Health != want.health || strings.Join(got.Problems, "; ") != want.problems {
			t.Errorf("device %d is %s: %q, want %s: %q", i, got.Health, got.Problems, want.health, want.problems)
		}
	}
}

// TestNothing is asked on hosts where something is not there: no error, and a word for it.
func TestNothing(t *testing.T) {
	t.Parallel()
	h, _ := helper(t)
	h.signs = []string{"/proc/driver/nvidia/no"}
	if g := h.Look(context.Background()); g.State != api.GPUsAbsent || g.Reason != "NVIDIA's driver is not loaded" || g.GPUs == nil {
		t.Errorf("without a driver: %+v", g)
	}
	h, _ = helper(t)
	h.Path = filepath.Join(t.TempDir(), Program)
	if g := h.Look(context.Background()); g.State != api.GPUsAbsent || !strings.Contains(g.Reason, "is not installed") {
		t.Errorf("without a helper: %+v", g)
	}
	h, _ = helper(t)
	h.Env = nil
	if g := h.Look(context.Background()); g.State != api.GPUsAbsent || !strings.Contains(g.Reason, "libnvidia-ml.so.1") {
		t.Errorf("without the library: %+v", g)
	}
	h, _ = helper(t, "init 9")
	if g := h.Look(context.Background()); g.State != api.GPUsAbsent {
		t.Errorf("with a library and no driver: %+v", g)
	}
	h, _ = helper(t, "init 18")
	if g := h.Look(context.Background()); g.State != api.GPUsBroken || g.Reason != "nvmlInit: Driver/library version mismatch (18)" {
		t.Errorf("with a library of another driver: %+v", g)
	}
}

// TestCrash lets the driver crash in the middle: it is said, not tried again at once, and the next helper works.
func TestCrash(t *testing.T) {
	t.Parallel()
	h, say := helper(t, fakenvml.Devices...)
	if g := h.Look(context.Background()); g.State != api.GPUsReady {
		t.Fatalf("%+v", g)
	}
	say("count crash")
	g := h.anew(t)
	if g.State != api.GPUsBroken || !strings.Contains(g.Reason, "nemoclaw-gpu crashed (exit status 2): SIGABRT: abort") {
		t.Errorf("after a crash: %+v", g)
	}
	say(fakenvml.Devices...)
	h.mu.Lock()
	h.when = h.when.Add(-fresh)
	h.mu.Unlock()
	if again := h.Look(context.Background()); again.State != api.GPUsBroken || again.Reason != g.Reason {
		t.Errorf("at once after a crash: %+v", again)
	}
	if g := h.anew(t); g.State != api.GPUsReady || len(g.GPUs) != 3 {
		t.Errorf("later: %+v", g)
	}
}

// TestHang lets the driver hang: who asks is told so when their time is over, and the helper is ended.
func TestHang(t *testing.T) {
	t.Parallel()
	h, say := helper(t, "count hang")
	h.limit = lookTime / 20
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if g := h.Look(ctx); g.State != api.GPUsBroken || g.Reason != "NVIDIA's driver has not answered yet" {
		t.Errorf("who does not wait: %+v", g)
	}
	if g := h.Look(context.Background()); g.State != api.GPUsBroken || g.Reason != "NVIDIA's driver did not answer within 500ms" {
		t.Errorf("who waits: %+v", g)
	}
	say(fakenvml.Devices...)
	if g := h.anew(t); g.State != api.GPUsReady {
		t.Errorf("later: %+v", g)
	}
}

// TestCloseInTheMiddle ends a helper whose driver hangs: nobody waits for its time to be over.
func TestCloseInTheMiddle(t *testing.T) {
	t.Parallel()
	h, _ := helper(t, "count hang")
	h.limit = time.Hour
	said := make(chan api.GPUs)
	go func() { said <- h.Look(context.Background()) }()
	for asked := false; !asked; time.Sleep(time.Millisecond) {
		h.mu.Lock()
		asked = h.asked != nil
		h.mu.Unlock()
	}
	h.Close()
	if g := <-said; g.State != api.GPUsBroken {
		t.Errorf("%+v", g)
	}
	if g := h.Look(context.Background()); h.runs != nil {
		t.Errorf("after Close a helper runs: %+v", g)
	}
}

// TestProve computes; the fake library's devices are nodes of /dev, of which this host has none.
func TestProve(t *testing.T) {
	t.Parallel()
	h, _ := helper(t)
	if _, err := os.Stat("/dev/nvidiactl"); err == nil {
		t.Fatal("this host has a GPU: make test-gpu is for it")
	}
	if _, err := h.Prove(t.Context()); err == nil || err.Error() != "cuInit: CUDA_ERROR_OPERATING_SYSTEM (304)" { // no driver's module
		t.Errorf("without a device: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if proofs, err := h.Prove(ended); err == nil {
		t.Errorf("after the end: %+v", proofs)
	}
	h.Env = nil
	if _, err := h.Prove(t.Context()); err == nil || !strings.Contains(err.Error(), "loading libcuda.so.1") {
		t.Errorf("without the library: %v", err)
	}
}

// TestRights looks at what a helper has given up.
func TestRights(t *testing.T) {
	t.Parallel()
	h, _ := helper(t, fakenvml.Devices...)
	if g := h.Look(context.Background()); g.State != api.GPUsReady {
		t.Fatalf("%+v", g)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.runs.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"NoNewPrivs:\t1", "CapEff:\t0000000000000000"}
	if os.Geteuid() == 0 {
		want = append(want, "Uid:\t65534\t65534\t65534\t65534", "CapPrm:\t0000000000000000", "Groups:\t \n")
	}
	for _, w := range want {
		if os.Geteuid() != 0 && strings.HasPrefix(w, "Cap") {
			continue
		}
		if !strings.Contains(string(text), w) {
			t.Errorf("the helper's status has no %q:\n%s", w, text)
		}
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteFrame(&b, Question{Look}); err != nil {
		t.Fatal(err)
	}
	var q Question
	if err := ReadFrame(bytes.NewReader(b.Bytes()), &q); err != nil || q.Op != Look {
		t.Errorf("%+v, %v", q, err)
	}
	for name, bad := range map[string]string{
		"too long": "\xff\xff\xff\xff", "cut": b.String()[:b.Len()-1], "no JSON": "\x00\x00\x00\x02{x", "another version's": "\x00\x00\x00\x0c" + `{"op":1,"x":}`,
		"an unknown field": "\x00\x00\x00\x08" + `{"x": 1}`,
	} {
		if err := ReadFrame(strings.NewReader(bad), &q); err == nil {
			t.Errorf("a frame that is %s is taken", name)
		}
	}
}

// TestXIDs: each error that the driver reports is counted once, by its kind, over a helper that crashed and a device that is lost, and no
// more kinds are kept than there is room for.
func TestXIDs(t *testing.T) {
	t.Parallel()
	first, silent := "gpu uuid="+fakenvml.First+" minor=0 events=1", "gpu uuid="+fakenvml.Second+" minor=1"
	h, say := helper(t, first, "xid code=79 times=9", silent, "xid code=31 times=1")
	xids := func() []string {
		var list []string
		g := h.anew(t)
		for _, d := range g.GPUs {
			list = append(list, fmt.Sprint(d.XIDs))
		}
		return list
	}
	check := func(when string, want ...string) {
		t.Helper()
		if got := xids(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	check("at first", "[{79 9}]", "[]")
	check("of nothing new", "[{79 9}]", "[]")
	say(first, "xid code=79 times=10", "xid code=31 times=2", silent)
	check("of more", "[{79 10} {31 2}]", "[]")
	say("count crash")
	h.anew(t)
	say(first, "xid code=79 times=1", silent)
	check("of another helper", "[{79 11} {31 2}]", "[]")
	say("gpu minor=0 events=1", "xid code=48 times=1", silent)
	check("of one that is lost", "[{79 11} {31 2} {48 1}]", "[]")
	lines := []string{first}
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("xid code=%d times=1", 1000+i))
	}
	say(lines...)
	list := h.anew(t).GPUs[0].XIDs
	if len(list) != maxCodes+1 || list[maxCodes] != (api.GPUXID{Code: otherCode, Times: 60 - maxCodes + 3}) {
		t.Errorf("of many kinds: %v", list)
	}
}

func TestXIDsAreBounded(t *testing.T) {
	t.Parallel()
	var x xids
	for i := range 2 * maxCounted {
		x.add([]XID{{Index: i, UUID: fmt.Sprint(i), Code: 1 << 63, Times: 1}})
	}
	if len(x) != maxCounted || x[0].list[0].Code != otherCode {
		t.Errorf("%d devices are counted, the first %+v", len(x), x[0])
	}
}
