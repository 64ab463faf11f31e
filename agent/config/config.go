// Package config says where the daemon keeps things and whom it serves: the defaults, the file that changes them
// (/etc/nemoclaw/agent.yaml), and the flags that change the file's. Every path can be moved, so that a second daemon on
// the host never meets the first.
//
// It reads one file and looks at nothing else of the machine; it makes no directory, and decides nothing that a policy does.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// Where things are unless the file or a flag says otherwise.
const (
	DefaultDir      = "/etc/nemoclaw" // of the configuration and of policies
	DefaultFile     = DefaultDir + "/agent.yaml"
	DefaultAudit    = "/var/log/nemoclaw/audit"
	DefaultState    = "/var/lib/nemoclaw"
	DefaultAuditKey = DefaultState + "/audit"
	DefaultRun      = "/run/nemoclaw"
	DefaultBPFFS    = "/sys/fs/bpf"
	DefaultParent   = "nemoclaw"

	socketName = "agent.sock" // in the run directory
)

// Config is what the daemon is told.
type Config struct {
	Socket       string // that it listens on
	StateDir     string // what outlives a reboot: a directory for each sandbox
	RunDir       string // what lives as long as a sandbox
	AuditDir     string // of the audit logs
	BPFFS        string // the BPF file system with the pins
	Cgroup2      string // the cgroup v2 hierarchy; "": found
	CgroupParent string // name of the cgroup that holds all sandboxes

	SteerGroup string // who is in it may do what root may, through the daemon; "": root only
	WatchGroup string // who is in it may look; "": nobody but those who steer

	Resolver  netip.AddrPort // of allowed names; invalid: the host's resolv.conf
	HostsFile string         // of names to look in first; "": /etc/hosts

	AuditMaxSize  int64         // bytes after which a new audit file is begun; 0: never
	AuditKeep     int           // so many full audit files are kept; 0: all
	AuditMaxTotal int64         // bytes of all full audit files, as they are on the disk; 0: no limit
	AuditMaxAge   time.Duration // full audit files with nothing younger are removed; 0: never
	AuditFull     string        // what happens when the audit log's disk is full: deny or drop
	AuditAnchor   string        // where signed checkpoints of the log are kept too; "": nowhere

	Metrics                 netip.AddrPort // where they are served; invalid: nowhere
	MetricsToken            string         // the file of what a client must know; "": nothing
	MetricsCert, MetricsKey string         // the files of the endpoint's certificate; "": no TLS

	Hooks   []Hook    // that are told of requests
	Forward []Forward // that audit records are sent to
	Traces  Traces    // where traces are sent
}

// Default returns what the daemon does without a file and without flags.
func Default() Config {
	return Config{
		StateDir: DefaultState, RunDir: DefaultRun, AuditDir: DefaultAudit, BPFFS: DefaultBPFFS, CgroupParent: DefaultParent,
		SteerGroup: "nemoclaw", WatchGroup: "nemoclaw-watch",
		AuditMaxSize: 64 << 20, AuditKeep: 0, AuditFull: "deny",
	}
}

// complete fills in what follows from the rest.
func (c *Config) complete() {
	if c.Socket == "" {
		c.Socket = filepath.Join(c.RunDir, socketName)
	}
}

// Dirs are the directories that hold nothing but the daemon's own, by setting.
func (c Config) Dirs() map[string]string {
	return map[string]string{"state_dir": c.StateDir, "run_dir": c.RunDir, "audit": c.AuditDir}
}

// systemDirs hold what is not the daemon's: none of its directories can be one of them, since an uninstall removes them.
var systemDirs = []string{
	"/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/run/lock", "/run/user",
	"/sbin", "/srv", "/sys", "/sys/fs", "/sys/fs/bpf", "/sys/fs/cgroup", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/local/bin", "/usr/local/lib",
	"/usr/local/share", "/usr/sbin", "/usr/share", "/var", "/var/cache", "/var/lib", "/var/log", "/var/log/journal", "/var/run", "/var/spool", "/var/tmp",
}

