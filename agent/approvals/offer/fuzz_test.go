package offer

import (
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

// policies are those that the fuzzed attempts meet.
var policies = []string{base, "version: 1\n", `
network:
  default: ask
  deny:
    - {domain: "**.evil.example.com"}
    - {cidr: 10.0.0.0/8}
  allow:
    - {domain: www.example.com, ports: [443], protocol: tls, commands: [curl]}
filesystem:
  default: ask
  baseline: none
  allow:
    - {path: /srv, permissions: [read, write, execute]}
    - {path: /etc/shadow, permissions: [read]}
  deny:
    - {path: /srv/data, permissions: [write]}
    - {path: /srv/other, permissions: [read]}
  ask:
    - {path: /opt/x, permissions: [execute]}
process:
  default: ask
  deny:
    - command: /usr/bin/nc
`}

func FuzzOffer(f *testing.F) {
	for _, s := range []string{
		"www.example.com:443", "a.b.c.example.net:80", "[::1]:1", "1.2.3.4:5", "2130706433:80", "x.evil.example.com:443", "10.1.2.3:80", "*.x.org:443",
		"_a._tcp.x.org", "xn--80ak6aa92e.com:443", "\u043epenai.com:443", "/srv/data/x", "/srv/other/x", "/srv/x\n- path: /", "/srv/\xff/x", "/srv/\u202e/x", "/opt/x/y",
		"/etc/shadow", "/", "/etc", "//x", "/srv/../etc", "/usr/bin/nc", "/usr/bin/jq", "/usr/local/bin/a b", "/tmp/x", "/proc/self/fd/3", "/usr/lib/ld-linux.so.2", "",
		"/usr/bin/%s", "/usr/bin/#", "/usr/bin/[", "/usr/bin/true", "/srv/a: b", "/srv/*", "169.254.169.254:80", "[fd00:ec2::254]:80",
	} {
		for i := range policy.Planes() {
			f.Add(uint8(i), uint8(i), s, "/usr/bin/curl", "", "default")
		}
		f.Add(uint8(0), uint8(0), s, s, "LD_PRELOAD", "policy.yaml:5")
		f.Add(uint8(2), uint8(3), s, "", "", "default")
	}
	var known []*policy.Compiled
	for _, text := range policies {
		known = append(known, compiled(f, text))
	}
	actions := []string{"connect", "open", "write", "readdir", "request", "resolve", "exec", "execute", "read and write", "map", "bind", "chroot"}
	f.Fuzz(func(t *testing.T, plane, action uint8, object, exe, taint, rule string) {
		planes := policy.Planes()
		d := policy.Decision{
			Plane: planes[int(plane)%len(planes)], Action: actions[int(action)%len(actions)], Object: object, Rule: rule,
			Subject: policy.Subject{Exe: exe, Taint: taint},
		}
		for i, c := range known {
			check(t, policies[i], c, d, Of(d, c))
		}
	})
}
