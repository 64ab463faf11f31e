package policy

import "net/netip"

// The types below are the language: the parser, the JSON Schema and the key names in error messages are all made from
// their tags.
//
//	key    the key's name
//	doc    what it means, for the schema
//	req    "yes": the key must be there
//	some   "yes": the list must not be empty
//	one    the words accepted, separated by blanks
//	later  words of the language that this version does not enforce, and refuses; or "yes" for the whole key
//	why    why `later` is not there yet
//	never  a word that the language will not have
//	hint   what to write instead of `never`
//	min, max  bounds of a number, inclusive

// Policy is one policy file as written, every value with its place.
type Policy struct {
	File        string              // as given to Parse
	Version     Value[Number]       `key:"version" min:"1" max:"1" doc:"Version of the language; 1 when left out."`
	Name        Value[SandboxName]  `key:"name" doc:"Name of the sandbox."`
	Extends     []Value[PresetName] `key:"extends" doc:"Presets whose rules are merged in before this file's own."`
	Hold        Value[Span]         `key:"hold" min:"1s" max:"24h" doc:"How long an asked operation waits for a person; then it is denied. 60s when left out."`
	Enforcement Value[Word]         `key:"enforcement" one:"static full" doc:"Least level of enforcement that is accepted: full needs BPF LSM."`
	Network     *NetworkSection     `key:"network" doc:"Which hosts may be reached. Left out: none."`
	Filesystem  *FilesystemSection  `key:"filesystem" doc:"Which paths may be read, written and executed, beside the baseline and the private HOME, /tmp and /dev/shm."`
	Process     *ProcessSection     `key:"process" doc:"Which programs may be executed, and the limits of the sandbox. Left out: none."`
	Devices     *DevicesSection     `key:"devices" doc:"Devices of the host beside the basics of /dev. Left out: none."`
	Tools       Later               `key:"tools" later:"yes" why:"the privacy router records tool calls, and no rule judges them" doc:"Tool calls of agent frameworks."`
	Inference   *InferenceSection   `key:"inference" doc:"Which models answer inside at inference.local, and which prompts stay on this host. Left out: nothing answers there."`
	Audit       *AuditSection       `key:"audit" doc:"How surely what is let through is written down, and what is left out of records."`
}

// AuditSection is the section audit.
type AuditSection struct {
	At
	Strict Value[Flag]    `key:"strict" doc:"Whether what the proxy, the router for models or a person lets through goes on only when its record is forced to the disk. What the kernel itself allows can't wait for that. false when left out."`
	Redact []Value[Label] `key:"redact" some:"yes" doc:"Classes of what is taken out of the texts of records before they are written: medical, financial, pii, credentials, confidential, or a name of inference.custom."`
}

// NetworkSection is the section `network`.
type NetworkSection struct {
	At
	Default Value[Word]         `key:"default" one:"deny ask" never:"allow" hint:"there is no allow by default: name the hosts under network.allow" doc:"What happens to a connection that no rule covers: deny (default), or ask a person."`
	Allow   []NetAllow          `key:"allow" doc:"Connections that go through."`
	Ask     []NetAllow          `key:"ask" doc:"Connections held until a person answers, or hold runs out."`
	Deny    []NetDeny           `key:"deny" doc:"Connections refused whatever allow and ask say."`
	Unix    []Value[SocketPath] `key:"unix" doc:"Unix sockets of the host made visible and connectable, at the same path."`
	Publish Later               `key:"publish" later:"yes" why:"no server inside can be reached from outside yet" doc:"Servers inside reachable from the host."`
}

// NetTarget is what a network rule is about: a name or a prefix, never both.
type NetTarget struct {
	Domain Value[Domain] `key:"domain" doc:"A host name. \"*.example.org\" stands for exactly one label more, \"**.example.org\" for one or more."`
	CIDR   Value[CIDR]   `key:"cidr" doc:"Addresses instead of a name, as a prefix: 10.1.0.0/16. Also lets a name's private answer pass."`
}

