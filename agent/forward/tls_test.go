package forward

import (
	"crypto/tls"
	"os"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// TestAnotherAuthority: when the file of authorities changes, a server that only the old one vouched for gets nothing, though it was
// spoken to before, and could go on with that session.
func TestAnotherAuthority(t *testing.T) {
	t.Parallel()
	var g got
	dir := t.TempDir()
	pair, cert, _ := certificate(t, dir, "server")
	_, other, _ := certificate(t, dir, "other")
	s, err := newSyslog(config.Forward{Server: config.Server{CA: cert}, Syslog: "tls://" + syslogServer(t, &g, &tls.Config{Certificates: []tls.Certificate{pair}}, func() habit { return good })})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one is resumed
		if err := s.send(t.Context(), []record{recordOf(t, 1, "json")}); err != nil {
			t.Fatal(err)
		}
		if err := s.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cert, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.send(t.Context(), []record{recordOf(t, 2, "json")}); err == nil {
		t.Errorf("it is sent to; settled: %v", s.settle(t.Context()))
	}
}
