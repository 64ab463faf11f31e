package metrics

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/secret"
)

const minToken = 16

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

// token reads the one line of a file, which who scrapes may share by its group.
func token(name string) (string, error) {
	text, err := secret.SharedFile(name)
	if err != nil {
		return "", fmt.Errorf("metrics_token: %w", err)
	}
	t, err := secret.Line(text)
	if err == nil && len(t) < minToken {
		err = fmt.Errorf("want at least %d characters", minToken)
	}
	if err != nil {
		return "", fmt.Errorf("metrics_token: %s: %w, such as from: openssl rand -hex 32", name, err)
	}
	return t, nil
}

// certificate reads the certificate and its key.
func certificate(c config.Config) (*tls.Certificate, error) {
	key, err := secret.SharedFile(c.MetricsKey)
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
