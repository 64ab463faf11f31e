package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

const policy = harness.Files + `process:
  allow:
    - {command: /workspace/bench}
    - {command: "true"}
    - {command: git}
    - {command: tar}
network:
  allow:
    - {domain: tcp.bench.test, ports: [8080], protocol: tcp}
    - {domain: http.bench.test, ports: [8080], protocol: http}
`

// box prepares a run whose workspace holds this program as a worker.
func (b *bench) box(policy string, argv ...string) *harness.Session {
	s := harness.W.Prepare(b, harness.Box{Policy: policy, Flags: []string{"--quiet"}}, argv...)
	b.InstallSelf(filepath.Join(s.Workspace, "bench"))
	s.Cmd.Stdout, s.Cmd.Stderr = nil, nil
	return s
}

// measureStart: start, /bin/true, exit. The programs are loaded by the first round, which doesn't count.
func measureStart(b *bench) {
	ws := b.TempDir()
	bwrap := []string{"bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--symlink", "usr/bin", "/bin",
		"--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--bind", ws, "/workspace", "/bin/true"}
	argv := [][]string{bwrap, b.box(policy, "/bin/true").Cmd.Args, {"/bin/true"}}
	b.contest("start, /bin/true, exit", "µs", []string{"bubblewrap", "nemoclaw", "native"}, func(i int) float64 { return b.start(argv[i]) })
}

// measureFiles: the same worker inside a sandbox and outside, on the same files.
func measureFiles(b *bench) {
	s := b.box(policy, "/workspace/bench", "work")
	// A tree each: git remembers owners, which differ inside, so on one tree each would spoil the other's index.
	b.makeTree(s.Workspace, "native")
	b.makeTree(s.Workspace, "inside")
	inside := b.startWorker("nemoclaw", s.Cmd)
	outside := exec.Command(filepath.Join(s.Workspace, "bench"), "work")
	outside.Dir = s.Workspace
	native := b.startWorker("native", outside)
	alone := exec.Command(filepath.Join(s.Workspace, "bench"), "landlock", s.Workspace)
	alone.Dir = s.Workspace
	alone.Env = append(os.Environ(), "HOME="+s.Workspace) // git wants to read its settings
	landlock := b.startWorker("native", alone)
	workers := []*worker{native, landlock, inside}
	places := []string{filepath.Join(s.Workspace, "native"), filepath.Join(s.Workspace, "native"), "/workspace/inside"}
	for _, j := range []struct {
		what, job string
		n         int
		arg       string
	}{
		{"open + close in the workspace", "open", 20000, "native/d3/f3"},
		{"open + close below /usr", "open", 20000, "/usr/bin/git"},
		{"stat in the workspace", "stat", 20000, "native/d3/f3"},
		{"fork + exec of /bin/true", "exec", 40, "/bin/true"},
		{"git status, 1,000 files", "exec", 5, "git -C PLACE status --porcelain"},
		{"tar of the same tree", "exec", 5, "tar -cf /dev/null -C PLACE ."},
	} {
		b.contest(j.what, "µs", []string{"native", "Landlock alone", "nemoclaw"}, func(i int) float64 {
			return workers[i].do(j.job, j.n, strings.ReplaceAll(j.arg, "PLACE", places[i]))
		})
	}
}

// makeTree makes a git repository of 1,000 small files.
func (b *bench) makeTree(ws, name string) {
	tree := filepath.Join(ws, name)
	for d := range 20 {
		dir := filepath.Join(tree, fmt.Sprintf("d%d", d))
		b.Must(os.MkdirAll(dir, 0o755))
		for f := range 50 {
			b.Must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", f)), []byte(strings.Repeat("text\n", 200)), 0o644))
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=b", "-c", "user.email=b@bench.test", "commit", "-qm", "tree"}} {
		if out, err := exec.Command("git", append([]string{"-C", tree}, args...)...).CombinedOutput(); err != nil {
			b.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
}

// measureProxy: the same client directly, through HAProxy in TCP mode, and inside a sandbox through the proxy.
func measureProxy(b *bench) {
	server, _ := harness.W.Addr()
	relay, _ := harness.W.Addr()
	b.background("/proc/self/exe", "serve", server.String()+":8080")
	conf := filepath.Join(b.TempDir(), "haproxy.cfg")
	b.Must(os.WriteFile(conf, fmt.Appendf(nil, `global
  maxconn 4096
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind %s:8080
  default_backend s
backend s
  server s1 %s:8080
`, relay, server), 0o644))
	b.background("haproxy", "-db", "-q", "-f", conf)
	b.waitFor(server.String() + ":8080")
	b.waitFor(relay.String() + ":8080")
	for _, name := range []string{"tcp.bench.test", "http.bench.test"} {
		harness.W.DNS.Set(name, server)
	}
	s := b.box(policy, "/workspace/bench", "work")
	inside := b.startWorker("nemoclaw", s.Cmd)
	native := b.startWorker("native", exec.Command("/proc/self/exe", "work"))
	urls := []string{"http://" + server.String() + ":8080", "http://" + relay.String() + ":8080", "http://tcp.bench.test:8080", "http://http.bench.test:8080"}
	workers := []*worker{native, native, inside, inside}
	for _, j := range []struct {
		what, job, path string
		n               int
	}{
		{"HTTP, keep-alive", "keepalive", "/small", 1500},
		{"HTTP, a connection each", "connect", "/small", 300},
		{"HTTP, a body of 16 MiB", "body", "/large", 6},
	} {
		b.contest(j.what, "µs", []string{"direct", "HAProxy, TCP", "nemoclaw, `tcp`", "nemoclaw, `http`"}, func(i int) float64 {
			return workers[i].do(j.job, j.n, urls[i]+j.path)
		})
	}
}

// measureDNS: answers from memory, as dnsmasq gives them.
func measureDNS(b *bench) {
	addr, _ := harness.W.Addr()
	harness.W.DNS.Set("tcp.bench.test", addr)
	server, _ := harness.W.Addr()
	b.background("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=",
		"--bind-interfaces", "--listen-address="+server.String(), "--address=/tcp.bench.test/"+addr.String())
	other, _ := harness.W.Addr()
	conf := filepath.Join(b.TempDir(), "unbound.conf")
	b.Must(os.WriteFile(conf, fmt.Appendf(nil, `server:
  interface: %s
  access-control: 0.0.0.0/0 allow
  do-daemonize: no
  use-syslog: no
  chroot: ""
  username: ""
  pidfile: ""
  module-config: "iterator"
  local-data: "tcp.bench.test. 60 IN A %s"
remote-control:
  control-enable: no
`, other, addr), 0o644))
	b.background("unbound", "-c", conf)
	b.waitFor(server.String() + ":53")
	b.waitFor(other.String() + ":53")
	s := b.box(policy, "/workspace/bench", "work")
	inside := b.startWorker("nemoclaw", s.Cmd)
	native := b.startWorker("native", exec.Command("/proc/self/exe", "work"))
	workers := []*worker{native, native, inside}
	servers := []string{server.String(), other.String(), "198.18.0.2"}
	b.contest("DNS answers", "/s", []string{"dnsmasq", "unbound", "nemoclaw"}, func(i int) float64 {
		return workers[i].do("dns", 20000, servers[i]+":53 tcp.bench.test")
	})
}

func (b *bench) waitFor(addr string) {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("nothing answers at %s: %v", addr, err)
		}
	}
}
