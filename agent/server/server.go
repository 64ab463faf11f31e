package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"sync/atomic"
	"time"
)

// Config is what a server is made of. Root may always steer.
type Config struct {
	Backend Backend

	// SteerGroup's members may do everything, WatchGroup's may look: names or numbers of groups. "" is none, and a
	// name that this machine doesn't have is nobody's.
	SteerGroup, WatchGroup string

	Log *slog.Logger // nil: slog.Default
}

// limits bound what callers can make the daemon hold. An authorised caller meets them only by mistake.
type limits struct {
	conns   quota // open connections
	strange quota // those of callers who may nothing, and wait to be told so
	streams quota // event streams, uploads and downloads
	execs   quota // commands that were started and run
	bodies  int64 // bytes of request bodies in memory, together

	header    time.Duration // to send a request's head
	body      time.Duration // to send a JSON body
	idle      time.Duration // between requests
	stalled   time.Duration // for a peer that takes or sends nothing in a stream
	heartbeat time.Duration // between signs of life in a quiet event stream
}

func defaultLimits() limits {
	return limits{
		conns:     quota{each: 1024, all: 4096},
		strange:   quota{each: 8, all: 64},
		streams:   quota{each: 64, all: 256},
		execs:     quota{each: 1024, all: 2048},
		bodies:    16 << 20,
		header:    5 * time.Second,
		body:      10 * time.Second,
		idle:      time.Minute,
		stalled:   time.Minute,
		heartbeat: 15 * time.Second,
	}
}

// Bounds of one request.
const (
	maxHeader = 16 << 10
	maxBody   = 1 << 20 // of JSON, a policy's text among it
)

// A Server answers the requests of one socket.
type Server struct {
	backend      Backend
	log          *slog.Logger
	steer, watch group
	limits       limits
	bodies       atomic.Int64 // bytes of request bodies in memory now
	mux          *http.ServeMux
	http         *http.Server
	life         context.Context // ends when the server is shut down
	end          context.CancelFunc
}

// New returns a server that does not serve yet.
func New(c Config) (*Server, error) {
	s := &Server{backend: c.Backend, log: c.Log, limits: defaultLimits(), mux: http.NewServeMux()}
	if s.log == nil {
		s.log = slog.Default()
	}
	var err error
	if s.steer, err = s.group("steer_group", c.SteerGroup); err != nil {
		return nil, err
	}
	if s.watch, err = s.group("watch_group", c.WatchGroup); err != nil {
		return nil, err
	}
	s.life, s.end = context.WithCancel(context.Background())
	for _, r := range routes {
		s.mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, hr *http.Request) { s.answer(&r, w, hr) })
	}
	s.mux.HandleFunc("/", s.unknown)
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: s.limits.header,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // what goes wrong there is the peers' doing
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return withPeer(ctx, c.(*peer))
		},
	}
	return s, nil
}

// group is a group of this machine, or nobody's.
type group struct {
	name string
	gid  uint32
	is   bool
}

func (s *Server) group(option, name string) (group, error) {
	if name == "" {
		return group{}, nil
	}
	number := name
	if g, err := user.LookupGroup(name); err == nil {
		number = g.Gid
	} else if _, bad := strconv.ParseUint(name, 10, 32); bad != nil {
		if !errors.As(err, new(user.UnknownGroupError)) {
			return group{}, fmt.Errorf("looking for %s %q: %w", option, name, err)
		}
		s.log.Warn("this machine has no such group, so nobody is a member; groupadd --system makes it, then restart the daemon", option, name)
		return group{}, nil
	}
	gid, err := strconv.ParseUint(number, 10, 32)
	if err != nil || gid == 0 || gid == 1<<32-1 { // chown takes the last one for "as it is"
		return group{}, fmt.Errorf("%s %q can't be used: its number is %s", option, name, number)
	}
	return group{name, uint32(gid), true}, nil
}

// Serve answers those who connect to l, a Unix socket, until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	unix, ok := l.(unixListener) // a *Socket, or one that was made elsewhere
	if !ok {
		return fmt.Errorf("the daemon serves Unix sockets only, not %T: a network says nothing of who calls", l)
	}
	if err := s.http.Serve(&listener{unix, s}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting, ends streams so that their readers come back for the rest, lets go of commands without
// ending them, and waits for the other requests until ctx ends; then it cuts them off. It is called at most once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
		return fmt.Errorf("stopping the server: %w", err)
	}
	return nil
}

// serve looks at who calls, and at what net/http would answer in its own words.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	peer := peerOf(r)
	if err := s.admit(peer); err != nil {
		w.Header().Set("Connection", "close")
		s.sendError(w, err)
		return
	}
	// The mux answers HEAD as GET, and a path that isn't plain with a redirection.
	if r.Method == http.MethodHead || r.Method == http.MethodConnect || !plain(r.URL.Path) {
		s.unknown(w, r)
		return
	}
	s.mux.ServeHTTP(w, r)
}
