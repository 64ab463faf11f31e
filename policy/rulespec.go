package policy

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// RuleSpec names a rule, as a person does on a command line: of the network (Domain or CIDR), of files (Path) or of
// programs (Command).
type RuleSpec struct {
	Verdict     string // "allow", "ask" or "deny"; "": allow to add, any to remove
	Domain      string
	CIDR        string
	Ports       []uint16
	Protocol    string // "": what is usual on the ports
	Commands    []string
	Expires     string
	Path        string
	Permissions []string
	Command     string
}

// YAML writes the rule as it stands in a policy: a section to merge into one, ending in a newline. It is an error where the
// language doesn't take the rule.
func (s RuleSpec) YAML() (string, error) {
	section, verb, item, err := s.node()
	if err != nil {
		return "", err
	}
	return section + ":\n  " + verb + ":\n" + strings.Join(itemLines("    - ", item), "\n") + "\n", nil
}

// node makes the rule's YAML and checks it by the language's own parser.
func (s RuleSpec) node() (section, verb string, item *yaml.Node, err error) {
	section, verb, text, err := s.yaml()
	if err != nil {
		return "", "", nil, err
	}
	_, root, err := parse("rule", []byte(section+":\n  "+verb+":\n    - "+text+"\n"))
	if err != nil {
		return "", "", nil, ruleError(section+"."+verb, err)
	}
	return section, verb, value(value(root, section), verb).Content[0], nil
}

// compiled is the rule alone, as Compile has it.
func (s RuleSpec) compiled() (*Compiled, error) {
	section, verb, text, err := s.yaml()
	if err != nil {
		return nil, err
	}
	p, err := Parse("rule", []byte(section+":\n  "+verb+":\n    - "+text+"\n"))
	if err != nil {
		return nil, ruleError(section+"."+verb, err)
	}
	return Compile(p)
}

// ruleError takes the place out of an error about a rule that has none yet.
func ruleError(list string, err error) error {
	var first *Error
	if !errors.As(err, &first) {
		return err
	}
	key := strings.TrimPrefix(strings.TrimPrefix(first.Key, list+"[0]"), ".")
	if key != "" {
		key += ": "
	}
	return fmt.Errorf("the rule: %s%w", key, &problem{first.Msg, first.Hint})
}

// yaml writes the rule in flow style, and where it belongs.
func (s RuleSpec) yaml() (section, verb, text string, err error) {
	verb = s.Verdict
	switch verb {
	case "":
		verb = "allow"
	case "allow", "ask", "deny":
	default:
		return "", "", "", fmt.Errorf("the rule: unknown verdict %s (%s)", cut(verb), nearest(verb, []string{"allow", "ask", "deny"}))
	}
	var keys []string
	add := func(key, value string) {
		if value != "" {
			keys = append(keys, key+": "+value)
		}
	}
	list := func(items []string) string {
		if len(items) == 0 {
			return ""
		}
		return "[" + quoteAll(items) + "]"
	}
	one := func(value string) string {
		if value == "" {
			return ""
		}
		return Quote(value)
	}
	if err := s.one(); err != nil {
		return "", "", "", err
	}
	switch {
	case s.Path != "":
		section = "filesystem"
		add("path", one(s.Path))
		add("permissions", list(s.Permissions))
	case s.Command != "":
		section = "process"
		add("command", one(s.Command))
	default:
		section = "network"
		protocol, err := s.protocol(verb)
		if err != nil {
			return "", "", "", err
		}
		add("domain", one(s.Domain))
		add("cidr", one(s.CIDR))
		add("ports", strings.ReplaceAll(portText(s.Ports), " ", ", "))
		add("protocol", one(protocol))
		add("commands", list(s.Commands))
	}
	add("expires", one(s.Expires))
	return section, verb, "{" + strings.Join(keys, ", ") + "}", nil
}

func portText(ports []uint16) string {
	if len(ports) == 0 {
		return ""
	}
	return fmt.Sprint(ports)
}

// one checks that the rule is about one thing, and says nothing that such a rule can't have.
func (s RuleSpec) one() error {
	subjects := 0
	for _, subject := range []string{s.Domain, s.CIDR, s.Path, s.Command} {
		if subject != "" {
			subjects++
		}
	}
	for _, text := range append([]string{s.Domain, s.CIDR, s.Path, s.Command}, s.Commands...) {
		if !shows(text) {
			return fmt.Errorf("the rule: %s is too long, or holds a character that can't be in a policy", show(text))
		}
	}
	network := len(s.Ports) > 0 || s.Protocol != "" || len(s.Commands) > 0
	switch {
	case subjects != 1:
		return errors.New("the rule: name one of a domain, a cidr, a path and a command")
	case network && s.Domain == "" && s.CIDR == "":
		return errors.New("the rule: ports, protocol and commands belong to a domain or a cidr")
	case len(s.Permissions) > 0 && s.Path == "":
		return errors.New("the rule: permissions belong to a path")
	}
	return nil
}

// protocol is what is usual on the ports, where none was given.
func (s RuleSpec) protocol(verb string) (string, error) {
	if s.Protocol != "" || verb == "deny" {
		return s.Protocol, nil
	}
	if len(s.Ports) == 0 {
		return "", errors.New("the rule: name its ports, such as 443 (--port 443)")
	}
	if s.CIDR != "" {
		return TCP.String(), nil
	}
	first := ProtocolOf(s.Ports[0])
	for _, port := range s.Ports[1:] {
		if p := ProtocolOf(port); p != first {
			return "", fmt.Errorf("the rule: port %d is usually %s and port %d %s: name the protocol, or add one rule for each", s.Ports[0], first, port, p)
		}
	}
	return first.String(), nil
}
