//go:build e2e

package attacks

import "github.com/nemoclaw/nemoclaw/test/harness"

// Names of this plane: any name below flood may be reached; askName is asked about, and nobody answers.
const (
	floodZone = "flood.attacks.test"
	askName   = "ask.attacks.test"
	capName   = "cap.attacks.test"
)

func exhaustionPlanes() []*plane {
	limited := []attempt{
		{name: "fork bomb", user: true, do: "forks 120", inside: "EAGAIN"},
		{name: "memory", user: true, do: "memory 400", inside: "signal: killed"},
		{name: "System V shared memory", user: true, do: "segments 400", inside: "signal: killed"},
		{name: "descriptors", user: true, do: "pipes 200", inside: "EMFILE"},
		{name: "filling /tmp", user: true, do: "filled /tmp/{token} 48", inside: "ENOSPC"},
		{name: "filling HOME", user: true, do: "filled {home}/{token} 48", inside: "ENOSPC"},
		{name: "filling /dev/shm", user: true, do: "filled /dev/shm/{token} 48", inside: "ENOSPC"},
		{name: "filling the workspace", user: true, do: "filled big 48",
			open: "the workspace is the host's: `disk` counts HOME, /tmp and /dev/shm. No level limits it: give it a file system or a quota of its own"},
		{name: "inodes", user: true, do: "mkdir /tmp/{token} && inodes /tmp/{token} 50000 && rmdir /tmp/{token}", inside: "ENOSPC"},
	}
	floods := []attempt{
		{name: "terminals, of which the machine has so many", user: true, do: "ptys 300", inside: "ENOSPC"},
		{name: "refused connections, 5,000 of them", user: true, do: "connects 5000 {other4}", inside: "EPERM", record: "+network {other4}:*"},
		{name: "forbidden programs, 200 of them", user: true, do: "execs 200 /usr/bin/id {d}/i", inside: "signal: killed", record: "+exec {d}/i"},
	}
	caps := []attempt{
		// First, while the budget of records is whole: the others are floods.
		{name: "connections that a person is asked about, 200 of them", user: true, do: "many 200 reach " + askName + " 7000 {say}", inside: "ECONNRESET", record: "+network " + askName + ":7000", setup: spoken},
		{name: "new names below an allowed wildcard, 1,000 of them", user: true, do: "queries 1000 {resolver} " + floodZone, inside: "SERVFAIL", record: "+dns *"},
		{name: "connections, 1,100 at once", user: true, do: "hold " + capName + " 7000 1100", inside: "EPERM", record: "+network " + capName + ":7000"},
	}
	return []*plane{
		{name: "exhaustion", table: limited, host: home, limits: "  limits: {memory: 128MiB, pids: 60, files: 200, disk: 16MiB}\n"},
		{name: "exhaustion", table: floods, host: hosts, blind: true},
		{name: "exhaustion", table: caps, host: flooded, allow: "    - {domain: \"*." + floodZone + "\", ports: [7000], protocol: tcp}\n    - {domain: " + capName + ", ports: [7000], protocol: tcp}\n",
			network: "  ask:\n    - {domain: " + askName + ", ports: [7000], protocol: tcp}\n"},
	}
}

func home(p *place) { p.vars["{home}"] = "/tmp" }

func flooded(p *place) {
	hosts(p)
	a4, _ := harness.W.Addr()
	for _, name := range []string{"*." + floodZone, askName, capName} {
		harness.W.DNS.Set(name, a4)
	}
	harness.W.TCP(p, a4, 7000)
}
