package main

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// example is what an alert is tested with: series with a value for each minute, a minute at which it must not have come, and one at
// which it must.
type example struct {
	series       []string // name{labels} and, after a blank, values in promtool's notation
	quiet, fires string
	labels       map[string]string // that the alert carries, beside its severity
}

// on are the labels of everything that one daemon of the examples shows.
func on(more ...string) map[string]string {
	labels := map[string]string{"instance": "host:9464", "job": "nemoclaw"}
	for i := 0; i < len(more); i += 2 {
		labels[more[i]] = more[i+1]
	}
	return labels
}

const at = `instance="host:9464",job="nemoclaw"`

// gpu is a series of a GPU.
func gpu(name, label, values string) string {
	return `nemoclaw_gpu_` + name + `{` + at + `,gpu="1",uuid="GPU-1",` + label + `} ` + values
}

// examples are of each alert. What comes at once has been quiet in the minute before.
var examples = map[string]example{
	"NemoClawDown":          {[]string{`up{` + at + `} 1x4 0x20`}, "6m", "8m", on()},
	"NemoClawAuditFailed":   {[]string{`nemoclaw_audit_ok{` + at + `} 1x4 0x20`}, "4m", "5m", on()},
	"NemoClawAuditLoses":    {[]string{`nemoclaw_audit_records_lost_total{` + at + `} 0x4 9x30`}, "4m", "6m", on()},
	"NemoClawForwardBehind": {[]string{`nemoclaw_forward_lag_seconds{` + at + `,receiver="siem"} 0x4 60+60x40`}, "15m", "25m", on("receiver", "siem")},
	"NemoClawForwardLost": {
		[]string{`nemoclaw_forward_lost_records_total{` + at + `,receiver="siem",cause="refused"} 0x4 1x30`, `nemoclaw_forward_lost_records_total{` + at + `,receiver="siem",cause="removed"} 0x40`},
		"4m", "6m", on("receiver", "siem", "cause", "refused"),
	},
	"NemoClawTracesLost": {
		[]string{`nemoclaw_traces_spans_lost_total{` + at + `,cause="full"} 0x4 0+7x60`, `nemoclaw_traces_spans_lost_total{` + at + `,cause="refused"} 0x60`},
		"15m", "25m", on("cause", "full"),
	},
	"NemoClawErrors": {
		[]string{`nemoclaw_errors_total{` + at + `,severity="warning"} 0+1x30`, `nemoclaw_errors_total{` + at + `,severity="error"} 0x9 1x20`},
		"9m", "11m", on("severity", "error"),
	},
	"NemoClawUnread":          {[]string{`nemoclaw_unread{` + at + `} 0x4 1x30`}, "15m", "25m", on()},
	"NemoClawSandboxFailed":   {[]string{`nemoclaw_sandbox_state{` + at + `,sandbox="a",state="failed"} 0x4 1x30`}, "7m", "11m", on("sandbox", "a", "state", "failed")},
	"NemoClawEventsLost":      {[]string{`nemoclaw_events_lost_total{` + at + `,sandbox="a"} 0x4 5x30`}, "4m", "6m", on("sandbox", "a")},
	"NemoClawFollowersBehind": {[]string{`nemoclaw_subscriber_records_lost_total{` + at + `} 0x4 5x30`}, "4m", "6m", on()},
	"NemoClawDenials": {
		[]string{
			`nemoclaw_decisions_total{` + at + `,sandbox="a",plane="network",verdict="deny"} 0x4 0+400x30`,
			`nemoclaw_decisions_total{` + at + `,sandbox="b",plane="network",verdict="allow"} 0+9000x30`,
			`nemoclaw_decisions_total{` + at + `,sandbox="b",plane="network",verdict="deny"} 0+10x30`,
		},
		"8m", "20m", map[string]string{"instance": "host:9464", "sandbox": "a"},
	},
	"NemoClawStrays":        {[]string{`nemoclaw_stray_refusals_total{` + at + `,hook="connect"} 7x4 8x30`}, "4m", "6m", on("hook", "connect")},
	"NemoClawSomebodyWaits": {[]string{`nemoclaw_approvals_held{` + at + `,sandbox="a"} 0x4 1x30`}, "8m", "11m", on("sandbox", "a")},
	"NemoClawNobodyAnswers": {
		[]string{
			`nemoclaw_approval_wait_seconds_count{` + at + `,sandbox="a",outcome="unanswered"} 0x4 0+1x30`,
			`nemoclaw_approval_wait_seconds_count{` + at + `,sandbox="a",outcome="allowed"} 0+9x30`,
		},
		"6m", "30m", on("sandbox", "a", "outcome", "unanswered"),
	},
	"NemoClawMemoryLow": {
		[]string{`nemoclaw_sandbox_memory_bytes{` + at + `,sandbox="a"} 90x4 99x30`, `nemoclaw_sandbox_memory_limit_bytes{` + at + `,sandbox="a"} 100x40`},
		"10m", "20m", on("sandbox", "a"),
	},
	"NemoClawKilledForMemory": {[]string{`nemoclaw_sandbox_oom_kills_total{` + at + `,sandbox="a"} 0x4 1x30`}, "4m", "6m", on("sandbox", "a")},
	"NemoClawPIDsLow": {
		[]string{`nemoclaw_sandbox_pids{` + at + `,sandbox="a"} 90x4 91x30`, `nemoclaw_sandbox_pids_limit{` + at + `,sandbox="a"} 100x40`},
		"8m", "11m", on("sandbox", "a"),
	},
	"NemoClawUpstreamsFail": {
		[]string{
			`nemoclaw_proxy_connections_total{` + at + `,sandbox="a",outcome="failed"} 0x4 0+2x40`,
			`nemoclaw_proxy_connections_total{` + at + `,sandbox="a",outcome="relayed"} 0+1x44`,
			`nemoclaw_proxy_connections_total{` + at + `,sandbox="a",outcome="refused"} 0+9x44`,
		},
		"6m", "30m", map[string]string{"instance": "host:9464", "sandbox": "a"},
	},
	"NemoClawResolversFail": {[]string{`nemoclaw_dns_queries_total{` + at + `,sandbox="a",outcome="failed"} 0x4 0+60x40`}, "6m", "30m", map[string]string{"instance": "host:9464"}},
	"NemoClawModelDown": {
		[]string{`nemoclaw_inference_model_up{` + at + `,sandbox="a",model="ollama/one"} 1x4 0x30`}, "8m", "11m", on("sandbox", "a", "model", "ollama/one"),
	},
	"NemoClawModelsFail": {
		[]string{
			`nemoclaw_inference_requests_total{` + at + `,sandbox="a",model="ollama/one",route="local",outcome="failed"} 0x4 0+1x40`,
			`nemoclaw_inference_requests_total{` + at + `,sandbox="a",model="ollama/one",route="local",outcome="answered"} 0+3x44`,
			`nemoclaw_inference_requests_total{` + at + `,sandbox="a",model="none",route="deny",outcome="refused"} 0+9x44`,
		},
		"9m", "40m", map[string]string{"instance": "host:9464", "sandbox": "a"},
	},
	"NemoClawGPUFailed": {
		[]string{gpu("health", `health="failed"`, "0x4 1x30"), gpu("health", `health="warning"`, "1x4 0x30")}, "5m", "7m", on("gpu", "1", "uuid", "GPU-1", "health", "failed"),
	},
	"NemoClawGPUUnwell": {
		[]string{gpu("health", `health="failed"`, "0x40"), gpu("health", `health="warning"`, "0x4 1x30")}, "9m", "11m", on("gpu", "1", "uuid", "GPU-1", "health", "warning"),
	},
	"NemoClawGPUMemoryErrors": {
		[]string{gpu("ecc_errors_total", `kind="corrected"`, "0+9x40"), gpu("ecc_errors_total", `kind="uncorrected"`, "3x4 4x30")}, "4m", "6m", on("gpu", "1", "uuid", "GPU-1", "kind", "uncorrected"),
	},
	"NemoClawGPUXID": {
		[]string{gpu("xid_errors_total", `xid="31"`, "0+9x40"), gpu("xid_errors_total", `xid="48"`, "2x40"), gpu("xid_errors_total", `xid="79"`, "_x22 1x30")},
		"21m", "24m", on("gpu", "1", "uuid", "GPU-1", "xid", "79"),
	},
	"NemoClawGPUHot": {[]string{`nemoclaw_gpu_temperature_celsius{` + at + `,gpu="1",uuid="GPU-1"} 85x4 86x30`}, "9m", "11m", on("gpu", "1", "uuid", "GPU-1")},
	"NemoClawMapsFull": {
		[]string{
			`nemoclaw_bpf_map_entries{` + at + `,map="rules"} 80x4 81x30`, `nemoclaw_bpf_map_capacity{` + at + `,map="rules"} 100x40`,
			`nemoclaw_bpf_map_entries{` + at + `,map="grants"} 1x40`, `nemoclaw_bpf_map_capacity{` + at + `,map="grants"} 100x40`,
		},
		"8m", "11m", on("map", "rules"),
	},
}

