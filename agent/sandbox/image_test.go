package sandbox

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPlanImage: trees come from below the image's root, wherever its links point.
func TestPlanImage(t *testing.T) {
	image := []string{"/img/usr/bin/sh", "/img/bin -> usr/bin", "/img/lib -> /usr/lib", "/img/etc/shadow", "/img/app/data", "/img/app/dev!",
		"/img/out -> /srv/victim", "/img/up -> ../../../srv/victim", "/img/tmplink -> /tmp/x", "/img/srv/victim/own", "/img/twice -> up"}
	host := []string{"/srv/victim/secret", "/srv/host-only/", "/ws/", "/state/", "/ws/state/", "/run/s=", "/proc/keys", "/proc/link -> /srv"}
	for _, test := range []struct {
		name   string
		policy []string
		want   []string
		links  []link
		warn   string
		err    string
	}{
		{name: "the image's own", policy: []string{"allow /app r"}, want: []string{"bind /app<-/img/app ro"}},
		{name: "an absolute link", policy: []string{"allow /out r"}, want: []string{"bind /srv/victim<-/img/srv/victim ro"}, links: []link{{"/out", "/srv/victim"}}},
		{name: "a link up", policy: []string{"allow /up r"}, want: []string{"bind /srv/victim<-/img/srv/victim ro"}, links: []link{{"/up", "../../../srv/victim"}}},
		{name: "through two links", policy: []string{"allow /twice/own r"}, want: []string{"bind /srv/victim/own<-/img/srv/victim/own file ro"},
			links: []link{{"/twice", "up"}, {"/up", "../../../srv/victim"}}},
		{name: "what only the host has", policy: []string{"allow /srv/host-only r"}, warn: "/srv/host-only does not exist in the image"},
		{name: "a link into /tmp", policy: []string{"allow /tmplink r"}, warn: "/tmplink does not exist in the image"},
		{name: "a device", policy: []string{"allow /app/dev r"}, err: "neither a file nor a directory"},
		{name: "writing", policy: []string{"allow /app rw"}, err: "can't be written"},
		{name: "writing the system", policy: []string{"allow /usr/bin rw"}, err: "can't be written"},
		{name: "writing through a link", policy: []string{"allow /tmplink rw"}, err: "can't be written"},
		{name: "the workspace is the host's", policy: []string{"allow /workspace rw"}, want: []string{"bind /workspace<-/ws", "mask /workspace/state<-/ws/state ro watch"}},
		{name: "a socket is the host's", policy: []string{"unix /run/s"}, want: []string{"socket /run/s<-/run/s file ro"}},
		{name: "a deny", policy: []string{"allow /app r", "deny /app/data r"}, want: []string{"bind /app<-/img/app ro", "mask /app/data<-/img/app/data file ro watch"}},
		{name: "/proc is the kernel's", policy: []string{"deny /proc/keys r"}},
		{name: "a link out of /proc", policy: []string{"allow /proc/link r"}, err: "a link out of /proc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := planView(compile(t, test.policy...), "/ws", "/img", []string{"/state", "/ws/state"}, newFakeHost(append(slices.Clone(host), image...)...), false)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(show(p), func(line string) bool { return line == "base /usr<-/img/usr ro" || line == "etc /etc<-/img/etc ro" })
			if diff := cmp.Diff(test.want, got); diff != "" && len(test.want)+len(got) > 0 {
				t.Error(diff)
			}
			links := slices.DeleteFunc(p.links, func(l link) bool { return l.path == "/bin" || l.path == "/lib" })
			if !slices.Equal(links, test.links) {
				t.Errorf("links %v", links)
			}
			if test.warn != "" && !strings.Contains(strings.Join(p.warnings, "\n"), test.warn) {
				t.Errorf("%q", p.warnings)
			}
		})
	}
}

func TestImageEnvironment(t *testing.T) {
	env := ImageEnvironment([]string{"SSL_CERT_FILE=/etc/ssl/certs/ca.pem", "LANG=de_DE.UTF-8", "TERM=xterm"},
		[]string{"PATH=/evil", "HOME=/evil", "LANG=C", "TERM=evil", "A=image", "B=image", "no variable", "=none", "NUL=\x00"}, true, []string{"B=mine"})
	for _, want := range []string{"HOME=/home/agent", "LANG=de_DE.UTF-8", "TERM=xterm", "A=image", "B=mine"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %q", want, env)
		}
	}
	for _, v := range env {
		if strings.Contains(v, "evil") || strings.Contains(v, "SSL_") || strings.Contains(v, "\x00") || !strings.Contains(v, "=") || v == "B=image" || v[0] == '=' {
			t.Errorf("%q is there", v)
		}
	}
}
