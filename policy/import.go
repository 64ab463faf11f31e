package policy

import (
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// The types below are the keys of an OpenShell policy (version 1) and of a NemoClaw preset, as their public schema has
// them. Their tags are those of ast.go; `later` and Later are what has no equal in this language.

// noEqual is what such a key or word is answered with. Nothing is dropped and nothing widened: a person decides.
const noEqual = "without an equal in this language"

// foreign is one file to import.
type foreign struct {
	Version    Value[Number]    `key:"version" min:"1" max:"1"`
	Preset     *foreignPreset   `key:"preset"`
	Filesystem *foreignFiles    `key:"filesystem_policy"`
	Landlock   *foreignLandlock `key:"landlock"`
	Process    *foreignProcess  `key:"process"`
	Network    foreignEntries   `key:"network_policies"`
	Middleware Later            `key:"network_middlewares" why:"requests are not changed on their way; remove it, or run the middleware yourself and allow it as a host"`
}

type foreignPreset struct {
	Name        Value[freeText] `key:"name" req:"yes" doc:"the preset's name"`
	Description Value[freeText] `key:"description"`
}

type foreignFiles struct {
	At
	Workdir   Value[Flag]          `key:"include_workdir"`
	ReadOnly  []Value[foreignPath] `key:"read_only"`
	ReadWrite []Value[foreignPath] `key:"read_write"`
}

type foreignLandlock struct {
	Compatibility Value[Word] `key:"compatibility" one:"best_effort hard_requirement"`
}

type foreignProcess struct {
	User  Value[foreignUser] `key:"run_as_user"`
	Group Value[foreignUser] `key:"run_as_group"`
}

// foreignEntries are the rules of network_policies, in the order of the file.
type foreignEntries []foreignEntry

type foreignEntry struct {
	At
	key       string
	Name      Value[freeText]   `key:"name"`
	Endpoints []foreignEndpoint `key:"endpoints" req:"yes" some:"yes" doc:"the hosts that this entry allows"`
	Binaries  []foreignBinary   `key:"binaries" req:"yes" some:"yes" doc:"an entry without binaries allows nobody; name the programs by their paths"`
}

type foreignEndpoint struct {
	At
	Host        Value[foreignHost] `key:"host" req:"yes" doc:"a rule needs a name or an address"`
	Port        Value[Number]      `key:"port" min:"1" max:"65535"`
	Ports       []Value[Number]    `key:"ports" some:"yes" min:"1" max:"65535"`
	Protocol    Value[Word]        `key:"protocol" one:"rest websocket" later:"graphql json-rpc mcp sql" why:"a rule judges names, ports and programs, not what requests say"`
	TLS         Value[Word]        `key:"tls" one:"terminate passthrough skip"`
	Enforcement Value[Word]        `key:"enforcement" one:"enforce" later:"audit" why:"what no rule allows is refused, never let through and logged; write enforce, or leave the endpoint out"`
	Access      Value[Word]        `key:"access" one:"full" later:"read-only read-write" why:"a rule can't tell reading from writing; write full if all of the host may be used, or leave the endpoint out"`
	Rules       []foreignRule      `key:"rules" some:"yes"`
	DenyRules   Later              `key:"deny_rules" why:"a rule judges names, ports and programs, not requests"`
	Path        Later              `key:"path" why:"a rule judges names, ports and programs, not paths of URLs"`
	AllowedIPs  Later              `key:"allowed_ips" why:"a cidr rule allows addresses, it does not bind a name to them; for a name with a private address write a domain rule and a cidr rule"`
	Slash       Value[Flag]        `key:"allow_encoded_slash" later:"true" why:"URLs are not read; remove it where access is full"`
	WSRewrite   Value[Flag]        `key:"websocket_credential_rewrite" later:"true" why:"credentials are not put into traffic"`
	BodyRewrite Value[Flag]        `key:"request_body_credential_rewrite" later:"true" why:"credentials are not put into traffic"`
	Uninspected Value[Flag]        `key:"allow_uninspected_credentials" later:"true" why:"credentials are not put into traffic"`
	Signing     Later              `key:"credential_signing" why:"credentials are not put into traffic"`
	Service     Later              `key:"signing_service" why:"credentials are not put into traffic"`
	Region      Later              `key:"signing_region" why:"credentials are not put into traffic"`
	Persisted   Later              `key:"persisted_queries" why:"GraphQL is not read"`
	Registry    Later              `key:"graphql_persisted_queries" why:"GraphQL is not read"`
	GraphQLMax  Later              `key:"graphql_max_body_bytes" why:"GraphQL is not read"`
	JSONRPC     Later              `key:"json_rpc" why:"JSON-RPC is not read"`
	MCP         Later              `key:"mcp" why:"MCP is not read"`
}

type foreignRule struct {
	At
	Allow *foreignAllow `key:"allow" req:"yes" doc:"an allow clause"`
}

type foreignAllow struct {
	Method    Value[freeText] `key:"method"`
	Path      Value[freeText] `key:"path"`
	Command   Later           `key:"command" why:"a rule judges names, ports and programs, not requests"`
	Query     Later           `key:"query" why:"a rule judges names, ports and programs, not requests"`
	Operation Later           `key:"operation_type" why:"GraphQL is not read"`
	OpName    Later           `key:"operation_name" why:"GraphQL is not read"`
	Fields    Later           `key:"fields" why:"GraphQL is not read"`
	Tool      Later           `key:"tool" why:"MCP is not read"`
	Params    Later           `key:"params" why:"MCP is not read"`
}

type foreignBinary struct {
	At
	Path    Value[foreignProgram] `key:"path" req:"yes" doc:"the absolute path of a program"`
	Harness Value[Flag]           `key:"harness" later:"true" why:"OpenShell ignores it; remove it"`
}

// Import converts an OpenShell policy, or a NemoClaw preset, to a policy in this language, as YAML with the origin of
// each rule as a comment. file is used in messages and comments only. Everything that has no equal is an error; the
// error is an Errors, at most 20, and there is never a policy beside it. docs/import.md says what becomes of each key.
func Import(file string, src []byte) ([]byte, error) {
	c := &collector{file: file}
	root := document(c, src)
	if root == nil {
		return nil, c.err()
	}
	f := &foreign{}
	newDecoder(c, noEqual).mapping(root, reflect.ValueOf(f).Elem(), "")
	im := &importer{collector: c, protocols: map[spokenKey]spokenAt{}}
	out := im.convert(f)
	if err := c.err(); err != nil {
		return nil, err
	}
	// What comes out is a policy, or nothing does.
	p, err := Parse("the policy made of "+file, out)
	if err == nil {
		_, err = Compile(p)
	}
	if err != nil {
		return nil, fmt.Errorf("policy: %s can't be converted: %w", file, err)
	}
	return out, nil
}

// ImportFile is Import of a file.
func ImportFile(file string) ([]byte, error) {
	src, err := readSource(file)
	if err != nil {
		return nil, err
	}
	return Import(file, src)
}

// decode reads the mapping from any key to an entry.
func (l *foreignEntries) decode(d *decoder, n *yaml.Node, _ *field, key string) {
	if n.Kind != yaml.MappingNode {
		d.add(at(n), key, "expected a mapping from names to entries, found "+kindOf(n), "")
		return
	}
	seen := map[string]At{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.add(at(k), key, "a key must be a word, found "+kindOf(k), "")
			continue
		}
		full := k.Value
		if !plainKey(full) {
			full = show(full)
		}
		full = join(key, full)
		if first, dup := seen[k.Value]; dup {
			d.add(at(k), full, fmt.Sprintf("the key is there twice, first at line %d", first.Line), "put both into one")
			continue
		}
		seen[k.Value] = at(k)
		e := foreignEntry{key: k.Value}
		d.mapping(val, reflect.ValueOf(&e).Elem(), full)
		e.At = at(k)
		*l = append(*l, e)
	}
}
