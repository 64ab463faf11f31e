package export

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

//go:embed testdata/ocsf-1.8.yaml
var ocsfFacts []byte

// schema is what testdata/ocsf-1.8.yaml has, whose head says where that is from.
type schema struct {
	Version  string
	TypeUID  string `yaml:"type_uid"`
	Types    map[string]*kind
	Enums    map[string]map[int64]string
	Siblings map[string]string
	Profiles []string
	Every    map[string]attribute
	Classes  map[string]*struct {
		UID      int64
		Caption  string
		Category map[int64]string
		Activity map[int64]string
		shape    `yaml:",inline"`
	}
	Objects map[string]*shape
}

type kind struct {
	Of           string
	MaxLen       int `yaml:"max_len"`
	Regex        string
	Address      bool
	Milliseconds bool
	Min, Max     *int64
	expression   *regexp.Regexp
}

// shape is what a class and an object have alike.
type shape struct {
	AtLeastOne []string          `yaml:"at_least_one"`
	Enums      map[string]string // names in schema.Enums of attributes whose name is not that
	Attributes map[string]attribute
}

// attribute is one as its line says it.
type attribute struct {
	requirement, kind, object, profile string
	array, deprecated                  bool
}

func (a *attribute) UnmarshalYAML(n *yaml.Node) error {
	words := strings.Fields(n.Value)
	if len(words) < 2 || !slices.Contains([]string{"required", "recommended", "optional"}, words[0]) {
		return fmt.Errorf("line %d: %q is no attribute", n.Line, n.Value)
	}
	a.requirement, a.kind = words[0], words[1]
	words = words[2:]
	if a.kind == "object" && len(words) > 0 {
		a.object, words = words[0], words[1:]
	}
	for _, w := range words {
		switch {
		case w == "[]":
			a.array = true
		case w == "deprecated":
			a.deprecated = true
		case w[0] == '@':
			a.profile = w[1:]
		default:
			return fmt.Errorf("line %d: %q has %q", n.Line, n.Value, w)
		}
	}
	return nil
}

// facts reads the schema once, and judges that it is whole in itself.
var facts = sync.OnceValues(func() (*schema, error) {
	s := &schema{}
	in := yaml.NewDecoder(bytes.NewReader(ocsfFacts))
	in.KnownFields(true)
	if err := in.Decode(s); err != nil {
		return nil, err
	}
	for name, k := range s.Types {
		if k.Regex != "" {
			k.expression = regexp.MustCompile(k.Regex)
		}
		if !slices.Contains([]string{"boolean", "integer", "string", "any"}, k.Of) {
			return nil, fmt.Errorf("type %s is of %q", name, k.Of)
		}
	}
	all := []map[string]attribute{s.Every}
	for _, o := range s.Objects {
		all = append(all, o.Attributes)
	}
	for _, c := range s.Classes {
		all = append(all, c.Attributes)
	}
	for _, attributes := range all {
		for name, a := range attributes {
			if a.kind == "object" && a.object != "object" && s.Objects[a.object] == nil || a.kind != "object" && s.Types[a.kind] == nil {
				return nil, fmt.Errorf("attribute %s is of the type %s %s, which is not here", name, a.kind, a.object)
			}
		}
	}
	return s, nil
})

// merged has the attributes of all; the last one of a name counts.
func merged(all ...map[string]attribute) map[string]attribute {
	m := map[string]attribute{}
	for _, attributes := range all {
		maps.Copy(m, attributes)
	}
	return m
}

// judge is a judgement of one event: faults are what the schema refuses, each with the path of what it is about.
type judge struct {
	*schema
	profiles []string
	faults   []string
}

func (j *judge) fault(path, format string, args ...any) {
	j.faults = append(j.faults, path+": "+fmt.Sprintf(format, args...))
}

