package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Options are what `nemoclaw run` is told. Stdin, Stdout, Stderr and Command are needed; everything else has a default.
type Options struct {
	PolicyFile string // "": policy.Initial
	Workspace  string // "": the current directory
	Image      string // whose files are the system inside, as image.Store.Unpack takes it; "": the host's
	Images     string // directory of the unpacked ones
	Name       string // "": the policy's name or "run", with a suffix
	Command    []string
	Env        []string // NAME=VALUE

	Learn      string   // "": nothing is learnt; else where the learnt policy is written
	Generalise []string // GeneraliseDirs, GeneraliseSubdomains

	JSONEvents   string // a file, or "fd:N"
	AuditDir     string
	KeyDir       string // of the key that the audit log is signed with: the daemon's
	RunDir       string
	BPFFS        string
	CgroupParent string
	Resolver     netip.AddrPort // upstream DNS; invalid: the host's resolv.conf
	HostsFile    string         // "": /etc/hosts
	NoPrompt     bool
	Quiet        bool

	Stdin, Stdout, Stderr *os.File

	// Signals takes over the signals that are the command's to get, not this process's to die from. It is called once
	// the sandbox is under way. Nil: there are none.
	Signals func() <-chan os.Signal
}

func (o *Options) setDefaults() {
	for _, d := range []struct {
		p     *string
		value string
	}{
		{&o.AuditDir, config.DefaultAudit}, {&o.KeyDir, config.DefaultAuditKey}, {&o.RunDir, config.DefaultRun}, {&o.BPFFS, config.DefaultBPFFS}, {&o.CgroupParent, config.DefaultParent},
		{&o.Images, filepath.Join(config.DefaultState, "images")},
	} {
		if *d.p == "" {
			*d.p = d.value
		}
	}
}

// loadPolicy returns the policy and the name to call it by.
func (o *Options) loadPolicy() (*policy.Compiled, string, error) {
	if o.PolicyFile != "" {
		c, err := policy.Load(o.PolicyFile)
		return c, o.PolicyFile, err
	}
	const name = "the initial policy"
	p, err := policy.Parse("initial", policy.Initial())
	if err != nil {
		return nil, name, err
	}
	c, err := policy.Compile(p)
	return c, name, err
}

// sandboxName returns the sandbox's name. Without --name it gets a suffix, so that one policy can run several times.
func (o *Options) sandboxName(c *policy.Compiled) (string, error) {
	if o.Name != "" {
		if err := policy.ValidName(o.Name); err != nil {
			return "", fmt.Errorf("--name %s: %w", strconv.Quote(o.Name), err)
		}
		return o.Name, nil
	}
	base := c.Name
	if base == "" {
		base = "run"
	}
	var b [4]byte
	rand.Read(b[:]) // never fails: it ends the program instead
	suffix := "-" + hex.EncodeToString(b[:])
	const maxName = 63
	if len(base) > maxName-len(suffix) {
		base = strings.TrimRight(base[:maxName-len(suffix)], "-")
	}
	return base + suffix, nil
}

// systemDirs can't be, hold or lie above a workspace: a program that can write there owns the machine.
var systemDirs = []string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys",
	"/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/libx32", "/usr/local/bin", "/usr/local/lib", "/usr/local/sbin", "/usr/sbin",
}

// shared can't be a workspace as a whole; a directory in them may be one.
var shared = []string{"/home", "/opt", "/run", "/srv", "/tmp", "/var/lib", "/var/spool", "/var/tmp"}

// workspace resolves and checks the directory that becomes /workspace.
func (o *Options) workspace() (string, error) {
	dir := o.Workspace
	if dir == "" {
		var err error
		if dir, err = os.Getwd(); err != nil {
			return "", fmt.Errorf("workspace: the current directory: %w; name one with --workspace", err)
		}
	}
	return CheckWorkspace(dir, []OwnDir{
		{o.AuditDir, "audit log"}, {o.KeyDir, "audit key"}, {config.DefaultState, "state"}, {o.RunDir, "run directory"}, {o.BPFFS, "BPF programs"},
	})
}

// OwnDir is a directory of nemoclaw's own, which no sandbox may write to.
type OwnDir struct{ Path, What string }

// CheckWorkspace resolves a directory that is to become /workspace and says why it can't: what a sandbox could write there
// would be the machine's, a person's or nemoclaw's own.
func CheckWorkspace(dir string, own []OwnDir) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("workspace %s: %w", dir, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("workspace %s: there is no such directory; make it, or name another with --workspace", dir)
	}
	if err != nil {
		return "", fmt.Errorf("workspace %s: %w", dir, err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", fmt.Errorf("workspace %s: %w", dir, err)
	}
	if !st.IsDir() {
		return "", fmt.Errorf("workspace %s: is not a directory; name one with --workspace", dir)
	}
	for _, s := range systemDirs {
		if within(real, s) || within(s, real) {
			return "", fmt.Errorf("workspace %s: the sandbox may write to its workspace, and this is, or holds, %s of this machine; name a directory of a project with --workspace", real, s)
		}
	}
	for _, s := range shared {
		if within(s, real) {
			return "", fmt.Errorf("workspace %s: the sandbox may write to its workspace, and this is, or holds, %s of this machine; name a directory of a project with --workspace", real, s)
		}
	}
	if real == "/root" || filepath.Dir(real) == "/home" {
		return "", fmt.Errorf("workspace %s: this is a home directory: its keys and the files that its shells read would be the sandbox's; name a directory of a project with --workspace", real)
	}
	for _, own := range append(own, OwnDir{config.DefaultDir, "policies"}) {
		p := resolved(own.Path)
		if within(real, p) || within(p, real) {
			return "", fmt.Errorf("workspace %s: the sandbox may write to its workspace, and this is, or holds, nemoclaw's own %s (%s); name another directory with --workspace", real, own.What, own.Path)
		}
	}
	return real, nil
}

// within reports whether path is dir or below it. Both are absolute and clean.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// absolute makes a path absolute. That it can't be (the current directory is gone) shows when it is used.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// resolved follows the symbolic links of a path of which the last parts may be missing.
func resolved(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	for dir, rest := abs, ""; ; {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return abs
		}
		rest, dir = filepath.Join(filepath.Base(dir), rest), parent
	}
}

// openEvents opens where --json-events points to; nil when it is not given. A file in the workspace is refused: what is
// inside could rewrite the events, or have put a link there to a file of the host's.
func (o *Options) openEvents(workspace string) (*os.File, error) {
	if o.JSONEvents == "" {
		return nil, nil
	}
	num, isFD := strings.CutPrefix(o.JSONEvents, "fd:")
	if !isFD {
		if within(resolved(filepath.Dir(o.JSONEvents)), workspace) {
			return nil, fmt.Errorf("--json-events %s: this is in the workspace, where the command can change it; name a file elsewhere", o.JSONEvents)
		}
		f, err := os.OpenFile(o.JSONEvents, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("--json-events: %w", err)
		}
		return f, nil
	}
	n, err := strconv.ParseUint(num, 10, 31)
	if err != nil {
		return nil, fmt.Errorf("--json-events %q: want a file, or fd:N with the number of an open descriptor", o.JSONEvents)
	}
	// A copy of our own, so that closing it at the end doesn't take standard output away from the summary. That it can
	// be written shows now rather than with the first decision.
	flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY {
		err = errors.New("it is open for reading only")
	}
	var fd int
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return nil, fmt.Errorf("--json-events fd:%d: %w; the caller must open the descriptor for writing", n, err)
	}
	return os.NewFile(uintptr(fd), o.JSONEvents), nil
}
