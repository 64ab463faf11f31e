package main

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// alert is one rule: what is wrong, and what to do then.
type alert struct {
	name, expr, lasting, severity string
	summary                       string // what is seen
	runbook                       string // what to do
}

// alerts are all there are. The names of their metrics are looked up in the list by the tests.
var alerts = []alert{
	{
		"NemoClawDown", `up{job="nemoclaw"} == 0`, "2m", "critical",
		"The daemon's metrics can't be read.",
		"systemctl status nemoclaw-agent; journalctl -u nemoclaw-agent. Sandboxes go on judged, without a network, until it runs. If it runs: is metrics set, and does the token match?",
	},
	{
		"NemoClawAuditFailed", `nemoclaw_audit_ok == 0`, "0s", "critical",
		"Decisions can't be written down.",
		"The daemon stops its sandboxes. Look at the room on the disk of the audit directory (df) and at journalctl -u nemoclaw-agent; make room, then systemctl restart nemoclaw-agent.",
	},
	{
		"NemoClawAuditLoses", `increase(nemoclaw_audit_records_lost_total[10m]) > 0`, "0s", "critical",
		"The audit log's disk is full: decisions are made and not written down.",
		"audit_full: drop of agent.yaml says to go on; make room on the disk of the audit directory (df). The log says how many records are missing.",
	},
	{
		"NemoClawForwardBehind", `nemoclaw_forward_lag_seconds > 600`, "5m", "warning",
		"The receiver {{ $labels.receiver }} of audit records is more than ten minutes behind.",
		"journalctl -u nemoclaw-agent | grep forward says why; the log keeps the records, and old files with them, until it has them: look at the room on its disk.",
	},
	{
		"NemoClawForwardLost", `increase(nemoclaw_forward_lost_records_total[15m]) > 0`, "0s", "warning",
		"The receiver {{ $labels.receiver }} never gets some audit records: {{ $labels.cause }}.",
		"nemoclaw audit search --plane system --text forward says which and why. refused: it does not take them, its log says why; removed: audit_max_total has no room for as long as it is away.",
	},
	{
		"NemoClawTracesLost", `increase(nemoclaw_traces_spans_lost_total[15m]) > 0`, "15m", "warning",
		"Spans of traces are lost: {{ $labels.cause }}.",
		"journalctl -u nemoclaw-agent | grep traces says why. full: the collector takes nothing, or too little; refused: its log says why. A smaller ratio under traces in agent.yaml makes fewer.",
	},
	{
		"NemoClawErrors", `increase(nemoclaw_errors_total{severity="error"}[15m]) > 0`, "0s", "warning",
		"The daemon wrote an error to its journal.",
		"journalctl -u nemoclaw-agent --since -1h | grep level=ERROR says what was tried; nemoclaw doctor says whether the host has what is needed.",
	},
	{
		"NemoClawUnread", `nemoclaw_unread > 0`, "15m", "warning",
		"Some of the daemon's metrics can't be read.",
		"journalctl -u nemoclaw-agent | grep metrics says which; the other metrics are right.",
	},
	{
		"NemoClawSandboxFailed", `nemoclaw_sandbox_state{state="failed"} == 1`, "5m", "warning",
		"{{ $labels.sandbox }} should run and does not.",
		"nemoclaw NAME status says why; nemoclaw start NAME tries again.",
	},
	{
		"NemoClawEventsLost", `increase(nemoclaw_events_lost_total[10m]) > 0`, "0s", "warning",
		"The kernel had no room for events of {{ $labels.sandbox }}: some refusals are counted and not in the audit log.",
		"nemoclaw NAME logs --verdict deny shows what it tries; stop it if that is an attack. What was lost was judged all the same.",
	},
	{
		"NemoClawFollowersBehind", `increase(nemoclaw_subscriber_records_lost_total[10m]) > 0`, "0s", "info",
		"Somebody who follows events is too slow for them.",
		"A console or a program that follows (nemoclaw logs --follow) does not read fast enough; the audit log has every record.",
	},
	{
		"NemoClawDenials", `sum by (instance, sandbox) (rate(nemoclaw_decisions_total{verdict="deny",plane!="system"}[5m])) > 5`, "5m", "warning",
		"{{ $labels.sandbox }} has more than five attempts a second refused.",
		"nemoclaw NAME logs --verdict deny shows what is tried: allow it if it is needed (nemoclaw approvals list), stop the sandbox if it is an attack.",
	},
	{
		"NemoClawStrays", `increase(nemoclaw_stray_refusals_total[10m]) > 0`, "0s", "warning",
		"A process below the sandboxes' cgroup is in no sandbox, and may do nothing.",
		"Somebody with root on the host moved it there, or left it there: look at cgroup.procs below the cgroup of the sandboxes.",
	},
	{
		"NemoClawSomebodyWaits", `nemoclaw_approvals_held > 0`, "5m", "info",
		"{{ $labels.sandbox }} has waited for a person for five minutes.",
		"nemoclaw approvals list, or nemoclaw term; if nobody is there at such hours, let the policy say so instead of asking.",
	},
	{
		"NemoClawNobodyAnswers", `increase(nemoclaw_approval_wait_seconds_count{outcome="unanswered"}[1h]) > 5`, "0s", "warning",
		"More than five attempts of {{ $labels.sandbox }} were denied in an hour because nobody answered.",
		"nemoclaw approvals list shows them; hooks (docs/approvals.md) can tell a person, hold in the policy can wait longer.",
	},
	{
		"NemoClawMemoryLow", `nemoclaw_sandbox_memory_bytes / nemoclaw_sandbox_memory_limit_bytes > 0.95`, "10m", "warning",
		"{{ $labels.sandbox }} has used more than 95 % of its memory for ten minutes.",
		"nemoclaw NAME status; raise limits.memory in its policy (policy set --restart), or look for what leaks inside.",
	},
	{
		"NemoClawKilledForMemory", `increase(nemoclaw_sandbox_oom_kills_total[10m]) > 0`, "0s", "warning",
		"The kernel killed a process of {{ $labels.sandbox }} because there was no memory left.",
		"As NemoClawMemoryLow: raise limits.memory, or look for what leaks inside.",
	},
	{
		"NemoClawPIDsLow", `nemoclaw_sandbox_pids / nemoclaw_sandbox_pids_limit > 0.9`, "5m", "warning",
		"{{ $labels.sandbox }} has used more than 90 % of its process ids for five minutes.",
		"Something inside forks without end, or limits.pids is too low for what it does.",
	},
	{
		"NemoClawUpstreamsFail",
		`sum by (instance, sandbox) (rate(nemoclaw_proxy_connections_total{outcome="failed"}[10m])) / sum by (instance, sandbox) (rate(nemoclaw_proxy_connections_total{outcome=~"failed|relayed"}[10m])) > 0.5`,
		"10m", "warning",
		"More than half of the connections that {{ $labels.sandbox }} may make reach nobody.",
		"The host's own network: curl the same server from the host; nemoclaw NAME logs says which addresses were tried.",
	},
	{
		"NemoClawResolversFail", `sum by (instance) (rate(nemoclaw_dns_queries_total{outcome="failed"}[10m])) > 0.1`, "10m", "warning",
		"The host's resolvers do not answer for names that policies allow.",
		"resolver in agent.yaml, or /etc/resolv.conf: ask them by hand (resolvectl query, dig).",
	},
	{
		"NemoClawModelDown", `nemoclaw_inference_model_up == 0`, "5m", "warning",
		"{{ $labels.model }} does not answer {{ $labels.sandbox }}.",
		"nemoclaw NAME models says why. Start the model server, or let inference.fallbacks of the policy name another.",
	},
	{
		"NemoClawModelsFail",
		`sum by (instance, sandbox) (rate(nemoclaw_inference_requests_total{outcome="failed"}[10m])) / sum by (instance, sandbox) (rate(nemoclaw_inference_requests_total{outcome=~"failed|answered"}[10m])) > 0.2`,
		"10m", "warning",
		"More than a fifth of what {{ $labels.sandbox }} asks models fails.",
		"nemoclaw NAME models, and nemoclaw NAME logs, plane inference: a key that is over its limit, or a server that is overloaded.",
	},
	{
		"NemoClawGPUFailed", `nemoclaw_gpu_health{health="failed"} == 1`, "1m", "critical",
		"GPU {{ $labels.gpu }} has failed.",
		"nemoclaw gpus says why: it does not answer, or its memory is bad; dmesg | grep Xid has what the driver saw. Stop the sandboxes that use it; nvidia-smi -r resets it, else the host has to be restarted.",
	},
	{
		"NemoClawGPUUnwell", `nemoclaw_gpu_health{health="warning"} == 1`, "5m", "warning",
		"GPU {{ $labels.gpu }} is slowed down, or waits for a reset.",
		"nemoclaw gpus says why. Too hot, or too little power: the host's fans and power supply; a bad row of memory is replaced when nobody uses the GPU and nvidia-smi -r resets it.",
	},
	{
		"NemoClawGPUMemoryErrors", `increase(nemoclaw_gpu_ecc_errors_total{kind="uncorrected"}[1h]) > 0`, "0s", "critical",
		"The memory of GPU {{ $labels.gpu }} had errors that could not be corrected: what computed with it may be wrong.",
		"dmesg | grep Xid says whom they met; restart what computed. nvidia-smi -q -d ECC,ROW_REMAPPER says whether the GPU mends itself at its next reset.",
	},
	{
		"NemoClawGPUXID", `increase(nemoclaw_gpu_xid_errors_total{xid!~"13|31|43|45|68"}[15m]) > 0 or (nemoclaw_gpu_xid_errors_total{xid!~"13|31|43|45|68"} unless nemoclaw_gpu_xid_errors_total offset 15m) > 0`, "0s", "warning",
		"NVIDIA's driver reported error {{ $labels.xid }} (XID) of GPU {{ $labels.gpu }}.",
		"NVIDIA's list of XIDs says what it is; dmesg | grep Xid has the driver's words. Those that a program's own faults mostly cause (13, 31, 43, 45, 68) are left out. 79: it fell off the bus, restart the host; 48, 63, 64, 94, 95: its memory; 74: NVLink.",
	},
	{
		"NemoClawGPUHot", `nemoclaw_gpu_temperature_celsius > 85`, "5m", "warning",
		"GPU {{ $labels.gpu }} has been hotter than 85 °C for five minutes.",
		"The host's fans, and the air that comes to it; nvidia-smi -q -d TEMPERATURE says where the GPU slows down and where it stops. Some are made for more: change the rule for them.",
	},
	{
		"NemoClawMapsFull", `nemoclaw_bpf_map_entries / nemoclaw_bpf_map_capacity > 0.8`, "5m", "warning",
		"The BPF map {{ $labels.map }} is more than 80 % full: when it is full, no further sandbox or rule can be put into force.",
		"nemoclaw list: stop sandboxes that nobody needs, or have their policies name fewer addresses and programs.",
	},
}

