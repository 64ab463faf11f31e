//go:build e2e

package attacks

import (
	"strings"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// Names of this plane. Rules allow api and "*." of wild, and deny gist below wild, and the address that inner leads to.
const (
	polZone   = "policy.attacks.test"
	apiName   = "api." + polZone
	wildName  = "wild." + polZone
	gistName  = "gist." + wildName
	innerName = "inner." + wildName
)

var polServer, polInner *harness.Server

func toPol(s *scene, _ string) bool {
	return strings.Contains(polServer.Bytes()+polInner.Bytes(), s.token)
}

func policyPlanes(ld string) []*plane {
	name := func(what, domain, record, inside string) attempt {
		return attempt{name: what, user: true, do: "reach " + domain + " 7000 {say}", inside: inside, record: record, harm: toPol, setup: spoken}
	}
	unlisted := func(what, domain string) attempt { return name(what, domain, "network "+domain+":7000", "EPERM") }
	table := []attempt{
		name("a denied name in upper case", strings.ToUpper(gistName), "+dns "+gistName, "no such host"),
		name("a denied name with a dot at its end", gistName+".", "+dns "+gistName, "no such host"),
		unlisted("two labels where a wildcard allows one", "a.b."+wildName),
		unlisted("the name that a wildcard is below", wildName),
		unlisted("a name that ends as an allowed one does", "evil"+apiName),
		unlisted("a name that begins as an allowed one does", apiName+".evil.attacks.test"),
		unlisted("a name that looks like an allowed one (homograph)", "xn--pi-7kc."+polZone),
		name("an allowed name that leads to a denied address", innerName, "network "+innerName+":7000", "ECONNRESET"),
		{name: "a denied directory, by `..`", user: true, do: "read {ws}/private/../private/key", inside: "EACCES", harm: showsMasked},
		{name: "a denied directory, by doubled slashes and dots", user: true, do: "read /{ws}//./private/.//key", inside: "EACCES", harm: showsMasked},
		{name: "a denied directory, by a relative path", user: true, do: "cd {ws} && read private/key", inside: "EACCES", harm: showsMasked},
		{name: "a denied directory, by its other path", user: true, do: "read {place}/workspace/private/key", inside: "EACCES", harm: showsMasked},
		{name: "a program that is allowed and denied", user: true, do: "run /usr/bin/uname", inside: "EACCES", landlock: true},
		{name: "a program that is allowed and denied, by a link", user: true, do: "symlink /usr/bin/uname good && run {d}/good", inside: "EACCES", landlock: true},
	}
	planes := []*plane{{
		name: "policy", table: table, host: polHosts,
		files:    "    - {path: {place}/workspace, permissions: [read]}\n",
		hide:     "    - {path: /workspace/private, permissions: [read, write]}\n",
		commands: "    - {command: uname}\n  deny:\n    - {command: uname}\n",
		allow:    "    - {domain: " + apiName + ", ports: [7000], protocol: tcp}\n    - {domain: \"*." + wildName + "\", ports: [7000], protocol: tcp}\n",
		network:  "  deny:\n    - {domain: " + gistName + "}\n    - {cidr: {denied}/32}\n",
	}}
	planes = append(planes, &plane{name: "policy", commands: "    - {command: " + ld + "}\n", refused: "dynamic loader",
		table: []attempt{{name: "the dynamic loader as a command that the policy allows", user: true, do: "run " + ld + " /usr/bin/id", inside: "the sandbox does not start"}}})
	for _, trap := range []struct{ what, yaml, says string }{
		{"a section that comes twice, the second with more", "process:\n  allow:\n    - {command: id}\n", "process"},
		{"a key that is misspelt", "proces:\n  allow:\n    - {command: id}\n", "proces"},
		{"a section in another case", "Process:\n  allow:\n    - {command: id}\n", "Process"},
		{"a second document", "---\nprocess:\n  allow:\n    - {command: id}\n", "document"},
		{"a merge key", "<<: {process: {allow: [{command: id}]}}\n", "<<"},
	} {
		planes = append(planes, &plane{name: "policy", yaml: trap.yaml, refused: trap.says, table: []attempt{{name: trap.what + ", in the policy", user: true, do: "run /usr/bin/id", inside: "the sandbox does not start"}}})
	}
	return planes
}

func polHosts(p *place) {
	workspaceOfDirs(p)
	pol4, _ := harness.W.Addr()
	denied4, _ := harness.W.Addr()
	p.vars["{denied}"] = denied4.String()
	for _, name := range []string{apiName, gistName, wildName, "a.b." + wildName, "evil" + apiName, apiName + ".evil.attacks.test", "xn--pi-7kc." + polZone} {
		harness.W.DNS.Set(name, pol4)
	}
	harness.W.DNS.Set(innerName, denied4)
	polServer = harness.W.TCP(p, pol4, 7000)
	polInner = harness.W.TCP(p, denied4, 7000)
}
