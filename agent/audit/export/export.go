// Package export writes records of the audit log in the formats of other programs: JSON lines as they stand, CSV, CEF and OCSF.
// What comes from inside a sandbox is bytes of somebody hostile: none of them can end a field, begin a line or become a formula.
//
// It reads no file and selects nothing.
package export

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Format appends a record, which is a line of the log too, with its newline.
type Format func(dst, line []byte, d *policy.Decision) ([]byte, error)

// Formats are there by name.
var Formats = map[string]Format{"jsonl": jsonl, "csv": csv, "cef": cef, "ocsf": ocsf}

// Header is what a format begins with; "" for most.
func Header(format string) string {
	if format == "csv" {
		return strings.Join(columns, ",") + "\n"
	}
	return ""
}

// Parse reads a line of the log.
func Parse(line []byte) (d policy.Decision, err error) {
	if err := json.Unmarshal(line, &d); err != nil {
		return d, fmt.Errorf("a line of the log is no record: %w; `nemoclaw audit verify` says more", err)
	}
	return d, nil
}

func jsonl(dst, line []byte, _ *policy.Decision) ([]byte, error) {
	return append(append(dst, line...), '\n'), nil
}

var columns = []string{"seq", "time", "sandbox", "plane", "action", "object", "pid", "exe", "args", "taint", "asked", "verdict", "rule", "reason", "revision", "count",
	"request", "model_asked", "model", "instead", "route", "classes", "unseen", "bytes_in", "bytes_out", "tokens_in", "tokens_out", "cost_microusd", "ms", "through", "params", "result"}

// csv is RFC 4180, but that a line's end within a value is a blank. What a spreadsheet would take for a formula begins with a quote
// mark, which OWASP's recommendation for it is: at the start of a value, and behind a semicolon, at which spreadsheets split where the
// comma is a decimal sign.
func csv(dst, _ []byte, d *policy.Decision) ([]byte, error) {
	fields := []string{
		strconv.FormatUint(d.Seq, 10), d.Time.UTC().Format(time.RFC3339Nano), d.Sandbox, string(d.Plane), d.Action, d.Object, number(int64(d.Subject.PID)), d.Subject.Exe,
		d.Subject.Args, d.Subject.Taint, d.Asked, d.Verdict.String(), d.Rule, d.Reason, d.Revision, number(int64(d.Count)),
	}
	for i, v := range append(fields, modelCall(d.Inference)...) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		for part := range strings.SplitAfterSeq(oneLine(v), ";") {
			first, _ := utf8.DecodeRuneInString(strings.TrimLeft(part, ` "`))
			if strings.ContainsRune("=+-@|%＝＋－＠", first) {
				dst = append(dst, '\'')
			}
			dst = append(dst, strings.ReplaceAll(part, `"`, `""`)...)
		}
		dst = append(dst, '"')
	}
	return append(dst, '\n'), nil
}

// modelCall has the last columns, of a record of the plane inference.
func modelCall(m *policy.ModelCall) []string {
	if m == nil {
		m = &policy.ModelCall{}
	}
	tool := m.Tool
	if tool == nil {
		tool = &policy.ToolUse{}
	}
	return []string{
		m.ID, m.Asked, m.Model, strings.Join(m.Instead, "; "), m.Route, found(m.Classes), strings.Join(m.Unseen, " "), number(m.BytesIn), number(m.BytesOut),
		number(m.TokensIn), number(m.TokensOut), number(m.Cost), number(m.MS), strings.Join(tool.Through, " > "), tool.Params, tool.Result,
	}
}

// found says how often something of each class was: "financial 2 person 1".
func found(classes map[string]int) string {
	var list []string
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		list = append(list, class+" "+strconv.Itoa(classes[class]))
	}
	return strings.Join(list, " ")
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// oneLine makes a blank of every character that isn't printable, controls and those that reorder or hide text, and of what is not UTF-8
// the replacement character.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}

// cef is ArcSight's Common Event Format, version 0: the header escapes | and \, an extension \ and =.
func cef(dst, _ []byte, d *policy.Decision) ([]byte, error) {
	header := strings.NewReplacer(`\`, `\\`, `|`, `\|`)
	value := strings.NewReplacer(`\`, `\\`, `=`, `\=`)
	severity := map[policy.Verdict]string{policy.Deny: "5", policy.Ask: "3", policy.Allow: "1"}[d.Verdict]
	dst = fmt.Appendf(dst, "CEF:0|NemoClaw|nemoclaw|1|%s:%s|%s %s|%s|", header.Replace(oneLine(string(d.Plane))), header.Replace(oneLine(d.Action)),
		header.Replace(oneLine(string(d.Plane))), header.Replace(oneLine(d.Action)), severity)
	first := true
	add := func(key, v string) {
		if v == "" {
			return
		}
		if !first {
			dst = append(dst, ' ')
		}
		first = false
		dst = append(dst, key+"="+value.Replace(oneLine(v))...)
	}
	custom := func(key, label, v string) {
		if v != "" {
			add(key+"Label", label)
			add(key, v)
		}
	}
	add("rt", strconv.FormatInt(d.Time.UnixMilli(), 10))
	add("externalId", strconv.FormatUint(d.Seq, 10))
	add("act", d.Verdict.String())
	add("dvchost", d.Sandbox)
	if host, port, ok := hostPort(d); ok {
		add("dhost", host)
		add("dpt", strconv.Itoa(port))
	} else if d.Plane == policy.PlaneFile || d.Plane == policy.PlaneDevice {
		add("filePath", d.Object)
	} else if d.Plane == policy.PlaneInference {
		add("request", d.Object)
	} else {
		custom("cs3", "object", d.Object)
	}
	add("spid", number(int64(d.Subject.PID)))
	add("sproc", d.Subject.Exe)
	custom("cs1", "rule", d.Rule)
	custom("cs2", "revision", d.Revision)
	custom("cs4", "args", d.Subject.Args)
	if m := d.Inference; m != nil {
		custom("cs5", "route", m.Route)
		custom("cs6", "classes", found(m.Classes))
		add("in", number(m.BytesIn))
		add("out", number(m.BytesOut))
	}
	add("cnt", number(int64(d.Count)))
	add("msg", d.Reason)
	return append(dst, '\n'), nil
}

// hostPort splits the object of a connection.
func hostPort(d *policy.Decision) (host string, port int, ok bool) {
	if d.Plane != policy.PlaneNetwork {
		return "", 0, false
	}
	i := strings.LastIndexByte(d.Object, ':')
	if i < 0 {
		return "", 0, false
	}
	port, err := strconv.Atoi(d.Object[i+1:])
	return strings.Trim(d.Object[:i], "[]"), port, err == nil && port > 0 && port < 1<<16
}
