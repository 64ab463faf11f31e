package sink

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

const maxSecret = 64 << 10

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
			key, err := secret(c.Key, true)
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
	name, alone := t.File, true
	if t.Credential != "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("token: it is the credential %s, and systemd gave this process none; add LoadCredential=%[1]s:FILE to its unit", t.Credential)
		}
		name, alone = filepath.Join(dir, t.Credential), false // systemd says who may read it
	}
	if name == "" {
		return "", nil
	}
	b, err := secret(name, alone)
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(token) > 4096 || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("token: %s: want one line of visible characters", name)
	}
	return token, nil
}

// secret reads a file. alone: nobody but its owner, who is root or ourselves, may read or write it.
func secret(name string, alone bool) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	uid := st.Sys().(*syscall.Stat_t).Uid
	switch {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	case alone && (uid != 0 && int(uid) != os.Geteuid() || st.Mode().Perm()&0o077 != 0):
		return nil, fmt.Errorf("%s can be read by others than root (mode %04o): chown root %s; chmod 600 %s", name, st.Mode().Perm(), name, name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = errors.New(name + " is too long")
	}
	return b, err
}
