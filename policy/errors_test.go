package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// allowed is a policy of one rule of network.allow.
func allowed(rule string) string { return "network:\n  allow:\n    - " + rule + "\n" }

// refusals is one policy per kind of mistake, and all that is said about it, after the file's name.
var refusals = []struct {
	name, src string
	want      []string
}{
	{"empty file", "", []string{": the file is empty (a policy needs at least one section; `nemoclaw init` writes one that works)"}},
	{"comments only", "# nothing\n", []string{": the file is empty (a policy needs at least one section; `nemoclaw init` writes one that works)"}},
	{"null document", "~\n", []string{": the file is empty (a policy needs at least one section; `nemoclaw init` writes one that works)"}},
	{"empty mapping is no section", "{}\n", []string{": the file is empty (a policy needs at least one section; `nemoclaw init` writes one that works)"}},
	{"not UTF-8", "name: a\nhold: \xff60s\n", []string{":2:7: byte 0xff is not UTF-8 (save the file as UTF-8)"}},
	{"control character", "name: a\u0001b\n", []string{":1:8: character U+0001 is not allowed (it doesn't show, or it reorders what shows; remove it)"}},
	{"text direction override in a comment", "name: a # \u202e live\n", []string{":1:11: character U+202E is not allowed (it doesn't show, or it reorders what shows; remove it)"}},
	{"lone carriage return", "name: a\rhold: 60s\n", []string{":1:8: character U+000D is not allowed (it doesn't show, or it reorders what shows; remove it)"}},
	{"line separator", "name: a\u2028hold: 60s\n", []string{":1:8: character U+2028 is not allowed (it doesn't show, or it reorders what shows; remove it)"}},
	{"tab in the indentation", "network:\n\tdefault: deny\n", []string{":2:1: a tab in the indentation (indent with spaces)"}},
	{"tab after spaces", "network:\n  \tdefault: deny\n", []string{":2:3: a tab in the indentation (indent with spaces)"}},
	{"two documents", "name: a\n---\nname: b\n", []string{":2:1: a second document starts here (a policy is one document: remove the `---` line)"}},
	{"list at the top", "- name: a\n", []string{":1:1: expected `key: value` lines, found a list (a policy is a mapping of sections: network, filesystem, process)"}},
	{"text at the top", "deny\n", []string{":1:1: expected `key: value` lines, found the text \"deny\" (a policy is a mapping of sections: network, filesystem, process)"}},
	{"alias", "name: &a one\nhold: *a\n", []string{
		":1:7: an anchor (&a) is not allowed (write each rule out)",
		`:2:7: an alias (*a) is not allowed (write the value out; a name that starts with "*" needs quotes)`,
	}},
	{"unknown alias", "network:\n  allow:\n    - domain: *name\n", []string{`:3:15: not YAML: unknown anchor 'name' referenced (an alias (*name) is not allowed; a name that starts with "*" needs quotes)`}},
	{"wildcard without quotes", "network:\n  allow:\n    - domain: *.npmjs.org\n      ports: [443]\n", []string{`:3:15: not YAML: did not find expected alphabetic or numeric character (a text that starts with "*" or "&" needs quotes: "*.example.org")`}},
	{"merge key", "base: {name: a}\n<<: {name: b}\n", []string{":2:1: a merge key (<<) is not allowed (write each rule out)"}},
	{"tag", "name: !!str one\n", []string{`:1:7: a tag ("!!str") is not allowed (write the value alone)`}},
	{"private tag", "name: !secret one\n", []string{`:1:7: a tag ("!secret") is not allowed (write the value alone)`}},
	{"unclosed quote", "name: \"a\nhold: 60s\n", []string{":1:7: not YAML: found unexpected end of stream (close the quote)"}},
	{"unclosed list", "network:\n  allow:\n    - domain: a.example.org\n      ports: [443\n      protocol: https\n", []string{":4:14: not YAML: did not find expected ',' or ']' (close the list with ])"}},
	{"two colons", "network:\n  default: deny: ask\n", []string{`:2:16: not YAML: mapping values are not allowed in this context (a text that holds ": " needs quotes; a key starts on a line of its own)`}},
	{"bad indentation", "network:\n    default: deny\n  allow: []\n", []string{":3:3: not YAML: did not find expected key (check the indentation of this line and the one above)"}},
	{"character that starts nothing", "name: @a\n", []string{":1:7: not YAML: found character that cannot start any token (quote the text)"}},
	{"unknown key with a near one", "netwrok:\n  default: deny\n", []string{`:1:1: netwrok: unknown key (did you mean "network"?)`}},
	{"unknown key in a rule", allowed("{domain: a.example.org, prots: [443], protocol: https}"), []string{`:3:31: network.allow[0].prots: unknown key (did you mean "ports"?)`}},
	{"misspelt target", allowed("{domian: a.example.org, ports: [443], protocol: https}"), []string{`:3:8: network.allow[0].domian: unknown key (did you mean "domain"?)`}},
	{"unknown key with none near", "quux: 1\n", []string{":1:1: quux: unknown key (valid: version, name, extends, hold, enforcement, network, filesystem, process, devices, tools, inference, audit)"}},
	{"unknown key with strange characters", "\"a\\nb\": 1\n", []string{`:1:1: "a\nb": unknown key (valid: version, name, extends, hold, enforcement, network, filesystem, process, devices, tools, inference, audit)`}},
	{"duplicate key", "name: a\nname: b\n", []string{":2:1: name: the key is there twice, first at line 1 (put both into one)"}},
	{"duplicate section", "network: {default: deny}\nprocess: {default: deny}\nnetwork: {default: ask}\n", []string{":3:1: network: the key is there twice, first at line 1 (put both into one)"}},
	{"key that is a list", "[a, b]: 1\n", []string{":1:1: a key must be a word, found a list (keys here: version, name, extends, hold, enforcement, network, filesystem, process, devices, tools, inference, audit)"}},
	{"section without a value", "network:\n", []string{":1:1: network: the key has no value (give it one, or remove the key)"}},
	{"list without a value", "network:\n  allow:\n", []string{":2:3: network.allow: the key has no value (give it one, or remove the key)"}},
	{"section that is a list", "network: []\n", []string{":1:10: network: expected a mapping, found a list (keys here: default, allow, ask, deny, unix, publish)"}},
	{"rule that is a text", "process: {allow: [python3]}\n", []string{`:1:19: process.allow[0]: expected a mapping, found the text "python3" (write {command: python3}; keys here: command, helpers, expires)`}},
	{"rule that needs more", "filesystem: {allow: [/srv]}\n", []string{`:1:22: filesystem.allow[0]: expected a mapping, found the text "/srv" (write {path: /srv, ...}; keys here: path, permissions, expires)`}},
	{"section that is a text", "network: deny\n", []string{`:1:10: network: expected a mapping, found the text "deny" (keys here: default, allow, ask, deny, unix, publish)`}},
	{"list that is a mapping", "network:\n  allow: {domain: a.example.org}\n", []string{":2:10: network.allow: expected a list, found a mapping (write it as a list, even with one item)"}},
	{"list that is a number", allowed("{domain: a.example.org, ports: 443, protocol: https}"), []string{":3:38: network.allow[0].ports: expected a list, found the number 443 (write [443])"}},
	{"value that is a list", "name: [a]\n", []string{":1:7: name: expected one value, found a list"}},
	{"wrong version", "version: 2\n", []string{":1:10: version: 2 is out of range (only 1 is known)"}},
	{"text for a number", allowed(`{domain: a.example.org, ports: ["443"], protocol: https}`), []string{`:3:39: network.allow[0].ports[0]: expected a whole number, found the text "443" (remove the quotes)`}},
	{"word for a number", allowed("{domain: a.example.org, ports: [https], protocol: https}"), []string{`:3:39: network.allow[0].ports[0]: expected a whole number, found the text "https" (plain decimal digits)`}},
	{"number for a text", "name: 12\n", []string{`:1:7: name: expected a text, found the number 12 (write "12")`}},
	{"boolean for a text", "name: true\n", []string{`:1:7: name: expected a text, found true (write "true")`}},
	{"date for a text", "name: 2026-01-01\n", []string{`:1:7: name: expected a text, found the date 2026-01-01 (write "2026-01-01")`}},
	{"YAML 1.1 boolean as a command", "process:\n  allow:\n    - command: yes\n", []string{`:3:16: process.allow[0].command: yes is not a text to every YAML reader (write "yes")`}},
	{"YAML 1.1 boolean as a word", "network: {default: no}\n", []string{":1:20: network.default: no is not a text to every YAML reader (valid: deny, ask)"}},
	{"YAML 1.1 boolean as a flag", allowed("{domain: a.example.org, ports: [443], protocol: https, descendants: no}"), []string{`:3:75: network.allow[0].descendants: expected true or false, found the text "no"`}},
	{"YAML 1.1 base 60", "name: 22:22\n", []string{`:1:7: name: 22:22 is not a text to every YAML reader (write "22:22")`}},
	{"octal number", "process: {limits: {pids: 017}}\n", []string{":1:26: process.limits.pids: 017 is octal to some YAML readers and decimal to others (write it in decimal, without a leading zero)"}},
	{"YAML 1.2 octal number", "process: {limits: {pids: 0o17}}\n", []string{":1:26: process.limits.pids: 0o17 is octal to some YAML readers and decimal to others (write it in decimal, without a leading zero)"}},
	{"hexadecimal number", "process: {limits: {pids: 0x1f}}\n", []string{":1:26: process.limits.pids: expected a whole number, found the number 0x1f (plain decimal digits)"}},
	{"number with underscores", "process: {limits: {pids: 1_000}}\n", []string{":1:26: process.limits.pids: expected a whole number, found the number 1_000 (plain decimal digits)"}},
	{"negative number", "process: {limits: {pids: -1}}\n", []string{`:1:26: process.limits.pids: expected a whole number, found the number "-1" (plain decimal digits)`}},
	{"fraction", "process: {limits: {pids: 1.5}}\n", []string{":1:26: process.limits.pids: expected a whole number, found the number 1.5 (plain decimal digits)"}},
	{"exponent", "process: {limits: {pids: 1e3}}\n", []string{":1:26: process.limits.pids: expected a whole number, found the number 1e3 (plain decimal digits)"}},
	{"huge number", "process: {limits: {pids: 99999999999999999999}}\n", []string{":1:26: process.limits.pids: 99999999999999999999 is out of range (1 to 4194304)"}},
	{"port out of range", allowed("{domain: a.example.org, ports: [443, 70000], protocol: https}"), []string{":3:44: network.allow[0].ports[1]: 70000 is out of range (1 to 65535)"}},
	{"port 0", allowed("{domain: a.example.org, ports: [0], protocol: https}"), []string{":3:39: network.allow[0].ports[0]: 0 is out of range (1 to 65535)"}},
	{"port range", allowed("{domain: a.example.org, ports: [80-90], protocol: https}"), []string{`:3:39: network.allow[0].ports[0]: expected a whole number, found the text "80-90" (plain decimal digits)`}},
	{"port twice", allowed("{domain: a.example.org, ports: [443, 443], protocol: https}"), []string{":3:44: network.allow[0].ports[1]: 443 is in the list already, at line 3 (remove one)"}},
	{"no ports", allowed("{domain: a.example.org, protocol: https}"), []string{":3:7: network.allow[0].ports: the key is missing (TCP ports.)"}},
	{"empty ports", allowed("{domain: a.example.org, ports: [], protocol: https}"), []string{":3:38: network.allow[0].ports: the list is empty (name at least one, or leave the key out where it is optional)"}},
	{"no protocol", allowed("{domain: a.example.org, ports: [443]}"), []string{":3:7: network.allow[0].protocol: the key is missing (valid: https, http, tls, tcp)"}},
	{"unknown protocol", allowed("{domain: a.example.org, ports: [443], protocol: htps}"), []string{`:3:55: network.allow[0].protocol: unknown value htps (did you mean "https"?)`}},
	{"udp", allowed("{domain: a.example.org, ports: [53], protocol: udp}"), []string{":3:54: network.allow[0].protocol: udp is not supported by this version (nothing relays UDP yet)"}},
	{"no target", allowed("{ports: [443], protocol: https}"), []string{":3:7: network.allow[0].domain: the key is missing (a rule needs domain or cidr)"}},
	{"two targets", allowed("{domain: a.example.org, cidr: 10.0.0.0/8, ports: [443], protocol: tcp}"), []string{":3:37: network.allow[0].cidr: a rule has a domain or a cidr, not both (write two rules)"}},
	{"name for every host", allowed(`{domain: "*", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: "*" would be every host (name the hosts; what no rule covers is decided by network.default)`}},
	{"deep wildcard for every host", allowed(`{domain: "**", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: "**" would be every host (name the hosts; what no rule covers is decided by network.default)`}},
	{"wildcard over a top-level domain", allowed(`{domain: "*.org", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: "*.org" is a wildcard over org, a public suffix (name the hosts)`}},
	{"wildcard over a public suffix", allowed(`{domain: "**.co.uk", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: "**.co.uk" is a wildcard over co.uk, a public suffix (name the hosts)`}},
	{"wildcard over a hoster's suffix", allowed(`{domain: "*.github.io", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: "*.github.io" is a wildcard over github.io, under which anybody can have a name (name the hosts)`}},
	{"wildcard inside a label", allowed(`{domain: "api*.example.org", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: a wildcard is possible as the whole first label only, found "api*.example.org" ("*.example.org" is one label more, "**.example.org" one or more)`}},
	{"wildcard in the middle", allowed(`{domain: "api.*.org", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: a wildcard is possible as the whole first label only, found "api.*.org" ("*.example.org" is one label more, "**.example.org" one or more)`}},
	{"wildcard twice", allowed(`{domain: "*.*.example.org", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: a wildcard is possible as the whole first label only, found "*.*.example.org" ("*.example.org" is one label more, "**.example.org" one or more)`}},
	{"address for a name", allowed("{domain: 192.0.2.1, ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: 192.0.2.1 is an address (write cidr: 192.0.2.1/32)"}},
	{"address in brackets for a name", allowed(`{domain: "[2001:db8::1]", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: "[2001:db8::1]" is an address (write cidr: 2001:db8::1/128)`}},
	{"prefix for a name", allowed("{domain: 192.0.2.0/24, ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: 192.0.2.0/24 is a prefix of addresses (write cidr: 192.0.2.0/24)"}},
	{"number for an address", allowed(`{domain: "2130706433", ports: [443], protocol: https}`), []string{":3:16: network.allow[0].domain: 2130706433 is an address, or would be taken for one (write it as cidr)"}},
	{"hexadecimal address", allowed("{domain: 0x7f.1, ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: 0x7f.1 is an address, or would be taken for one (write it as cidr)"}},
	{"short address", allowed("{domain: 127.1, ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: 127.1 is an address, or would be taken for one (write it as cidr)"}},
	{"URL for a name", allowed(`{domain: "https://a.example.org/x", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: "https://a.example.org/x" is a URL (write the name alone: a.example.org)`}},
	{"path for a name", allowed(`{domain: "a.example.org/x", ports: [443], protocol: https}`), []string{":3:16: network.allow[0].domain: a path can't be judged, found a.example.org/x (write the name alone: a.example.org)"}},
	{"port in a name", allowed(`{domain: "a.example.org:443", ports: [443], protocol: https}`), []string{":3:16: network.allow[0].domain: a name without a port is expected, found a.example.org:443 (write domain: a.example.org and ports: [443])"}},
	{"empty label", allowed("{domain: a..example.org, ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: the name a..example.org has an empty label"}},
	{"only a dot", allowed(`{domain: ".", ports: [443], protocol: https}`), []string{":3:16: network.allow[0].domain: . would be every host (name the hosts; what no rule covers is decided by network.default)"}},
	{"empty name", allowed(`{domain: "", ports: [443], protocol: https}`), []string{":3:16: network.allow[0].domain: the text is empty"}},
	{"space in a name", allowed(`{domain: "a b.example.org", ports: [443], protocol: https}`), []string{`:3:16: network.allow[0].domain: the name "a b.example.org" holds the character ' '`}},
	{"hyphen at the end of a label", allowed("{domain: a-.example.org, ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: the name a-.example.org has a label that starts or ends with a hyphen"}},
	{"label too long", allowed("{domain: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example.org, ports: [443], protocol: https}"), []string{`:3:16: network.allow[0].domain: the name "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..." has a label of 64 characters; at most 63 are possible`}},
	{"name too long", allowed("{domain: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: the name has 305 characters; at most 253 are possible"}},
	{"bad punycode", allowed("{domain: xn--a.example.org, ports: [443], protocol: https}"), []string{`:3:16: network.allow[0].domain: the name xn--a.example.org is not a valid international name: invalid label "\u0080"`}},
	{"bad international name", allowed("{domain: \"\u00e4\u200d.example.org\", ports: [443], protocol: https}"), []string{":3:16: network.allow[0].domain: the name \"\u00e4\\u200d.example.org\" is not a valid international name: invalid label \"\u00e4\\u200d\""}},
	{"host bits in a prefix", allowed("{cidr: 10.1.2.3/16, ports: [1], protocol: tcp}"), []string{":3:14: network.allow[0].cidr: 10.1.2.3/16 has bits set after the first 16 (write 10.1.0.0/16)"}},
	{"address for a prefix", allowed("{cidr: 10.1.2.3, ports: [1], protocol: tcp}"), []string{":3:14: network.allow[0].cidr: expected a prefix, found the address 10.1.2.3 (write 10.1.2.3/32)"}},
	{"mapped prefix", allowed(`{cidr: "::ffff:10.0.0.0/104", ports: [1], protocol: tcp}`), []string{`:3:14: network.allow[0].cidr: "::ffff:10.0.0.0/104" is an IPv4 address in IPv6 spelling (write the IPv4 prefix)`}},
	{"prefix in another form", allowed(`{cidr: "2001:DB8::/32", ports: [1], protocol: tcp}`), []string{`:3:14: network.allow[0].cidr: "2001:DB8::/32" is not in its plain form (write 2001:db8::/32)`}},
	{"name for a prefix", allowed("{cidr: a.example.org, ports: [1], protocol: tcp}"), []string{":3:14: network.allow[0].cidr: expected a prefix of addresses, found a.example.org (write it as 10.1.0.0/16 or 2001:db8::/32; a name goes to domain)"}},
	{"every address", allowed("{cidr: 0.0.0.0/0, ports: [1], protocol: tcp}"), []string{":3:14: network.allow[0].cidr: 0.0.0.0/0 would be every address (name the prefixes that are needed)"}},
	{"prefix with a name's protocol", allowed("{cidr: 10.0.0.0/8, ports: [443], protocol: https}"), []string{":3:50: network.allow[0].protocol: a cidr rule has no name that https could be checked against (write tcp, or a domain rule)"}},
	{"ech on tcp", allowed("{domain: a.example.org, ports: [443], protocol: tcp, ech: allow}"), []string{":3:65: network.allow[0].ech: ech says something of https and tls only; the protocol is tcp (remove it)"}},
	{"descendants", allowed("{domain: a.example.org, ports: [443], protocol: https, commands: [node], descendants: true}"), []string{":3:93: network.allow[0].descendants: true is not supported by this version (the kernel says which program connects, not yet what started it)"}},
	{"empty commands", allowed("{domain: a.example.org, ports: [443], protocol: https, commands: []}"), []string{":3:72: network.allow[0].commands: the list is empty (name at least one, or leave the key out where it is optional)"}},
	{"command twice", allowed("{domain: a.example.org, ports: [443], protocol: https, commands: [node, node]}"), []string{":3:79: network.allow[0].commands[1]: node is in the list already, at line 3 (remove one)"}},
	{"expires without a unit", allowed("{domain: a.example.org, ports: [443], protocol: https, expires: 60}"), []string{":3:71: network.allow[0].expires: 60 has no unit (write 60s for seconds)"}},
	{"expires in days", allowed("{domain: a.example.org, ports: [443], protocol: https, expires: 2d}"), []string{":3:71: network.allow[0].expires: unknown duration 2d (write it as 30s, 5m or 1h30m)"}},
	{"network default allow", "network: {default: allow}\n", []string{":1:20: network.default: allow is refused (there is no allow by default: name the hosts under network.allow)"}},
	{"unknown default", "network: {default: dney}\n", []string{`:1:20: network.default: unknown value dney (did you mean "deny"?)`}},
	{"publish", "network: {publish: [\"127.0.0.1:3000:3000\"]}\n", []string{":1:20: network.publish: not supported by this version (no server inside can be reached from outside yet)"}},
	{"sections of later versions", "tools: {default: allow}\naudit: {strict: maybe}\n", []string{
		":1:8: tools: not supported by this version (the privacy router records tool calls, and no rule judges them)",
		":2:17: audit.strict: expected true or false, found the text \"maybe\"",
	}},
	{"a class that is none", "audit: {redact: [pii, cards]}\n", []string{":1:23: audit.redact: there is no class cards (classes are medical, financial, pii, credentials, confidential, and the names of inference.custom)"}},
	{"a class twice", "audit: {redact: [pii, pii]}\n", []string{":1:23: audit.redact[1]: pii is in the list already, at line 1 (remove one)"}},
	{"no classes", "audit: {redact: []}\n", []string{":1:17: audit.redact: the list is empty (name at least one, or leave the key out where it is optional)"}},
	{"no GPUs", "devices: {gpus: []}\n", []string{":1:17: devices.gpus: the list is empty (name at least one, or leave the key out where it is optional)"}},
	{"GPUs as a word", "devices: {gpus: all}\n", []string{":1:17: devices.gpus: expected a list, found the text \"all\" (write [all])"}},
	{"all and others", "devices: {gpus: [0, all]}\n", []string{":1:21: devices.gpus[1]: all stands for every GPU, and others are named beside it (write [all], or name those that are needed)"}},
	{"a GPU twice", "devices: {gpus: [1, 1]}\n", []string{":1:21: devices.gpus[1]: 1 is in the list already, at line 1 (remove one)"}},
	{"a GPU's number as a text", "devices: {gpus: [\"0\"]}\n", []string{`:1:18: devices.gpus[0]: expected a whole number, found the text "0" (remove the quotes)`}},
	{"a GPU's number in octal", "devices: {gpus: [010]}\n", []string{":1:18: devices.gpus[0]: 010 is octal to some YAML readers and decimal to others (write it in decimal, without a leading zero)"}},
	{"a GPU below zero", "devices: {gpus: [-1]}\n", []string{":1:18: devices.gpus[0]: expected a whole number, found the number \"-1\" (plain decimal digits)"}},
	{"a GPU's node", "devices: {gpus: [/dev/nvidia0]}\n", []string{":1:18: devices.gpus[0]: unknown GPU /dev/nvidia0 (write a number as nvidia-smi counts, a UUID (nvidia-smi -L shows them: GPU-..., MIG-...), or all)"}},
	{"half a UUID", "devices: {gpus: [GPU-1234]}\n", []string{":1:18: devices.gpus[0]: unknown GPU GPU-1234 (write a number as nvidia-smi counts, a UUID (nvidia-smi -L shows them: GPU-..., MIG-...), or all)"}},
	{"other devices", "devices: {usb: [1]}\n", []string{":1:11: devices.usb: unknown key (valid: gpus)"}},
	{"hold without a unit", "hold: 60\n", []string{":1:7: hold: 60 has no unit (write 60s for seconds)"}},
	{"hold too long", "hold: 48h\n", []string{":1:7: hold: 48h is out of range (1s to 24h)"}},
	{"hold in words", "hold: a minute\n", []string{`:1:7: hold: unknown duration "a minute" (write it as 30s, 5m or 1h30m)`}},
	{"unknown preset", "extends: [npn]\n", []string{`:1:11: extends[0]: unknown preset npn (did you mean "npm"?)`}},
	{"preset twice", "extends: [npm, npm]\n", []string{":1:16: extends[1]: npm is in the list already, at line 1 (remove one)"}},
	{"extends a text", "extends: npm\n", []string{`:1:10: extends: expected a list, found the text "npm" (write [npm])`}},
	{"bad sandbox name", "name: My_Assistant\n", []string{`:1:7: name: the sandbox name "My_Assistant" must be lower-case letters, digits and hyphens, and not start with a hyphen`}},
	{"sandbox name that is a command", "name: status\n", []string{":1:7: name: the sandbox name status is a command of nemoclaw, so the sandbox could not be addressed; choose another"}},
	{"sandbox name too long", "name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", []string{`:1:7: name: the sandbox name "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..." has 64 characters; at most 63 are possible`}},
	{"relative path", "filesystem: {allow: [{path: workspace, permissions: [read]}]}\n", []string{":1:29: filesystem.allow[0].path: expected an absolute path, found workspace (start it with /)"}},
	{"home path", "filesystem: {allow: [{path: ~/work, permissions: [read]}]}\n", []string{`:1:29: filesystem.allow[0].path: expected an absolute path, found "~/work" (the home inside is /home/agent; nothing is expanded)`}},
	{"path with dots", "filesystem: {allow: [{path: /srv/../etc, permissions: [read]}]}\n", []string{":1:29: filesystem.allow[0].path: the path /srv/../etc is not in its plain form (write /etc)"}},
	{"path with a slash at the end", "filesystem: {allow: [{path: /srv/, permissions: [read]}]}\n", []string{":1:29: filesystem.allow[0].path: the path /srv/ is not in its plain form (write /srv)"}},
	{"pattern as a path", "filesystem: {allow: [{path: /srv/*, permissions: [read]}]}\n", []string{":1:29: filesystem.allow[0].path: a pattern is not possible in a path (name the directory: a rule covers everything below it)"}},
	{"path element too long", "filesystem: {allow: [{path: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, permissions: [read]}]}\n", []string{":1:29: filesystem.allow[0].path: an element of the path has 256 bytes; at most 255 are possible"}},
	{"NUL in a path", "filesystem: {allow: [{path: \"/srv\\0/x\", permissions: [read]}]}\n", []string{":1:29: filesystem.allow[0].path: the text holds the character U+0000 (remove it)"}},
	{"unknown permission", "filesystem: {allow: [{path: /srv, permissions: [raed]}]}\n", []string{`:1:49: filesystem.allow[0].permissions[0]: unknown value raed (did you mean "read"?)`}},
	{"no permissions", "filesystem: {allow: [{path: /srv, permissions: []}]}\n", []string{":1:48: filesystem.allow[0].permissions: the list is empty (name at least one, or leave the key out where it is optional)"}},
	{"permissions as a text", "filesystem: {allow: [{path: /srv, permissions: rw}]}\n", []string{`:1:48: filesystem.allow[0].permissions: expected a list, found the text "rw" (write one or more of read, write, execute as a list, such as [read, write])`}},
	{"relative command", "process: {allow: [{command: bin/git}]}\n", []string{":1:29: process.allow[0].command: expected a name without a slash or an absolute path, found bin/git"}},
	{"command with arguments", "process: {allow: [{command: git status}]}\n", []string{`:1:29: process.allow[0].command: expected one program, found "git status" (name the program alone: its arguments are not judged)`}},
	{"pattern as a command", "process: {allow: [{command: /usr/bin/*}]}\n", []string{":1:29: process.allow[0].command: a pattern is not possible in a command (name each program; `helpers` of a command may be a pattern)"}},
	{"command that is a directory", "process: {allow: [{command: ..}]}\n", []string{":1:29: process.allow[0].command: expected a command, found .. (write a name found on PATH, or an absolute path)"}},
	{"helpers in deny", "process: {deny: [{command: git, helpers: [ssh]}]}\n", []string{":1:33: process.deny[0].helpers: unknown key (valid: command, expires)"}},
	{"pattern in a helper's directory", "process: {allow: [{command: git, helpers: [\"/usr/*/git\"]}]}\n", []string{`:1:44: process.allow[0].helpers[0]: a pattern is possible in the last element only, found "/usr/*/git" (name each directory)`}},
	{"pattern without a directory", "process: {allow: [{command: git, helpers: [\"git-*\"]}]}\n", []string{`:1:44: process.allow[0].helpers[0]: a pattern needs a directory, found "git-*" (write it as /usr/lib/git-core/*)`}},
	{"broken pattern", "process: {allow: [{command: git, helpers: [\"/usr/lib/[a\"]}]}\n", []string{`:1:44: process.allow[0].helpers[0]: the pattern "[a" is broken (a [ needs its ])`}},
	{"size with a metric unit", "process: {limits: {memory: 4GB}}\n", []string{":1:28: process.limits.memory: unknown size 4GB (write 4GiB)"}},
	{"size with a fraction", "process: {limits: {memory: 1.5GiB}}\n", []string{`:1:28: process.limits.memory: unknown size: found the text "1.5GiB" (write bytes, or a number with KiB, MiB, GiB or TiB, as 512MiB)`}},
	{"size without a unit", "process: {limits: {memory: 4}}\n", []string{":1:28: process.limits.memory: 4 is 4 bytes, less than 1MiB (write bytes, or a number with KiB, MiB, GiB or TiB, as 512MiB)"}},
	{"size out of range", "process: {limits: {memory: 99999999TiB}}\n", []string{":1:28: process.limits.memory: 99999999TiB is out of range (at most 8388607TiB)"}},
	{"no processors", "process: {limits: {cpus: 0}}\n", []string{":1:26: process.limits.cpus: 0 is out of range (0.01 to 4096)"}},
	{"processors in words", "process: {limits: {cpus: two}}\n", []string{`:1:26: process.limits.cpus: expected a decimal number, found the text "two" (plain decimal digits)`}},
	{"unknown limit", "process: {limits: {mem: 4GiB}}\n", []string{`:1:20: process.limits.mem: unknown key (did you mean "memory"?)`}},
	{"socket that is relative", "network: {unix: [postgres.sock]}\n", []string{":1:18: network.unix[0]: expected an absolute path, found postgres.sock (start it with /)"}},
	{"socket path too long", "network: {unix: [/run/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]}\n", []string{":1:18: network.unix[0]: the path has 115 bytes; a socket's has at most 107"}},
	{"several errors", "verison: 1\nnetwork:\n  default: alow\n  allow:\n    - domain: \"*.org\"\n      ports: [0]\n", []string{
		`:1:1: verison: unknown key (did you mean "version"?)`,
		":3:12: network.default: unknown value alow (there is no allow by default: name the hosts under network.allow)",
		":5:7: network.allow[0].protocol: the key is missing (valid: https, http, tls, tcp)",
		`:5:15: network.allow[0].domain: "*.org" is a wildcard over org, a public suffix (name the hosts)`,
		":6:15: network.allow[0].ports[0]: 0 is out of range (1 to 65535)",
	}},
	{"overlap in one file", "network:\n  allow:\n    - {domain: a.example.org, ports: [80, 443], protocol: https}\n    - {domain: A.example.org., ports: [443], protocol: tls}\n", []string{":4:7: network.allow: a.example.org:443 is tls here and https at p.yaml:3 (the two can't be told apart: keep one)"}},
	{"overlap with a preset", "extends: [npm]\nnetwork:\n  allow:\n    - {domain: \"*.npmjs.org\", ports: [443], protocol: tcp}\n", []string{":4:7: network.allow: *.npmjs.org:443 is tcp here and https at preset:npm:5 (the two can't be told apart: keep one)"}},
	{"overlap of ech", "network:\n  ask:\n    - {domain: a.example.org, ports: [443], protocol: https}\n    - {domain: a.example.org, ports: [443], protocol: https, ech: allow}\n", []string{":4:7: network.ask: a.example.org:443 has another ech here than at p.yaml:3 (the two can't be told apart: keep one)"}},
}

