package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

func TestWaiting(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	tick := make(chan time.Time)
	end := sayWaiting(&b, tick, "verifying x")
	tick <- time.Time{}
	tick <- time.Time{}
	end()
	end()
	if want := "\rverifying x ... 1 s\x1b[K\rverifying x ... 2 s\x1b[K\r\x1b[K"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	sayWaiting(&b, tick, "verifying x")()
	if b.Len() > 0 {
		t.Errorf("before the first second: %q", b.String())
	}
}

// TestWaitingInAFile: nothing is said, nor begun, where standard error is no terminal.
func TestWaitingInAFile(t *testing.T) {
	t.Parallel()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := &cobra.Command{}
	for _, w := range []interface{ Write([]byte) (int, error) }{f, &strings.Builder{}} {
		cmd.SetErr(w)
		waiting(cmd, "verifying %s", "x")()
	}
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		t.Errorf("%+v, %v", info, err)
	}
}
