package uninstall

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestKeepKey: when the key goes and logs stay, what verifies them stays too, also where only `nemoclaw run` has written any. One that was
// never signed is not signed now.
func TestKeepKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var said []string
	o := Options{Config: config.Config{StateDir: filepath.Join(dir, "state"), AuditDir: filepath.Join(dir, "audit")}, Say: func(format string, _ ...any) { said = append(said, format) }}
	if err := o.keepKey(); err != nil || said != nil {
		t.Errorf("without a key: %q, %v", said, err)
	}
	signer, err := audit.OpenSigner(o.Config.AuditKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := o.keepKey(); err != nil || said != nil {
		t.Errorf("without a log: %q, %v", said, err)
	}
	var logs []*audit.Writer // the second one finds the first in use
	for _, s := range []*audit.Signer{signer, nil} {
		w, err := audit.Open(o.Config.AuditDir, "box", audit.Options{Signer: s})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Append(&policy.Decision{Seq: 1, Time: time.Now(), Sandbox: "box", Plane: policy.PlaneSystem, Action: "start"}), w.Flush()); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, w)
	}
	if err := o.keepKey(); err == nil || !strings.Contains(err.Error(), "run for the last time") || said != nil {
		t.Errorf("while a run goes on: %q, %v", said, err)
	}
	for _, w := range logs {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.keepKey(); err != nil || len(said) != 1 {
		t.Errorf("%q, %v", said, err)
	}
	text, err := os.ReadFile(filepath.Join(o.Config.AuditDir, publicKey))
	if err != nil || strings.TrimSpace(string(text)) != audit.FormatKey(signer.Public()) {
		t.Errorf("%s has %q, %v", publicKey, text, err)
	}
	if _, err := os.Stat(logs[1].Path() + ".sig"); !os.IsNotExist(err) {
		t.Errorf("the log that was not signed: %v", err)
	}
}
