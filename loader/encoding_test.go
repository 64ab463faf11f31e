package loader

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

func TestAddressesAreInNetworkOrder(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"198.18.1.2", "00000000000000000000ffffc6120102"},
		{"::ffff:198.18.1.2", "00000000000000000000ffffc6120102"},
		{"fd6e:656d:6f63::1:2", "fd6e656d6f6300000000000000010002"},
	} {
		w := words(netip.MustParseAddr(tt.addr))
		raw := unsafe.Slice((*byte)(unsafe.Pointer(&w)), 16)
		var hex strings.Builder
		for _, b := range raw {
			hex.WriteString(strconv.FormatUint(uint64(b)+0x100, 16)[1:])
		}
		if hex.String() != tt.want {
			t.Errorf("%s is %s in memory, want %s", tt.addr, hex.String(), tt.want)
		}
		if back := fromWords(w); back != netip.MustParseAddr(tt.addr).Unmap() {
			t.Errorf("%s comes back as %s", tt.addr, back)
		}
	}
}

func TestDeadline(t *testing.T) {
	now := bootNow()
	if d := deadline(time.Time{}); d != 0 {
		t.Errorf("never is %d", d)
	}
	if d := deadline(time.Now().Add(time.Hour)); d < now+uint64(time.Hour)-uint64(time.Second) || d > now+uint64(time.Hour)+uint64(time.Minute) {
		t.Errorf("in an hour is %d after now", d-now)
	}
	for _, past := range []time.Duration{time.Second, 1000000 * time.Hour} {
		if d := deadline(time.Now().Add(-past)); d == 0 || d > now+uint64(time.Second) {
			t.Errorf("%v ago is %d, now is %d", past, d, now)
		}
	}
	if d := time.Since(wallTime(bootNow())); d < -time.Second || d > time.Second {
		t.Errorf("now is %v ago", d)
	}
}

