//go:build e2e

package attacks

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"golang.org/x/sys/unix"
)

// An attempt is one way out. Natively it must work, and do its harm; inside it must not.
type attempt struct {
	name string // as docs/levels.md has it
	// What the probe does, in a directory of its own. Names in braces are the scene's: {out} is a directory of the host that the
	// sandbox has no business with, {ro} one that it may read; both hold a file `secret`. {ws} is the workspace.
	do   string
	user bool // natively as an ordinary user; else as root
	raw  bool // in the starter's directory instead
	in   int  // natively in new namespaces of these kinds, because the attempt would disturb the machine

	native string // the outcome natively: "" for what works
	note   string // what "works" means inside, for the table
	inside string // the outcome inside: an errno, or words of the error; "" for what seems to work and does no harm

	record   string // "plane object" of the one record that it leaves; with a + before it of one or more
	landlock bool   // Landlock refuses it: recorded where the kernel's audit is on

	setup func(s *scene)                  // makes the victim
	harm  func(s *scene, out string) bool // whether the victim was hurt; nil: that it worked is the harm
	open  string                          // it works inside as well: why, and what would stop it
	full  string                          // of what is open at level static: its errno at level full
}

// atFull says that BPF LSM judges files here. What is refused then is refused by another part, so another errno and other records are
// as good; that nothing works that did not before is what counts.
var atFull = os.Getenv("NEMOCLAW_LEVEL") == "full"

// A scene is where one attempt takes place, once natively and once inside.
type scene struct {
	testing.TB
	dir    string            // everything of this scene on the host
	ro     string            // what {ro} is
	ws     string            // its part of the workspace, as the host sees it
	token  string            // what is in {out}/secret and in {ro}/secret
	vars   map[string]string // what the names in braces stand for
	inside bool
	uid    int             // natively the attacker's
	ended  <-chan struct{} // closed when the run has ended

	victim *victim
	mail   *net.UnixConn
}

func (s *scene) set(name, value string) { s.vars["{"+name+"}"] = value }

func (s *scene) out() string { return filepath.Join(s.dir, "out") }

// write makes a file that everybody may write.
func (s *scene) write(path, content string) {
	s.Helper()
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		s.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		s.Fatal(err)
	}
}

// expand puts in what names in braces stand for.
func (s *scene) expand(text string) string {
	var pairs []string
	for name, value := range s.vars {
		pairs = append(pairs, name, value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// leaked: the attempt shows the secret.
func leaked(s *scene, out string) bool { return strings.Contains(out, s.token) }

// changed: something in {out} or {ro} is not what it was.
func changed(s *scene, _ string) bool { return s.state() != s.vars["state"] }

// state describes everything in {out} and {ro}.
func (s *scene) state() string {
	var b strings.Builder
	for _, dir := range []string{s.out(), s.ro} {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err = errors.Join(err, unix.Lstat(path, &st)); err != nil {
				return err
			}
			content, _ := os.ReadFile(path) // of what is a file
			names := make([]byte, 1024)
			n, _ := unix.Llistxattr(path, names)
			fmt.Fprintf(&b, "%s %o %d %d %q %s\n", path, st.Mode, st.Uid, st.Nlink, content, hex.EncodeToString(names[:max(n, 0)]))
			return nil
		})
	}
	return b.String()
}

// A plane is a table of attempts that one sandbox stands.
type plane struct {
	name     string
	files    string // what the plane adds to the policy that every sandbox of the suite has: rules of filesystem.allow,
	hide     string // of filesystem.deny,
	commands string // of process.allow, and further keys of process,
	limits   string // process.limits,
	allow    string // rules of network.allow,
	network  string // and further keys of network
	env      []string
	start    func(p *place) // more of what the sandbox is started with
	host     func(p *place) // what the host has, beside the scenes
	refused  string         // the policy is no policy: the start is refused with these words
	stopped  string         // the attempt makes nemoclaw stop the sandbox, with these words
	yaml     string         // more of the policy
	blind    bool           // there are more refusals than are recorded one by one: the rest are counted, the canary's too
	alone    bool           // the sandbox does not outlive the attempts: no canary after them
	table    []attempt
}

// A place is where a plane's attempts take place: a directory of the host and its workspaces.
type place struct {
	testing.TB
	dir   string
	ws    string // the workspace
	vars  map[string]string
	ended chan struct{} // closed when the run has ended
	cmd   *exec.Cmd     // natively: the attempt's; inside: nemoclaw's
}

const (
	user       = 1234 // the ordinary user
	canaryName = "canary.attacks.test"
	canaryPort = 7
	denied     = "203.0.113.250:9" // nobody is allowed to connect here
)

// outcome says in one line what the probe printed.
func outcome(o harness.Outcome) string { return fmt.Sprintf("%q (shown: %.300q)", o.Errno, o.Out) }

// policy writes the plane's policy.
func (p *plane) policy(vars map[string]string) string {
	section := func(name, items string) string {
		if items == "" {
			return ""
		}
		return "  " + name + ":\n" + items
	}
	var pairs []string
	for name, value := range vars {
		pairs = append(pairs, name, value)
	}
	return strings.NewReplacer(pairs...).Replace("filesystem:\n  allow:\n" +
		"    - {path: /workspace, permissions: [read, write]}\n    - {path: /tmp, permissions: [read, write]}\n    - {path: {place}/ro, permissions: [read]}\n" + p.files +
		section("deny", p.hide) +
		"process:\n  allow:\n    - {command: /workspace/probe}\n" + p.commands + p.limits +
		"network:\n  allow:\n" + fmt.Sprintf("    - {domain: %s, ports: [%d], protocol: tcp}\n", canaryName, canaryPort) + p.allow + p.network + p.yaml)
}

// scene makes the scene of one attempt.
func (p *place) scene(a *attempt, id string, inside bool) *scene {
	s := &scene{TB: p.TB, dir: filepath.Join(p.dir, "scenes", id), ro: filepath.Join(p.dir, "ro", id), ws: filepath.Join(p.ws, id), inside: inside, uid: p.owner(a, inside), ended: p.ended, token: "token-of-" + id + strconv.Itoa(os.Getpid()), vars: map[string]string{}}
	for name, value := range p.vars {
		s.vars[name] = value
	}
	for _, dir := range []string{s.dir, s.out(), s.ro, s.ws} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			p.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			p.Fatal(err)
		}
	}
	s.write(filepath.Join(s.out(), "secret"), s.token)
	s.write(filepath.Join(s.ro, "secret"), s.token)
	s.set("out", s.out())
	s.set("ro", s.ro)
	s.set("token", s.token)
	s.set("ws", p.ws)
	s.set("d", s.ws)
	s.set("resolver", harness.Resolver.Addr().String())
	s.set("init", strconv.Itoa(os.Getpid()))
	if inside {
		s.set("ws", "/workspace")
		s.set("d", "/workspace/"+id)
		s.set("init", "1")
		s.set("proxy", "proxy.nemoclaw.internal")
		s.set("resolver", "198.18.0.2")
		s.set("home", "/home/agent")
	}
	if a.setup != nil {
		a.setup(s)
	}
	if err := chownAll(s.ws, p.owner(a, inside)); err != nil {
		p.Fatal(err)
	}
	s.vars["state"] = s.state()
	return s
}

