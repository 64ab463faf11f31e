//go:build e2e

package sandbox

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// imageOf unpacks what a small distribution's image would have: a few programs of the host's with the libraries that
// they need, under /usr with merged directories, and files of its own.
func imageOf(t *testing.T) string {
	t.Helper()
	root := hostDir(t)
	fill(t, root, "usr/bin/", "usr/lib/", "usr/share/of-the-image", "etc/ssl/certs.pem", "etc/passwd", "etc/shadow", "etc/resolv.conf", "opt/app/data", "root/.profile", "proc/", "dev/")
	linkAll(t, root, "bin -> usr/bin", "lib -> usr/lib", "lib64 -> usr/lib")
	for _, name := range []string{"sh", "cat", "ls", "id", "touch", "readlink", "env", "ln", "true"} {
		copyProgram(t, root, name, name)
	}
	return root
}

// linkAll makes symbolic links "name -> target".
func linkAll(t *testing.T, root string, links ...string) {
	t.Helper()
	for _, l := range links {
		name, target, _ := strings.Cut(l, " -> ")
		at := filepath.Join(root, name)
		if err := errors.Join(os.RemoveAll(at), os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(target, at)); err != nil {
			t.Fatal(err)
		}
	}
}

// copyProgram copies a program of the host's and the libraries that it needs into an image.
func copyProgram(t *testing.T, root, name, as string) {
	t.Helper()
	real, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{real: "usr/bin/" + as}
	out, _ := exec.Command("ldd", real).Output() // fails for what is static
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			files[word] = "usr/lib/" + strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(word, "/usr"), "/lib64/"), "/lib/")
		}
	}
	for from, to := range files {
		content, err := os.ReadFile(from)
		to = filepath.Join(root, to)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImage(t *testing.T) {
	root, dir := imageOf(t), workspaceOf(t, 0, 0)
	spec := testSpec(t, tools+`filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: /opt/app, permissions: [read]}
  deny:
    - {path: /usr/share/of-the-image, permissions: [read]}
`, dir)
	fill(t, root, "usr/share/other")
	spec.Root = root
	b := startSpec(t, spec)
	b.want("cat /opt/app/data /etc/ssl/certs.pem /usr/share/other", "content of opt/app/datacontent of etc/ssl/certs.pemcontent of usr/share/other", 0)
	b.want("echo x > new && cat new", "x", 0)
	b.want("id -un", "agent", 0)
	b.want("cat /etc/resolv.conf", "nameserver 198.18.0.2\noptions timeout:10 attempts:2", 0)
	for _, line := range []string{"cat /usr/share/of-the-image", "cat /etc/shadow", "ls /root", "touch /usr/bin/new", "touch /opt/app/new", "cat /usr/lib/os-release", "ls /usr/share/doc", "cat /etc/os-release", "ls /var"} {
		if out, status := b.sh(line); status == 0 {
			t.Errorf("%s: %q", line, out)
		}
	}
	for _, p := range b.Programs() {
		var inImage, seen unix.Stat_t
		if err := errors.Join(unix.Stat(filepath.Join(root, p.Path), &inImage), unix.Fstat(int(p.File.Fd()), &seen)); err != nil {
			t.Fatal(err)
		}
		if inImage.Ino != seen.Ino || inImage.Dev != seen.Dev {
			t.Errorf("%s is not the image's", p.Path)
		}
	}
	if _, err := b.Exec(ExecRequest{Args: []string{"python3"}}); err == nil {
		t.Error("python3, which the image does not have, runs")
	}
}

// TestImageWithoutEtc: an image made from scratch may have one program and nothing else.
func TestImageWithoutEtc(t *testing.T) {
	root := imageOf(t)
	if err := os.RemoveAll(root + "/etc"); err != nil {
		t.Fatal(err)
	}
	spec := testSpec(t, tools, "")
	spec.Root = root
	b := startSpec(t, spec)
	b.want("ls /etc", "group\nhostname\nhosts\nmachine-id\nnsswitch.conf\npasswd\nresolv.conf", 0)
}

// TestHostileImage: an image whose links lead to the host's files. Each is first followed as a program would that trusts
// the image, to see that there is something to reach; then from inside, and as a rule of the policy.
func TestHostileImage(t *testing.T) {
	victim := hostDir(t)
	fill(t, victim, "secret", "made/")
	socket := victim + "/s"
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, test := range []struct {
		name   string
		links  []string
		leads  string // below the image's root: followed by the machine it is the victim's
		rule   string
		script string
	}{
		{"an absolute link", []string{"opt/app -> " + victim}, "opt/app/secret", "/opt/app", "cat /opt/app/secret"},
		{"a link up", []string{"opt/app -> ../../../../../../../.." + victim}, "opt/app/secret", "/opt/app", "cat /opt/app/secret"},
		{"a link to a link", []string{"opt/app -> ../b", "b -> " + victim}, "opt/app/secret", "/opt/app/secret", "cat /opt/app/secret"},
		{"a link in /usr", []string{"usr/share/x -> " + victim}, "usr/share/x/secret", "/usr/share/x", "cat /usr/share/x/secret"},
		{"a file of /etc", []string{"etc/x -> " + victim + "/secret"}, "etc/x", "/etc/x", "cat /etc/x"},
		{"a directory of /etc", []string{"etc/ssl -> " + victim}, "etc/ssl/secret", "/etc/ssl", "cat /etc/ssl/secret"},
		{"a secret of /etc", []string{"etc/ssh -> " + victim}, "etc/ssh/secret", "/etc/ssh/secret", "cat /etc/ssh/secret"},
		{"the shadow file", []string{"etc/shadow -> " + victim + "/secret"}, "etc/shadow", "/etc/shadow", "cat /etc/shadow"},
		{"a magic link", []string{"opt/app -> /proc/self/root" + victim}, "opt/app/secret", "/opt/app", "cat /opt/app/secret"},
		{"two names of a place", []string{"home -> " + victim + "/made", "run -> " + victim + "/made", "data -> /tmp"}, "home/../secret", "/home/x", "cat /home/../secret /run/../secret"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := imageOf(t)
			linkAll(t, root, test.links...)
			if got, err := os.ReadFile(root + "/" + test.leads); err != nil || string(got) != "content of secret" {
				t.Fatalf("the attack leads nowhere: %q, %v", got, err)
			}
			spec := testSpec(t, tools+`filesystem:
  allow: [{path: /workspace, permissions: [read, write]}, {path: `+test.rule+`, permissions: [read]}]
network: {unix: [`+socket+`]}
`, workspaceOf(t, 0, 0))
			spec.Root = root
			b := startSpec(t, spec)
			if out, status := b.sh(test.script); status == 0 || strings.Contains(out, "content of secret") {
				t.Errorf("%q, %d", out, status)
			}
			if names, _ := os.ReadDir(victim + "/made"); len(names) > 0 {
				t.Errorf("something was made on the host: %v", names)
			}
		})
	}
}

