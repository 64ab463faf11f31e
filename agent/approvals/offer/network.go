package offer

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// place is where a connection leads.
type place struct {
	name string     // canonical; "" for an address
	addr netip.Addr // where there is no name
	port uint16
}

// lookedUp is the port of a name that was looked up and not connected to yet.
const lookedUp = 443

// placeOf reads the object of a decision.
func placeOf(d policy.Decision) (p place, ok bool) {
	host := d.Object
	if h, num, err := net.SplitHostPort(d.Object); err == nil {
		n, err := strconv.ParseUint(num, 10, 16)
		if err != nil || n == 0 {
			return p, false
		}
		host, p.port = h, uint16(n)
	} else if d.Plane == policy.PlaneDNS {
		p.port = lookedUp
	} else {
		return p, false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		p.addr = addr.Unmap().WithZone("")
		return p, d.Plane != policy.PlaneDNS
	}
	p.name, ok = policy.Canonical(host)
	return p, ok && p.name[0] != '_' // _http._tcp.x.org is a service, which is not connected to
}

func (p place) host() string {
	if p.name != "" {
		return p.name
	}
	return p.addr.String()
}

func (p place) String() string { return net.JoinHostPort(p.host(), strconv.Itoa(int(p.port))) }

// query asks a policy about the place, for a program.
func (p place) query(exe string) policy.Query {
	return policy.Query{Action: policy.QueryConnect, Name: p.name, Addr: p.addr, Port: p.port, Command: exe}
}

// rule is the rule that allows the place to a program, or to all where it is "".
func (p place) rule(c *policy.Compiled, d policy.Decision, exe string) *policy.RuleSpec {
	s := policy.RuleSpec{Verdict: "allow", Domain: p.name, Ports: []uint16{p.port}, Protocol: p.protocol(c, d).String()}
	if p.name == "" {
		s.CIDR = netip.PrefixFrom(p.addr, p.addr.BitLen()).String()
	}
	if exe != "" {
		s.Commands = []string{exe}
	}
	return &s
}

// protocol is what the rules that lead to the place speak, else what is usual on the port.
func (p place) protocol(c *policy.Compiled, d policy.Decision) policy.Protocol {
	for _, r := range p.rules(c) {
		if r.Verdict != policy.Deny && slices.Contains(r.Ports, p.port) {
			return r.Protocol
		}
	}
	if p.name == "" {
		return policy.TCP
	}
	return policy.ProtocolOf(p.port)
}

func (p place) rules(c *policy.Compiled) []*policy.NetRule {
	if p.name == "" {
		return c.Network.MatchAddr(p.addr)
	}
	return c.Network.Match(p.name)
}

func network(d policy.Decision, c *policy.Compiled) []Offer {
	if d.Plane == policy.PlaneNetwork && d.Action != "connect" && (d.Action != "request" || d.Rule != "default") {
		return nil // no rule is about it, or the request is not what the allowed connection is for
	}
	p, ok := placeOf(d)
	if !ok || p.name == policy.InferenceName { // a rule would lead to nobody: it takes the section inference
		return nil
	}
	exe := named(d, c)
	by := "a program that isn't known"
	if d.Subject.Exe != "" {
		by = shown(d.Subject.Exe)
	}
	at := p.String()
	if d.Plane == policy.PlaneDNS {
		at += " (it was only looked up; " + strconv.Itoa(lookedUp) + " is the usual port)"
	}

	var this, any *policy.RuleSpec
	if !p.beaten(c, d) && !(p.name == "" && policy.IsMetadata(p.addr)) { // a cloud's credentials: never always
		any = p.rule(c, d, "")
		if exe != "" && d.Subject.Taint == "" {
			this = p.rule(c, d, exe)
		}
	}
	var denyThis *policy.RuleSpec
	if exe != "" {
		denyThis = denied(*p.rule(c, d, exe))
	}
	list := []Offer{
		attempted(by+" to "+at, this, denyThis),
		wider(Host, "any program to "+at, any, denied(*p.rule(c, d, ""))),
	}
	if asks := p.asker(c, d); asks != nil {
		allow := p.rule(c, d, "")
		allow.Commands = asks.Commands
		o := wider(Host, "whoever the rule at "+d.Rule+" asks about, to "+at+": it is allowed instead", allow, denied(*allow))
		o.Scopes = slices.DeleteFunc(o.Scopes, func(s api.Scope) bool { return s == api.ScopeFor }) // the rule would not come back
		o.Instead = &policy.RuleSpec{Verdict: "ask", Domain: allow.Domain, CIDR: allow.CIDR, Ports: allow.Ports, Commands: asks.Commands}
		list[1] = o
	}
	if parent := parentOf(p.name); parent != "" && any != nil {
		wide, who := *any, "any program"
		if this != nil {
			wide, who = *this, by
		}
		wide.Domain = "*." + parent
		list = append(list, wider(Subdomains, who+" to any name one label below "+parent+", port "+strconv.Itoa(int(p.port)), &wide, denied(wide)))
	}
	return list
}

