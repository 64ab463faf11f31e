package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A Server is how one is spoken to that the daemon sends something to. Package sink does it.
type Server struct {
	CA    string `yaml:"ca,omitempty"`         // file of the authorities that the server's certificate may be from; "": the host's
	Cert  string `yaml:"cert,omitempty"`       // file of our certificate
	Key   string `yaml:"key,omitempty"`        // and of its key
	Token Token  `yaml:"token,flow,omitempty"` // that the server wants
	User  string `yaml:"user,omitempty"`       // of whom the token is the password; "": it is sent as is usual there
}

// A Token is where a secret is.
type Token struct {
	File       string `yaml:"file,omitempty"`
	Credential string `yaml:"credential,omitempty"` // that systemd has given to the daemon (LoadCredential)
}

var (
	tokenKeys  = []string{"file", "credential"}
	credential = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$`)
	visible    = regexp.MustCompile(`^[!-~]{1,128}$`)
)

// decodeToken refuses what is in a mapping's token and does not belong there.
func decodeToken(n *yaml.Node) error {
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == "token" {
			if err := decode(n.Content[i+1], tokenKeys, new(Token)); err != nil {
				return fmt.Errorf("token: %w", err)
			}
		}
	}
	return nil
}

// checkHTTP wants a server that nobody on the way to it can read from or change.
func checkHTTP(key string, u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s: %s://%s: want https, which nobody on the way can read or change; http is for this host's own servers (127.0.0.1)", key, u.Scheme, u.Host)
}

func secretInURL(key, name string) error {
	return fmt.Errorf("%s: a secret doesn't belong here, where everybody reads it who runs --check: put it into a file, and write token: {file: /etc/nemoclaw/%s.token}", key, name)
}

// checkFiles says what of the files can't be. plain: there is no TLS.
func (s Server) checkFiles(plain bool) error {
	switch {
	case plain && (s.CA != "" || s.Cert != "" || s.Key != ""):
		return errors.New("ca, cert and key are for TLS, which the address is without")
	case (s.Cert == "") != (s.Key == ""):
		return errors.New("cert and key belong together: give both, or neither")
	}
	for _, file := range [][2]string{{"ca", s.CA}, {"cert", s.Cert}, {"key", s.Key}, {"token: file", s.Token.File}} {
		if file[1] != "" && !filepath.IsAbs(file[1]) {
			return fmt.Errorf("%s: %q: want an absolute path", file[0], file[1])
		}
	}
	return nil
}

func (s Server) checkSecrets() error {
	switch {
	case s.Token.File != "" && s.Token.Credential != "":
		return errors.New("token: want file or credential, one of them")
	case s.Token.Credential != "" && !credential.MatchString(s.Token.Credential):
		return fmt.Errorf("token: credential: %q: want the name that the unit's LoadCredential gives it", s.Token.Credential)
	case s.User != "" && (!visible.MatchString(s.User) || strings.Contains(s.User, ":")):
		return fmt.Errorf("user: %q: want visible characters without a colon", s.User)
	}
	return nil
}