// ocsfFaults says what the schema refuses of an event. It refuses more than the schema's own validator does: what is deprecated, an empty
// string where something is required, and what is not in our transcription.
func ocsfFaults(event []byte) []string {
	s, err := facts()
	if err != nil {
		return []string{"testdata/ocsf-1.8.yaml: " + err.Error()}
	}
	j := &judge{schema: s}
	if !utf8.Valid(event) {
		j.fault("", "is no UTF-8")
	}
	in := json.NewDecoder(bytes.NewReader(event))
	in.UseNumber()
	var e map[string]any
	if err := in.Decode(&e); err != nil {
		j.fault("", "is no JSON object: %v", err)
		return j.faults
	}
	if _, err := in.Token(); err != io.EOF {
		j.fault("", "has more than one value")
	}
	uid := integer(e["class_uid"])
	for _, c := range s.Classes {
		if uid == nil || *uid != c.UID {
			continue
		}
		j.claimed(e)
		j.shape("", e, merged(s.Every, c.Attributes), c.AtLeastOne, func(name string) map[int64]string {
			switch name {
			case "class_uid":
				return map[int64]string{c.UID: c.Caption}
			case "category_uid":
				return c.Category
			case "activity_id":
				return c.Activity
			case "type_uid":
				types := map[int64]string{}
				for id, caption := range c.Activity {
					types[c.UID*100+id] = c.Caption + ": " + caption
				}
				return types
			}
			return s.Enums[name]
		})
		if a, t := integer(e["activity_id"]), integer(e["type_uid"]); a != nil && t != nil && *t != c.UID*100+*a {
			j.fault("type_uid", "is %d, not %s, %d", *t, s.TypeUID, c.UID*100+*a)
		}
		slices.Sort(j.faults)
		return j.faults
	}
	j.fault("class_uid", "%v is no class that records become", e["class_uid"])
	return j.faults
}

// claimed reads what the event claims: the version and the profiles.
func (j *judge) claimed(e map[string]any) {
	m, _ := e["metadata"].(map[string]any)
	if m["version"] != j.Version {
		j.fault("metadata.version", "%v, want %s", m["version"], j.Version)
	}
	list, _ := m["profiles"].([]any)
	for _, p := range list {
		name, _ := p.(string)
		if !slices.Contains(j.Profiles, name) || slices.Contains(j.profiles, name) {
			j.fault("metadata.profiles", "%v is claimed, and is none or is claimed twice", p)
		}
		j.profiles = append(j.profiles, name)
	}
}