func TestRefusals(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse("p.yaml", []byte(tt.src))
			if err == nil {
				var c *Compiled
				if c, err = Compile(p); c != nil {
					t.Fatalf("accepted:\n%s", tt.src)
				}
			} else if p != nil {
				t.Error("a policy beside an error")
			}
			var got []string
			for _, line := range strings.Split(err.Error(), "\n") {
				got = append(got, strings.TrimPrefix(line, "p.yaml"))
			}
			if g, w := strings.Join(got, "\n"), strings.Join(tt.want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
			var first *Error
			if !errors.As(err, &first) || first.File != "p.yaml" {
				t.Errorf("no *Error of the file in %T", err)
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	const wrong = 50
	_, err := Parse("p.yaml", []byte("network:\n  allow:\n"+strings.Repeat("    - {domain: a.example.org, ports: [0], protocol: tcp}\n", wrong)))
	var all Errors
	if !errors.As(err, &all) {
		t.Fatalf("got %T, want Errors", err)
	}
	if len(all) != maxErrors+1 {
		t.Errorf("%d errors reported, want %d and a count", len(all), maxErrors)
	}
	if want := fmt.Sprintf("p.yaml: and %d more errors", wrong-maxErrors); all[len(all)-1].Error() != want {
		t.Errorf("last is %q, want %q", all[len(all)-1], want)
	}
}

func TestSourceTooLarge(t *testing.T) {
	_, err := Parse("p.yaml", []byte(strings.Repeat("#", maxSource+1)))
	if want := "p.yaml: the file has 4194305 bytes; a policy has at most 4194304"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestNearest: what was meant is found, and what has only a few letters in common is not.
func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"add", "list", "status", "verify", "go", "npm", "audit_max_size", "git"}
	for word, want := range map[string]string{
		"lsit": "list", "lst": "list", "LIST": "list", "stauts": "status", "audit": "audit_max_size", "audit-max-size": "audit_max_size", "npn": "npm", "gti": "git",
		"foo": "", "x": "", "": "", "telemetry": "", "metrics": "", strings.Repeat("list", 100000): "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("%.20q: %q, want %q", word, got, want)
		}
		hint := ""
		if want != "" {
			hint = ` (did you mean "` + want + `"?)`
		}
		if got := DidYouMean(word, words); got != hint {
			t.Errorf("%.20q: %q, want %q", word, got, hint)
		}
	}
}
