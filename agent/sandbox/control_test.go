package sandbox

import (
	"bytes"
	"debug/elf"
	"os"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProtocol compares the numbers of control.go with those of init/proto.h.
func TestProtocol(t *testing.T) {
	header, err := os.ReadFile("init/proto.h")
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]int{}
	for _, m := range regexp.MustCompile(`\b([A-Z_]+) = (\d+),`).FindAllStringSubmatch(string(header), -1) {
		in[m[1]], _ = strconv.Atoi(m[2])
	}
	here := map[string]int{
		"CONTROL_FD": controlFD, "MAX_COMMANDS": maxCommands,
		"REQ_IDMAP": reqIdmap, "REQ_INIT": reqInit, "REQ_MAPPED": reqMapped, "REQ_EXEC": reqExec, "REQ_SIGNAL": reqSignal,
		"RE_IDMAP": reIdmap, "RE_PID": rePID, "RE_USERNS": reUserns, "RE_READY": reReady, "RE_EXIT": reExit, "RE_ERROR": reError, "RE_COMMAND": reCommand,
		"STEP_EXEC": int(stepExec),
	}
	for name, n := range here {
		if in[name] != n {
			t.Errorf("%s is %d here and %d in proto.h", name, n, in[name])
		}
	}
	for name, n := range in {
		if len(name) > 5 && name[:5] == "STEP_" {
			if _, ok := steps[step(n)]; !ok {
				t.Errorf("%s has no text", name)
			}
		}
	}
}

// TestInitBinaries checks that what is embedded is what the kernel can start anywhere: static, nothing writable and
// executable at once, no interpreter.
func TestInitBinaries(t *testing.T) {
	for machine, image := range map[elf.Machine][]byte{elf.EM_X86_64: initAMD64, elf.EM_AARCH64: initARM64} {
		f, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine || f.Type != elf.ET_EXEC {
			t.Errorf("%v: %v %v", machine, f.Machine, f.Type)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC || p.Flags&(elf.PF_W|elf.PF_X) == elf.PF_W|elf.PF_X {
				t.Errorf("%v: segment %v %v", machine, p.Type, p.Flags)
			}
		}
		if len(image) > 32<<10 {
			t.Errorf("%v: %d bytes", machine, len(image))
		}
	}
}

func TestStepError(t *testing.T) {
	if text := stepError(13, unix.ENOSPC).Error(); text != "sandbox: making the user namespace: no space left on device; see user.max_user_namespaces (sysctl)" {
		t.Error(text)
	}
	if text := stepError(99, unix.EPERM).Error(); text != "sandbox: step 99 of the init: operation not permitted" {
		t.Error(text)
	}
}