// asker is the rule of the policy's own text that asks, where it is about the place and no other; nil when there is none.
func (p place) asker(c *policy.Compiled, d policy.Decision) *policy.NetRule {
	for i := range c.Network.Rules {
		r := &c.Network.Rules[i]
		here := r.Name == p.name && p.name != "" || p.name == "" && r.Prefix == netip.PrefixFrom(p.addr, p.addr.BitLen())
		if r.Verdict == policy.Ask && here && c.Rule(r.ID).Pos == d.Rule && !strings.HasPrefix(d.Rule, "preset:") && !(p.name == "" && policy.IsMetadata(p.addr)) {
			return r
		}
	}
	return nil
}

// beaten reports whether a rule decides what was attempted before one that would be added.
func (p place) beaten(c *policy.Compiled, d policy.Decision) bool {
	for i := range c.Network.Rules { // by the record: what the program is called there need not be what the rules call it
		if r := &c.Network.Rules[i]; r.Verdict != policy.Allow && c.Rule(r.ID).Pos == d.Rule {
			return true
		}
	}
	a := c.Explain(p.query(d.Subject.Exe))
	return a.Verdict != policy.Allow && a.Rule.Pos != "default"
}

// named is how a rule for commands names the program: its path. It is "" for one that no rule can name, since only what process
// lists is known by its file: a program that a rule of filesystem lets run is not.
func named(d policy.Decision, c *policy.Compiled) string {
	exe := d.Subject.Exe
	if exe == "" || exe[0] != '/' {
		return ""
	}
	a := c.Explain(policy.Query{Action: policy.QueryExec, Path: exe})
	_, tree, _ := c.Files.Access(exe)
	if a.Verdict == policy.Allow && tree.Access&policy.Execute != 0 && a.Rule.Pos == c.Rule(tree.RuleFor(policy.Execute)).Pos {
		return ""
	}
	return exe
}

// shared are domains below which names belong to whoever asks a provider for one, or in which one host serves many, beside those
// on the public suffix list.
var shared = []string{
	"akamai.net", "akamaihd.net", "akamaized.net", "aliyuncs.com", "amazonaws.com", "appspot.com", "azure.com", "azureedge.net", "azurefd.net",
	"azurewebsites.net", "b-cdn.net", "backblazeb2.com", "beeceptor.com", "cdn77.org", "cloudflare.net", "cloudflarestorage.com", "cloudfront.net",
	"digitaloceanspaces.com", "discordapp.com", "dropboxusercontent.com", "edgekey.net", "edgesuite.net", "fastly.net", "fastlylb.net",
	"githubusercontent.com", "gitlab.io", "googleapis.com", "googleusercontent.com", "linodeobjects.com", "myqcloud.com", "ngrok.io", "oast.fun",
	"oast.live", "oast.me", "oast.online", "oast.pro", "oast.site", "oraclecloud.com", "pipedream.net", "requestbin.net", "sharepoint.com",
	"slack.com", "wasabisys.com", "webhook.site", "windows.net", "wordpress.com", "zendesk.com",
}

// parentOf is the domain below which a name lies with others of the same owner; "" where there is none, or nobody can tell.
func parentOf(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	if !strings.Contains(parent, ".") {
		return ""
	}
	if suffix, _ := publicsuffix.PublicSuffix(parent); suffix == parent {
		return ""
	}
	for _, s := range shared {
		if parent == s || strings.HasSuffix(parent, "."+s) {
			return ""
		}
	}
	return parent
}