// TestHostileImagePrograms: programs, interpreters and loaders are looked for in the image, and never on the host.
func TestHostileImagePrograms(t *testing.T) {
	victim, root := hostDir(t), imageOf(t)
	fill(t, victim, "bin/")
	for _, name := range []string{"tool", "interp"} {
		if out, err := exec.Command("cp", "/bin/true", victim+"/bin/"+name).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	linkAll(t, root, "usr/bin/python3 -> "+victim+"/bin/tool", "usr/local/bin -> "+victim+"/bin", "usr/lib/ld.so -> "+victim+"/bin/tool")
	for _, at := range []string{"usr/bin/python3", "usr/local/bin/tool", "usr/lib/ld.so"} {
		if err := exec.Command(root + "/" + at).Run(); err != nil {
			t.Fatalf("the attack leads nowhere: %v", err)
		}
	}
	script := root + "/usr/bin/stat"
	if err := os.WriteFile(script, []byte("#!"+victim+"/bin/interp\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(root+"/usr/bin/touch"), unix.Mkfifo(root+"/usr/bin/touch", 0o777),
		unix.Mknod(root+"/usr/bin/rm", unix.S_IFCHR|0o777, int(unix.Mkdev(1, 3))), unix.Mknod(root+"/opt/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root+"/usr/bin/id", os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	spec := testSpec(t, "process: {allow: [{command: sh}, {command: python3}, {command: tool}, {command: stat}, {command: touch}, {command: rm}, {command: id}]}\n"+
		"filesystem: {allow: [{path: /opt, permissions: [read]}]}\n", "")
	spec.Root = root
	b := startSpec(t, spec)
	for _, p := range b.Programs() {
		if strings.HasPrefix(p.Path, victim) || p.Command == "tool" || p.Command == "python3" || p.Command == "touch" || p.Command == "rm" {
			t.Errorf("%s (%s) may be executed", p.Command, p.Path)
		}
	}
	for _, line := range []string{"python3", "tool", "stat", "touch", "rm", ": < /opt/null", ": < /usr/bin/rm"} {
		if out, status := b.sh(line); status == 0 {
			t.Errorf("%s: %q", line, out)
		}
	}
	b.want("id -u", "1000", 0) // no set-uid program gives anything
}

// TestImageRefused: what can't be made of an image is refused, and says why.
func TestImageRefused(t *testing.T) {
	root := imageOf(t)
	ws := hostDir(t)
	etc := imageOf(t)
	linkAll(t, etc, "etc -> usr")
	for _, test := range []struct{ root, workspace, rule, want string }{
		{root + "/none", ws, "", "is not a directory"},
		{"/", ws, "", "is not a directory"},
		{root + "/usr/bin/sh", ws, "", "is not a directory"},
		{root, root + "/opt", "", "lie in each other"},
		{root, filepath.Dir(root), "", "lie in each other"},
		{etc, ws, "", "/etc of the image"},
		{root, ws, "{path: /opt/app, permissions: [read, write]}", "can't be written"},
		{root, ws, "{path: /usr, permissions: [read, write]}", "can't be written"},
	} {
		spec := testSpec(t, tools+"filesystem: {allow: [{path: /workspace, permissions: [read, write]}, "+test.rule+"]}\n", test.workspace)
		spec.Root = test.root
		s, err := Prepare(spec)
		if err == nil {
			err = errors.Join(errors.New("it was made"), s.Close())
		}
		if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
