package sandbox

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/policy"
)

func TestFindHierarchies(t *testing.T) {
	for _, test := range []struct {
		name, mountinfo, v2 string
		v1                  map[string]string // some
	}{
		{"pure", "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup", nil},
		{"hybrid", "38 31 0:34 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"/sys/fs/cgroup/unified", map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct"}},
		{"a space in the path", `41 31 0:38 / /mnt/my\040cg rw - cgroup2 none rw` + "\n", "/mnt/my cg", nil},
		{"two mounts", "41 31 0:38 / /a rw - cgroup2 none rw\n42 31 0:38 / /b rw - cgroup2 none rw\n", "/b", nil},
		{"none", "22 27 0:21 / /proc rw,relatime - proc proc rw\n", "", nil},
		{"garbage", "\n - \n1 2 - cgroup2\n41 31 0:38 / /a rw\n", "", nil},
	} {
		h, err := findHierarchies(strings.NewReader(test.mountinfo))
		if err != nil || h.v2 != test.v2 {
			t.Errorf("%s: %+v %v", test.name, h, err)
		}
		for controller, point := range test.v1 {
			if h.v1[controller] != point {
				t.Errorf("%s: %s at %q", test.name, controller, h.v1[controller])
			}
		}
	}
}

// fakeGroups is a cgroup2 mount made of files: what is written can be read back.
func fakeGroups(t *testing.T, controllers string) string {
	t.Helper()
	mount := t.TempDir()
	for _, dir := range []string{"", "nemoclaw", "nemoclaw/x"} {
		if err := os.MkdirAll(filepath.Join(mount, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"cgroup.subtree_control", "memory.max", "cpu.max", "pids.max"} {
			if err := os.WriteFile(filepath.Join(mount, dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(mount, "cgroup.controllers"), []byte(controllers), 0o600); err != nil {
		t.Fatal(err)
	}
	return mount
}

func TestLimitsV2(t *testing.T) {
	mount := fakeGroups(t, "cpu memory pids\n")
	c := &cgroup{v2: filepath.Join(mount, "nemoclaw/x")}
	for _, l := range wantedLimits(policy.Limits{Memory: 1 << 30, CPUs: 1.5}, 8<<30) {
		if err := c.limit(hierarchies{v2: mount}, "nemoclaw", "x", l); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"nemoclaw/x/memory.max": "1073741824", "nemoclaw/x/cpu.max": "150000 100000", "nemoclaw/x/pids.max": "4096",
		"cgroup.subtree_control": "+cpu", "nemoclaw/cgroup.subtree_control": "+cpu"} {
		text, err := os.ReadFile(filepath.Join(mount, name))
		if err != nil || !strings.HasPrefix(string(text), want) {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
}

func TestLimitThatNothingEnforces(t *testing.T) {
	mount := fakeGroups(t, "cpu\n")
	c := &cgroup{v2: filepath.Join(mount, "nemoclaw/x")}
	list := wantedLimits(policy.Limits{Memory: 1 << 30}, 8<<30)
	err := c.limit(hierarchies{v2: mount}, "nemoclaw", "x", list[1])
	if err == nil || !strings.Contains(err.Error(), "the memory controller is neither on cgroup2") {
		t.Error(err)
	}
	if list[0].named || !list[1].named {
		t.Error("the default pids limit counts as the policy's")
	}
}

func TestDefaultLimits(t *testing.T) {
	list := wantedLimits(policy.Limits{}, 8<<30)
	if len(list) != 2 || list[0].v2[0] != [2]string{"pids.max", "4096"} || list[1].v2[0] != [2]string{"memory.max", "6442450944"} || list[0].named || list[1].named {
		t.Errorf("%+v", list)
	}
	if list := wantedLimits(policy.Limits{}, 0); len(list) != 1 {
		t.Errorf("%+v", list)
	}
}

func TestEncodePayload(t *testing.T) {
	b, err := encodePayload(ExecRequest{Args: []string{"git", "status"}, Env: []string{"A=b"}, Dir: "/workspace"})
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Split(policy.SearchPath, ":")
	for i, want := range []int{len(dirs), 2, 1} {
		if n := binary.LittleEndian.Uint32(b[4*i:]); int(n) != want {
			t.Errorf("count %d is %d, not %d", i, n, want)
		}
	}
	want := "/workspace\x00"
	for _, dir := range dirs {
		want += dir + "/git\x00"
	}
	if text := string(b[12:]); text != want+"git\x00status\x00A=b\x00" {
		t.Errorf("%q", text)
	}
	for _, bad := range []ExecRequest{{}, {Args: []string{""}}, {Args: []string{"a\x00b"}}, {Args: []string{"a"}, Env: []string{"\x00"}},
		{Args: []string{"a"}, Dir: "/\x00"}, {Args: []string{"a", strings.Repeat("x", maxPayload)}}} {
		if _, err := encodePayload(bad); err == nil {
			t.Errorf("%d arguments passed", len(bad.Args))
		}
	}
	b, _ = encodePayload(ExecRequest{Args: []string{"./x"}, Dir: "/tmp"})
	if string(b[12:]) != "/tmp\x00./x\x00./x\x00" {
		t.Errorf("%q", b[12:])
	}
}

func TestEnvironment(t *testing.T) {
	host := []string{"SECRET=1", "TERM=xterm", "LANG=de_DE.UTF-8", "SSL_CERT_FILE=/etc/ssl/certs/ca.pem", "PIP_CERT=/root/ca.pem",
		"SSL_CERT_DIR=/etc/ssl/certs:/usr/share/ca", "CURL_CA_BUNDLE=/etc/ssl/private/x", "PATH=/evil", "HOME=/root"}
	env := Environment(host, true, []string{"A=1", "LANG=C", "A=2"})
	for _, want := range []string{"PATH=" + policy.SearchPath, "HOME=/home/agent", "USER=agent", "TMPDIR=/tmp", "TERM=xterm", "LANG=C", "A=2",
		"SSL_CERT_FILE=/etc/ssl/certs/ca.pem", "SSL_CERT_DIR=/etc/ssl/certs:/usr/share/ca"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing", want)
		}
	}
	names := map[string]bool{}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if names[name] {
			t.Errorf("%s is there twice", name)
		}
		names[name] = true
	}
	for _, name := range []string{"SECRET", "PIP_CERT", "CURL_CA_BUNDLE"} {
		if names[name] {
			t.Errorf("%s is there", name)
		}
	}
	if slices.Contains(Environment(host, false, nil), "TERM=xterm") {
		t.Error("TERM without a terminal")
	}
}

func TestEtcFiles(t *testing.T) {
	files := etcFiles("box", "198.18.0.2")
	for name, want := range map[string]string{
		"passwd": "agent:x:1000:1000:agent:/home/agent:/bin/sh\n", "group": "agent:x:1000:\n", "hosts": "127.0.1.1 box\n",
		"hostname": "box\n", "resolv.conf": "nameserver 198.18.0.2\n", "nsswitch.conf": "hosts: files dns\n",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: %q", name, files[name])
		}
	}
	if files["machine-id"] == etcFiles("box", "")["machine-id"] || len(files["machine-id"]) != 33 {
		t.Error("machine-id is not new for each sandbox")
	}
}

func TestLost(t *testing.T) {
	watched := []watchedMount{{id: 79, path: "/a"}, {id: 7, path: "/b"}, {id: 790, path: "/c"}, {id: 67, moves: []int32{1, 2}, path: "/d"}}
	gone := lost(watched, []byte("67 43 0:42 / / ro - tmpfs none rw\n79 74 0:43 /null /a ro - tmpfs none rw\n"), func(wd int32) bool { return wd == 2 })
	if diff := cmp.Diff(watched[1:], gone, cmp.AllowUnexported(watchedMount{})); diff != "" {
		t.Error(diff)
	}
}

func TestSpecCheck(t *testing.T) {
	for _, name := range []string{"", "-a", "A", "a/b", "..", strings.Repeat("a", 64)} {
		spec := Spec{Name: name, Policy: &policy.Compiled{}, RunDir: "/r", CgroupParent: "p", Nameserver: "1.2.3.4"}
		if err := spec.check(); err == nil {
			t.Errorf("the name %q passed", name)
		}
	}
}

func TestDiskUse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]DiskUse{
		"": {},
		"8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n253:0 rbytes=4 wbytes=1 rios=1 wios=1\n": {4100, 11},
		"8:0 Read 4096\n8:0 Write 10\n8:0 Sync 4106\n8:0 Total 4106\nTotal 4106\n":                         {4096, 10},
	} {
		if got := diskUse(text); *got != want {
			t.Errorf("%q: %+v, want %+v", text, *got, want)
		}
	}
}
