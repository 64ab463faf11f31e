package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
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
	number("audit_max_total", "`SIZE` of all full audit files together; the oldest are removed when they are more; 0: no limit", parseSize, formatSize, func(c *Config) *int64 { return &c.AuditMaxTotal }),
	{
		key: "audit_max_age", about: "`TIME` after which audit files go, such as 90d or 36h; 0: never",
		set: func(c *Config, v string) (err error) { c.AuditMaxAge, err = parseAge(v); return err },
		get: func(c *Config) string { return formatAge(c.AuditMaxAge) },
	},
	text("audit_full", "`deny` or drop: end the sandboxes when the audit log's disk is full, or go on and count what is lost", whenFull, func(c *Config) *string { return &c.AuditFull }),
	text("audit_anchor", "`WHERE` signed checkpoints of the audit log are kept too: a file, syslog, or the https address of a server (default: nowhere)", anchor, func(c *Config) *string { return &c.AuditAnchor }),
	text("bpffs", "`DIR` of the BPF file system; it is mounted there if nothing is", absolute, func(c *Config) *string { return &c.BPFFS }),
	text("cgroup2", "`DIR` of the cgroup v2 hierarchy (default: found)", optionalPath, func(c *Config) *string { return &c.Cgroup2 }),
	text("cgroup_parent", "`NAME` of the cgroup that holds all sandboxes", cgroupName, func(c *Config) *string { return &c.CgroupParent }),
	text("steer_group", "`GROUP` whose members may do everything through the daemon; \"\": root only", groupName, func(c *Config) *string { return &c.SteerGroup }),
	text("watch_group", "`GROUP` whose members may look and change nothing; \"\": nobody", groupName, func(c *Config) *string { return &c.WatchGroup }),
	address("resolver", "`ADDR[:PORT]` of the DNS server to ask for allowed names (default: /etc/resolv.conf)", resolver, func(c *Config) *netip.AddrPort { return &c.Resolver }),
	text("hosts_file", "`FILE` of host names to look in first (default: /etc/hosts)", optionalPath, func(c *Config) *string { return &c.HostsFile }),
	address("metrics", "`[ADDR:]PORT` to serve metrics to Prometheus at, on 127.0.0.1 unless said otherwise; \"\": nowhere", endpoint, func(c *Config) *netip.AddrPort { return &c.Metrics }),
	text("metrics_token", "`FILE` with the token that who reads metrics must have", optionalPath, func(c *Config) *string { return &c.MetricsToken }),
	text("metrics_cert", "`FILE` of the certificate to serve metrics with", optionalPath, func(c *Config) *string { return &c.MetricsCert }),
	text("metrics_key", "`FILE` of that certificate's key", optionalPath, func(c *Config) *string { return &c.MetricsKey }),
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

func address(key, about string, parse func(string) (netip.AddrPort, error), field func(*Config) *netip.AddrPort) setting {
	return setting{
		key: key, about: about,
		set: func(c *Config, v string) (err error) { *field(c), err = parse(v); return err },
		get: func(c *Config) string {
			if !field(c).IsValid() {
				return ""
			}
			return field(c).String()
		},
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

// keys are all that the file may have.
func keys() (all []string) {
	for _, s := range settings {
		all = append(all, s.key)
	}
	return append(all, listKeys...)
}

// unknownKey says what key was meant, and which there are.
func unknownKey(key string, keys []string) error {
	return fmt.Errorf("unknown key %q%s; the keys are %s", key, policy.DidYouMean(key, keys), strings.Join(keys, ", "))
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

const day = 24 * time.Hour

// parseAge reads days or hours.
func parseAge(s string) (time.Duration, error) {
	digits, unit := s, time.Duration(0)
	if d, found := strings.CutSuffix(s, "d"); found {
		digits, unit = d, day
	} else if d, found := strings.CutSuffix(s, "h"); found {
		digits, unit = d, time.Hour
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 || unit == 0 && n != 0 || time.Duration(n) > 100*365*day/max(unit, 1) {
		return 0, errors.New("want days or hours, such as 90d or 36h, or 0")
	}
	return time.Duration(n) * unit, nil
}

func formatAge(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
}

func parseCount(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, errors.New("want a number, 0 or more")
	}
	return n, nil
}
