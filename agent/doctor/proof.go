package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
)

// parent is the cgroup of what this process tries out: no daemon has the same, and no other doctor.
var parent = "nemoclaw-doctor-" + strconv.Itoa(os.Getpid())

func (e *examiner) loaderConfig(bpffs string) loader.Config {
	return loader.Config{BPFFS: bpffs, Cgroup2: e.o.Config.Cgroup2, Parent: parent}
}

// makeScratch makes a directory with a BPF file system at bpf, once: loading the programs takes longer than all other checks, so
// what one check has loaded the next one uses.
func (e *examiner) makeScratch() error {
	if e.scratch != "" {
		return nil
	}
	dir, err := os.MkdirTemp("", "nemoclaw-doctor-")
	if err != nil {
		return err
	}
	e.scratch = dir
	return os.Mkdir(filepath.Join(dir, "bpf"), 0o700)
}

// removeScratch takes it away, and everything that was tried out there.
func (e *examiner) removeScratch() error {
	if e.scratch == "" {
		return nil
	}
	bpffs := filepath.Join(e.scratch, "bpf")
	err := loader.Unload(e.loaderConfig(bpffs))
	if at, failed := loader.ParentPath(e.loaderConfig(bpffs)); failed == nil && err == nil {
		err = sandbox.RemoveParents(filepath.Base(at))
	}
	// Whoever copies this mount namespace meanwhile keeps the mount for a moment.
	if e := unix.Unmount(bpffs, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
		err = errors.Join(err, fmt.Errorf("unmount %s: %w", bpffs, e))
	}
	return errors.Join(err, os.RemoveAll(e.scratch))
}

// bpf loads the programs. They stay for sandbox.
func (e *examiner) bpf() Finding {
	err := e.makeScratch()
	if err == nil {
		var l *loader.Loader
		if l, err = loader.Open(e.loaderConfig(filepath.Join(e.scratch, "bpf"))); err == nil {
			err = l.Close()
		}
	}
	if err != nil {
		return failed(plain(err), "these programs judge every connection and every exec of a sandbox", "see the error; `nemoclaw debug` gathers what a report needs")
	}
	return ok("the programs load and attach to a cgroup")
}

// inThread calls f in a thread that ends with it, so that what f does to the thread stays there.
func inThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

func (e *examiner) namespaces() Finding {
	const why = "a sandbox is made of them"
	kinds := []struct {
		name string
		flag uintptr
	}{
		{"user", unix.CLONE_NEWUSER}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}, {"net", unix.CLONE_NEWNET},
		{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"cgroup", unix.CLONE_NEWCGROUP},
	}
	var made []string
	for _, k := range kinds {
		if err := inThread(func() error { return makeNamespace(k.flag) }); err != nil {
			remedy := "sysctl -w user.max_" + k.name + "_namespaces=15000; in a container: --privileged"
			return failed("no "+k.name+" namespace can be made: "+err.Error(), why, remedy)
		}
		made = append(made, k.name)
	}
	return ok("made one of each: " + strings.Join(made, ", "))
}

// makeNamespace has a process made in a new namespace. It is told to execute what can't be: when it says so, it was there.
func makeNamespace(flag uintptr) error {
	// A user namespace can't be made in a chroot, and entering the own mount namespace leaves one.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/proc/thread-self/ns/mnt: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(own, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	attr := &syscall.SysProcAttr{Cloneflags: flag}
	if flag == unix.CLONE_NEWUSER {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
	}
	pid, err := syscall.ForkExec("/proc/version/none", []string{"none"}, &syscall.ProcAttr{Sys: attr})
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return nil
	case err == nil:
		return fmt.Errorf("process %d runs, and there is nothing to run", pid)
	}
	return fmt.Errorf("clone: %w", err)
}

func (e *examiner) nftables() Finding {
	err := inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		netns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(netns)
		wire, err := loader.Tripwire(netns, func(loader.TripEvent) {})
		if err != nil {
			return err
		}
		return wire.Close()
	})
	if err != nil {
		return warning(plain(err), "the tripwire in a sandbox's network counts what should never be there; it decides nothing, and sandboxes start without it",
			"modprobe -a nf_tables nft_limit nft_log nfnetlink_log")
	}
	return ok("a table with counters and NFLOG can be made")
}

// sandbox runs one: what all checks before it are for. It is the last that tries something out.
func (e *examiner) sandbox() Finding {
	const line = "nemoclaw doctor"
	said, err := e.runLine(line)
	if err = errors.Join(err, e.removeScratch()); err == nil && said != line {
		err = fmt.Errorf("`echo %s` inside printed %.200q", line, said)
	}
	if err != nil {
		return failed(plain(err), "no sandbox runs here", "see the error, and what failed above")
	}
	return ok("one was made, a command ran in it, and it was removed")
}

// runLine prints a line from inside a sandbox, and returns what came.
func (e *examiner) runLine(line string) (said string, err error) {
	if err := e.makeScratch(); err != nil {
		return "", err
	}
	dir := e.scratch
	for _, d := range []string{"workspace", "run", "audit"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return "", err
		}
	}
	out, err := capture(func(null, out *os.File) error {
		_, err := agent.Run(agent.Options{
			Command: []string{"sh", "-c", "echo " + line}, Workspace: filepath.Join(dir, "workspace"), RunDir: filepath.Join(dir, "run"),
			AuditDir: filepath.Join(dir, "audit"), KeyDir: filepath.Join(dir, "key"), BPFFS: filepath.Join(dir, "bpf"), CgroupParent: parent,
			NoPrompt: true, Quiet: true, Stdin: null, Stdout: out, Stderr: out,
		})
		return err
	})
	return strings.TrimSpace(string(out)), err
}

// capture calls f with an empty input and an output, and returns what was written there.
func capture(f func(null, out *os.File) error) ([]byte, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out bytes.Buffer
	copied := make(chan error)
	go func() {
		_, err := io.Copy(&out, io.LimitReader(r, 1<<16))
		copied <- err
	}()
	err = f(null, w)
	w.Close()
	err = errors.Join(err, <-copied)
	return out.Bytes(), err
}