// rulesFile is the file for Prometheus.
func rulesFile() (string, error) {
	type rule struct {
		Alert       string            `yaml:"alert"`
		Expr        string            `yaml:"expr"`
		For         string            `yaml:"for,omitempty"`
		Labels      map[string]string `yaml:"labels"`
		Annotations map[string]string `yaml:"annotations"`
	}
	type group struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	}
	g := group{Name: "nemoclaw"}
	for _, a := range alerts {
		r := rule{Alert: a.name, Expr: a.expr, Labels: map[string]string{"severity": a.severity}, Annotations: map[string]string{"summary": a.summary, "runbook": a.runbook}}
		if a.lasting != "0s" {
			r.For = a.lasting
		}
		g.Rules = append(g.Rules, r)
	}
	var b bytes.Buffer
	b.WriteString("# Alert rules for NemoClaw, generated from deploy/alerts.go by `make generate`. docs/metrics.md says how to use them.\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(map[string][]group{"groups": {g}}); err != nil {
		return "", err
	}
	return b.String(), enc.Close()
}

// alertTable is the documents'.
func alertTable() string {
	var b strings.Builder
	b.WriteString("| alert | means | what to do |\n|---|---|---|\n")
	for _, a := range alerts {
		summary := strings.NewReplacer("{{ $labels.sandbox }}", "NAME", "{{ $labels.map }}", "MAP", "{{ $labels.model }}", "MODEL", "{{ $labels.gpu }}", "N", "{{ $labels.xid }}", "NUMBER", "{{ $labels.receiver }}", "NAME", "{{ $labels.cause }}", "CAUSE").Replace(a.summary)
		fmt.Fprintf(&b, "| %s (%s) | %s | %s |\n", a.name, a.severity, summary, strings.ReplaceAll(a.runbook, "|", `\|`))
	}
	return b.String()
}
