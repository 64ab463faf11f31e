// Package agent runs sandboxes: it brings policy, loader, sandbox and dnsproxy together for one run, in the order in
// which nothing can act before it is judged, and takes everything away again. It owns the run's life and what a person
// sees of it; every judgement is the policy's, every enforcement a plane's. It never lets a command start before all
// planes are in force, and never lets one go on when a plane or the audit log has failed.
package agent
