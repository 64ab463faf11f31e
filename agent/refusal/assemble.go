package refusal

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// The record types of linux/audit.h that make up one refusal.
const (
	recordSyscall   = 1300 // AUDIT_SYSCALL
	recordEnd       = 1320 // AUDIT_EOE
	recordProctitle = 1327 // AUDIT_PROCTITLE
	recordAccess    = 1423 // AUDIT_LANDLOCK_ACCESS
	recordDomain    = 1424 // AUDIT_LANDLOCK_DOMAIN
)

// maxDomains bounds what is remembered of other programs' Landlock domains; past it all is forgotten and asked again.
const maxDomains = 4096

// assembler joins the records of one audit event (same serial number) into refusals.
// Format: Documentation/admin-guide/LSM/landlock.rst and lib/audit_logging of the audit userspace.
type assembler struct {
	owner   func(pid int) string
	sink    func(Refusal)
	domains map[string]domain // by Landlock's domain id
	serial  string
	pending []access
	caller  Refusal // PID, Exe and Args of the event under way
}

type domain struct {
	owner string // "": not ours
	pid   int    // of the process that entered the domain
}

type access struct{ domain, blockers, path string }

func newAssembler(owner func(int) string, sink func(Refusal)) *assembler {
	return &assembler{owner: owner, sink: sink, domains: map[string]domain{}}
}

// add takes one record. The caller's name and arguments come after the access, so an event is told when its end or
// the next event's first record arrives.
func (a *assembler) add(kind uint16, record string) {
	serial, body, ok := strings.Cut(record, "): ")
	if !ok {
		return
	}
	if serial != a.serial {
		a.flush()
		a.serial = serial
	}
	switch kind {
	case recordAccess:
		f := fields(body)
		a.pending = append(a.pending, access{f["domain"], f["blockers"], untrusted(f["path"])})
	case recordDomain:
		a.addDomain(fields(body))
	case recordSyscall:
		f := fields(body)
		a.caller.PID, _ = strconv.Atoi(f["pid"])
		a.caller.Exe = untrusted(f["exe"])
	case recordProctitle:
		f := fields(body)
		a.caller.Args = strings.ReplaceAll(strings.TrimRight(untrusted(f["proctitle"]), "\x00"), "\x00", " ")
	case recordEnd:
		a.flush()
	}
}

func (a *assembler) addDomain(f map[string]string) {
	if f["status"] == "deallocated" {
		delete(a.domains, f["domain"])
		return
	}
	if len(a.domains) >= maxDomains {
		clear(a.domains)
	}
	pid, err := strconv.Atoi(f["pid"])
	d := domain{pid: pid}
	if err == nil {
		d.owner = a.owner(pid)
	}
	a.domains[f["domain"]] = d
}

func (a *assembler) flush() {
	for _, acc := range a.pending {
		d, known := a.domains[acc.domain]
		if !known { // the domain's own record was sent before this reader came, or was forgotten
			d = domain{}
			if a.caller.PID != 0 {
				d.owner = a.owner(a.caller.PID)
			}
		}
		if d.owner == "" {
			continue
		}
		ref := a.caller
		ref.Owner = d.owner
		if ref.PID == 0 {
			ref.PID = d.pid
		}
		ref.Blockers = strings.Split(acc.blockers, ",")
		ref.Path = acc.path
		a.sink(ref)
	}
	a.pending = a.pending[:0]
	a.caller = Refusal{}
}

// fields splits "key=value key="quoted value"" records. Values from outside the kernel are quoted only when they hold
// no blank, quote or control byte (else they are hexadecimal), so splitting at blanks is exact.
func fields(body string) map[string]string {
	out := map[string]string{}
	for _, word := range strings.Fields(body) {
		if k, v, ok := strings.Cut(word, "="); ok {
			out[k] = v
		}
	}
	return out
}

// untrusted decodes a value written by the kernel's audit_log_untrustedstring: quoted, or hexadecimal.
func untrusted(v string) string {
	if s, ok := strings.CutPrefix(v, `"`); ok {
		return strings.TrimSuffix(s, `"`)
	}
	if b, err := hex.DecodeString(v); err == nil {
		return string(b)
	}
	return v
}
