package sink

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/secret"
)

// TLS returns what reads a server's files and says how to speak to it, whose certificate must be host's: read anew for each connection,
// so that a certificate that is renewed holds at once. There is no way not to verify.
func TLS(c config.Server, host string) func() (*tls.Config, error) {
	sessions := tls.NewLRUClientSessionCache(4)
	return func() (*tls.Config, error) {
		t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, ClientSessionCache: sessions}
		if c.CA != "" {
			pem, err := os.ReadFile(c.CA)
			if err != nil {
				return nil, fmt.Errorf("ca: %w", err)
			}
			t.RootCAs = x509.NewCertPool()
			if !t.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("ca: %s has no certificate in it: want PEM", c.CA)
			}
		}
		if c.Cert != "" {
			key, err := secret.File(c.Key)
			if err != nil {
				return nil, fmt.Errorf("key: %w", err)
			}
			cert, err := os.ReadFile(c.Cert)
			if err != nil {
				return nil, fmt.Errorf("cert: %w", err)
			}
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("cert %s, key %s: %w", c.Cert, c.Key, err)
			}
			t.Certificates = []tls.Certificate{pair}
		}
		return t, nil
	}
}

// readToken reads the token of a server; "" where it wants none. No error has any of it.
func readToken(t config.Token) (string, error) {
	read, name := secret.File, t.File
	if t.Credential != "" {
		read, name = secret.Credential, t.Credential
	}
	if name == "" {
		return "", nil
	}
	text, err := read(name)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token, err := secret.Line(text)
	if err != nil {
		return "", fmt.Errorf("token: %s: %w", name, err)
	}
	return token, nil
}
