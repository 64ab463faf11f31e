package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// revision hashes what a compiled policy means: not where its rules stand, in which order, how often, or what is
// commented. Each line of what is hashed says one thing; the lines are sorted. Changing this format changes every
// revision, which makes running sandboxes reload, no more.
func revision(c *Compiled) string {
	lines := []string{
		fmt.Sprintf("policy 1 name=%q hold=%d enforcement=%s network=%s files=%s exec=%s baseline=%t", c.Name, c.Hold, c.Enforcement,
			c.Network.Default, c.Files.Default, c.Exec.Default, c.Files.Baseline),
		fmt.Sprintf("limits %d %d %g %d %d", c.Limits.Memory, c.Limits.PIDs, c.Limits.CPUs, c.Limits.Files, c.Limits.Disk),
	}
	for _, r := range c.Network.Rules {
		protocol := r.Protocol.String()
		if r.Verdict == Deny {
			protocol = "any"
		}
		lines = append(lines, fmt.Sprintf("net %s %s %d %s ech=%t %d %q", r.Verdict, r.target(), r.Ports, protocol, r.ECH, r.Expires, sorted(r.Commands)))
	}
	for _, s := range c.Network.Unix {
		lines = append(lines, fmt.Sprintf("unix %q", s.Path))
	}
	for _, r := range c.Files.Rules {
		lines = append(lines, fmt.Sprintf("file %q %d %d %d", r.Path, r.Access, r.Asked, r.Denied))
	}
	for _, g := range c.Files.written {
		if g.Expires != 0 {
			lines = append(lines, fmt.Sprintf("file %s %q %d until %d", g.Verdict, g.Path, g.Access, g.Expires))
		}
	}
	for _, x := range c.Exec.Allow {
		lines = append(lines, fmt.Sprintf("exec %q %q", x.Name, sorted(x.Helpers))+x.until())
	}
	for _, x := range c.Exec.Ask {
		lines = append(lines, fmt.Sprintf("askexec %q", x.Name)+x.until())
	}
	for _, x := range c.Exec.Deny {
		lines = append(lines, fmt.Sprintf("noexec %q", x.Name)+x.until())
	}
	for subject, said := range c.saysInference() {
		lines = append(lines, fmt.Sprintf("inference %q %q", subject, said.what))
	}
	if len(c.Devices.GPUs) > 0 {
		lines = append(lines, fmt.Sprintf("gpus %q", c.Devices.GPUs))
	}
	if c.Audit.Strict {
		lines = append(lines, "audit strict")
	}
	if len(c.Audit.Redact) > 0 {
		lines = append(lines, fmt.Sprintf("audit redact %q", c.Audit.Redact))
	}
	if c.Exec.Listed != 0 {
		lines = append(lines, "map listed")
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(lines), "\n")))
	return hex.EncodeToString(sum[:8])
}

func (x *Command) until() string {
	if x.Expires == 0 {
		return ""
	}
	return fmt.Sprintf(" until %d", x.Expires)
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}
