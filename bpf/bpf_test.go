package bpf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// objects are all committed objects, of every architecture.
func objects(t *testing.T) map[string]*ebpf.CollectionSpec {
	t.Helper()
	files, err := filepath.Glob("*_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	specs := make(map[string]*ebpf.CollectionSpec)
	for _, f := range files {
		if specs[f], err = ebpf.LoadCollectionSpec(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	if len(specs) != 14 {
		t.Fatalf("%d objects, want seven for each of two architectures: %v", len(specs), files)
	}
	return specs
}

func TestObjectsHoldTheSameProgramsOnEveryArchitecture(t *testing.T) {
	specs := objects(t)
	for name, spec := range specs {
		if spec.ByteOrder != binary.LittleEndian {
			t.Errorf("%s is %v", name, spec.ByteOrder)
		}
		if !strings.Contains(name, "_x86_") {
			continue
		}
		other := specs[strings.Replace(name, "_x86_", "_arm64_", 1)]
		if other == nil {
			t.Errorf("%s has no arm64 twin", name)
			continue
		}
		for prog, p := range spec.Programs {
			q := other.Programs[prog]
			if q == nil || p.Type != q.Type || p.AttachTo != q.AttachTo || p.License != "Dual BSD/GPL" || q.License != p.License {
				t.Errorf("%s: program %s differs between architectures", name, prog)
			}
		}
		for m, a := range spec.Maps {
			if b := other.Maps[m]; b == nil || a.KeySize != b.KeySize || a.ValueSize != b.ValueSize || a.MaxEntries != b.MaxEntries {
				t.Errorf("%s: map %s differs between architectures", name, m)
			}
		}
	}
}

// TestGoTypesMatchTheObject compares the generated types with the layouts in the object: nothing may have moved, and
// no key or value may have a hole, whose bytes would be whatever was in memory.
func TestGoTypesMatchTheObject(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(GateObject()))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"sandbox": GateSandbox{}, "rule_key": GateRuleKey{}, "rule": GateRule{}, "prefix_key": GatePrefixKey{},
		"member_key": GateMemberKey{}, "member": GateMember{}, "grant_key": GateGrantKey{}, "grant": GateGrant{},
		"tuple": GateTuple{}, "peer": GatePeer{}, "asker_key": GateAskerKey{}, "exec_key": GateExecKey{},
		"exec_value": GateExecValue{}, "device_key": GateDeviceKey{}, "counters": GateCounters{}, "event": GateEvent{},
	} {
		var s *btf.Struct
		if err := spec.Types.TypeByName(name, &s); err != nil {
			t.Errorf("struct %s: %v", name, err)
			continue
		}
		typ := reflect.TypeOf(value)
		if int(typ.Size()) != int(s.Size) {
			t.Errorf("struct %s has %d bytes in C, %d in Go", name, s.Size, typ.Size())
		}
		at, field := uint32(0), 1 // field 0 is the layout marker
		for _, m := range s.Members {
			if m.Offset.Bytes() != at {
				t.Errorf("struct %s: hole before %s: it is at %d, not at %d", name, m.Name, m.Offset.Bytes(), at)
			}
			f := typ.Field(field)
			if f.Offset != uintptr(at) {
				t.Errorf("struct %s: %s is at %d in C, at %d in Go", name, m.Name, at, f.Offset)
			}
			size, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatal(err)
			}
			at, field = at+uint32(size), field+1
		}
		if at != s.Size {
			t.Errorf("struct %s: hole at the end, from %d to %d", name, at, s.Size)
		}
		if binary.Size(value) != int(s.Size) {
			t.Errorf("struct %s: %d bytes when encoded, want %d", name, binary.Size(value), s.Size)
		}
	}
}

// TestGenerateNeedsNoSystemHeaders keeps the objects a function of these files and of clang alone.
func TestGenerateNeedsNoSystemHeaders(t *testing.T) {
	files, err := filepath.Glob("*.[ch]")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("#include <")) {
			t.Errorf("%s includes a system header", f)
		}
	}
}

// A stale name would let the programs of another build judge this one's sandboxes.
func TestVersionIsOfTheseObjects(t *testing.T) {
	sum := sha256.Sum256(slices.Concat(GateObject(), SteerObject(), LSMObject()))
	if want := hex.EncodeToString(sum[:4]); Version() != want {
		t.Errorf("the version is %s, and the objects are %s: run `make generate`", Version(), want)
	}
}
