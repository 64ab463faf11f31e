package export

import (
	"encoding/json"
	"net/netip"
	"path"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// ocsfVersion is the schema's whose classes these are: https://schema.ocsf.io/1.8.0.
const ocsfVersion = "1.8.0"

// object is one of JSON.
type object map[string]any

// class is an OCSF class and what of it happened.
type class struct{ uid, activity int }

// classOf is the class of a record: the plane decides, but for what a sandbox's life is made of.
func classOf(d *policy.Decision) class {
	switch d.Plane {
	case policy.PlaneNetwork:
		switch {
		case d.Action == "bind":
			return class{4001, 7} // Network Activity: Listen
		case d.Verdict == policy.Deny:
			return class{4001, 5} // Refuse
		}
		return class{4001, 1} // Open
	case policy.PlaneDNS:
		return class{4003, 1} // DNS Activity: Query
	case policy.PlaneFile, policy.PlaneDevice:
		activity := map[string]int{"create": 1, "read": 2, "write": 3, "delete": 4, "rename": 5, "open": 14}[d.Action]
		if activity == 0 {
			activity = 99
		}
		return class{1001, activity} // File System Activity
	case policy.PlaneExec:
		return class{1007, 1} // Process Activity: Launch
	case policy.PlaneInference:
		return class{6003, 99} // API Activity
	}
	activity := map[string]int{"start": 3, "exit": 4, "stop": 4, "destroy": 2}[d.Action]
	if activity == 0 {
		activity = 99
	}
	return class{6002, activity} // Application Lifecycle
}

// ocsf is an event of the Open Cybersecurity Schema Framework, with the profile security_control, which has the verdict.
func ocsf(dst, line []byte, d *policy.Decision) ([]byte, error) {
	c := classOf(d)
	action, disposition, severity := 1, 1, 1
	switch d.Verdict {
	case policy.Deny:
		action, disposition, severity = 2, 2, 2
	case policy.Ask:
		action, disposition = 99, 99
	}
	product := object{"name": "NemoClaw", "vendor_name": "NemoClaw"}
	process := object{}
	if d.Subject.PID != 0 {
		process["pid"] = d.Subject.PID
	}
	if d.Subject.Exe != "" {
		process["name"], process["file"] = path.Base(d.Subject.Exe), file(d.Subject.Exe)
	}
	if d.Subject.Args != "" {
		process["cmd_line"] = d.Subject.Args
	}
	if len(process) == 0 {
		process["name"] = "unknown"
	}
	e := object{
		"class_uid": c.uid, "category_uid": c.uid / 1000, "activity_id": c.activity, "type_uid": c.uid*100 + c.activity,
		"severity_id": severity, "time": d.Time.UnixMilli(), "action_id": action, "disposition_id": disposition, "message": d.Reason,
		"metadata": object{"version": ocsfVersion, "product": product, "profiles": []string{"security_control"}, "log_name": "audit", "sequence": d.Seq},
		"unmapped": object{"sandbox": d.Sandbox, "action": d.Action, "rule": d.Rule, "revision": d.Revision, "plane": d.Plane},
	}
	if c.activity == 99 {
		e["activity_name"] = d.Action
	}
	if action == 99 {
		e["action"], e["disposition"] = "ask", "ask"
	}
	if d.Reason == "" {
		delete(e, "message")
	}
	if d.Count > 1 {
		e["count"] = d.Count
	}
	here := object{"hostname": d.Sandbox, "type_id": 0}
	device := object{"hostname": d.Sandbox, "type_id": 99, "type": "sandbox"}
	if d.Sandbox == "" {
		here = object{"name": "nemoclaw-agent", "type_id": 0}
		device = object{"hostname": "localhost", "type_id": 0}
	}
	actor := object{"process": process}
	switch c.uid {
	case 4001:
		e["actor"], e["src_endpoint"] = actor, here
		end := object{"name": d.Object}
		if host, port, ok := hostPort(d); ok {
			end = object{"port": port}
			if a, err := netip.ParseAddr(host); err == nil {
				end["ip"] = a.String()
			} else {
				end["hostname"] = host
			}
		}
		e["dst_endpoint"] = end
	case 4003:
		e["actor"], e["src_endpoint"], e["query"] = actor, here, object{"hostname": d.Object}
	case 1001:
		e["actor"], e["device"], e["file"] = actor, device, file(d.Object)
	case 1007:
		e["actor"], e["device"], e["process"] = actor, device, object{"name": path.Base(d.Object), "file": file(d.Object)}
	case 6003:
		e["actor"], e["src_endpoint"], e["api"] = actor, here, object{"operation": d.Object}
	case 6002:
		e["app"] = product
	}
	if d.Inference != nil {
		e["unmapped"].(object)["inference"] = d.Inference
	}
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(append(dst, text...), '\n'), nil
}

// file is an object of a file. What is no path has a name all the same.
func file(p string) object {
	name := path.Base(p)
	if p == "" {
		name = "unknown"
	}
	o := object{"name": name, "type_id": 0}
	if strings.HasPrefix(p, "/") {
		o["path"] = p
	}
	return o
}