// check says what of the settings can't be, together. Each alone was judged when it was read.
func (c Config) check() error {
	dirs := c.Dirs()
	for _, key := range []string{"state_dir", "run_dir", "audit"} {
		for _, other := range []string{"state_dir", "run_dir", "audit"} {
			if key != other && within(dirs[key], dirs[other]) {
				return fmt.Errorf("%s %s is, or is in, %s %s; give each a directory of its own", key, dirs[key], other, dirs[other])
			}
		}
	}
	if dir := filepath.Dir(c.Socket); within(dir, c.StateDir) || within(dir, c.AuditDir) {
		return fmt.Errorf("socket %s is in the state or audit directory; put it into run_dir (%s)", c.Socket, c.RunDir)
	}
	if a := c.AuditAnchor; filepath.IsAbs(a) && (within(a, c.AuditDir) || within(a, c.StateDir)) {
		return fmt.Errorf("audit_anchor %s is beside the log or its key, where who can forge the log finds it too; name a file elsewhere, best on another machine", a)
	}
	if t := c.AuditMaxTotal; t > 0 && (c.AuditMaxSize == 0 || t < c.AuditMaxSize) {
		return fmt.Errorf("audit_max_total %s is less than one file of audit_max_size %s; give it more, or make the files smaller", formatSize(t), formatSize(c.AuditMaxSize))
	}
	if c.SteerGroup != "" && c.SteerGroup == c.WatchGroup {
		return fmt.Errorf("steer_group and watch_group are both %q, and who may steer may watch anyway; name two groups, or leave watch_group empty (\"\")", c.SteerGroup)
	}
	return c.checkMetrics()
}

// checkMetrics keeps the endpoint to those who may look: on loopback that is whoever has an account here, unless a token says
// otherwise; elsewhere a token is needed, and TLS, without which anybody on the way could read the token.
func (c Config) checkMetrics() error {
	switch {
	case (c.MetricsCert == "") != (c.MetricsKey == ""):
		return errors.New("metrics_cert and metrics_key belong together: give both, or neither")
	case !c.Metrics.IsValid() && (c.MetricsToken != "" || c.MetricsCert != ""):
		return errors.New("metrics_token and metrics_cert are for an endpoint that there is not: give metrics, such as 9464")
	case c.Metrics.IsValid() && !c.Metrics.Addr().Unmap().IsLoopback() && (c.MetricsToken == "" || c.MetricsCert == ""):
		return fmt.Errorf("metrics %s is not on loopback, and others could read it: give metrics_token, and metrics_cert with metrics_key; or leave the address out (%d): then it is 127.0.0.1",
			c.Metrics, c.Metrics.Port())
	}
	return nil
}

// AuditKey is the directory of the key that the audit log is signed with.
func (c Config) AuditKey() string { return filepath.Join(c.StateDir, "audit") }

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// ownDir wants a clean absolute path that is no directory of the system's.
func ownDir(s string) (string, error) {
	p, err := absolute(s)
	if err != nil {
		return "", err
	}
	for _, d := range systemDirs {
		if p == d {
			return "", fmt.Errorf("%s is the system's; name a directory of its own, such as %s", p, filepath.Join(p, "nemoclaw"))
		}
	}
	return p, nil
}

func absolute(s string) (string, error) {
	if !filepath.IsAbs(s) {
		return "", errors.New("want an absolute path")
	}
	return filepath.Clean(s), nil
}

func optionalPath(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return absolute(s)
}

// anchor wants a file, the host's syslog, or a server.
func anchor(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case s == "" || s == "syslog":
		return s, nil
	case filepath.IsAbs(s):
		return filepath.Clean(s), nil
	case err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "":
		return s, nil
	}
	return "", errors.New("want the absolute path of a file, syslog, or the https address of a server")
}

// whenFull wants a word.
func whenFull(s string) (string, error) {
	if s != "deny" && s != "drop" {
		return "", errors.New("want deny, which ends all sandboxes when nothing can be written down, or drop, which counts what was not")
	}
	return s, nil
}

func cgroupName(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "/. \t\n") {
		return "", errors.New("want a name without slashes, dots and blanks: it names a directory of the cgroup v2 hierarchy")
	}
	return s, nil
}

// groupName wants a name, or nothing. Whether there is such a group is the server's to find out.
func groupName(s string) (string, error) {
	if strings.ContainsAny(s, ": \t\n") {
		return "", errors.New("want the name of a group, as in /etc/group")
	}
	return s, nil
}

// endpoint reads an address with a port, or a port of 127.0.0.1.
func endpoint(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	if !strings.Contains(s, ":") {
		s = "127.0.0.1:" + s
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, errors.New("want a port, or an address and a port, such as 9464 (of 127.0.0.1) or [::1]:9464")
	}
	return ap, nil
}

// resolver reads an address with or without a port; the port is 53 when it is left out.
func resolver(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	return netip.AddrPort{}, errors.New("want an address with or without a port, such as 192.0.2.53 or [2001:db8::53]:5353")
}
