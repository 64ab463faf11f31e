package metrics

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// What a client that is slow, or many of them, can take.
const (
	maxClients = 16
	maxScrapes = 2 // at once
	headTime   = 5 * time.Second
	answerTime = 30 * time.Second // from the end of the head
	endTime    = 2 * time.Second  // for what is under way when the daemon ends
	maxHead    = 8 << 10
)

// again is how long a port that somebody else has is waited for.
const again = 10 * time.Second

// Path is where the metrics are.
const Path = "/metrics"

// A Server is the endpoint.
type Server struct {
	addr  netip.AddrPort
	token string // its file; "": everybody may look
	tls   bool
	http  http.Server
	log   *slog.Logger

	noToken, noCert fault
}

// fault is something that is wrong with a file. It is said once, not for each stranger who comes meanwhile.
type fault struct{ told atomic.Bool }

func (f *fault) tell(log *slog.Logger, err error) {
	if was := f.told.Swap(err != nil); err != nil && !was {
		log.Error("metrics: nobody can be let in", "error", err)
	}
}

// New makes the endpoint that a configuration asks for. It is not served yet. What the configuration names must be there.
func New(c config.Config, source Source, e *Errors) (*Server, error) {
	s := &Server{addr: c.Metrics, token: c.MetricsToken, tls: c.MetricsCert != "", log: slog.New(e)}
	if err := Check(c); err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	for _, one := range []prometheus.Collector{
		&collector{source: source, errors: e, log: s.log}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(one); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, ErrorLog: slog.NewLogLogger(e, slog.LevelWarn),
	}))
	s.http = http.Server{
		Handler: s.guard(mux), ReadHeaderTimeout: headTime, ReadTimeout: headTime, WriteTimeout: answerTime, MaxHeaderBytes: maxHead,
		ErrorLog: stdlog.New(io.Discard, "", 0), // what strangers send is not worth a line
	}
	if s.tls {
		s.http.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
			// Read anew, so that a certificate that is renewed holds at once.
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				pair, err := certificate(c)
				s.noCert.tell(s.log, err)
				return pair, err
			},
		}
	}
	// One answer, one connection: nobody keeps another's place by doing nothing.
	s.http.SetKeepAlivesEnabled(false)
	return s, nil
}

// guard answers those who may not look.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch err := s.permits(r); {
		case errors.Is(err, errToken):
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case err != nil:
			http.Error(w, err.Error(), http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

var (
	errToken = errors.New("this endpoint wants a token: Authorization: Bearer TOKEN")
	errFile  = errors.New("the daemon can't read the token that it compares with; its journal says why")
	errHost  = errors.New("name this endpoint by its address or localhost: any other name could be a web page's")
)

// permits says why a request gets nothing.
func (s *Server) permits(r *http.Request) error {
	if s.token == "" {
		// A page in a browser of this host may have a name that leads here, and would be the browser's own site then.
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && host != "localhost" {
			return errHost
		}
		return nil
	}
	want, err := token(s.token) // read anew, so that another token holds at once
	if s.noToken.tell(s.log, err); err != nil {
		return errFile
	}
	kind, got, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want)) // of one length, so that the time says nothing of it
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 || !strings.EqualFold(kind, "Bearer") {
		return errToken
	}
	return nil
}

// Start serves until ctx ends, and closes what it returns when nobody looks at the source any more. A port that another program has is
// no reason for the daemon to end, on which the networks of sandboxes depend: it is said, and tried again.
func (s *Server) Start(ctx context.Context) (ended <-chan struct{}) {
	over := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(over)
		limit, cancel := context.WithTimeout(context.Background(), endTime)
		defer cancel()
		if s.http.Shutdown(limit) != nil {
			_ = s.http.Close()
		}
	})
	l, err := s.listen(ctx) // now, so that it answers once the daemon is ready
	if err != nil {
		s.log.Error("metrics can't be served; the daemon goes on, and tries again", "address", s.addr, "error", err)
	}
	go func() {
		for {
			if err == nil {
				_ = s.serve(l) // it ends with ctx, or is begun again
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(again):
			}
			l, err = s.listen(ctx)
		}
	}()
	return over
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", s.addr.String())
	if err != nil {
		return nil, err
	}
	s.log.Info("metrics are served", "address", s.addr, "path", Path, "tls", s.tls, "token", s.token != "")
	return netutil.LimitListener(l, maxClients), nil
}

func (s *Server) serve(l net.Listener) error {
	if s.tls {
		return s.http.ServeTLS(l, "", "")
	}
	return s.http.Serve(l)
}