// NetLimits narrow a network rule.
type NetLimits struct {
	Commands    []Value[CommandName] `key:"commands" some:"yes" doc:"Only these executables may use the rule. Left out: any."`
	Descendants Value[Flag]          `key:"descendants" later:"true" why:"the kernel says which program connects, not yet what started it" doc:"Also what these commands start."`
	Expires     Value[Span]          `key:"expires" min:"1s" max:"8760h" doc:"How long the rule holds, after the start of a run, or in a sandbox that lasts after it came into the policy."`
}

// NetAllow is a rule of network.allow or network.ask.
type NetAllow struct {
	Rule
	NetTarget
	Ports    []Value[Number] `key:"ports" req:"yes" some:"yes" min:"1" max:"65535" doc:"TCP ports."`
	Protocol Value[Word]     `key:"protocol" req:"yes" one:"https http tls tcp" later:"udp" why:"nothing relays UDP yet" doc:"https and tls: the name in the TLS handshake must match; http: the Host of each request must match; tcp: bytes are passed as they come."`
	ECH      Value[Word]     `key:"ech" one:"deny allow" doc:"Whether an encrypted ClientHello, which hides the name from the check, is let through. deny when left out."`
	NetLimits
}

// NetDeny is a rule of network.deny.
type NetDeny struct {
	Rule
	NetTarget
	Ports    []Value[Number] `key:"ports" some:"yes" min:"1" max:"65535" doc:"TCP ports. Left out: every port."`
	Protocol Value[Word]     `key:"protocol" one:"https http tls tcp" later:"udp" why:"nothing relays UDP yet, so all of it but DNS is refused" doc:"Allowed for symmetry: the ports are refused whatever is spoken on them."`
	NetLimits
}

// FilesystemSection is the section `filesystem`.
type FilesystemSection struct {
	At
	Default  Value[Word] `key:"default" one:"deny ask" never:"allow" hint:"there is no allow by default: name the paths under filesystem.allow" doc:"What happens where a path that some rule shows is not allowed something: deny (default), or ask a person. What no rule shows does not exist inside."`
	Baseline Value[Word] `key:"baseline" one:"system none" doc:"system (default): programs and libraries of the host and /etc without its secrets, to read; none: nothing."`
	Allow    []FileEntry `key:"allow" doc:"Paths that may be used. The longest path wins; deny beats it."`
	Ask      []FileEntry `key:"ask" doc:"Paths that a person is asked about, whatever allow says. Needs level full."`
	Deny     []FileEntry `key:"deny" doc:"Paths refused, with everything below, whatever allow says."`
}

// FileEntry is a rule of filesystem.allow, ask or deny.
type FileEntry struct {
	Rule
	Path        Value[Path]   `key:"path" req:"yes" doc:"Absolute path; the rule covers everything below it."`
	Permissions []Value[Word] `key:"permissions" req:"yes" some:"yes" one:"read write execute" doc:"write includes create, delete, rename and attributes."`
	Expires     Value[Span]   `key:"expires" min:"1s" max:"8760h" doc:"How long the rule holds, after the start of a run, or in a sandbox that lasts after it came into the policy. It needs enforcement level full."`
}

// ProcessSection is the section `process`.
type ProcessSection struct {
	At
	Default Value[Word]    `key:"default" one:"deny ask" never:"allow" hint:"there is no allow by default: name the programs under process.allow" doc:"What happens to a program that no rule covers: deny (default), or ask a person, which needs level full."`
	Allow   []CommandAllow `key:"allow" doc:"Programs that may be executed."`
	Ask     []CommandDeny  `key:"ask" doc:"Programs that a person is asked about, whatever allow says. Needs level full."`
	Deny    []CommandDeny  `key:"deny" doc:"Programs refused whatever allow says."`
	Map     Value[Word]    `key:"map" one:"any listed" doc:"Which libraries and add-ons an allowed program may load: any (default) that it can read, or those of the baseline and of paths with execute (listed; at level full)."`
	Limits  *LimitsSection `key:"limits" doc:"Most that the whole sandbox may use."`
}

