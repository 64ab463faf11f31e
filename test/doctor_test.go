//go:build e2e

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// finding is one of `nemoclaw doctor -o json`.
type finding struct{ Check, State, Found, Why, Remedy, Fixed string }

// patient is a host that doctor looks at: the machine, in a mount namespace where something is broken.
type patient struct {
	dir    string
	config string
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{dir: t.TempDir()}
	p.config = filepath.Join(p.dir, "agent.yaml")
	text := fmt.Sprintf("state_dir: %[1]s/state\nrun_dir: %[1]s/run\naudit: %[1]s/audit\nbpffs: %[1]s/bpf\nresolver: %[2]s\n", p.dir, harness.Resolver)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"state", "run", "audit", "bpf"} {
		if err := os.Mkdir(filepath.Join(p.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// sh runs a script in a mount namespace of its own, in which $DOCTOR is `nemoclaw doctor`, $DIR the patient's directory, and
// returns its standard output and whether the last command failed.
func (p *patient) sh(t *testing.T, script string) (out string, failed bool) {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", "set -u\n"+script)
	cmd.Env = append(os.Environ(), "DOCTOR="+harness.W.Bin+" doctor -o json --config "+p.config, "DIR="+p.dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if stderr.Len() > 0 {
		t.Logf("%s", stderr.Bytes())
	}
	return stdout.String(), err != nil
}

// findings reads reports that were printed one after the other.
func findings(t *testing.T, out string) (reports []map[string]finding) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	for dec.More() {
		var r struct{ Findings []finding }
		if err := dec.Decode(&r); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		byName := map[string]finding{}
		for _, f := range r.Findings {
			byName[f.Check] = f
			if f.State != "ok" && f.Why == "" {
				t.Errorf("nothing says why this matters: %+v", f)
			}
		}
		reports = append(reports, byName)
	}
	return reports
}

func TestDoctorOnThisMachine(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	out, failed := p.sh(t, "$DOCTOR")
	r := findings(t, out)[0]
	for _, name := range []string{"root", "kernel", "landlock", "seccomp", "cgroup2", "limits", "namespaces", "bpf", "nf_tables", "sandbox", "dns", "state", "audit"} {
		if r[name].State != "ok" {
			t.Errorf("%+v", r[name])
		}
	}
	if failed {
		t.Errorf("it says that something failed: %s", out)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "nemoclaw-doctor-*/bpf")); len(left) > 0 {
		t.Logf("other tests' doctors are at work: %v", left)
	}
}

// TestDoctorFindsWhatIsBroken breaks one thing at a time, for real.
func TestDoctorFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, breaks, check, state, found, remedy string
	}{
		{
			"no cgroup2", `awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts | while read -r m; do umount -l "$m"; done`,
			"cgroup2", "failed", "no cgroup v2 hierarchy is mounted", "mount -t cgroup2",
		}, {
			"cgroup2 that can't be written", `awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts | while read -r m; do mount -o remount,bind,ro "$m"; done`,
			"cgroup2", "failed", "can't be written", "remount,rw",
		}, {
			"a full state directory", `mount -t tmpfs -o size=1M tmpfs "$DIR/state"; dd if=/dev/zero of="$DIR/state/full" bs=64k 2>/dev/null`,
			"state", "failed", "0 bytes free", "state_dir in agent.yaml",
		}, {
			"an audit directory that is read-only", `mount -t tmpfs -o ro tmpfs "$DIR/audit"`,
			"audit", "failed", "read-only", "remount,rw",
		}, {
			"a state directory of everybody's", `chmod 777 "$DIR/state"`,
			"state", "failed", "can be written by others", "chmod go-w",
		}, {
			"a run directory that is a file", `rmdir "$DIR/run"; : >"$DIR/run"`,
			"run", "failed", "is not a directory", "mv ",
		}, {
			"a resolver that does not answer", `sed -i 's/^resolver: .*/resolver: "127.0.0.1:9"/' "$DIR/agent.yaml"`,
			"dns", "warning", "no resolver of agent.yaml answers", "getent hosts",
		}, {
			"a socket that nobody listens at", `python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$DIR/run/agent.sock"`,
			"daemon", "failed", "nobody listens", "nemoclaw-agent",
		}, {
			"no BTF", `mount -t tmpfs tmpfs /sys/kernel/btf`,
			"kernel", "failed", "without BTF", "CONFIG_DEBUG_INFO_BTF",
		}, {
			"few inotify instances", `echo 16 >"$DIR/few"; mount --bind "$DIR/few" /proc/sys/fs/inotify/max_user_instances`,
			"inotify", "warning", "fs.inotify.max_user_instances=16", "sysctl -w fs.inotify.max_user_instances=128",
		}, {
			"no user namespaces", `echo 0 >"$DIR/none"; mount --bind "$DIR/none" /proc/sys/user/max_user_namespaces`,
			"capacity", "failed", "user.max_user_namespaces=0", "sysctl -w user.max_user_namespaces=",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			out, failed := p.sh(t, c.breaks+"\n$DOCTOR")
			f := findings(t, out)[0][c.check]
			if f.State != c.state || !strings.Contains(f.Found, c.found) || !strings.Contains(f.Remedy, c.remedy) {
				t.Errorf("%+v", f)
			}
			if c.state == "failed" != failed {
				t.Errorf("the exit status says otherwise than the report: %s", out)
			}
		})
	}
}

