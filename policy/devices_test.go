package policy

import (
	"slices"
	"testing"
)

const someGPU = "GPU-0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"

func TestDevices(t *testing.T) {
	c := compile(t, "devices:\n  gpus: [1, "+someGPU+", 0]\n")
	if want := []string{"0", "1", someGPU}; !slices.Equal(c.Devices.GPUs, want) {
		t.Errorf("%q, want %q", c.Devices.GPUs, want)
	}
	if ref := c.Rule(c.Devices.ID); ref.Text != "gpus: [1, "+someGPU+", 0]" {
		t.Errorf("the rule is %+v", ref)
	}
	same, none, all := compile(t, "devices: {gpus: [0, 1, "+someGPU+"]}\n"), compile(t, "version: 1\n"), compile(t, "devices: {gpus: [all]}\n")
	if c.Revision != same.Revision || c.Revision == none.Revision || c.Revision == all.Revision {
		t.Errorf("revisions %s, %s, %s, %s", c.Revision, same.Revision, none.Revision, all.Revision)
	}
	if d := Changes(none, all); len(d) != 2 || d[0].Section != SectionProcess || d[1].Section != SectionDevices || d[1].What != "added: GPU all" {
		t.Errorf("%v", d)
	}
	for _, x := range []struct {
		c       *Compiled
		action  Action
		object  string
		verdict Verdict
		suggest string
	}{
		{c, QueryGPU, "0", Allow, ""}, {c, QueryGPU, "2", Deny, "devices:\n  gpus: [2]\n"}, {c, QueryGPU, someGPU, Allow, ""},
		{all, QueryGPU, "200", Allow, ""}, {none, QueryGPU, "all", Deny, "devices:\n  gpus: [all]\n"},
		{c, QueryRead, "/dev/nvidiactl", Allow, ""}, {c, QueryWrite, "/dev/nvidia2", Deny, ""}, {all, QueryWrite, "/dev/nvidia2", Allow, ""}, {none, QueryRead, "/dev/nvidiactl", Deny, ""},
		{c, QueryExec, GPUTool, Allow, ""}, {none, QueryExec, GPUTool, Deny, "process:\n  allow:\n    - command: nvidia-smi\n"},
	} {
		q, err := NewQuery(x.action, x.object, "")
		if err != nil {
			t.Fatal(err)
		}
		a := x.c.Explain(q)
		if a.Verdict != x.verdict || a.Suggest != x.suggest {
			t.Errorf("%s %s: %s, suggests %q, want %s, %q", x.action, x.object, a.Verdict, a.Suggest, x.verdict, x.suggest)
		}
		if x.suggest != "" {
			if again := compile(t, x.suggest).Explain(q); again.Verdict != Allow {
				t.Errorf("%s %s: what is suggested gives %s", x.action, x.object, again.Verdict)
			}
		}
	}
	for _, bad := range []string{"", "-1", "00", "256", "gpu0", "GPU-", "/dev/nvidia0"} {
		if _, err := NewQuery(QueryGPU, bad, ""); err == nil {
			t.Errorf("%q is taken for a GPU", bad)
		}
	}
}
