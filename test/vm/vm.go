// Package vm starts whole machines for tests: QEMU, one of Debian's kernels, a Debian root with systemd or without, in which a test
// runs commands or a test program as root, and which it may reboot. There the kernel is a released one, with BPF LSM, and PID 1 is a
// real one; the machine that runs the tests has neither to be Debian nor to be able to do what is tested.
//
// A machine has no network, and its disk is the test's own: changes go to an overlay that has no name. Everything ends with the
// test process, however that ends. The package imports nothing of the product but what its two programs say to each other.
package vm

import (
	"cmp"
	"encoding/gob"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/vm/wire"
)

// How long the host waits before it says that a machine hangs. They are far above what is needed, even when the processors are
// shared with others: a boot takes about 8 seconds.
const (
	bootLimit    = 5 * time.Minute
	commandLimit = 15 * time.Minute
	powerLimit   = 2 * time.Minute
)

// Options say what a machine is to be like. The zero value is the usual one.
type Options struct {
	Kernel string // one of Kernels; "6.12" when it is empty
	Arch   string // "amd64", also when it is empty, or "arm64", which is always light
	// Light is without systemd: the guest program is PID 1, and the machine is up in a few seconds.
	Light bool
	// NoBPFLSM leaves BPF out of the kernel's security modules, as Ubuntu's kernels do: the level is static there.
	NoBPFLSM bool
	// CountInstructions makes the machine's clock count the instructions of its one processor: a nanosecond each. Times can be compared
	// then, whatever else the host does.
	CountInstructions bool
}

// Machine is a machine that runs. Its methods fail the test when the machine does not do as asked; use them in the test's goroutine.
type Machine struct {
	Kernel string   // the release that runs, as uname says it
	Env    []string // NAME=VALUE, of test programs

	t            testing.TB
	opts         Options
	images       string
	disk, initrd *os.File
	qemu         *qemu
	log          console
	used         time.Duration // of the host's processors, until its last boot
	in           *gob.Decoder
	out          *gob.Encoder
}

// Start starts a machine and waits until it is up: systemd, where there is one, has reached multi-user.target. It ends with the test; when that has failed, the end of
// the console's output is shown.
func Start(t testing.TB, o Options) *Machine {
	t.Helper()
	m := &Machine{t: t}
	if err := m.prepare(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.qemu != nil {
			m.qemu.stop()
			m.used += m.qemu.used
			t.Logf("the machine took %.1f s of the processors", m.used.Seconds())
		}
		m.disk.Close()
		m.initrd.Close()
		if trouble := m.log.trouble(); trouble != "" {
			t.Errorf("the machine's kernel was in trouble:\n%s", trouble)
		} else if t.Failed() {
			t.Logf("the console of the machine, its end:\n%s", tail(m.Log(), 60))
		}
	})
	m.boot()
	return m
}

// prepare makes what QEMU starts a machine from.
func (m *Machine) prepare(o Options) error {
	o.Kernel, o.Arch = cmp.Or(o.Kernel, "6.12"), cmp.Or(o.Arch, "amd64")
	o.Light = o.Light || o.Arch == "arm64"
	m.opts = o
	var err error
	if m.images, err = images(); err != nil {
		return err
	}
	build, ok := guests[o.Arch]
	if !ok {
		return fmt.Errorf("no machine is an %q", o.Arch)
	}
	guest, err := build()
	if err != nil {
		return err
	}
	if m.initrd, err = initramfs(guest, filepath.Join(m.images, o.Arch, "modules-"+o.Kernel)); err != nil {
		return err
	}
	m.disk, err = overlay(filepath.Join(m.images, o.Arch, "root.img"))
	return err
}

// Run runs a line of bash as root, with nothing on its standard input, and returns what it printed and its exit status.
func (m *Machine) Run(line string) (stdout, stderr string, status int) {
	m.t.Helper()
	r := m.ask(wire.Command{Run: line}, line)
	return string(r.Stdout), string(r.Stderr), r.Status
}

// Must runs a line of bash that has to end with status 0, and returns its standard output.
func (m *Machine) Must(line string) string {
	m.t.Helper()
	stdout, stderr, status := m.Run(line)
	if status != 0 {
		m.t.Fatalf("in the machine: %s\nexit status %d\nstdout: %s\nstderr: %s", line, status, stdout, stderr)
	}
	return stdout
}

