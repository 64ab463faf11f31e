//go:build e2e

package sandbox

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pemOf(kind, content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(content)}))
}

var theirs, ours, hosts = pemOf("CERTIFICATE", "theirs"), pemOf("CERTIFICATE", "ours"), pemOf("CERTIFICATE", "hosts")

// TestTrust: each kind of system finds the certificate where it looks, and nothing else is changed or shown.
func TestTrust(t *testing.T) {
	victim := hostDir(t)
	if err := os.WriteFile(victim+"/secret", []byte(pemOf("PRIVATE KEY", "secret")+"secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	trust := Trust{PEM: []byte(ours), Hash: "0a1b2c3d", File: "all.pem", Host: []byte(strings.TrimSpace(hosts))}
	const debian, redhat = "etc/ssl/certs/ca-certificates.crt", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
	for _, test := range []struct {
		name   string
		files  map[string]string
		links  []string
		deny   string
		script string
		want   string
	}{
		{"Debian", map[string]string{debian: theirs}, nil, "", "cat /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/0a1b2c3d.0 /etc/all.pem", theirs + ours + ours + theirs + ours},
		{"Alpine", map[string]string{debian: theirs}, []string{"etc/ssl/cert.pem -> certs/ca-certificates.crt"}, "", "readlink /etc/ssl/cert.pem && cat /etc/ssl/cert.pem", "certs/ca-certificates.crt\n" + theirs + ours},
		{"Red Hat", map[string]string{redhat: "# a comment\n" + theirs + pemOf("TRUSTED CERTIFICATE", "more")},
			[]string{"etc/pki/tls/certs/ca-bundle.crt -> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "etc/ssl/certs -> ../pki/tls/certs"}, "",
			"cat /etc/pki/tls/certs/ca-bundle.crt && ls /etc/ssl/certs", theirs + pemOf("TRUSTED CERTIFICATE", "more") + ours + "0a1b2c3d.0\nca-bundle.crt\n"},
		{"openSUSE", map[string]string{"var/lib/ca.pem": theirs}, []string{"etc/ssl/ca-bundle.pem -> /var/lib/ca.pem", "etc/ssl/certs -> /var/lib"}, "",
			"cat /etc/ssl/ca-bundle.pem && readlink /etc/ssl/certs", theirs + ours + "/var/lib\n"},
		{"an empty one", map[string]string{debian: ""}, nil, "", "cat /etc/ssl/certs/ca-certificates.crt", ours},
		{"none", map[string]string{"etc/x": ""}, nil, "", "cat /etc/all.pem; ls /etc/ssl", hosts + ours + "certs.pem\n"},
		{"hidden by a rule", map[string]string{debian: theirs, "etc/x": ""}, nil, "/etc/ssl", "cat /etc/all.pem; ls /etc/ssl", hosts + ours},
		{"hidden by its real name", map[string]string{redhat: theirs}, []string{"etc/pki/tls/certs/ca-bundle.crt -> /" + redhat}, "/etc/pki/ca-trust", "cat /etc/pki/tls/certs/ca-bundle.crt", ""},
		{"the file is hidden", map[string]string{debian: theirs}, nil, "/etc/all.pem", "cat /etc/all.pem", ""},
		{"a link to a secret of the host", nil, []string{debian + " -> " + victim + "/secret"}, "", "cat /etc/ssl/certs/ca-certificates.crt", ""},
		{"a link to a secret of the image", map[string]string{"opt/key": pemOf("PRIVATE KEY", "x") + theirs}, []string{debian + " -> /opt/key"}, "", "cat /etc/ssl/certs/ca-certificates.crt", theirs + ours},
		{"a link to an account file", nil, []string{debian + " -> /etc/passwd"}, "", "cat /etc/ssl/certs/ca-certificates.crt | { read a; echo $a; }", "root:x:0:0:root:/root:/usr/sbin/nologin\n"},
		{"a link to itself", nil, []string{debian + " -> ca-certificates.crt"}, "", "readlink /etc/ssl/certs/ca-certificates.crt", "ca-certificates.crt\n"},
		{"a directory", map[string]string{debian + "/x": ""}, nil, "", "ls /etc/ssl/certs/ca-certificates.crt", "x\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := imageOf(t)
			for name, content := range test.files {
				at := filepath.Join(root, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			linkAll(t, root, test.links...)
			text := ""
			if test.deny != "" {
				text = "filesystem:\n  deny:\n    - {path: " + test.deny + ", permissions: [read]}\n"
			}
			spec := testSpec(t, tools+text, "")
			spec.Root, spec.Trust = root, trust
			b := startSpec(t, spec)
			if out, _ := b.sh("exec 2>/dev/null; " + test.script); strings.TrimSpace(out) != strings.TrimSpace(test.want) {
				t.Errorf("%s gives\n%s\nwant\n%s", test.script, out, test.want)
			}
			for name, content := range test.files {
				if now, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(now) != content {
					t.Errorf("%s of the image is now %q, %v", name, now, err)
				}
			}
		})
	}
}

// TestTrustOfAHostileImage: what can't be a bundle keeps nobody waiting, and what is too large starts nothing.
func TestTrustOfAHostileImage(t *testing.T) {
	root := imageOf(t)
	at := filepath.Join(root, "etc/ssl/certs/ca-certificates.crt")
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), unix.Mkfifo(at, 0o644)); err != nil {
		t.Fatal(err)
	}
	spec := testSpec(t, tools, "")
	spec.Root, spec.Trust = root, Trust{PEM: []byte(ours), Hash: "0a1b2c3d", File: "all.pem"}
	startSpec(t, spec).want("cat /etc/all.pem", strings.TrimSpace(ours), 0)

	if err := errors.Join(os.Remove(at), os.WriteFile(at, nil, 0o644), os.Truncate(at, 1<<40)); err != nil {
		t.Fatal(err)
	}
	spec.Name += "b"
	if b, err := Prepare(spec); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("a bundle of 1 TiB: %v", err)
		if b != nil {
			_ = b.Close()
		}
	}
}
