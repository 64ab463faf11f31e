package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/daemon"
	"github.com/nemoclaw/nemoclaw/agent/metrics"
	"github.com/nemoclaw/nemoclaw/agent/notify"
	"github.com/nemoclaw/nemoclaw/agent/server"
)

// shutdownTime is how long requests have to end when the daemon is told to stop.
const shutdownTime = 5 * time.Second

// serve runs the daemon until it is told to stop.
func serve(c config.Config) (err error) {
	// A processor of the runtime's that is in a system call, a disk's or a proxy's, serves nobody else until the runtime's monitor
	// notices, up to 10 ms later. So there are two more of them: what of many sandboxes has come does not wait.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
	service, err := notify.Open()
	if err != nil {
		return err
	}
	said := metrics.CountErrors(slog.NewTextHandler(os.Stderr, nil))
	log := slog.New(said)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)

	d, err := daemon.Open(c, version, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	s, err := server.New(server.Config{Backend: d, SteerGroup: c.SteerGroup, WatchGroup: c.WatchGroup, Log: log})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.Metrics.IsValid() {
		m, err := metrics.New(c, d, said)
		if err != nil {
			return err
		}
		ended := m.Start(ctx)
		defer func() { cancel(); <-ended }() // it looks at the daemon
	}
	socket, err := listen(s, service, c.Socket)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(socket) }()
	go service.Watchdog(ctx, d.Healthy)
	if err := service.Ready(fmt.Sprintf("level %s, socket %s", d.Info().Level, c.Socket)); err != nil {
		log.Warn("systemd can't be told that the daemon is ready", "error", err)
	}
	log.Info("ready", "version", version, "socket", c.Socket, "level", d.Info().Level)

	select {
	case sig := <-stop:
		log.Info("stopping; the sandboxes go on without a network", "signal", sig)
	case err = <-served:
		err = fmt.Errorf("the API can't be served any more: %w", err)
	case <-d.Failed():
		err = errors.New("decisions can't be written down any more, so no sandbox may go on; make room for the audit log, and start the daemon again")
		d.StopAll(err)
	}
	_ = service.Stopping() // systemd sees it anyway
	end, cancelEnd := context.WithTimeout(context.Background(), shutdownTime)
	defer cancelEnd()
	return errors.Join(err, s.Shutdown(end))
}

// socketName is what the socket is called while the service manager keeps it.
const socketName = "socket"

// listen makes the socket, or takes the one that the service manager has kept: who connects while the daemon is restarted
// waits, and gets no error.
func listen(s *server.Server, service *notify.Service, path string) (*server.Socket, error) {
	var kept *os.File
	for _, f := range service.Take(socketName) {
		kept = f
	}
	socket, err := s.Listen(path, kept)
	if err != nil {
		return nil, err
	}
	if !service.Keeps() {
		return socket, nil
	}
	f, err := socket.File()
	if err != nil {
		return nil, err
	}
	defer f.Close() // the manager has a copy
	socket.Keep()
	return socket, errors.Join(service.Forget(socketName), service.Store(socketName, f))
}
