// Package support gathers what a report about NemoClaw needs into one file, without secrets: the values of environments and
// settings are left out, and what looks like a key, a password or a token is taken out of everything else, rather too much than
// too little. Names stay: of hosts, files, programs, sandboxes. Who sends the file should read it first.
//
// It changes nothing, and reads no policy, no workspace and no key.
package support

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/doctor"
	"github.com/nemoclaw/nemoclaw/api"
)

// Options say what to gather.
type Options struct {
	Config  config.Config
	Version any // what `nemoclaw version -o json` says
	Records int // the last so many of each audit log
}

// File is one of the bundle's.
type File struct {
	Name string
	Data []byte
	Note string // why it is not there, or not whole
}

// patience is how long one source has to answer.
const patience = 10 * time.Second

// Gather returns the bundle's files, redacted. A source that says nothing is a note, not an error.
func Gather(ctx context.Context, o Options, doctorVersion string) []File {
	b := &bundle{ctx: ctx, o: o}
	b.json("version.json", o.Version)
	b.json("doctor.json", doctor.Run(ctx, doctor.Options{Config: o.Config, Version: doctorVersion}))
	b.text("config.yaml", func(context.Context) (string, error) { return o.Config.String(), nil })
	b.text("kernel.txt", kernel)
	b.text("unit.txt", command("systemctl", "show", "nemoclaw-agent.service", "--no-pager", "--property=LoadState,ActiveState,SubState,Result,UnitFileState,NRestarts,ExecMainStatus,MemoryCurrent,TasksCurrent,NFileDescriptorStore,FragmentPath,DropInPaths"))
	b.text("journal.txt", command("journalctl", "--unit=nemoclaw-agent", "--no-pager", "--lines=500", "--output=short-iso"))
	b.daemon()
	b.audit()
	return append([]File{{Name: "README", Data: b.readme()}}, b.files...)
}

// bundle is what was gathered so far.
type bundle struct {
	ctx   context.Context
	o     Options
	files []File
}

func (b *bundle) missing(name string, err error) {
	b.files = append(b.files, File{Name: name, Note: Text(err.Error())})
}

func (b *bundle) json(name string, v any) {
	src, err := json.Marshal(v)
	if err == nil {
		src, err = JSON(src)
	}
	var out bytes.Buffer
	if err == nil {
		err = json.Indent(&out, src, "", "  ")
	}
	if err != nil {
		b.missing(name, err)
		return
	}
	b.files = append(b.files, File{Name: name, Data: append(out.Bytes(), '\n')})
}

func (b *bundle) text(name string, source func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	s, err := source(ctx)
	if err != nil {
		b.missing(name, err)
		return
	}
	b.files = append(b.files, File{Name: name, Data: []byte(Text(s))})
}

// command is the output of a program.
func command(name string, args ...string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		return string(out), err
	}
}

// kernel is what the kernel says of itself that sandboxes meet.
func kernel(context.Context) (string, error) {
	var s strings.Builder
	for _, file := range []string{
		"/proc/version", "/proc/cmdline", "/sys/kernel/security/lsm", "/proc/sys/kernel/seccomp/actions_avail", "/proc/cgroups",
		"/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max", "/proc/sys/fs/file-nr", "/proc/sys/fs/inotify/max_user_instances",
		"/proc/sys/user/max_user_namespaces", "/proc/sys/kernel/unprivileged_bpf_disabled", "/proc/sys/kernel/lockdown", "/proc/meminfo",
		"/proc/driver/nvidia/version", "/etc/os-release",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			text = []byte(err.Error())
		}
		fmt.Fprintf(&s, "== %s\n%s\n", file, bytes.TrimSpace(text))
	}
	// Of mounts only where cgroups and BPF are: options of others may hold a password.
	s.WriteString("== mounts\n")
	mounts, err := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 && strings.Contains(" cgroup cgroup2 bpf securityfs ", " "+f[2]+" ") {
			fmt.Fprintf(&s, "%s %s %s\n", f[2], f[1], f[3])
		}
	}
	return s.String(), err
}