// The parts of promtool's file.
type (
	series struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	came struct {
		Labels      map[string]string `yaml:"exp_labels"`
		Annotations map[string]string `yaml:"exp_annotations"`
	}
	look struct {
		At    string `yaml:"eval_time"`
		Alert string `yaml:"alertname"`
		Came  []came `yaml:"exp_alerts,omitempty"`
	}
	rulesTest struct {
		Interval string   `yaml:"interval"`
		Series   []series `yaml:"input_series"`
		Looks    []look   `yaml:"alert_rule_test"`
	}
)

// rulesTestFile is the file for promtool: each alert comes when it should, and not before.
func rulesTestFile() (string, error) {
	file := struct {
		Rules []string    `yaml:"rule_files"`
		Every string      `yaml:"evaluation_interval"`
		Tests []rulesTest `yaml:"tests"`
	}{Rules: []string{"prometheus-rules.yml"}, Every: "1m"}
	for _, a := range alerts {
		e, ok := examples[a.name]
		if !ok {
			return "", fmt.Errorf("the alert %s has no example", a.name)
		}
		labels, summary := map[string]string{}, a.summary
		for k, v := range e.labels {
			labels[k] = v
			summary = strings.ReplaceAll(summary, "{{ $labels."+k+" }}", v)
		}
		labels["severity"] = a.severity
		test := rulesTest{Interval: "1m", Looks: []look{
			{At: e.quiet, Alert: a.name},
			{At: e.fires, Alert: a.name, Came: []came{{labels, map[string]string{"summary": summary, "runbook": a.runbook}}}},
		}}
		for _, s := range e.series {
			name, values, _ := strings.Cut(s, "} ")
			test.Series = append(test.Series, series{name + "}", values})
		}
		file.Tests = append(file.Tests, test)
	}
	var b bytes.Buffer
	b.WriteString("# Tests of the alert rules, generated from deploy/cases.go by `make generate`: promtool test rules deploy/prometheus-rules-test.yml\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(file); err != nil {
		return "", err
	}
	return b.String(), enc.Close()
}
