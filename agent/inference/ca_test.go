package inference

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// forged is a certificate of the authority's for names, as whoever has its key could make one.
func forged(t *testing.T, a *Authority, names ...string) []byte {
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestAuthority shows what an authority can vouch for, to Go and to OpenSSL, and that it is no other's.
func TestAuthority(t *testing.T) {
	a, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	other, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	bundle := write("bundle", a.PEM())
	write(a.Hash()+".0", a.PEM())
	for _, c := range []struct {
		by   *Authority
		name string
		good bool
	}{
		{a, "inference.local", true}, {a, "example.org", false}, {a, "203.0.113.7", false}, {a, "2001:db8::7", false}, {a, "inference.local.example.org", false}, {a, "*.local", false}, {a, "local", false}, {other, "inference.local", false},
	} {
		der := forged(t, c.by, c.name)
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots}); (err == nil) != c.good {
			t.Errorf("Go, of %s: %v", c.name, err)
		}
		leaf := write("leaf", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		for _, flag := range [][]string{{"-CAfile", bundle, "-no-CApath"}, {"-CApath", dir, "-no-CAfile"}} {
			out, err := exec.Command("openssl", append(append([]string{"verify"}, flag...), leaf)...).CombinedOutput()
			if (err == nil) != c.good {
				t.Errorf("openssl verify %s, of %s: %v, %s", flag[0], c.name, err, out)
			}
		}
	}
	if out, err := exec.Command("openssl", "x509", "-noout", "-subject_hash", "-in", bundle).Output(); strings.TrimSpace(string(out)) != a.Hash() {
		t.Errorf("the hash is %s, OpenSSL says %s, %v", a.Hash(), out, err)
	}
}
