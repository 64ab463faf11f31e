package refusal

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

type record struct {
	kind uint16
	body string
}

func TestAssemble(t *testing.T) {
	// As Linux 6.18 sent them, for a process 12928 that was refused two files and a program.
	syscall := ` arch=c000003e syscall=257 success=no exit=-13 items=0 ppid=12927 pid=12928 uid=0 comm="t" exe="/tmp/t" key=(null)`
	tests := []struct {
		name    string
		mine    int
		records []record
		want    []Refusal
	}{
		{"first refusal of a domain", 12928, []record{
			{1423, `audit(1795347734.573:5): domain=17c21aeba blockers=fs.read_file path="/etc/passwd" dev="vda" ino=1196066`},
			{1424, `audit(1795347734.573:5): domain=17c21aeba status=allocated mode=enforcing pid=12928 uid=0 exe="/tmp/t" comm="t"`},
			{1300, `audit(1795347734.573:5):` + syscall},
			{1327, `audit(1795347734.573:5): proctitle=2F746D702F742061003100`},
			{1320, `audit(1795347734.573:5): `},
		}, []Refusal{{PID: 12928, Exe: "/tmp/t", Args: "/tmp/t a 1", Blockers: []string{"fs.read_file"}, Path: "/etc/passwd"}}},
		{"no system call audit: the domain's owner stands in", 7, []record{
			{1423, `audit(1.1:5): domain=a blockers=fs.execute path="/usr/bin/curl" dev="vda" ino=1`},
			{1424, `audit(1.1:5): domain=a status=allocated mode=enforcing pid=7 uid=0 exe="/x" comm="x"`},
			{1423, `audit(1.1:6): domain=a blockers=fs.write_file,fs.truncate path=2F612062 dev="vda" ino=1`},
			{1320, `audit(1.1:7): `},
		}, []Refusal{
			{PID: 7, Blockers: []string{"fs.execute"}, Path: "/usr/bin/curl"},
			{PID: 7, Blockers: []string{"fs.write_file", "fs.truncate"}, Path: "/a b"},
		}},
		{"another program's domain", 99, []record{
			{1423, `audit(1.1:5): domain=a blockers=fs.execute path="/usr/bin/curl" dev="vda" ino=1`},
			{1424, `audit(1.1:5): domain=a status=allocated mode=enforcing pid=7 uid=0 exe="/x" comm="x"`},
			{1320, `audit(1.1:5): `},
		}, nil},
		{"a domain older than the reader", 12928, []record{
			{1423, `audit(1.1:5): domain=a blockers=fs.read_dir path="/root" dev="vda" ino=1`},
			{1300, `audit(1.1:5):` + syscall},
			{1320, `audit(1.1:5): `},
		}, []Refusal{{PID: 12928, Exe: "/tmp/t", Blockers: []string{"fs.read_dir"}, Path: "/root"}}},
		{"a deallocated domain's id is forgotten", 7, []record{
			{1424, `audit(1.1:4): domain=a status=allocated mode=enforcing pid=7 uid=0 exe="/x" comm="x"`},
			{1424, `audit(1.1:5): domain=a status=deallocated denials=1`},
			{1423, `audit(1.1:6): domain=a blockers=fs.read_dir path="/root" dev="vda" ino=1`},
			{1320, `audit(1.1:6): `},
		}, nil},
		{"bytes that are no record", 7, []record{{1423, "x"}, {1423, ""}, {1320, "): "}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []Refusal
			a := newAssembler(func(pid int) string {
				if pid == tt.mine {
					return "mine"
				}
				return ""
			}, func(r Refusal) {
				if r.Owner != "mine" {
					t.Errorf("owner %q", r.Owner)
				}
				r.Owner = ""
				got = append(got, r)
			})
			for _, r := range tt.records {
				a.add(r.kind, r.body)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("refusals (-want +got):\n%s", d)
			}
		})
	}
}

func FuzzAssemble(f *testing.F) {
	f.Add(uint16(1423), `audit(1.1:5): domain=a blockers=fs.execute path="/usr/bin/curl" dev="vda" ino=1`)
	f.Add(uint16(1327), `audit(1.1:5): proctitle=2F7`)
	f.Fuzz(func(t *testing.T, kind uint16, body string) {
		a := newAssembler(func(int) string { return "mine" }, func(r Refusal) {
			if len(r.Blockers) == 0 {
				t.Error("a refusal without a blocker")
			}
		})
		a.add(kind, body)
		a.add(recordEnd, "x): ")
	})
}