// cEnum returns the names of an enum of bpf/*.h in order.
func cEnum(t *testing.T, file, name string) []string {
	t.Helper()
	text, err := os.ReadFile("../bpf/" + file)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)enum ` + name + ` \{(.*?)\}`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s has no enum %s", file, name)
	}
	body := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(string(m[1]), "")
	var names []string
	for _, n := range strings.Split(body, ",") {
		if n = strings.TrimSpace(n); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// cConstant returns the value of NAME = VALUE in bpf/abi.h.
func cConstant(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile("../bpf/abi.h")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`\b` + name + ` = (\d+)`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("abi.h has no constant %s", name)
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// cVariables returns the variables of bpf/environ.h.
func cVariables(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../bpf/environ.h")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`\{"(\w+)"\}`).FindAllSubmatch(text, -1) {
		names = append(names, string(m[1]))
	}
	return names
}

func TestNumbersMatchTheHeaders(t *testing.T) {
	hookNames := cEnum(t, "abi.h", "hook")
	if want := int(hooks) + 1; len(hookNames) != want { // and HOOKS itself
		t.Fatalf("%d hooks in C, %d in Go", len(hookNames), want)
	}
	for h := range hooks {
		if want := "HOOK_" + strings.ToUpper(h.String()); hookNames[h] != want {
			t.Errorf("hook %d is %s in C, %s in Go", h, hookNames[h], want)
		}
	}
	goReasons := []string{"RULE", "CONNECTIONS", "NOT_DNS", "PROTOCOL", "ADDRESS", "EGRESS", "INGRESS", "NO_MEMORY", "RESERVED", "MARKED", "GAINS", "DELETED", "FOREIGN", "HELPER", "KERNEL", "GUARD", "TAINTED", "UNLISTED", "RESUMED"}
	reasonNames := cEnum(t, "abi.h", "reason")
	if len(reasonNames) != int(reasons) || len(goReasons) != int(reasons) {
		t.Fatalf("%d reasons in C, %d in Go", len(reasonNames), reasons)
	}
	for i, n := range goReasons {
		if reasonNames[i] != "REASON_"+n {
			t.Errorf("reason %d is %s in C, REASON_%s in Go", i, reasonNames[i], n)
		}
		if (Reason(i).String() == "") != (Reason(i) == ReasonRule) {
			t.Errorf("reason %d reads %q", i, Reason(i))
		}
	}
	if got := cEnum(t, "abi.h", "file_op"); len(got) != int(fileOps) || got[OpControl] != "OP_CONTROL" || got[OpRoot] != "OP_ROOT" {
		t.Errorf("operations on files in C: %v", got)
	}
	if got := cEnum(t, "abi.h", "guard_op"); len(got) != int(guardOps) || got[GuardBPF] != "GUARD_BPF" || got[GuardKey] != "GUARD_KEY" || got[GuardCapability] != "GUARD_CAPABILITY" {
		t.Errorf("attempts in C: %v", got)
	}
	if got := cEnum(t, "abi.h", "verdict"); got[policy.Deny] != "DENY" || got[policy.Ask] != "ASK" || got[policy.Allow] != "ALLOW" {
		t.Errorf("verdicts in C: %v", got)
	}
	if got := cEnum(t, "abi.h", "taint"); len(got) != int(taintVariable)+1 || got[TaintLong] != "TAINT_LONG" || got[taintVariable] != "TAINT_VARIABLE" {
		t.Errorf("taints in C: %v", got)
	}
	if got := cVariables(t); !slices.Equal(got, variables[:]) {
		t.Errorf("variables in C: %v", got)
	}
	if got := cEnum(t, "../bpf/steer.c", "slot"); len(got) != len(Sockets{}.slots())+1 || strings.Join(got, " ") !=
		"SLOT_TCP4 SLOT_TCP6 SLOT_DNS_TCP4 SLOT_DNS_TCP6 SLOT_DNS_UDP4 SLOT_DNS_UDP6 SLOT_CONNECT4 SLOT_CONNECT6 SLOTS" {
		t.Errorf("slots in C: %v", got)
	}
	for name, value := range map[string]int{
		"RINGS": rings, "ANCHOR_BITS": bpf.AnchorBits, "VARIABLES": len(variables), "EXEC_FILE": execFile, "EXEC_TREE": execTree, "EXEC_QUIET": execQuiet, "EXEC_DENY": execDeny, "EXEC_HELPER": execHelper,
	} {
		if got := cConstant(t, name); got != value {
			t.Errorf("%s is %d in C, %d in Go", name, got, value)
		}
	}
	if off := int(unsafe.Offsetof(bpf.GatePrefixKey{}.Addr)-unsafe.Offsetof(bpf.GatePrefixKey{}.Revision)) * 8; off != prefixBits {
		t.Errorf("%d bits stand before the address of a prefix key, prefixBits is %d", off, prefixBits)
	}
}

func TestOneMoreThanTheLastIsNamed(t *testing.T) {
	if s := hooks.String(); s != "hook 9" {
		t.Errorf("%q", s)
	}
	if s := reasons.String(); s != "reason 19" {
		t.Errorf("%q", s)
	}
}

// record builds a record of an event ring.
func record(e bpf.GateEvent, args, path string, argsRoom, pathRoom int) []byte {
	var b bytes.Buffer
	e.ArgsRoom, e.ArgsLen, e.PathLen = uint16(argsRoom), uint16(len(args)), uint16(len(path))
	if err := binary.Write(&b, binary.NativeEndian, e); err != nil {
		panic(err)
	}
	text := make([]byte, argsRoom+pathRoom)
	copy(text, args)
	copy(text[min(argsRoom, len(text)):], path)
	b.Write(text)
	return b.Bytes()
}

func TestDecodeEvent(t *testing.T) {
	raw := record(bpf.GateEvent{
		Time: bootNow(), Cgid: 42, Exe: bpf.GateFileId{Ino: 5, Dev: 6}, Object: words(netip.MustParseAddr("198.18.1.1")), Port: 443,
		Tgid: 100, Rule: 3, Revision: 9, Hook: uint8(HookConnect), Protocol: 6,
	}, "curl\x00-s\x00x y\x00", "", 64, 0)
	cgid, e, err := decodeEvent(raw)
	if err != nil || cgid != 42 {
		t.Fatal(cgid, err)
	}
	if e.Object() != "198.18.1.1:443" || e.Args != "curl -s x y" || e.PID != 100 || e.Rule != 3 || e.Revision != 9 || e.Exe != (FileID{Ino: 5, Dev: 6}) || e.Protocol != 6 {
		t.Errorf("%+v", e)
	}
	_, e, err = decodeEvent(record(bpf.GateEvent{Hook: uint8(HookExec), Verdict: 2}, "sh\x00-c\x00", "/bin/sh", 256, 256))
	if err != nil || e.Path != "/bin/sh" || e.Args != "sh -c" || e.Object() != "/bin/sh" || e.Verdict != policy.Allow {
		t.Errorf("%+v %v", e, err)
	}
	_, e, _ = decodeEvent(record(bpf.GateEvent{Hook: uint8(HookSocket), Object: [4]uint32{2, 1, 262}}, "", "", 64, 0))
	if e.Object() != "family 2 type 1 protocol 262" {
		t.Errorf("%q", e.Object())
	}
	_, e, _ = decodeEvent(record(bpf.GateEvent{Hook: uint8(HookDevice), Object: [4]uint32{1, 8, 0, 3}}, "", "", 64, 0))
	if e.Object() != "b 8:0 rm" {
		t.Errorf("%q", e.Object())
	}
	_, e, _ = decodeEvent(record(bpf.GateEvent{Hook: uint8(HookGuard), Port: uint16(GuardSignal), Object: [4]uint32{9, 42}}, "", "", 64, 0))
	if e.Object() != "signal 9 of process 42" || e.Port != 0 {
		t.Errorf("%+v", e)
	}
	for _, bad := range [][]byte{nil, raw[:eventSize-1], raw[:eventSize+10], record(bpf.GateEvent{}, "long", "", 2, 0), record(bpf.GateEvent{}, "", "long", 0, 2)} {
		if _, _, err := decodeEvent(bad); err == nil {
			t.Errorf("%d bytes decode without an error", len(bad))
		}
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add(record(bpf.GateEvent{Hook: uint8(HookExec)}, "sh\x00", "/bin/sh", 64, 64))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, e, err := decodeEvent(raw)
		if err == nil && len(e.Args)+len(e.Path) > len(raw) {
			t.Errorf("%d bytes of text out of %d", len(e.Args)+len(e.Path), len(raw))
		}
		_ = e.Object()
		_ = e.Hook.String() + e.Reason.String()
	})
}

func TestParsePacket(t *testing.T) {
	udp4 := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 9, 9, 9, 9, 0x30, 0x39, 0, 123}
	e, ok := parsePacket(udp4)
	if !ok || e.From.String() != "127.0.0.1:12345" || e.To.String() != "9.9.9.9:123" || e.Protocol != 17 {
		t.Errorf("%+v %v", e, ok)
	}
	fragment := bytes.Clone(udp4)
	fragment[7] = 1
	if e, ok = parsePacket(fragment); !ok || e.To.Port() != 0 {
		t.Errorf("a later fragment has ports: %+v", e)
	}
	udp6 := append([]byte{0x60, 0, 0, 0, 0, 8, 6, 64}, make([]byte, 36)...)
	udp6[23], udp6[39], udp6[41], udp6[43] = 1, 2, 80, 81
	if e, ok = parsePacket(udp6); !ok || e.From.String() != "[::1]:80" || e.To.String() != "[::2]:81" || e.Protocol != 6 {
		t.Errorf("%+v %v", e, ok)
	}
	for _, bad := range [][]byte{nil, {0x45}, udp4[:19], udp6[:39], {0x15, 0, 0}} {
		if _, ok := parsePacket(bad); ok {
			t.Errorf("% x is a packet", bad)
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 9, 9, 9, 9, 0x30, 0x39, 0, 123})
	f.Add(append([]byte{0x60}, make([]byte, 50)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, ok := parsePacket(b); ok && !(e.From.IsValid() && e.To.IsValid()) {
			t.Errorf("% x: %+v", b, e)
		}
	})
}

func TestCgroup2Mount(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"35 25 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:11 - cgroup2 cgroup2 rw,nsdelegate", "/sys/fs/cgroup/unified"},
		{`35 25 0:30 / /mnt/with\040space rw - cgroup2 none rw`, "/mnt/with space"},
		{"35 25 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory", ""},
		{"35 25 0:30 / /cgroup2 rw - tmpfs cgroup2 rw", ""},
		{"nonsense", ""},
		{"", ""},
	} {
		if got, ok := cgroup2Mount(tt.line); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q, want %q", tt.line, got, tt.want)
		}
	}
}

func TestPinNames(t *testing.T) {
	name, id, ok := splitPinName(pinName(cgroup{path: "/sys/fs/cgroup/my-agents-0123abcd", id: 0x9e}))
	if !ok || name != "my-agents-0123abcd" || id != 0x9e {
		t.Errorf("%q %x %v", name, id, ok)
	}
	for _, bad := range []string{"", "nemoclaw", "nemoclaw-xyz"} {
		if _, _, ok := splitPinName(bad); ok {
			t.Errorf("%q is a name of pins", bad)
		}
	}
}

func TestDeviceString(t *testing.T) {
	if s := (Device{CharDevice, 136, AnyMinor, DeviceRead | DeviceWrite}).String(); s != "c 136:* rw" {
		t.Error(s)
	}
}
