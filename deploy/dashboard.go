package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/metrics"
)

// panel is one of the dashboard.
type panel struct {
	title, help, unit string
	queries           []query
}

type query struct{ expr, legend string }

// about are panels of client_golang's metrics, of the daemon's process.
var about = []panel{
	{"The daemon's CPU time", "Processors that the daemon takes.", "none", []query{{mine("rate(process_cpu_seconds_total[$__rate_interval])"), "{{instance}}"}}},
	{"The daemon's memory", "Memory that the daemon takes.", "bytes", []query{{mine("process_resident_memory_bytes"), "{{instance}}"}}},
	{"The daemon's uptime", "Time since the daemon began.", "s", []query{{mine("time() - process_start_time_seconds"), "{{instance}}"}}},
}

// mine keeps of a metric that every program has what is this daemon's.
func mine(expr string) string { return expr + " and on (instance, job) nemoclaw_build_info" }

// panels are those of a section.
func panels(section string) (list []panel) {
	for _, m := range metrics.List() {
		if m.Section == section {
			list = append(list, panel{m.Title, m.Help, unit(m), queries(m)})
		}
	}
	if section == "Daemon" {
		list = append(list, about...)
	}
	return list
}

// queries show a metric as its kind is read.
func queries(m *metrics.Metric) []query {
	legend := "{{" + strings.Join(m.Labels, "}} {{") + "}}"
	if len(m.Labels) == 0 {
		legend = "{{instance}}"
	}
	selector := ""
	for _, l := range m.Labels {
		if l == "sandbox" {
			selector = `{sandbox=~"$sandbox"}`
		}
	}
	by := strings.Join(append([]string{"instance"}, m.Labels...), ", ")
	switch {
	case m.Query != "":
		return []query{{m.Query, "{{" + m.Labels[len(m.Labels)-1] + "}}"}}
	case m.Kind == metrics.Counter:
		return []query{{fmt.Sprintf("sum by (%s) (rate(%s%s[$__rate_interval]))", by, m.Name, selector), legend}}
	case m.Kind == metrics.Histogram:
		var list []query
		for _, q := range []string{"0.5", "0.95"} {
			list = append(list, query{fmt.Sprintf("histogram_quantile(%s, sum by (le, %s) (rate(%s_bucket%s[$__rate_interval])))", q, by, m.Name, selector), q + " " + legend})
		}
		return list
	}
	return []query{{m.Name + selector, legend}}
}

// unit is what Grafana calls it.
func unit(m *metrics.Metric) string {
	switch {
	case strings.HasSuffix(m.Name, "_seconds_total"):
		return "none" // seconds in a second
	case strings.HasSuffix(m.Name, "_bytes_total"):
		return "Bps"
	case strings.HasSuffix(m.Name, "_bytes"):
		return "bytes"
	case strings.HasSuffix(m.Name, "_ratio"):
		return "percentunit"
	case strings.HasSuffix(m.Name, "_watts"):
		return "watt"
	case strings.HasSuffix(m.Name, "_celsius"):
		return "celsius"
	case strings.HasSuffix(m.Name, "_timestamp_seconds"):
		return "none"
	case strings.HasSuffix(m.Name, "_seconds"):
		return "s"
	case m.Kind == metrics.Counter:
		return "ops"
	}
	return "short"
}

// object is one of JSON.
type object = map[string]any

// The grid: 24 columns, three panels in a row.
const (
	width  = 8
	height = 7
)

// dashboard is the file for Grafana.
func dashboard() (string, error) {
	source := object{"type": "prometheus", "uid": "${source}"}
	var list []object
	y := 0
	for _, section := range sections() {
		list = append(list, object{"id": len(list) + 1, "type": "row", "title": section, "collapsed": false, "panels": []object{}, "gridPos": object{"h": 1, "w": 24, "x": 0, "y": y}})
		y++
		all := panels(section)
		for i, p := range all {
			var targets []object
			for n, q := range p.queries {
				targets = append(targets, object{"refId": string(rune('A' + n)), "datasource": source, "expr": q.expr, "legendFormat": q.legend})
			}
			list = append(list, object{
				"id": len(list) + 1, "type": "timeseries", "title": p.title, "description": p.help, "datasource": source, "targets": targets,
				"gridPos":     object{"h": height, "w": width, "x": i % 3 * width, "y": y + i/3*height},
				"fieldConfig": object{"defaults": object{"unit": p.unit, "min": 0}, "overrides": []object{}},
			})
		}
		y += (len(all) + 2) / 3 * height
	}
	text, err := json.MarshalIndent(object{
		"uid": "nemoclaw", "title": "NemoClaw", "description": "Generated from the list of metrics by `make generate`.", "tags": []string{"nemoclaw"},
		"schemaVersion": 38, "version": 1, "editable": true, "refresh": "30s", "time": object{"from": "now-1h", "to": "now"}, "panels": list,
		"templating": object{"list": []object{
			{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
			{
				"name": "sandbox", "label": "Sandbox", "type": "query", "datasource": source, "refresh": 2, "multi": true, "includeAll": true, "allValue": ".*",
				"query": object{"query": "label_values(nemoclaw_sandbox_state, sandbox)", "refId": "sandbox"}, "current": object{"text": "All", "value": "$__all"}, "sort": 1,
			},
		}},
	}, "", "  ")
	return string(text) + "\n", err
}

// sections are those of the list, in its order.
func sections() (list []string) {
	for _, m := range metrics.List() {
		if len(list) == 0 || list[len(list)-1] != m.Section {
			list = append(list, m.Section)
		}
	}
	return list
}

// metricTable is the documents'.
func metricTable() string {
	var b strings.Builder
	b.WriteString("| metric | kind | labels | |\n|---|---|---|---|\n")
	for _, m := range metrics.List() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), m.Help)
	}
	return b.String()
}
