package daemon

import (
	"strings"
	"testing"
)

// TestFindNearest: a misspelt name leads to the sandbox that was meant, and another one to none.
func TestFindNearest(t *testing.T) {
	d := &Daemon{boxes: map[string]*box{"my-assistant": {}, "builder": {}}}
	for name, want := range map[string]string{
		"my-asistant": `"my-asistant" (nearest: "my-assistant");`, "build": `"build" (nearest: "builder");`, "web": `"web"; `,
	} {
		if _, err := d.find(name); err == nil || !strings.Contains(err.Error(), "there is no sandbox named "+want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := d.find("builder"); err != nil || b == nil {
		t.Error(err)
	}
}
