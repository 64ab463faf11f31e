package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// importer makes a policy's YAML of a foreign file.
type importer struct {
	*collector
	w         writer
	protocols map[spokenKey]spokenAt
	programs  []importedProgram // in the order in which they appear
}

// spokenAt is what an endpoint speaks, and where it says so.
type spokenAt struct {
	Protocol
	At
}

// importedProgram is a binary, and the entries that name it.
type importedProgram struct {
	path    string
	entries []string
}

// convert writes the policy. What it can't write it adds to the errors.
func (im *importer) convert(f *foreign) []byte {
	w := &im.w
	switch {
	case f.Preset != nil && f.Version.Set:
		im.add(f.Version.At, "version", "a preset has no version, and a policy no preset", "remove one of the two")
	case f.Preset == nil && !f.Version.Set:
		im.add(At{}, "version", "the key is missing", "an OpenShell policy starts with `version: 1`, a NemoClaw preset with `preset:`")
	case f.Preset != nil && (f.Filesystem != nil || f.Landlock != nil || f.Process != nil):
		im.add(At{}, "preset", "a preset has network_policies only", "for a policy write `version: 1` instead of `preset`")
	}
	if f.Preset != nil {
		w.comment("", "Imported by `nemoclaw policy import` from the NemoClaw preset %s (%s).", show(string(f.Preset.Name.V)), im.file)
		if d := f.Preset.Description.V; d != "" {
			w.comment("", "%s", string(d))
		}
	} else {
		w.comment("", "Imported by `nemoclaw policy import` from the OpenShell policy %s.", im.file)
	}
	w.comment("", "docs/import.md says what became of each key, and what is stricter here.")
	w.line("version: 1")
	im.network(f.Network)
	if f.Preset == nil {
		im.files(f.Filesystem)
	}
	im.process()
	return w.bytes()
}

func (im *importer) network(entries foreignEntries) {
	w := &im.w
	w.line("")
	w.line("network:")
	w.line("  default: deny")
	if len(entries) > 0 {
		w.line("  allow:")
	}
	for i := range entries {
		e := &entries[i]
		var commands []string
		for _, b := range e.Binaries {
			if p := string(b.Path.V); p != "" && !slices.Contains(commands, p) {
				commands = append(commands, p)
				im.program(p, e.key)
			}
		}
		for j := range e.Endpoints {
			im.endpoint(e, &e.Endpoints[j], fmt.Sprintf("%s.endpoints[%d]", join("network_policies", e.shown()), j), commands)
		}
	}
}

// shown is the entry's key as messages have it.
func (e *foreignEntry) shown() string {
	if plainKey(e.key) {
		return e.key
	}
	return show(e.key)
}

// program notes that an entry names a program: it has to be allowed to run, or the kernel never says that it connects.
func (im *importer) program(path, entry string) {
	i := slices.IndexFunc(im.programs, func(p importedProgram) bool { return p.path == path })
	if i < 0 {
		i = len(im.programs)
		im.programs = append(im.programs, importedProgram{path: path})
	}
	if p := &im.programs[i]; !slices.Contains(p.entries, entry) {
		p.entries = append(p.entries, entry)
	}
}

func (im *importer) endpoint(e *foreignEntry, x *foreignEndpoint, key string, commands []string) {
	ports := x.ports()
	switch {
	case x.Port.Set && x.Ports != nil:
		im.add(x.Ports[0].At, key+".ports", "an endpoint has port or ports, not both", "put all into ports")
	case !x.Port.Set && x.Ports == nil:
		im.add(x.At, key+".port", "the key is missing", "a rule needs its ports")
	}
	im.requests(x, key)
	host := string(x.Host.V)
	if host == "" {
		return // said already
	}
	// One rule for each protocol, in the order of the ports.
	var spoken []Protocol
	for _, port := range ports {
		p := im.protocol(x, key, host, port)
		if !slices.Contains(spoken, p) {
			spoken = append(spoken, p)
		}
	}
	for _, p := range spoken {
		var mine []string
		for _, port := range ports {
			if x.protocol(host, port) == p {
				mine = append(mine, fmt.Sprint(port))
			}
		}
		w := &im.w
		w.comment("    ", "%s, %s:%d", e.title(), im.file, x.Line)
		if addr, err := netip.ParseAddr(host); err == nil {
			w.line("    - cidr: %s", Quote(hostPrefix(addr)))
		} else {
			w.line("    - domain: %s", Quote(host))
		}
		w.line("      ports: [%s]", strings.Join(mine, ", "))
		w.line("      protocol: %s", p)
		w.line("      commands: [%s]", quoteAll(commands))
	}
}

