package risk

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func compiled(t testing.TB, text string) *policy.Compiled {
	t.Helper()
	p, err := policy.Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const base = `
network:
  allow:
    - {domain: api.openai.com, ports: [443], protocol: https}
    - {domain: "**.github.com", ports: [443], protocol: https}
    - {domain: pypi.org, ports: [443], protocol: https}
    - {domain: burn.example.net, ports: [443], protocol: https}
    - {domain: www.modern.org, ports: [443], protocol: https}
process:
  allow:
    - command: curl
`

// codes lists the risks; the dangerous ones have a "!".
func codes(list []api.Risk) string {
	var s []string
	for _, r := range list {
		if r.Dangerous {
			r.Code += "!"
		}
		s = append(s, r.Code)
	}
	return strings.Join(s, " ")
}

func TestPlaces(t *testing.T) {
	c := compiled(t, base)
	for _, tt := range []struct{ object, want string }{
		{"www.example.com:443", ""},
		{"files.example.org:443", ""},
		{"gist.github.com:443", ""}, // the owner's own
		{"1.2.3.4:443", "raw-ip"},
		{"[2001:db8::1]:443", "raw-ip"},
		{"10.0.0.5:443", "private raw-ip"},
		{"127.0.0.1:22", "private raw-ip port"},
		{"[::ffff:192.168.1.1]:443", "private raw-ip"},
		{"[64:ff9b::a00:1]:443", "private raw-ip"},
		{"169.254.169.254:80", "metadata! raw-ip"},
		{"[fd00:ec2::254]:80", "metadata! raw-ip"},
		{"2852039166:80", "raw-ip! metadata!"},
		{"0x7f.1:80", "raw-ip! private"},
		{"010.8.8.8:80", "raw-ip!"},
		{"metadata.google.internal:80", "metadata! private"},
		{"api.openai.com.evil.com:443", "lookalike!"},
		{"openai-com.evil.com:443", "lookalike!"},
		{"x.openai.com-login.com:443", "lookalike!"},
		{"github.org:443", "lookalike!"},
		{"gith-ub.com:443", "lookalike!"},
		{"githab.com:443", "lookalike!"},
		{"gihtub.com:443", "lookalike!"},
		{"githubb.com:443", "lookalike!"},
		{"gthub.com:443", "lookalike!"},
		{"g1thub.com:443", "lookalike!"},
		{"openal.com:443", "lookalike!"},
		{"rnodern.org:443", "lookalike!"},
		{"xn--githb-mva.com:443", "lookalike! punycode"}, // githüb
		{"xn--80ak6aa92e.com:443", "mixed-script!"},      // аррӏе, all Cyrillic, like nothing that is allowed
		{"xn--pnai-k5d5c.com:443", "mixed-script!"},
		{"\u043epenai.com:443", "lookalike! mixed-script!"},             // Cyrillic о
		{"xn--mnchen-3ya.com:443", "punycode"},                          // münchen
		{"xn--wgv71a119e.com:443", "punycode"},                          // 日本語
		{"www.example.zip:443", "new-tld"},                              //
		{"db:5432", "private"},                                          //
		{"git.corp:22", "private"},                                      //
		{"smtp.example.com:25", "port"},                                 //
		{"github.com:22", ""},                                           //
		{"d111111abcdef8.cloudfront.com:443", ""},                       //
		{"a9f3c27b61e84d05a9f3c27b.x.example.com:443", "data-in-name"},  //
		{"productionlogs-eu-west-one-collector-v2.example.com:443", ""}, //
		{"a.b.c.d.e.f.example.com:443", "data-in-name"},                 //
		{"evil\u202ecom.example.com:443", "hidden-text!"},               //
		{"pipi.org:443", ""},                                            // too short to tell
		{"xn--pypi-5cd.org:443", "mixed-script!"},                       //
		{"\uff47\uff49\uff54\uff48\uff55\uff42.org:443", "lookalike!"},  // fullwidth, which is github.org
	} {
		d := policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: tt.object, Rule: "default", Subject: policy.Subject{Exe: "/usr/bin/curl"}}
		if got := Of(Attempt{Decision: d, Policy: c}); codes(got) != tt.want {
			t.Errorf("%s: %q, want %q: %+v", tt.object, codes(got), tt.want, got)
		}
	}
}

