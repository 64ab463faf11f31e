package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// setting is one key of the file, and the flag of the same name.
type setting struct {
	key   string // with underscores; the flag has hyphens
	about string // for help, with what it calls the value in backquotes
	set   func(c *Config, value string) error
	get   func(c *Config) string
}

func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }

// settings are all there are, in the order in which help and --check show them.
var settings = []setting{
	text("socket", "`FILE` of the socket to listen on (default: agent.sock in run_dir)", optionalPath, func(c *Config) *string { return &c.Socket }),
	text("state_dir", "`DIR` for what outlives a reboot: sandboxes, their policies, their snapshots", ownDir, func(c *Config) *string { return &c.StateDir }),
	text("run_dir", "`DIR` for what lives as long as a sandbox", ownDir, func(c *Config) *string { return &c.RunDir }),
	text("audit", "`DIR` of the audit logs", ownDir, func(c *Config) *string { return &c.AuditDir }),
	number("audit_max_size", "`SIZE` at which a new audit file is begun, such as 64MiB; 0: never", parseSize, formatSize, func(c *Config) *int64 { return &c.AuditMaxSize }),
	number("audit_keep", "`NUMBER` of full audit files that are kept; 0: all", parseCount, strconv.Itoa, func(c *Config) *int { return &c.AuditKeep }),
	text("bpffs", "`DIR` of the BPF file system; it is mounted there if nothing is", absolute, func(c *Config) *string { return &c.BPFFS }),
	text("cgroup2", "`DIR` of the cgroup v2 hierarchy (default: found)", optionalPath, func(c *Config) *string { return &c.Cgroup2 }),
	text("cgroup_parent", "`NAME` of the cgroup that holds all sandboxes", cgroupName, func(c *Config) *string { return &c.CgroupParent }),
	text("steer_group", "`GROUP` whose members may do everything through the daemon; \"\": root only", groupName, func(c *Config) *string { return &c.SteerGroup }),
	text("watch_group", "`GROUP` whose members may look and change nothing; \"\": nobody", groupName, func(c *Config) *string { return &c.WatchGroup }),
	{
		key: "resolver", about: "`ADDR[:PORT]` of the DNS server to ask for allowed names (default: /etc/resolv.conf)",
		set: func(c *Config, v string) (err error) { c.Resolver, err = resolver(v); return err },
		get: func(c *Config) string {
			if c.Resolver == (netip.AddrPort{}) {
				return ""
			}
			return c.Resolver.String()
		},
	},
	text("hosts_file", "`FILE` of host names to look in first (default: /etc/hosts)", optionalPath, func(c *Config) *string { return &c.HostsFile }),
}

func text(key, about string, parse func(string) (string, error), field func(*Config) *string) setting {
	return setting{
		key: key, about: about,
		set: func(c *Config, v string) error {
			v, err := parse(v)
			if err == nil {
				*field(c) = v
			}
			return err
		},
		get: func(c *Config) string { return *field(c) },
	}
}

func number[N int | int64](key, about string, parse func(string) (N, error), format func(N) string, field func(*Config) *N) setting {
	return setting{
		key: key, about: about,
		set: func(c *Config, v string) error {
			n, err := parse(v)
			if err == nil {
				*field(c) = n
			}
			return err
		},
		get: func(c *Config) string { return format(*field(c)) },
	}
}

func find(key string) (setting, bool) {
	for _, s := range settings {
		if s.key == key {
			return s, true
		}
	}
	return setting{}, false
}

// nearest returns the key that was probably meant, as a hint, or "".
func nearest(key string) string {
	squeeze := func(s string) string {
		return strings.NewReplacer("_", "", "-", "", "dir", "", "file", "").Replace(strings.ToLower(s))
	}
	for _, s := range settings {
		if squeeze(s.key) == squeeze(key) {
			return fmt.Sprintf(" (nearest: %s)", s.key)
		}
	}
	return ""
}

func keys() string {
	var all []string
	for _, s := range settings {
		all = append(all, s.key)
	}
	return strings.Join(all, ", ")
}

var units = []struct {
	name string
	size int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func parseSize(s string) (int64, error) {
	digits, unit := s, int64(1)
	for _, u := range units {
		if d, found := strings.CutSuffix(s, u.name); found {
			digits, unit = d, u.size
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<50/unit {
		return 0, errors.New("want a size in bytes, or with KiB, MiB or GiB, such as 64MiB")
	}
	if n *= unit; n != 0 && n < 1<<16 {
		return 0, errors.New("less than 64KiB would make a file of almost each record; want more, or 0")
	}
	return n, nil
}

func formatSize(n int64) string {
	for _, u := range units {
		if n > 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, errors.New("want a number, 0 or more")
	}
	return n, nil
}
