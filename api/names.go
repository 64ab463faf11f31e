package api

// Reserved lists the names that no sandbox can have, because they are commands: `nemoclaw NAME COMMAND` could not be told
// from `nemoclaw COMMAND`.
func Reserved() []string {
	return []string{
		"audit", "completion", "create", "debug", "destroy", "doctor", "help", "import", "init", "list", "onboard", "policy", "preset", "run", "sandbox",
		"start", "status", "stop", "term", "uninstall", "version",
	}
}
