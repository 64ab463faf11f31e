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
	"path/filepath"
	"strings"
)

// Where things are unless the file or a flag says otherwise.
const (
	DefaultDir    = "/etc/nemoclaw" // of the configuration and of policies
	DefaultFile   = DefaultDir + "/agent.yaml"
	DefaultAudit  = "/var/log/nemoclaw/audit"
	DefaultState  = "/var/lib/nemoclaw"
	DefaultRun    = "/run/nemoclaw"
	DefaultBPFFS  = "/sys/fs/bpf"
	DefaultParent = "nemoclaw"

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

	AuditMaxSize int64 // bytes after which a new audit file is begun; 0: never
	AuditKeep    int   // so many full audit files are kept; 0: all
}

// Default returns what the daemon does without a file and without flags.
func Default() Config {
	return Config{
		StateDir: DefaultState, RunDir: DefaultRun, AuditDir: DefaultAudit, BPFFS: DefaultBPFFS, CgroupParent: DefaultParent,
		SteerGroup: "nemoclaw", WatchGroup: "nemoclaw-watch",
		AuditMaxSize: 64 << 20, AuditKeep: 0,
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
	if c.SteerGroup != "" && c.SteerGroup == c.WatchGroup {
		return fmt.Errorf("steer_group and watch_group are both %q, and who may steer may watch anyway; name two groups, or leave watch_group empty (\"\")", c.SteerGroup)
	}
	return nil
}

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
