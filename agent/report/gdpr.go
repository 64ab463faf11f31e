package report

import "github.com/nemoclaw/nemoclaw/policy"

var gdpr = &framework{
	title: "General Data Protection Regulation", name: "gdpr",
	about: "Articles of Regulation (EU) 2016/679. The privacy router looks for classes of data in requests to models: pii, financial, medical, credentials, confidential. What it did not recognise is in no count, and finds are not all personal data. What a program sent to another server that the policy allows was not looked into.",
	needs: []need{
		{"Art. 5(1)(c)", "Data minimisation.", showsSensitive("pii", "financial", "medical"), "whether what was sent was needed for a purpose."},
		{"Art. 5(1)(f)", "Integrity and confidentiality.", showsAccess, "what was done with data after it had left."},
		{"Art. 5(2)", "Accountability: be able to demonstrate compliance.", showsLog, "compliance itself: this is evidence of what was decided, and by which rule."},
		{"Art. 17", "Right to erasure.", func(c *collected, _ []*Log) Text {
			return say("{} of data out of this log were recorded; {} destroyed, {} deleted or made.", many(c.actions["erase"], "erasure", "erasures"), many(c.actions["destroy"], "sandbox", "sandboxes"), many(c.actions["snapshot"], "copy of a workspace", "copies of workspaces"))
		}, "erasure elsewhere: in workspaces, at model providers, on servers. What a log says of a person is found with nemoclaw audit search --text."},
		{"Art. 25", "Data protection by design and by default.", func(c *collected, _ []*Log) Text {
			return say("What no rule allows is denied: {} so. {} of policies.", many(c.defaulted, "attempt was", "attempts were"), many(c.policies.all, "revision", "revisions"))
		}, "how the processing itself was designed."},
		{"Art. 28", "Processors: only with sufficient guarantees, under a contract.", showsRecipients, "contracts with them, and their own sub-processors."},
		{"Art. 30", "Records of processing activities.", func(c *collected, logs []*Log) Text {
			return append(say("Categories of data by class, and recipients, are in the sections on models and on access. "), showsRecipients(c, logs)...)
		}, "purposes, categories of data subjects and time limits: they are no matter of a log."},
		{"Art. 32", "Security of processing.", func(c *collected, logs []*Log) Text {
			return append(append(showsAccess(c, logs), say(" ")...), showsLosses(c, logs)...)
		}, "encryption at rest, and the security of the host."},
		{"Art. 33, 34", "Notification of a personal data breach.", func(c *collected, _ []*Log) Text {
			return say("Candidates to look at: {} denied on the network, {} to models denied, {} let through because a person allowed them.", many(c.planes["network"].of(policy.Deny), "attempt", "attempts"), many(c.planes["inference"].of(policy.Deny), "request", "requests"), c.granted)
		}, "whether one is a breach. What was denied did not leave; what was allowed was not looked into, but for requests to models."},
		{"Art. 44 to 49", "Transfers to third countries.", showsRecipients, "where a recipient is: a record names the model, or the server. The region of a model, and residency, which keeps requests to regions, stand in the policy's revision that the record names."},
	},
}