// title is how a comment calls an entry.
func (e *foreignEntry) title() string {
	if name := string(e.Name.V); name != "" && name != e.key {
		return e.key + " (" + name + ")"
	}
	return e.key
}

func (x *foreignEndpoint) ports() []uint16 {
	var ports []uint16
	if x.Port.V > 0 {
		ports = append(ports, uint16(x.Port.V))
	}
	for _, p := range x.Ports {
		if p.V > 0 {
			ports = append(ports, uint16(p.V))
		}
	}
	return ports
}

// protocol is what a rule here says of what an endpoint speaks. OpenShell finds TLS by itself and speaks it with the
// endpoint's name; so here the name is checked where TLS or HTTP is usual, and bytes pass where OpenShell only passes
// them, where something else is usual, and where there is no name.
func (x *foreignEndpoint) protocol(host string, port uint16) Protocol {
	if _, err := netip.ParseAddr(host); err == nil || x.TLS.V == "skip" {
		return TCP
	}
	return ProtocolOf(port)
}

// protocol also sees that the same place is not spoken to in two ways: a policy could not tell them apart.
func (im *importer) protocol(x *foreignEndpoint, key, host string, port uint16) Protocol {
	p := x.protocol(host, port)
	at := x.At
	if x.TLS.Set {
		at = x.TLS.At
	}
	place := spokenKey{Allow, host, port}
	if first, seen := im.protocols[place]; !seen {
		im.protocols[place] = spokenAt{p, at}
	} else if first.Protocol != p {
		im.add(at, key, fmt.Sprintf("%s:%d is %s here and %s at line %d", host, port, p, first.Protocol, first.Line), "`tls: skip` on one and not on the other can't be told apart: choose one")
	}
	return p
}

// requests refuses what limits methods and paths. Rules that allow every method on every path are `access: full`.
func (im *importer) requests(x *foreignEndpoint, key string) {
	all := false
	var asked []string
	for _, r := range x.Rules {
		if r.Allow == nil {
			return // said already
		}
		method, path := string(r.Allow.Method.V), string(r.Allow.Path.V)
		if method == "*" && (path == "/**" || path == "**") {
			all = true
		}
		asked = append(asked, strings.TrimSpace(method+" "+path))
	}
	switch {
	case x.Access.Set && x.Rules != nil:
		im.add(x.Access.At, key+".access", "an endpoint has access or rules, not both", "remove one")
	case x.Rules != nil && !all:
		const most = 4
		list := strings.Join(asked[:min(most, len(asked))], ", ")
		if len(asked) > most {
			list += ", ..."
		}
		im.add(x.Rules[0].At, key+".rules", "a limit to methods and paths is "+noEqual+": "+show(list),
			"a rule judges names, ports and programs; write `access: full` if all of the host may be used, or leave the endpoint out")
	case x.Protocol.Set && !x.Access.Set && x.Rules == nil && (x.Protocol.V == "rest" || x.Protocol.V == "websocket"):
		im.add(x.Protocol.At, key+".protocol", string(x.Protocol.V)+" without access or rules allows no request", "write `access: full` if all of the host may be used, or leave the endpoint out")
	}
}

