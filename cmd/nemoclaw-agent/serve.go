package main

import (
	"errors"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// serve runs the daemon until it is told to stop.
func serve(config.Config) error { return errors.New("agent/daemon is not wired in yet") }