// CommandAllow is a rule of process.allow.
type CommandAllow struct {
	Rule
	Command Value[CommandName] `key:"command" req:"yes" doc:"A name found on the sandbox's PATH, or an absolute path."`
	Helpers []Value[Helper]    `key:"helpers" doc:"Programs that this one starts: names, absolute paths, or globs in the last element. At level static anybody inside may start them."`
	Expires Value[Span]        `key:"expires" min:"1s" max:"8760h" doc:"How long the rule holds, after the start of a run, or in a sandbox that lasts after it came into the policy. It needs enforcement level full."`
}

// CommandDeny is a rule of process.ask or deny.
type CommandDeny struct {
	Rule
	Command Value[CommandName] `key:"command" req:"yes" doc:"A name found on the sandbox's PATH, or an absolute path."`
	Expires Value[Span]        `key:"expires" min:"1s" max:"8760h" doc:"How long the rule holds, after the start of a run, or in a sandbox that lasts after it came into the policy. It needs enforcement level full."`
}

// LimitsSection is process.limits.
type LimitsSection struct {
	At
	Memory Value[Size]    `key:"memory" doc:"Memory of all processes together: 4GiB, 512MiB, or bytes."`
	PIDs   Value[Number]  `key:"pids" min:"1" max:"4194304" doc:"Processes and threads."`
	CPUs   Value[Decimal] `key:"cpus" min:"0.01" max:"4096" doc:"Processors' worth of time: 2, 0.5."`
	Files  Value[Number]  `key:"files" min:"16" max:"1048576" doc:"Open files of one process."`
	Disk   Value[Size]    `key:"disk" doc:"Bytes of the private HOME, /tmp and /dev/shm together."`
}

// DevicesSection is the section `devices`.
type DevicesSection struct {
	At
	GPUs []Value[GPUName] `key:"gpus" some:"yes" doc:"NVIDIA GPUs, each by its number as nvidia-smi counts, its UUID (GPU-...), or the UUID of an instance of it (MIG-...); all: every one that there is at the start."`
}

// Value is a scalar of a policy: its place, what it says, and whether it is there.
type Value[T any] struct {
	At
	V   T
	Set bool
}

// Rule is what every rule carries beside its keys: its place and its text on one line.
type Rule struct {
	At
	Text string
}

// Later stands for a key of the language that this version refuses, because nothing enforces it yet.
type Later struct{}

// The scalars of the language. Each has its reader in values.go, paths.go or names.go.
type (
	// Word is one of the words of the tag `one`.
	Word string
	// Number is a whole number.
	Number int64
	// Flag is true or false.
	Flag bool
	// Decimal is a number with a fraction.
	Decimal float64
	// Size is a number of bytes.
	Size int64
	// Span is a duration in nanoseconds, as time.Duration.
	Span int64
	// Domain is a canonical host name, or "*." or "**." and one.
	Domain string
	// CIDR is a prefix without bits after its length.
	CIDR netip.Prefix
	// Path is absolute and clean.
	Path string
	// SocketPath is absolute and clean, and short enough for a socket's address.
	SocketPath string
	// CommandName is a file's name, or an absolute and clean path.
	CommandName string
	// Helper is a CommandName, with glob characters allowed in the last element of a path.
	Helper string
	// PresetName is the name of a preset in this binary.
	PresetName string
	// SandboxName is a name that ValidName accepts.
	SandboxName string
	// ModelName is PROVIDER/MODEL.
	ModelName string
	// BaseURL is where a model's server answers: a scheme, a host, perhaps a port and a path.
	BaseURL string
	// Label is a word of lower-case letters, digits and hyphens.
	Label string
	// Pattern is a regular expression (RE2).
	Pattern string
	// GPUName is a number, a UUID with GPU- or MIG- before it, or "all".
	GPUName string
	// Phrase is a text of one line.
	Phrase string
)
