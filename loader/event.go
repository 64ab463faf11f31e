package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Hook is the place in the kernel where something was judged.
type Hook uint8

// The hooks, in the order of enum hook in bpf/abi.h.
const (
	HookSocket  Hook = iota // socket(2)
	HookConnect             // connect(2), and sendto(2) with MSG_FASTOPEN
	HookSendto              // a datagram of an unconnected socket
	HookBind                // bind(2)
	HookPacket              // the backstop behind the three above
	HookDevice              // open(2) or mknod(2) of a device
	HookExec                // execve(2)
	HookFile                // what is done to files, where LSM programs judge it
	HookGuard               // what no sandbox may do, where LSM programs refuse it
	hooks
)

// String returns the word that records use for the action.
func (h Hook) String() string {
	if h >= hooks {
		return "hook " + strconv.Itoa(int(h))
	}
	return [hooks]string{"socket", "connect", "sendto", "bind", "packet", "device", "exec", "file", "guard"}[h]
}

// Hooks returns them all.
func Hooks() (list []Hook) {
	for h := range hooks {
		list = append(list, h)
	}
	return list
}

// Reason is why something was refused.
type Reason uint8

// The reasons, in the order of enum reason in bpf/abi.h.
const (
	ReasonRule        Reason = iota // a rule, a grant or the default
	ReasonConnections               // the connection cap
	ReasonNotDNS                    // UDP to another port than 53
	ReasonProtocol                  // neither TCP nor UDP
	ReasonAddress                   // a local address that is neither any nor loopback
	ReasonEgress                    // an outgoing packet of a socket that nothing allowed
	ReasonIngress                   // an incoming packet for a socket that nothing allowed
	ReasonNoMemory                  // the kernel could not remember who connects
	ReasonReserved                  // one of the agent's own addresses
	ReasonMarked                    // a rule is anchored to the file, or to what is below it
	ReasonGains                     // more would be allowed at the new place than at the old
	ReasonDeleted                   // a program without a name
	ReasonForeign                   // a socket that the host made
	ReasonHelper                    // a helper that its command did not start
	ReasonKernel                    // a file that sets something of the kernel
	ReasonGuard                     // what no sandbox may do
	ReasonTainted                   // the rule is for a command, and other code may run as it
	ReasonUnlisted                  // a library that the policy does not list
	ReasonResumed                   // a call that waited was made to go on too often, or nobody answers any more
	reasons
)

// String returns the reason as a sentence for a record; empty when the rule says it all.
func (r Reason) String() string {
	if r >= reasons {
		return "reason " + strconv.Itoa(int(r))
	}
	return [reasons]string{
		"",
		"too many connections: the sandbox has as many open as it may",
		"UDP is not relayed: only DNS leaves, to the sandbox's resolver",
		"only TCP and UDP over IPv4 and IPv6 exist in a sandbox",
		"a sandbox's sockets are on loopback: bind to localhost or to any address",
		"a packet left a socket that nothing had allowed",
		"a packet came for a socket that nothing had allowed",
		"the kernel had no memory left to remember who connects",
		"the address is the agent's own: only its resolver and its CONNECT proxy can be reached",
		"a rule of the policy is anchored there, so it can't be moved, removed or replaced",
		"more would be allowed there than here",
		"a program that was removed, or never was in a file system, is not executed",
		"the host made this socket, and no rule names it",
		"it is a helper, and none of the commands that it helps has started it",
		"it sets something of the kernel: no policy allows to write there",
		"no sandbox may do this, whatever its policy",
		"the rule is for a command, and other code may run as it",
		"only libraries of the baseline and below paths with `execute` are loaded, none that was removed or never had a name",
		"it was asked about, and made to go on without an answer",
	}[r]
}

// RuleBuiltin is the rule of decisions that no policy can change.
const RuleBuiltin policy.RuleID = 0xffffffff

