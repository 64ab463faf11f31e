package agent

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/agent/refusal"
	"github.com/nemoclaw/nemoclaw/policy"
)

func TestFileDecision(t *testing.T) {
	p, err := policy.Parse("p", []byte(`filesystem:
  allow:
    - {path: /srv, permissions: [read, write]}
  deny:
    - {path: /srv/key, permissions: [read]}
`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path     string
		blockers []string
		want     string
	}{
		{"/opt/x", []string{"fs.read_file"}, "file open /opt/x default"},
		{"/opt", []string{"fs.read_dir"}, "file readdir /opt default"},
		{"/opt/x", []string{"fs.read_file", "fs.write_file"}, "file write /opt/x default"},
		{"/opt", []string{"fs.make_reg"}, "file write /opt default"},
		{"/usr/bin/id", []string{"fs.execute"}, "exec exec /usr/bin/id default"},
		{"/srv/key/a", []string{"fs.read_file"}, "file open /srv/key/a p:5"},
		{"", []string{"scope.signal"}, "system scope.signal  builtin"},
		{"\x1b", []string{"fs.read_file"}, "file open \x1b default"},
	} {
		d := fileDecision(c, refusal.Refusal{PID: 3, Path: tt.path, Blockers: tt.blockers})
		got := fmt.Sprintf("%s %s %s %s", d.Plane, d.Action, d.Object, d.Rule)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
		if d.Verdict != policy.Deny || d.Revision != c.Revision || d.Subject.PID != 3 {
			t.Errorf("%+v", d)
		}
	}
}