// daemon asks the daemon what it says of itself and of its sandboxes.
func (b *bundle) daemon() {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	client := api.Dial(b.o.Config.Socket)
	defer client.Close()
	if info, err := client.Info(ctx); err != nil {
		b.missing("daemon.json", err)
	} else {
		b.json("daemon.json", info)
	}
	if boxes, err := client.List(ctx); err != nil {
		b.missing("sandboxes.json", err)
	} else {
		b.json("sandboxes.json", boxes)
	}
}

// maxLogs bounds the bundle on a host where every run has a log of its own: the newest say what happened last.
const maxLogs = 10

// tail is how much of an audit file is looked at for its last records.
const tail = 4 << 20

// audit adds the last records of each log.
func (b *bundle) audit() {
	logs, err := filepath.Glob(filepath.Join(b.o.Config.AuditDir, "*.jsonl"))
	if err == nil && len(logs) == 0 {
		err = errors.New("there is none in " + b.o.Config.AuditDir)
	}
	if err != nil {
		b.missing("audit", err)
		return
	}
	slices.SortFunc(logs, func(a, b string) int { return changed(b).Compare(changed(a)) })
	for i, log := range logs {
		if i == maxLogs {
			b.missing("audit", fmt.Errorf("%d older logs in %s were left out", len(logs)-i, b.o.Config.AuditDir))
			break
		}
		name := "audit/" + filepath.Base(log)
		lines, err := lastLines(log, b.o.Records)
		if err != nil {
			b.missing(name, err)
			continue
		}
		var out bytes.Buffer
		for _, line := range lines {
			clean, err := JSON(line)
			if err != nil {
				clean = []byte(`"[a line that is no JSON was left out]"`)
			}
			out.Write(append(clean, '\n'))
		}
		b.files = append(b.files, File{Name: name, Data: out.Bytes(), Note: fmt.Sprintf("the last %d records, redacted: the chain of hashes does not hold here", len(lines))})
	}
}

func changed(file string) time.Time {
	info, err := os.Lstat(file)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func lastLines(file string, n int) ([][]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	start := max(0, end-tail)
	lines := bufio.NewScanner(io.NewSectionReader(f, start, end-start))
	lines.Buffer(nil, 1<<20)
	if start > 0 {
		lines.Scan() // the rest of a line
	}
	var last [][]byte
	for lines.Scan() {
		if last = append(last, bytes.Clone(lines.Bytes())); len(last) > n {
			last = last[1:]
		}
	}
	return last, lines.Err()
}

func (b *bundle) readme() []byte {
	var s bytes.Buffer
	s.WriteString("What `nemoclaw debug` gathered. Values of environments and settings were left out, and what looked like a secret\n" +
		"was replaced by " + redacted + ". Names of hosts, files, programs and sandboxes are there: read it before you send it.\n\n")
	for _, f := range b.files {
		fmt.Fprintln(&s, f)
	}
	return s.Bytes()
}

// String is the file's line in the list of contents.
func (f File) String() string {
	switch {
	case f.Data == nil:
		return fmt.Sprintf("%-24s not there: %s", f.Name, f.Note)
	case f.Note != "":
		return fmt.Sprintf("%-24s %7d bytes (%s)", f.Name, len(f.Data), f.Note)
	}
	return fmt.Sprintf("%-24s %7d bytes", f.Name, len(f.Data))
}

// Write writes the files that are there as a tar.gz archive, below one directory.
func Write(w io.Writer, dir string, when time.Time, files []File) error {
	packed := gzip.NewWriter(w)
	archive := tar.NewWriter(packed)
	for _, f := range files {
		if f.Data == nil {
			continue
		}
		if err := archive.WriteHeader(&tar.Header{Name: dir + "/" + f.Name, Mode: 0o600, Size: int64(len(f.Data)), ModTime: when}); err != nil {
			return err
		}
		if _, err := archive.Write(f.Data); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), packed.Close())
}
