package sandbox

import (
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// caVariables name certificates of authorities to programs. The host's are kept where they point into the baseline:
// a host behind a proxy of its own needs them, and there is nothing secret in them.
var caVariables = []string{
	"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT",
}

// Environment is what a command's environment is made of: nothing of the host's but the certificate variables, its
// language, TERM when a terminal is passed, and what the caller adds as "NAME=value", later ones winning.
func Environment(host []string, terminal bool, add []string) []string {
	lookup := func(name string) string {
		for _, v := range slices.Backward(host) {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}
	env := []string{
		"PATH=" + policy.SearchPath,
		"HOME=" + policy.Home,
		"USER=agent",
		"LOGNAME=agent",
		"SHELL=/bin/sh",
		"TMPDIR=/tmp",
		"XDG_CONFIG_HOME=" + policy.Home + "/.config",
		"XDG_CACHE_HOME=" + policy.Home + "/.cache",
		"XDG_DATA_HOME=" + policy.Home + "/.local/share",
		"XDG_STATE_HOME=" + policy.Home + "/.local/state",
	}
	lang := lookup("LANG")
	if lang == "" {
		lang = "C.UTF-8"
	}
	env = append(env, "LANG="+lang)
	if term := lookup("TERM"); terminal && term != "" {
		env = append(env, "TERM="+term)
	}
	for _, name := range caVariables {
		if value := lookup(name); value != "" && inBaseline(value) {
			env = append(env, name+"="+value)
		}
	}
	for _, v := range add {
		name, _, _ := strings.Cut(v, "=")
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		env = append(env, v)
	}
	return env
}

// ImageEnvironment is Environment for a sandbox with an image's files (Spec.Root): it has what the image asks for as well, but
// for what every sandbox has a value of its own for, and no certificate variables of the host's, whose files the image may not
// have.
func ImageEnvironment(host, image []string, terminal bool, add []string) []string {
	named := func(list []string, v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(list, func(other string) bool { return strings.HasPrefix(other, name+"=") })
	}
	host = slices.DeleteFunc(slices.Clone(host), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(caVariables, name)
	})
	own := Environment(host, terminal, nil)
	var asked []string
	for _, v := range image {
		if name, _, ok := strings.Cut(v, "="); ok && name != "" && strings.IndexByte(v, 0) < 0 && !named(own, v) && !named(add, v) {
			asked = append(asked, v)
		}
	}
	return Environment(host, terminal, append(asked, add...))
}

// inBaseline reports whether every path of a list separated by colons is visible in every sandbox with the baseline.
func inBaseline(value string) bool {
	for p := range strings.SplitSeq(value, ":") {
		if _, _, secret := policy.SecretAt(p); secret || !under(p, "/usr") && !under(p, "/etc") {
			return false
		}
	}
	return true
}