// files writes the section `filesystem`. OpenShell says nothing of programs: whatever can be read can be run, so
// execute is what its lists mean.
func (im *importer) files(f *foreignFiles) {
	w := &im.w
	w.line("")
	w.line("filesystem:")
	w.line("  default: deny")
	var rules foreignRules
	if f == nil {
		w.comment("  ", "There is no filesystem_policy: the system can be read, and the working directory is the command's, as in OpenShell.")
		rules.add(ourWorkspace, true, "include_workdir by default")
	} else {
		for _, list := range []struct {
			paths []Value[foreignPath]
			write bool
			key   string
		}{{f.ReadOnly, false, "read_only"}, {f.ReadWrite, true, "read_write"}} {
			for _, p := range list.paths {
				if p.V != "" {
					rules.add(string(p.V), list.write, fmt.Sprintf("filesystem_policy.%s, %s:%d", list.key, im.file, p.Line))
				}
			}
		}
		if f.Workdir.V {
			rules.add(ourWorkspace, true, fmt.Sprintf("filesystem_policy.include_workdir, %s:%d", im.file, f.Workdir.Line))
		}
		system := rules.has("/usr") && rules.has("/lib") && rules.has("/etc") && rules.has("/proc")
		im.special(f, system)
		if !system {
			w.comment("  ", "Not all of /usr, /lib, /etc and /proc are listed, so the rest of the system is not there either.")
			w.line("  baseline: none")
		}
	}
	covered := rules.write(w)
	if len(covered) > 0 {
		w.comment("  ", "Part of every sandbox, or of its baseline: %s.", strings.Join(covered, ", "))
	}
}

// special refuses what /proc and /dev can't be asked for here.
func (im *importer) special(f *foreignFiles, system bool) {
	check := func(key string, paths []Value[foreignPath], write bool) {
		for i, p := range paths {
			path, at := string(p.V), fmt.Sprintf("filesystem_policy.%s[%d]", key, i)
			device := slices.Contains(BaselineDevices, path)
			switch {
			case write && under(path, "/proc"):
				im.add(p.At, at, "writing to /proc is "+noEqual, "list it under read_only")
			case !system && (device || under(path, "/proc")):
				im.add(p.At, at, path+" alone is "+noEqual, "it comes with the system: list /usr, /lib, /etc and /proc under read_only as well")
			}
		}
	}
	check("read_only", f.ReadOnly, false)
	check("read_write", f.ReadWrite, true)
}

// process writes the section `process`: the programs that network rules name.
func (im *importer) process() {
	w := &im.w
	if len(im.programs) == 0 {
		return
	}
	w.line("")
	w.line("process:")
	w.line("  default: deny")
	w.line("  allow:")
	for _, p := range im.programs {
		w.comment("    ", "binaries of %s", strings.Join(p.entries, ", "))
		w.line("    - command: %s", Quote(p.path))
	}
}

// foreignRules are the paths of filesystem_policy, each once.
type foreignRules []foreignPathRule

type foreignPathRule struct {
	path   string
	write  bool
	origin string
}

// add notes a path. Of one in both lists the wider counts: Landlock, which OpenShell uses, adds up.
func (l *foreignRules) add(path string, write bool, origin string) {
	for i := range *l {
		if r := &(*l)[i]; r.path == path {
			if write && !r.write {
				r.write, r.origin = true, origin
			}
			return
		}
	}
	*l = append(*l, foreignPathRule{path, write, origin})
}

func (l foreignRules) has(path string) bool {
	return slices.ContainsFunc(l, func(r foreignPathRule) bool { return r.path == path })
}

// write writes the rules, and returns the paths that need none.
func (l foreignRules) write(w *writer) (covered []string) {
	head := false
	for _, r := range l {
		if under(r.path, "/proc") || slices.Contains(BaselineDevices, r.path) {
			covered = append(covered, r.path)
			continue
		}
		if !head {
			w.line("  allow:")
			head = true
		}
		permissions := "[read, execute]"
		if r.write {
			permissions = "[read, write, execute]"
		}
		w.comment("    ", "%s", r.origin)
		w.line("    - path: %s", Quote(r.path))
		w.line("      permissions: %s", permissions)
	}
	return covered
}
