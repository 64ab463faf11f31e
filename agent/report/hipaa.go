package report

import "github.com/nemoclaw/nemoclaw/policy"

var hipaa = &framework{
	title: "HIPAA Security Rule", name: "hipaa",
	about: "Standards and implementation specifications of 45 CFR Part 164, Subpart C. The classifier's class medical finds what looks like health data in requests to models; nothing here knows which files or servers hold electronic protected health information (ePHI), so say which of the names and paths below do.",
	needs: []need{
		{"164.308(a)(1)(ii)(D)", "Information system activity review: regularly review records of system activity.", showsLog, "whether somebody reviewed it, and how often: keep this report with who read it."},
		{"164.308(a)(3)(ii)(A)", "Authorization and supervision of those who work with ePHI.", showsAnswers, "the clearance of persons, and what a person may do outside of these sandboxes."},
		{"164.308(a)(3)(ii)(C)", "Termination procedures: access ends when it should.", func(c *collected, _ []*Log) Text {
			return say("{} taken back or ended by their time; {} destroyed.", many(c.ended, "answer", "answers"), many(c.actions["destroy"], "sandbox", "sandboxes"))
		}, "whether the accounts of persons who left were closed on the host."},
		{"164.308(a)(4)(ii)(B), (C)", "Access authorization; access establishment and modification.", showsChanges, "who approved a policy before it was set: the account that set it is named. The text of a revision: nemoclaw NAME policy get."},
		{"164.308(a)(5)(ii)(B)", "Protection from malicious software.", showsPrograms, "what an allowed program did by its own code, and what was refused unseen at level static."},
		{"164.308(a)(5)(ii)(C)", "Log-in monitoring.", func(c *collected, _ []*Log) Text {
			return say("{} started inside by persons, each with the account.", many(c.actions["command"], "command", "commands"))
		}, "log-ins: a sandbox has none. Those to the host are in the host's own log."},
		{"164.308(a)(6)(ii)", "Response and reporting: identify and respond to security incidents.", showsAccess, "which denied attempts are incidents: they are candidates, listed below."},
		{"164.312(a)(1)", "Access control: only persons and programs with access rights get to ePHI.", showsAccess, "reads of files that a rule allows: the kernel allows them without a record. The rule that allowed them is in the policy's revision."},
		{"164.312(a)(2)(i)", "Unique user identification.", showsPeople, "who sat at an account that several share, and persons behind an agent that works by itself."},
		{"164.312(b)", "Audit controls: record and examine activity in systems with ePHI.", showsLog, "activity outside of the sandboxes."},
		{"164.312(c)(1), (2)", "Integrity: ePHI is not altered or destroyed improperly; mechanism to authenticate it.", func(c *collected, _ []*Log) Text {
			return say("{} on files denied; {} of workspaces kept and {} brought back. The chain of hashes covers the log.", many(c.planes["file"].of(policy.Deny), "attempt", "attempts"), many(c.actions["snapshot"], "copy", "copies"), c.actions["restore"])
		}, "whether ePHI itself is unaltered: no file's content is hashed."},
		{"164.312(d)", "Person or entity authentication.", showsPeople, "how an account proved who it is: the host's log-in did that."},
		{"164.312(e)(1)", "Transmission security: guard against unauthorized access to ePHI in transit.", func(c *collected, logs []*Log) Text {
			return append(append(showsNetwork(c, logs), say(" ")...), showsSensitive("medical")(c, logs)...)
		}, "the version and ciphers of TLS, and what was in a connection to a server that the policy allows."},
	},
}