// Copy copies a file of the host, with its mode, to a path in the machine, whose directories are made.
func (m *Machine) Copy(from, to string) {
	m.t.Helper()
	info, err := os.Stat(from)
	if err != nil {
		m.t.Fatal(err)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	m.ask(wire.Command{Write: &wire.File{Path: to, Mode: uint32(info.Mode().Perm()), Data: data}}, "writing "+to)
}

// Reboot reboots the machine, by systemd where there is one, and waits until it is up again.
func (m *Machine) Reboot() {
	m.t.Helper()
	line := "systemctl reboot >/dev/console 2>&1"
	if m.opts.Light {
		line = "sync; echo b >/proc/sysrq-trigger"
	}
	// No answer is waited for: systemd may be quicker than the guest.
	if err := m.out.Encode(wire.Command{Run: line}); err != nil {
		m.t.Fatalf("in the machine: %s: %v", line, err)
	}
	if !m.qemu.wait(powerLimit) {
		m.t.Fatalf("the machine has not gone down within %s of %q", powerLimit, line)
	}
	m.qemu.port.Close()
	m.used += m.qemu.used
	m.boot()
}

// PowerCut takes the machine's power away and starts it again: what it had not written to its disk is lost.
func (m *Machine) PowerCut() {
	m.t.Helper()
	m.qemu.stop()
	m.used += m.qemu.used
	m.boot()
}

// Log is everything that the consoles of all boots have shown.
func (m *Machine) Log() string { return m.log.String() }

// boot starts QEMU on the machine's disk and waits for the guest's first word.
func (m *Machine) boot() {
	m.t.Helper()
	start := time.Now()
	var err error
	if m.qemu, err = startQEMU(m.opts, m.opts.processor(), m.images, m.disk, m.initrd, &m.log); err != nil {
		m.t.Fatal(err)
	}
	m.in, m.out = gob.NewDecoder(m.qemu.port), gob.NewEncoder(m.qemu.port)
	var hello wire.Hello
	if err := m.within(bootLimit, func() error { return m.in.Decode(&hello) }); err != nil {
		m.t.Fatalf("starting a machine with kernel %s: %v", m.opts.Kernel, err)
	}
	m.Kernel = hello.Release
	m.t.Logf("a machine with kernel %s is up after %.1f s", m.Kernel, time.Since(start).Seconds())
}

func (m *Machine) ask(c wire.Command, what string) wire.Result {
	m.t.Helper()
	return m.askFor(c, what, func([]byte) {})
}

// askFor asks for a command and hands on what it prints while it runs.
func (m *Machine) askFor(c wire.Command, what string, printed func([]byte)) wire.Result {
	m.t.Helper()
	start := time.Now()
	var r wire.Result
	err := m.within(commandLimit, func() error {
		if err := m.out.Encode(c); err != nil {
			return err
		}
		for {
			r = wire.Result{}
			if err := m.in.Decode(&r); err != nil || !r.More {
				return err
			}
			printed(r.Stdout)
		}
	})
	if err != nil {
		m.t.Fatalf("in the machine: %s: %v", what, err)
	}
	if r.Err != "" {
		m.t.Fatalf("in the machine: %s: %s", what, r.Err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(what), "\n")
	m.t.Logf("%6.1f s  status %d  %s", time.Since(start).Seconds(), r.Status, first)
	return r
}

// within does f, which talks to the guest, and says what it means when that fails.
func (m *Machine) within(limit time.Duration, f func() error) error {
	if err := m.qemu.port.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	err := f()
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer within %s", limit)
	case m.qemu.wait(time.Second):
		return fmt.Errorf("the machine has ended: %w; QEMU said: %q", err, m.qemu.stderr.String())
	}
	return err
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	// Lines that systemd draws again and again while it waits.
	all = slices.DeleteFunc(all, func(l string) bool { return strings.Contains(l, "\x1bM") })
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// repo is the root of the repository: the directory with go.mod above the working directory, where go test runs a test.
func repo() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("no go.mod above the working directory")
		}
	}
	return "", err
}