func TestOf(t *testing.T) {
	c := compiled(t, base)
	loose := compiled(t, base+"    - command: bash\n")
	cat := policy.Subject{Exe: "/usr/bin/cat"}
	at := func(plane policy.Plane, action, object string, who policy.Subject) Attempt {
		return Attempt{Policy: c, Decision: policy.Decision{Plane: plane, Action: action, Object: object, Subject: who, Rule: "default"}}
	}
	web := at(policy.PlaneNetwork, "connect", "www.example.com:443", cat)
	for _, tt := range []struct {
		name, want string
		a          Attempt
	}{
		{"nothing", "", web},
		{"nobody knows who", "unknown-program", at(policy.PlaneNetwork, "connect", "www.example.com:443", policy.Subject{})},
		{"preload", "tainted!", at(policy.PlaneNetwork, "connect", "www.example.com:443", policy.Subject{Exe: "/usr/bin/cat", Taint: "LD_PRELOAD"})},
		{"unseen", "tainted!", at(policy.PlaneNetwork, "connect", "www.example.com:443", policy.Subject{Exe: "/usr/bin/cat", Taint: "(unknown)"})},
		{"python's own", "tainted", at(policy.PlaneNetwork, "connect", "www.example.com:443", policy.Subject{Exe: "/usr/bin/python3", Taint: "PYTHONPATH"})},
		{"much was sent", "data-volume", Attempt{Decision: web.Decision, Policy: c, Sent: 1 << 30}},
		{"a bit was sent", "", Attempt{Decision: web.Decision, Policy: c, Sent: 1 << 20}},
		{"a program of the sandbox's asks", "writable-program", Attempt{Decision: web.Decision, Policy: c, Writable: true}},
		{"key", "credentials!", at(policy.PlaneFile, "open", "/home/me/.ssh/id_ed25519", cat)},
		{"passwords", "credentials!", at(policy.PlaneFile, "open", "/etc/shadow", cat)},
		{"browser", "credentials!", at(policy.PlaneFile, "open", "/home/me/.config/google-chrome/Default/Login Data", cat)},
		{"wallet", "credentials!", at(policy.PlaneFile, "open", "/home/me/.bitcoin/wallet.dat", cat)},
		{"ours", "credentials!", at(policy.PlaneFile, "open", "/var/lib/nemoclaw/box/spec", cat)},
		{"certificates of all", "", at(policy.PlaneFile, "open", "/etc/ssl/certs/ca-certificates.pem", cat)},
		{"text", "", at(policy.PlaneFile, "open", "/home/me/notes.txt", cat)},
		{"hook", "persistence!", at(policy.PlaneFile, "write", "/workspace/.git/hooks/pre-commit", cat)},
		{"hook, read", "", at(policy.PlaneFile, "open", "/workspace/.git/hooks/pre-commit", cat)},
		{"tasks", "persistence!", at(policy.PlaneFile, "create", "/workspace/.vscode/tasks.json", cat)},
		{"cron", "persistence!", at(policy.PlaneFile, "write", "/etc/cron.d/x", cat)},
		{"text, written", "", at(policy.PlaneFile, "write", "/srv/notes.txt", cat)},
		{"both", "credentials! persistence!", at(policy.PlaneFile, "write", "/home/me/.ssh/authorized_keys", cat)},
		{"interpreter", "interpreter", at(policy.PlaneExec, "exec", "/usr/bin/python3.11", cat)},
		{"relay", "relay", at(policy.PlaneExec, "exec", "/usr/bin/nc", cat)},
		{"tool", "", at(policy.PlaneExec, "exec", "/usr/bin/jq", cat)},
		{"own program", "writable-program!", Attempt{Decision: policy.Decision{Plane: policy.PlaneExec, Object: "/workspace/a.out"}, Policy: c, Writable: true}},
		{"own program, as any", "writable-program", Attempt{Decision: policy.Decision{Plane: policy.PlaneExec, Object: "/workspace/a.out"}, Policy: loose, Writable: true}},
		{"no policy", "", Attempt{Decision: web.Decision}},
	} {
		if got := Of(tt.a); codes(got) != tt.want {
			t.Errorf("%s: %q, want %q: %+v", tt.name, codes(got), tt.want, got)
		}
	}
}

func FuzzRisk(f *testing.F) {
	c := compiled(f, base)
	for _, s := range []string{"a.b:443", "xn--80ak6aa92e.com:1", "[::1]:1", "/etc/shadow", "\xff\x1b[31m", "0x.0x:0", "%s%d.com:443", "..:1", "xn--.xn--a:1", "\u202e"} {
		for i := range policy.Planes() {
			f.Add(uint8(i), "connect", s, "/usr/bin/"+s, s)
		}
	}
	f.Fuzz(func(t *testing.T, plane uint8, action, object, exe, taint string) {
		planes := policy.Planes()
		a := Attempt{Policy: c, Writable: plane&64 != 0, Sent: 1 << 30, Decision: policy.Decision{
			Plane: planes[int(plane)%len(planes)], Action: action, Object: object, Subject: policy.Subject{Exe: exe, Taint: taint},
		}}
		list := Of(a)
		for i, r := range list {
			if !utf8.ValidString(r.Text) || len(r.Text) > 1500 || strings.Contains(r.Text, "%!") && !strings.Contains(object+exe+taint, "%!") {
				t.Errorf("%+v: %s says %q", a.Decision, r.Code, r.Text)
			}
			if i > 0 && r.Dangerous && !list[i-1].Dangerous {
				t.Errorf("%+v: what is dangerous is not first: %s", a.Decision, codes(list))
			}
		}
		if !slices.Equal(list, Of(a)) {
			t.Errorf("%+v: not always the same", a.Decision)
		}
	})
}