// TestDoctorLeavesNothing: neither a key nor a log's head of the sandbox that it has tried.
func TestDoctorLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	out, failed := p.sh(t, `mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /var/log && $DOCTOR >"$DIR/report" && find /var/lib /var/log -mindepth 1`)
	if failed || out != "" {
		t.Errorf("failed: %v; left:\n%s", failed, out)
	}
}

// TestDoctorsRemediesWork does what the report says, word for word, and looks again.
func TestDoctorsRemediesWork(t *testing.T) {
	t.Parallel()
	for check, breaks := range map[string]string{
		"cgroup2": `awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts | while read -r m; do umount -l "$m"; done`,
		"bpffs":   `:`,
		"state":   `chmod 777 "$DIR/state"`,
		"run":     `rmdir "$DIR/run"`,
	} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			out, _ := p.sh(t, breaks+"\n"+`
				$DOCTOR >"$DIR/report"; cat "$DIR/report"
				eval "$(python3 -c 'import json, sys; print([f for f in json.load(open(sys.argv[1]))["findings"] if f["check"] == sys.argv[2]][0]["remedy"])' "$DIR/report" `+check+`)"
				$DOCTOR`)
			r := findings(t, out)
			if len(r) != 2 || r[0][check].State == "ok" || r[1][check].State != "ok" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestDoctorFixes what is safe, says so, and has nothing to do the second time.
func TestDoctorFixes(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	out, _ := p.sh(t, `
		awk '$3 == "cgroup2" { print $2 }' /proc/self/mounts | while read -r m; do umount -l "$m"; done
		rmdir "$DIR/state" "$DIR/audit"
		mount -t tmpfs tmpfs /etc/sysctl.d
		echo 16 >"$DIR/few"; mount --bind "$DIR/few" /proc/sys/fs/inotify/max_user_instances
		echo 32768 >"$DIR/pids"; mount --bind "$DIR/pids" /proc/sys/kernel/pid_max
		for f in /proc/sys/kernel/threads-max /proc/sys/fs/file-max /proc/sys/fs/nr_open /proc/sys/kernel/keys/root_maxkeys; do
			echo 999999 >"$DIR/$(basename $f)"; mount --bind "$DIR/$(basename $f)" "$f" # so that nothing of the machine is changed
		done
		$DOCTOR --fix
		$DOCTOR --fix
		cat "$DIR/few" "$DIR/pids" /etc/sysctl.d/60-nemoclaw.conf >"$DIR/kept"`)
	r := findings(t, out)
	if len(r) != 2 {
		t.Fatal(out)
	}
	for check, did := range map[string]string{
		"cgroup2": "mounted cgroup2 on ", "bpffs": "mounted a BPF file system on ", "state": "made ", "audit": "made ",
		"inotify": "set fs.inotify.max_user_instances=128", "capacity": "set kernel.pid_max=131072",
	} {
		// How many files a shell's children may open no doctor can raise.
		good := func(f finding) bool {
			return f.State == "ok" || strings.Contains(f.Found, "open files for what is started here")
		}
		if f := r[0][check]; !good(f) || !strings.Contains(f.Fixed, did) {
			t.Errorf("%s: %+v", check, f)
		}
		if f := r[1][check]; !good(f) || f.Fixed != "" {
			t.Errorf("%s, the second time: %+v", check, f)
		}
	}
	kept, err := os.ReadFile(filepath.Join(p.dir, "kept"))
	want := "128131072# Written by `nemoclaw doctor --fix`; `nemoclaw uninstall` removes it.\nfs.inotify.max_user_instances = 128\nkernel.pid_max = 131072\n"
	if got := strings.ReplaceAll(string(kept), "fs.inotify.max_user_watches = 65536\n", ""); err != nil || got != want {
		t.Errorf("%q, %v\nwant\n%q", got, err, want)
	}
}

// TestDoctorWithoutRoot says what it could not look at, and fails nothing by it.
func TestDoctorWithoutRoot(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	if err := os.Chmod(p.config, 0o644); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(p.dir, "nemoclaw")
	if out, err := exec.Command("cp", harness.W.Bin, bin).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	for dir := p.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755)
	}
	out, err := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bin, "doctor", "-o", "json", "--config", p.config).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := findings(t, string(out))[0]
	for _, check := range []string{"lsm", "namespaces", "bpf", "nf_tables", "sandbox"} {
		if f := r[check]; f.State != "warning" || f.Remedy != "sudo nemoclaw doctor" {
			t.Errorf("%+v", f)
		}
	}
}
