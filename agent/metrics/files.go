package metrics

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// The bounds of a token and of its file.
const (
	minToken = 16
	maxToken = 4096
)

// Check says what is wrong with the files that a configuration names for the endpoint.
func Check(c config.Config) error {
	if c.MetricsToken != "" {
		if _, err := token(c.MetricsToken); err != nil {
			return err
		}
	}
	if c.MetricsCert != "" {
		if _, err := certificate(c); err != nil {
			return err
		}
	}
	return nil
}

// token reads the one line of a file.
func token(name string) (string, error) {
	src, err := secret(name)
	if err != nil {
		return "", fmt.Errorf("metrics_token: %w", err)
	}
	t := strings.TrimSpace(string(src))
	if len(t) < minToken || strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("metrics_token: %s: want one line of at least %d printable characters without blanks, such as from: openssl rand -hex 32", name, minToken)
	}
	return t, nil
}

// certificate reads the certificate and its key.
func certificate(c config.Config) (*tls.Certificate, error) {
	key, err := secret(c.MetricsKey)
	if err != nil {
		return nil, fmt.Errorf("metrics_key: %w", err)
	}
	cert, err := os.ReadFile(c.MetricsCert)
	if err != nil {
		return nil, fmt.Errorf("metrics_cert: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("metrics_cert %s, metrics_key %s: %w", c.MetricsCert, c.MetricsKey, err)
	}
	return &pair, nil
}

// secret reads a file that not everybody may read, and that nobody but root and ourselves may change.
func secret(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would hold who asks for ever
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	uid := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	case uid != 0 && int(uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to another account (uid %d), who could change it: chown root %s", name, uid, name)
	case info.Mode().Perm()&0o027 != 0:
		return nil, fmt.Errorf("%s can be read by everybody, or changed by others than its owner (mode %04o): chmod 0640 %s", name, info.Mode().Perm(), name)
	}
	src, err := io.ReadAll(io.LimitReader(f, maxToken*16+1))
	if err == nil && len(src) > maxToken*16 {
		err = errors.New(name + " is too long")
	}
	return src, err
}
