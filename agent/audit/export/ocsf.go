package export

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/policy"
)

// ocsfVersion is the schema's whose classes these are: https://schema.ocsf.io/1.8.0. testdata/ocsf-1.8.yaml has what it says of them.
const ocsfVersion = "1.8.0"

// object is one of JSON.
type object map[string]any

// The classes that records become, by the plane.
const (
	fileActivity    = 1001
	processActivity = 1007
	networkActivity = 4001
	dnsActivity     = 4003
	appLifecycle    = 6002
	apiActivity     = 6003
)

var classes = map[policy.Plane]int{
	policy.PlaneNetwork: networkActivity, policy.PlaneDNS: dnsActivity, policy.PlaneFile: fileActivity, policy.PlaneDevice: fileActivity,
	policy.PlaneExec: processActivity, policy.PlaneInference: apiActivity, policy.PlaneSystem: appLifecycle,
}

// execStep is how a program is launched: by who executes it, in its place.
const execStep = 3

// refused is the activity of the plane network for what was denied; other is what the schema has no number for, which is then called by
// the record's action.
const refused, other = 5, 99

// activities are the numbers of what records call their actions, of the classes above. A test fails when the product's code has an action
// that is not here.
var activities = map[policy.Plane]map[string]int{
	policy.PlaneNetwork: {
		"connect": 1, "bind": 7, "sendto": 6, "packet": 6, "slipped": 6, "request": 6, // Open, Listen, Traffic
		"socket": other,
	},
	policy.PlaneDNS: {"resolve": 1}, // Query
	policy.PlaneFile: {
		"create": 1, "link": 1, "read": 2, "readdir": 2, "write": 3, "read and write": 3, "truncate": 3, // Create, Read, Update
		"remove": 4, "rename": 5, "attributes": 6, "open": 14, // Delete, Rename, Set Attributes, Open
		"execute": other, "map": other, "receive": other, "connect": other, "watch": other, "lock": other, "ioctl": other, "chroot": other,
	},
	policy.PlaneDevice:    {"open": 14},                                                                // Open
	policy.PlaneExec:      {"exec": 1},                                                                 // Launch
	policy.PlaneInference: {"request": other, "send": other, "tool-call": other, "tool-result": other}, // the schema has create, read, update and delete only
	policy.PlaneSystem: {
		"create": 1, "destroy": 2, "start": 3, "exit": 4, "stop": 4, "policy": 8, "config": 8, // Install, Remove, Start, Stop, Update
		"daemon":  other, // start or stop, which is its object
		"sandbox": other, "adopt": other, "failed": other, "lost": other, "sweep": other, "recover": other, "unmasked": other, "panic": other, "guard": other,
		"command": other, "upload": other, "download": other, "snapshot": other, "restore": other, "publish": other, "unpublish": other,
		"answer": other, "revoke": other, "expired": other, "hook": other, "forward": other, "traces": other, "gpu": other, "erase": other,
	},
}

// classOf is the class of a record and what of it happened.
func classOf(d *policy.Decision) (class, activity int) {
	class, known := classes[d.Plane]
	if !known {
		class = appLifecycle
	}
	activity, known = activities[d.Plane][d.Action]
	switch {
	case !known:
		activity = other
	case class == networkActivity && d.Verdict == policy.Deny && d.Action != "bind" && activity != other:
		activity = refused
	case class == appLifecycle && d.Action == "daemon":
		if a, ok := activities[d.Plane][d.Object]; ok {
			activity = a
		}
	}
	return class, activity
}

// ocsf is an event of the Open Cybersecurity Schema Framework, with the profiles security_control, which has the verdict, and host, which
// has who it was of a connection.
func ocsf(dst, _ []byte, d *policy.Decision) ([]byte, error) {
	class, activity := classOf(d)
	action, disposition, severity := 1, 1, 1
	switch d.Verdict {
	case policy.Deny:
		action, disposition, severity = 2, 2, 2
	case policy.Ask:
		action, disposition = other, other
	}
	product := object{"name": "NemoClaw", "vendor_name": "NemoClaw"}
	metadata := object{"version": ocsfVersion, "product": product, "profiles": []string{"security_control", "host"}, "log_name": "audit"}
	unmapped := object{"sandbox": d.Sandbox, "action": d.Action, "object": d.Object, "rule": d.Rule, "revision": d.Revision, "plane": d.Plane}
	e := object{
		"class_uid": class, "category_uid": class / 1000, "activity_id": activity, "type_uid": class*100 + activity, "severity_id": severity,
		"time": d.Time.UnixMilli(), "action_id": action, "disposition_id": disposition, "metadata": metadata, "unmapped": unmapped,
	}
	whole(metadata, "sequence", d.Seq)
	if d.Count > 1 {
		whole(e, "count", d.Count)
	}
	if activity == other {
		e["activity_name"] = orUnknown(d.Action)
	}
	if action == other {
		e["action"], e["disposition"] = "ask", "ask"
	}
	if d.Reason != "" {
		e["message"] = d.Reason
	}
	for name, text := range map[string]string{"asked": d.Asked, "taint": d.Subject.Taint} {
		if text != "" {
			unmapped[name] = text
		}
	}
	if d.Inference != nil {
		unmapped["inference"] = d.Inference
	}
	concerned(e, d, class, product)
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return append(printable(dst, text), '\n'), nil
}

