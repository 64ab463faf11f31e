package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Hook is told of requests that a person may answer: a program of the host, or a server. Package hook tells it.
type Hook struct {
	Exec []string `yaml:"exec,flow,omitempty"` // a program and its arguments
	User string   `yaml:"user,omitempty"`      // that runs it; "": root

	Webhook    string `yaml:"webhook,omitempty"`     // URL
	SecretFile string `yaml:"secret_file,omitempty"` // of the key that signs what is sent there

	States    []string `yaml:"states,flow,omitempty"`    // "held", "refused"; none: both
	Sandboxes []string `yaml:"sandboxes,flow,omitempty"` // none: all
	Rate      int      `yaml:"rate,omitempty"`           // messages a minute about one sandbox; 0: DefaultRate
}

// DefaultRate is how often a hook is told of one sandbox where its rate says nothing.
const DefaultRate = 20

// maxRate is far more than a person reads, and little for a server.
const maxRate = 600

// maxHooks is more than anybody needs.
const maxHooks = 16

var hookKeys = []string{"exec", "user", "webhook", "secret_file", "states", "sandboxes", "rate"}

func parseHook(n *yaml.Node) (h Hook, err error) {
	if err := decode(n, hookKeys, &h); err != nil {
		return h, err
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == "rate" && n.Content[i+1].Value == "0" {
			return h, errors.New("rate: 0: a hook that is told nothing is none; remove it")
		}
	}
	return h, h.check()
}

// check says what of a hook can't be. Whether its files and its user are there is package hook's to find out.
func (h Hook) check() error {
	for _, s := range h.States {
		if s != "held" && s != "refused" {
			return fmt.Errorf("states: %q: want held, refused or both", s)
		}
	}
	for _, name := range h.Sandboxes {
		if err := policy.ValidName(name); err != nil {
			return fmt.Errorf("sandboxes: %w", err)
		}
	}
	switch {
	case h.Rate < 0 || h.Rate > maxRate:
		return fmt.Errorf("rate: %d: want 1 to %d messages a minute about one sandbox", h.Rate, maxRate)
	case (h.Webhook != "") == (len(h.Exec) > 0):
		return errors.New("want exec or webhook, one of them")
	case h.Webhook != "":
		return h.checkWebhook()
	case h.SecretFile != "":
		return errors.New("secret_file: it signs what a webhook is sent; a program is told on its standard input, and needs none")
	case !filepath.IsAbs(h.Exec[0]):
		return fmt.Errorf("exec: %q: want the absolute path of a program, and its arguments", h.Exec[0])
	}
	return nil
}

func (h Hook) checkWebhook() error {
	u, err := url.Parse(h.Webhook)
	switch {
	case h.User != "":
		return errors.New("user: it is for exec; a webhook runs nothing")
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("webhook: want a URL such as https://chat.example.org/hook")
	case u.Scheme == "https":
	case u.Scheme != "http" || !loopback(u.Hostname()):
		return fmt.Errorf("webhook: %s://%s: want https, which nobody on the way can read or change; http is for this host's own servers (127.0.0.1)", u.Scheme, u.Host)
	}
	if _, err := absolute(h.SecretFile); err != nil {
		return fmt.Errorf("secret_file %q: %w of a file with the key that signs what is sent", h.SecretFile, err)
	}
	return nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
