package report

import "github.com/nemoclaw/nemoclaw/policy"

var soc2 = &framework{
	title: "SOC 2 (Trust Services Criteria)", name: "soc2",
	about: "Common criteria of the AICPA's 2017 Trust Services Criteria (revised points of focus, 2022) for which decisions about sandboxes are evidence. A population to sample from is in the log itself: nemoclaw audit export --format csv.",
	needs: []need{
		{"CC6.1", "Logical access security over protected assets.", showsAccess, "access to the host, and assets outside of the sandboxes."},
		{"CC6.2", "Users are registered and authorized before they get access, and removed.", func(c *collected, _ []*Log) Text {
			return say("{} created, {} destroyed, each with the account.", many(c.actions["create"], "sandbox", "sandboxes"), c.actions["destroy"])
		}, "how accounts of persons came to be: they are the host's."},
		{"CC6.3", "Access is authorized, modified and removed by role, with least privilege and segregation of duties.", func(c *collected, logs []*Log) Text {
			return append(append(showsChanges(c, logs), say(" ")...), showsAnswers(c, logs)...)
		}, "roles, and whether who asked for a change is another than who made it."},
		{"CC6.6", "Protection against threats from outside of the system's boundaries.", func(c *collected, logs []*Log) Text {
			return append(showsNetwork(c, logs), say(" {} of a sandbox were opened to the host by persons.", many(c.actions["publish"], "port", "ports"))...)
		}, "attacks on the host."},
		{"CC6.7", "Transmission, movement and removal of information is restricted.", func(c *collected, logs []*Log) Text {
			return append(append(showsMoves(c, logs), say(" ")...), showsSensitive("")(c, logs)...)
		}, "what was in a connection to a server that the policy allows."},
		{"CC6.8", "Unauthorized or malicious software is prevented or detected.", showsPrograms, "what an allowed program did by its own code, and what was refused unseen at level static."},
		{"CC7.1", "Changes of configuration that introduce vulnerabilities are detected.", func(c *collected, logs []*Log) Text {
			return append(showsChanges(c, logs), say(" {} that a protection of a sandbox was taken away on the host.", many(c.actions["unmasked"], "record", "records"))...)
		}, "vulnerabilities of software."},
		{"CC7.2", "Anomalies are monitored.", func(c *collected, logs []*Log) Text {
			return append(say("{}. ", many(c.total(policy.Deny), "denied attempt", "denied attempts")), showsLosses(c, logs)...)
		}, "who was alerted: alerts are the metrics' (docs/metrics.md) and the hooks'."},
		{"CC7.3", "Security events are evaluated.", showsAnswers, "evaluation outside of answers to requests."},
		{"CC7.4", "Security incidents are responded to.", func(c *collected, _ []*Log) Text {
			return say("{} taken back or ended, {} stopped, {} of policies.", many(c.ended, "answer", "answers"), many(c.actions["stop"], "sandbox", "sandboxes"), many(c.policies.all, "revision", "revisions"))
		}, "the incident response program."},
		{"CC8.1", "Changes are authorized, documented, tested, approved and implemented.", showsChanges, "tests and approval of a change before it was made: the account that made it is named."},
	},
}