// printable appends JSON in which every character that isn't printable is written as \uXXXX, as in the log's own lines: encoding/json
// leaves those that reorder or hide text on a terminal. Outside of strings there are none.
func printable(dst, text []byte) []byte {
	for _, r := range string(text) {
		switch {
		case unicode.IsPrint(r):
			dst = utf8.AppendRune(dst, r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, hi, lo)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
	}
	return dst
}

// concerned puts into an event who did it, where, and to what.
func concerned(e object, d *policy.Decision, class int, product object) {
	here := object{"hostname": orUnknown(d.Sandbox), "type_id": 0}
	device := object{"hostname": orUnknown(d.Sandbox), "type_id": other, "type": "sandbox"}
	if d.Sandbox == "" { // the host, and the agent on it
		here = object{"name": "nemoclaw-agent", "type_id": 0}
		device = object{"hostname": "localhost", "type_id": 0}
	}
	e["device"] = device
	who := process(d)
	switch {
	case who != nil:
		e["actor"] = object{"process": who}
	case class == fileActivity || class == processActivity || class == apiActivity: // where the schema wants somebody
		e["actor"] = object{"app_name": "unknown"}
	}
	switch class {
	case networkActivity:
		e["src_endpoint"], e["dst_endpoint"] = here, endpoint(d)
	case dnsActivity:
		e["src_endpoint"], e["query"] = here, object{"hostname": orUnknown(d.Object)}
	case fileActivity:
		e["file"] = file(d.Object)
	case processActivity:
		program := file(d.Object)
		launched := object{"name": program["name"], "file": program}
		identify(launched, d)
		e["process"], e["launch_type_id"] = launched, execStep
	case apiActivity:
		e["src_endpoint"], e["api"] = here, object{"operation": orUnknown(d.Object)}
	case appLifecycle:
		e["app"] = product
	}
}

// process is who attempted something; nil where nothing is known of it.
func process(d *policy.Decision) object {
	s := &d.Subject
	if s.PID == 0 && s.Exe == "" && s.Args == "" {
		return nil
	}
	p := object{}
	if s.Exe != "" {
		p["name"], p["file"] = path.Base(s.Exe), file(s.Exe)
	}
	if s.Args != "" {
		p["cmd_line"] = s.Args
	}
	identify(p, d)
	return p
}

// identify says which process it is. The schema wants a number or a name of it: of one whose number is not known, it is the record's.
func identify(p object, d *policy.Decision) {
	if d.Subject.PID != 0 {
		p["pid"] = d.Subject.PID
	} else {
		p["uid"] = "record " + strconv.FormatUint(d.Seq, 10)
	}
	if d.Sandbox != "" {
		p["sandbox"] = d.Sandbox
	}
}

// endpoint is what was connected to, or listened at.
func endpoint(d *policy.Decision) object {
	host, port, ok := hostPort(d)
	if !ok || host == "" {
		return object{"name": orUnknown(d.Object)}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return object{"hostname": host, "port": port}
	}
	end := object{"ip": a.Unmap().WithZone("").String(), "port": port}
	if zone := a.Zone(); zone != "" { // the schema's address has 40 characters, and a zone may have more
		end["interface_name"] = zone
	}
	return end
}

// file is an object of a file. What is no path has a name all the same.
func file(p string) object {
	if p == "" {
		return object{"name": "unknown", "type_id": 0}
	}
	o := object{"name": path.Base(p), "type_id": 0}
	if strings.HasPrefix(p, "/") {
		o["path"] = p
	}
	return o
}

// whole puts a number into an object, if it is one of the schema's, which have a sign and 64 bits.
func whole(o object, name string, n uint64) {
	if n <= math.MaxInt64 {
		o[name] = n
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
