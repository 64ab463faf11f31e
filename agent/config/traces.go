package config

import (
	"errors"
	"fmt"
	"net/url"

	"go.yaml.in/yaml/v3"
)

// Traces say where OpenTelemetry traces are sent. Package trace makes and sends them. The zero value: nowhere.
type Traces struct {
	Endpoint string `yaml:"endpoint,omitempty"` // URL of a collector
	Server   `yaml:",inline"`
	Ratio    float64 `yaml:"ratio,omitempty"` // of what comes so many parts are traced, at most 1, which is the default
}

const tracesKey = "traces"

var tracesKeys = []string{"endpoint", "ca", "cert", "key", "token", "user", "ratio"}

func parseTraces(file string, n *yaml.Node) (t Traces, err error) {
	err = decode(n, tracesKeys, &t)
	if err == nil {
		err = decodeToken(n)
	}
	if err == nil && len(n.Content) > 0 {
		err = t.check(n)
	}
	if err != nil {
		return Traces{}, fmt.Errorf("%s:%d: %s: %w", file, n.Line, tracesKey, err)
	}
	return t, nil
}

// check says what can't be, and fills in the default. Whether the files are there is package trace's to find out.
func (t *Traces) check(n *yaml.Node) error {
	said := false
	for i := 0; i < len(n.Content); i += 2 {
		said = said || n.Content[i].Value == "ratio"
	}
	if !said {
		t.Ratio = 1
	}
	u, err := url.Parse(t.Endpoint)
	switch {
	case t.Endpoint == "", err != nil, u.Hostname() == "", u.Opaque != "", u.Fragment != "":
		return errors.New("endpoint: want the address of a collector, such as https://collector.example.org:4318")
	case u.User != nil:
		return secretInURL("endpoint", tracesKey)
	case !(t.Ratio > 0 && t.Ratio <= 1): // nor no number
		return fmt.Errorf("ratio: %v: want a part of 1, such as 0.1 for every tenth; without `traces` nothing is traced", t.Ratio)
	case t.User != "" && t.Token == Token{}:
		return errors.New("user: its password is token: {file: ...}")
	}
	return errors.Join(checkHTTP("endpoint", u), t.checkFiles(u.Scheme == "http"), t.checkSecrets())
}