// owner of what an attempt works on: the workspace's is root.
func (p *place) owner(a *attempt, inside bool) int {
	if a.user && !inside {
		return user
	}
	return 0
}

func chownAll(dir string, uid int) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err = errors.Join(err, unix.Lstat(path, &st)); err != nil || uid == 0 {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// inWorkspaceOf says where the files of a plane's environment are inside.
func inWorkspaceOf(env []string) (out []string) {
	for _, kv := range env {
		out = append(out, strings.ReplaceAll(kv, "{ws}", "/workspace"))
	}
	return out
}

// line is what the probe is told.
func (a *attempt) line(s *scene) string {
	if a.raw {
		return s.expand(a.do)
	}
	return s.expand("cd {d} && " + a.do)
}

// natively runs an attempt where nothing stops it. It gives the outcome and whether harm was done.
func (p *place) natively(pl *plane, a *attempt, id string) {
	p.Helper()
	s := p.scene(a, id, false)
	p.cmd = exec.Command(harness.W.ProbeBin, a.line(s))
	p.cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.ws, "TMPDIR=/tmp"},
		strings.Split(s.expand(strings.Join(pl.env, "\n")), "\n")...)
	p.cmd.Dir = s.ws
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUTS | uintptr(a.in), Unshareflags: unix.CLONE_NEWNS, Setsid: true}
	if a.user {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: user, Gid: user}
	}
	if pl.start != nil {
		pl.start(p)
	}
	var said, noise strings.Builder
	p.cmd.Stdout = &said
	if p.cmd.Stderr == nil {
		p.cmd.Stderr = &noise
	}
	p.cmd.WaitDelay = time.Second // what it left behind may hold the pipes
	if err := p.cmd.Start(); err != nil {
		p.Fatal(err)
	}
	watchdog := time.AfterFunc(30*time.Second, func() { _ = p.cmd.Process.Kill() })
	err := p.cmd.Wait()
	watchdog.Stop()
	var o harness.Outcome
	if json.Unmarshal([]byte(firstLine(said.String())), &o) != nil {
		o.Errno = fmt.Sprint(err)
		o.Out = said.String() + noise.String()
	}
	if o.Errno != a.native && atFull { // a machine for tests lacks some devices, and is slow for what has to win a race
		p.Logf("%s: natively it gave %s", a.name, outcome(o))
		return
	}
	if o.Errno != a.native {
		p.Errorf("%s: not live: natively it gave %s", a.name, outcome(o))
		return
	}
	if a.harm != nil && !a.harm(s, o.Out) {
		p.Errorf("%s: not live: natively it worked (%s), and the victim is whole", a.name, outcome(o))
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