func (j *judge) shape(path string, o map[string]any, attributes map[string]attribute, atLeastOne []string, enum func(string) map[int64]string) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		a, known := attributes[name]
		at := path + name
		switch {
		case o[name] == nil:
			j.fault(at, "is null, which is as good as missing")
		case !known:
			j.fault(at, "there is no such attribute")
		case a.deprecated:
			j.fault(at, "is deprecated")
		case a.profile != "" && !slices.Contains(j.profiles, a.profile):
			j.fault(at, "is of the profile %s, which is not claimed", a.profile)
		case a.array:
			list, ok := o[name].([]any)
			if !ok {
				j.fault(at, "is no array")
			}
			for i, v := range list {
				j.value(at+"["+strconv.Itoa(i)+"]", v, a, nil)
			}
		default:
			j.value(at, o[name], a, enum(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		if a.requirement == "required" && !there(o[name]) && (a.profile == "" || slices.Contains(j.profiles, a.profile)) {
			j.fault(path+name, "is required, and missing or empty")
		}
	}
	for id, word := range j.Siblings {
		if _, both := attributes[word]; both && attributes[id].kind != "" {
			j.sibling(path, o, id, word, enum(id))
		}
	}
	if len(atLeastOne) > 0 && !slices.ContainsFunc(atLeastOne, func(name string) bool { return there(o[name]) }) {
		j.fault(path, "has none of %s", strings.Join(atLeastOne, ", "))
	}
}

// there reports whether a value says something.
func there(v any) bool { return v != nil && v != "" }

// sibling judges the words that belong to an enumeration's number.
func (j *judge) sibling(path string, o map[string]any, id, word string, captions map[int64]string) {
	n, says := integer(o[id]), o[word]
	switch {
	case n == nil && says != nil:
		j.fault(path+word, "is there without %s", id)
	case n == nil:
	case *n == 99 && (!there(says) || says == captions[99]):
		j.fault(path+word, "does not say what it is that has no number (%s 99)", id)
	case *n != 99 && says != nil && says != captions[*n]:
		j.fault(path+word, "%q is not what %s %d is called, %q", says, id, *n, captions[*n])
	}
}

func (j *judge) value(at string, v any, a attribute, captions map[int64]string) {
	if a.kind == "object" {
		o, ok := v.(map[string]any)
		switch {
		case !ok:
			j.fault(at, "is no object")
		case a.object != "object":
			of := j.Objects[a.object]
			j.shape(at+".", o, of.Attributes, of.AtLeastOne, func(name string) map[int64]string {
				if other := of.Enums[name]; other != "" {
					name = other
				}
				return j.Enums[name]
			})
		}
		return
	}
	k := j.Types[a.kind]
	switch k.Of {
	case "boolean":
		if _, ok := v.(bool); !ok {
			j.fault(at, "%v is no boolean", v)
		}
	case "string":
		text, ok := v.(string)
		if !ok {
			j.fault(at, "%v is no string", v)
			return
		}
		j.text(at, text, a.kind, k)
	case "integer":
		n := integer(v)
		switch {
		case n == nil:
			j.fault(at, "%v is no integer of 64 bits", v)
		case k.Min != nil && *n < *k.Min || k.Max != nil && *n > *k.Max:
			j.fault(at, "%d is not from %d to %d", *n, *k.Min, *k.Max)
		case k.Milliseconds && (*n < 1e12 || *n > 1e13): // 2001 to 2286: seconds are less, microseconds more
			j.fault(at, "%d are not the milliseconds since 1970 of this time", *n)
		case captions != nil && captions[*n] == "":
			j.fault(at, "%d is none of its numbers", *n)
		}
	}
}

func (j *judge) text(at, text, name string, k *kind) {
	switch {
	case k.MaxLen > 0 && utf8.RuneCountInString(text) > k.MaxLen:
		j.fault(at, "%q is longer than %d characters, the most of %s", text, k.MaxLen, name)
	case k.expression != nil && !k.expression.MatchString(text):
		j.fault(at, "%q is no %s", text, name)
	case k.Address:
		if _, err := netip.ParseAddr(text); err != nil {
			j.fault(at, "%q is no %s", text, name)
		}
	}
}

// integer is the integer that a value is; nil: it is none of 64 bits.
func integer(v any) *int64 {
	text, ok := v.(json.Number)
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(text.String(), 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// TestOCSFBreakages breaks an event that the schema takes, in one way each, and each is named: else nothing would be shown by an event
// without faults.
func TestOCSFBreakages(t *testing.T) {
	t.Parallel()
	const whole = `{"class_uid":4001,"category_uid":4,"activity_id":5,"activity_name":"Refuse","type_uid":400105,"severity_id":2,"time":1790000000000,
		"action_id":2,"disposition_id":99,"disposition":"x","message":"m",
		"metadata":{"version":"1.8.0","product":{"name":"NemoClaw"},"profiles":["security_control","host"],"sequence":7},
		"actor":{"process":{"pid":3,"name":"curl","file":{"name":"curl","type_id":0}}},"device":{"hostname":"box","type_id":99,"type":"sandbox"},
		"src_endpoint":{"hostname":"box"},"dst_endpoint":{"ip":"192.0.2.1","port":443},"unmapped":{"any":{"thing":1}}}`
	if got := ocsfFaults([]byte(whole)); len(got) > 0 {
		t.Fatalf("the whole event: %q", got)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"an attribute that is not there", `"message":"m"`, `"msg":"m"`, "msg: there is no such attribute"},
		{"one of an object", `"pid":3`, `"pid":3,"comm":"x"`, "actor.process.comm: there is no such attribute"},
		{"a missing required one", `"severity_id":2,`, ``, "severity_id: is required"},
		{"a missing required object", `"metadata":{`, `"unmapped":{`, "metadata: is required"},
		{"a missing one of an object", `"type_id":99,"type":"sandbox"`, `"type_id":null`, "device.type_id: is required"},
		{"an empty required string", `{"name":"curl","type_id":0}`, `{"name":"","type_id":0}`, "actor.process.file.name: is required"},
		{"null", `"message":"m"`, `"message":null`, "message: is null"},
		{"a string for a number", `"pid":3`, `"pid":"3"`, "actor.process.pid: 3 is no integer"},
		{"a number for a string", `"message":"m"`, `"message":1`, "message: 1 is no string"},
		{"a fraction", `"pid":3`, `"pid":3.5`, "actor.process.pid: 3.5 is no integer"},
		{"more than 64 bits", `"sequence":7`, `"sequence":18446744073709551615`, "metadata.sequence: 18446744073709551615 is no integer"},
		{"a value for an array", `["security_control","host"]`, `"host"`, "metadata.profiles: is no array"},
		{"an array for an object", `"src_endpoint":{"hostname":"box"}`, `"src_endpoint":[]`, "src_endpoint: is no object"},
		{"a number that is none of the enumeration", `"severity_id":2`, `"severity_id":7`, "severity_id: 7 is none of its numbers"},
		{"one of an object's", `"type_id":99,"type":"sandbox"`, `"type_id":98`, "device.type_id: 98 is none of its numbers"},
		{"another activity's word", `"Refuse"`, `"Open"`, `activity_name: "Open" is not what activity_id 5 is called`},
		{"a word without its number", `"action_id":2`, `"action":"Denied"`, "action: is there without action_id"},
		{"99 without a word", `"disposition":"x",`, ``, "disposition: does not say"},
		{"99 with the word Other", `"disposition":"x"`, `"disposition":"Other"`, "disposition: does not say"},
		{"99 of an object without a word", `"type_id":99,"type":"sandbox"`, `"type_id":99`, "device.type: does not say"},
		{"another type", `400105`, `400101`, "type_uid: is 400101, not class_uid * 100 + activity_id, 400105"},
		{"another category", `"category_uid":4`, `"category_uid":1`, "category_uid: 1 is none"},
		{"another class", `"class_uid":4001`, `"class_uid":4002`, "class_uid: 4002 is no class"},
		{"no class", `"class_uid":4001,`, ``, "class_uid: <nil> is no class"},
		{"an earlier version", `1.8.0`, `1.7.0`, "metadata.version: 1.7.0"},
		{"seconds", `1790000000000`, `1790000000`, "time: 1790000000 are not the milliseconds"},
		{"microseconds", `1790000000000`, `1790000000000000`, "time: 1790000000000000 are not the milliseconds"},
		{"no address", `192.0.2.1`, `192.0.2.256`, `dst_endpoint.ip: "192.0.2.256" is no ip_t`},
		{"a name as an address", `192.0.2.1`, `example.com`, `dst_endpoint.ip: "example.com" is no ip_t`},
		{"a long zone", `192.0.2.1`, `fe80::1%` + strings.Repeat("z", 40), "longer than 40"},
		{"no port", `443`, `65536`, "dst_endpoint.port: 65536 is not from 0 to 65535"},
		{"a process that nothing identifies", `"pid":3,`, ``, "actor.process.: has none of pid, uid, cpid"},
		{"an actor without anything", `{"process":{"pid":3,"name":"curl","file":{"name":"curl","type_id":0}}}`, `{}`, "actor.: has none of process"},
		{"an endpoint of an empty name", `{"hostname":"box"}`, `{"hostname":""}`, "src_endpoint.: has none of"},
		{"no endpoint", `"src_endpoint":{"hostname":"box"},"dst_endpoint":{"ip":"192.0.2.1","port":443},`, ``, ": has none of dst_endpoint, src_endpoint"},
		{"a profile that is not claimed", `,"host"]`, `]`, "actor: is of the profile host"},
		{"the other one", `"security_control",`, ``, "action_id: is of the profile security_control"},
		{"a profile that is none", `"host"]`, `"host","hosts"]`, "metadata.profiles: hosts"},
		{"what is deprecated", `"pid":3`, `"pid":3,"tid":4`, "actor.process.tid: is deprecated"},
		{"two events", `{"any":{"thing":1}}}`, `{}}{}`, "has more than one value"},
		{"no JSON", `"class_uid"`, `class_uid`, "is no JSON"},
		{"no UTF-8", `"m"`, "\"\xff\"", "is no UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if strings.Count(whole, c.old) == 0 {
				t.Fatalf("%s is not in the event", c.old)
			}
			got := ocsfFaults([]byte(strings.Replace(whole, c.old, c.new, 1)))
			if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