// Event is one decision of the kernel: every refusal, and every execution. Text in it comes from inside the sandbox.
type Event struct {
	Time     time.Time
	Hook     Hook
	Verdict  policy.Verdict
	Rule     policy.RuleID // RuleBuiltin where no policy decides
	Revision uint32        // of the rules that decided
	Reason   Reason
	PID      int    // of the process, in the host's pid namespace; 0 for packets
	Parent   int    // of the process that executed (exec)
	Exe      FileID // exec: what was executed, for a script its interpreter
	Args     string // command line, arguments joined by a space, at most 256 bytes
	Taint    Taint  // connect, exec: what other code may run in the process by
	Path     string // exec: the path as the caller gave it, at most 255 bytes

	Addr     netip.Addr // connect, sendto, bind, packet; the far end, for bind the near one
	Port     uint16
	Protocol uint16 // IP protocol number; for socket of the socket refused

	Family, Type uint32 // socket: as in socket(2)

	Device Device // device: what was to be opened, and how

	File FileAttempt // file

	Guard GuardAttempt // guard
}

// Object returns what was attempted as records show it: "addr:port", a path, a kind of socket or device.
func (e Event) Object() string {
	switch e.Hook {
	case HookConnect, HookSendto, HookBind, HookPacket:
		return netip.AddrPortFrom(e.Addr, e.Port).String()
	case HookSocket:
		return fmt.Sprintf("family %d type %d protocol %d", e.Family, e.Type, e.Protocol)
	case HookDevice:
		return e.Device.String()
	case HookGuard:
		return e.Guard.String()
	default:
		return e.Path
	}
}

const eventSize = int(unsafe.Sizeof(bpf.GateEvent{}))

// decodeEvent reads a record of an event ring. It returns the cgroup id of the sandbox beside the event.
func decodeEvent(raw []byte) (uint64, Event, error) {
	if len(raw) < eventSize {
		return 0, Event{}, fmt.Errorf("event of %d bytes, want at least %d", len(raw), eventSize)
	}
	var e bpf.GateEvent
	if _, err := binary.Decode(raw, binary.NativeEndian, &e); err != nil {
		return 0, Event{}, fmt.Errorf("decode event: %w", err)
	}
	var f bpf.LsmFileEvent
	text := raw[eventSize:]
	if Hook(e.Hook) == HookFile {
		if _, err := binary.Decode(raw, binary.NativeEndian, &f); err != nil {
			return 0, Event{}, fmt.Errorf("decode event of %d bytes on a file: %w", len(raw), err)
		}
		text = raw[unsafe.Sizeof(f):]
	}
	room := int(e.ArgsRoom)
	if room > len(text) || int(e.ArgsLen) > room || int(e.PathLen) > len(text)-room {
		return 0, Event{}, fmt.Errorf("event with %d bytes of text claims %d of %d for arguments and %d for a path",
			len(text), e.ArgsLen, room, e.PathLen)
	}
	out := Event{
		Time:     wallTime(e.Time),
		Hook:     Hook(e.Hook),
		Verdict:  policy.Verdict(e.Verdict),
		Rule:     policy.RuleID(e.Rule),
		Revision: e.Revision,
		Reason:   Reason(e.Reason),
		PID:      int(e.Tgid),
		Parent:   int(e.Parent),
		Exe:      fileID(e.Exe),
		Args:     joinArgs(text[:e.ArgsLen]),
		Taint:    Taint(e.Taint),
		Path:     string(text[room : room+int(e.PathLen)]),
		Port:     e.Port,
		Protocol: uint16(e.Protocol),
	}
	switch out.Hook {
	case HookConnect, HookSendto, HookBind, HookPacket:
		out.Addr = fromWords(e.Object)
	case HookSocket:
		out.Family, out.Type, out.Protocol = e.Object[0], e.Object[1], uint16(e.Object[2])
	case HookFile:
		out.File = fileAttempt(&f, text[room:room+int(e.PathLen)])
		out.Path, out.Port, out.Protocol = "", 0, 0
	case HookGuard:
		out.Guard = GuardAttempt{Op: GuardOp(e.Port), Detail: e.Object[0], Target: int(e.Object[1])}
		out.Port = 0
	case HookDevice:
		out.Device = Device{Type: DeviceType(e.Object[0]), Major: e.Object[1], Minor: e.Object[2], Access: DeviceAccess(e.Object[3])}
	}
	return e.Cgid, out, nil
}

// joinArgs turns arguments that each end with NUL into one line.
func joinArgs(args []byte) string {
	return strings.ReplaceAll(string(bytes.TrimRight(args, "\x00")), "\x00", " ")
}
