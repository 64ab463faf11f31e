package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Forward is a receiver of the audit log's records. Package forward sends them.
type Forward struct {
	Name string `yaml:"name"` // by which it is known, and how far it has come is kept

	Syslog  string `yaml:"syslog,omitempty"`  // tls://HOST[:PORT], or tcp:// of this host
	OTLP    string `yaml:"otlp,omitempty"`    // URL, as those below
	Loki    string `yaml:"loki,omitempty"`    //
	Elastic string `yaml:"elastic,omitempty"` //
	Splunk  string `yaml:"splunk,omitempty"`  //

	Server `yaml:",inline"`

	Tenant string `yaml:"tenant,omitempty"` // of Loki
	Index  string `yaml:"index,omitempty"`  // of Elastic, DefaultIndex where it is none; of Splunk, the token's

	Format   string   `yaml:"format,omitempty"`        // json where it is none, ocsf, cef
	Planes   []string `yaml:"planes,flow,omitempty"`   // none: all
	Verdicts []string `yaml:"verdicts,flow,omitempty"` // none: all
}

// DefaultIndex is where Elastic keeps records, if nothing else is said.
const DefaultIndex = "nemoclaw-audit"

// DefaultSyslogPort is RFC 5425's.
const DefaultSyslogPort = "6514"

// maxForwards is more than anybody needs.
const maxForwards = 8

var (
	forwardKeys = []string{
		"name", "syslog", "otlp", "loki", "elastic", "splunk", "ca", "cert", "key", "token", "user", "tenant", "index", "format", "planes", "verdicts",
	}
	forwardName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
	indexName   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)
)

// Kind is what a receiver speaks, and where it is.
func (f Forward) Kind() (kind, where string) {
	for _, k := range f.kinds() {
		if k[1] != "" {
			return k[0], k[1]
		}
	}
	return "", ""
}

func (f Forward) kinds() [][2]string {
	return [][2]string{{"syslog", f.Syslog}, {"otlp", f.OTLP}, {"loki", f.Loki}, {"elastic", f.Elastic}, {"splunk", f.Splunk}}
}

func parseForwards(file string, list *yaml.Node) ([]Forward, error) {
	names := map[string]bool{}
	return parseList(file, forwardKey, "`- {name: siem, syslog: tls://logs.example.org}`", maxForwards, list, func(n *yaml.Node) (f Forward, err error) {
		if err := decode(n, forwardKeys, &f); err != nil {
			return f, err
		}
		if err := decodeToken(n); err != nil {
			return f, err
		}
		if err := f.check(); err != nil {
			return f, err
		}
		if names[f.Name] {
			return f, fmt.Errorf("name: there are two called %s", f.Name)
		}
		names[f.Name] = true
		return f, nil
	})
}

// check says what of a receiver can't be. Whether its files are there is package forward's to find out.
func (f Forward) check() error {
	if !forwardName.MatchString(f.Name) {
		return fmt.Errorf("name: %q: want a name of lower-case letters, digits and hyphens: how far the receiver has come is kept by it", f.Name)
	}
	kind, where := f.Kind()
	n := 0
	for _, k := range f.kinds() {
		if k[1] != "" {
			n++
		}
	}
	if n != 1 {
		return errors.New("want one of syslog, otlp, loki, elastic and splunk, with its address")
	}
	u, err := url.Parse(where)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "" || u.Fragment != "":
		return fmt.Errorf("%s: want an address such as %s", kind, exampleOf(kind))
	case u.User != nil:
		return secretInURL(kind, f.Name)
	}
	plain := u.Scheme == "http"
	if kind == "syslog" {
		plain = u.Scheme == "tcp"
		if err := checkSyslog(u); err != nil {
			return err
		}
	} else if err := checkHTTP(kind, u); err != nil {
		return err
	}
	return errors.Join(f.checkFiles(plain), f.checkToken(kind), f.checkWords(kind))
}

func exampleOf(kind string) string {
	return map[string]string{
		"syslog": "tls://logs.example.org:" + DefaultSyslogPort, "otlp": "https://collector.example.org:4318", "loki": "https://loki.example.org:3100",
		"elastic": "https://search.example.org:9200", "splunk": "https://splunk.example.org:8088",
	}[kind]
}

func checkSyslog(u *url.URL) error {
	switch {
	case u.Scheme == "udp":
		return errors.New("syslog: udp: datagrams are lost without anybody's knowing, which a record must not be: want tls, or tcp to a syslog server of this host (127.0.0.1)")
	case u.Scheme == "tcp" && (!loopback(u.Hostname()) || u.Port() == ""):
		return fmt.Errorf("syslog: tcp://%s: want tls, which nobody on the way can read or change; tcp is for this host's own server (tcp://127.0.0.1:514)", u.Host)
	case u.Scheme != "tls" && u.Scheme != "tcp" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return fmt.Errorf("syslog: want an address such as %s", exampleOf("syslog"))
	}
	return nil
}

func (f Forward) checkToken(kind string) error {
	none := f.Token == Token{}
	switch {
	case !none && kind == "syslog":
		return errors.New("token: syslog knows none; cert and key say who we are")
	case none && kind == "splunk":
		return fmt.Errorf("splunk: it takes nothing without a token: write token: {file: /etc/nemoclaw/%s.token}", f.Name)
	case f.User != "" && (none || kind == "splunk"):
		return errors.New("user: it is for otlp, loki and elastic, and its password is token: {file: ...}")
	}
	return f.checkSecrets()
}

func (f Forward) checkWords(kind string) error {
	switch {
	case f.Tenant != "" && (kind != "loki" || !visible.MatchString(f.Tenant)):
		return errors.New("tenant: it is Loki's, and one word (X-Scope-OrgID)")
	case f.Index != "" && kind != "elastic" && kind != "splunk":
		return errors.New("index: it is for elastic and splunk")
	case f.Index != "" && !indexName.MatchString(f.Index):
		return fmt.Errorf("index: %q: want lower-case letters, digits, hyphens, dots and underscores", f.Index)
	case !slices.Contains([]string{"", "json", "ocsf", "cef"}, f.Format):
		return fmt.Errorf("format: %q: want json, ocsf or cef", f.Format)
	case f.Format == "cef" && kind == "elastic":
		return errors.New("format: cef is a line of text, which elastic has no fields of: want json or ocsf")
	}
	for _, p := range f.Planes {
		if _, err := policy.ParsePlane(p); err != nil {
			return fmt.Errorf("planes: %w", err)
		}
	}
	for _, v := range f.Verdicts {
		if new(policy.Verdict).UnmarshalText([]byte(v)) != nil {
			return fmt.Errorf("verdicts: %q: want allow, ask or deny", v)
		}
	}
	return nil
}

// Address is where the receiver listens, as host and port.
func (f Forward) Address() string {
	_, where := f.Kind()
	u, err := url.Parse(where)
	if err != nil {
		return "" // check has read it
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80", "tls": DefaultSyslogPort}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}
