//go:build e2e

package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// coldEnv makes the test binary a fresh process that does what the start of a sandbox needs, and says what it cost.
const coldEnv = "NEMOCLAW_LOADER_COLD"

func coldMain() {
	f := strings.Split(os.Getenv(coldEnv), "|")
	start := time.Now()
	l, err := Open(Config{BPFFS: f[0], Parent: f[1]})
	opened := time.Since(start)
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.Open(f[2])
	if err != nil {
		fmt.Println(err)
		return
	}
	start = time.Now()
	g, err := l.NewGuard(dir, Options{MaxConns: 5})
	guarded := time.Since(start)
	if err != nil {
		fmt.Println(err)
		return
	}
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		fmt.Println(err)
		return
	}
	start = time.Now()
	c, err := g.AttachNetns(int(ns.Fd()), Sockets{})
	steered := time.Since(start)
	if err != nil {
		fmt.Println(err)
		return
	}
	start = time.Now()
	err = errors.Join(c.Close(), g.Close(), l.Close())
	fmt.Println("open", opened, "guard", guarded, "netns", steered, "close", time.Since(start), err)
}

// TestColdStart shows what a fresh process pays when the programs are loaded already.
func TestColdStart(t *testing.T) {
	cfg := privateConfig(t)
	l := openLoader(t, cfg)
	dir := makeCgroup(t, l)
	ns := newNet(t)
	for range 5 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), coldEnv+"="+cfg.BPFFS+"|"+cfg.Parent+"|"+dir.Name())
		var out []byte
		var err error
		ns.do(func() { out, err = cmd.CombinedOutput() })
		if err != nil || !strings.HasSuffix(string(out), "<nil>\n") {
			t.Errorf("%s %v", out, err)
		}
		t.Logf("%s", out)
	}
}
