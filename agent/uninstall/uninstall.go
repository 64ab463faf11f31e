// Package uninstall takes NemoClaw off a host: the daemon and its sandboxes, what is in the kernel, and the files that an
// install put there and wrote into its manifest.
//
// It never removes a file that is not as the install left it, never a directory that holds something else, and never a
// sandbox's state or the audit log unless it is told to.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/doctor"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/snapshot"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/loader"
)

// Options say what goes.
type Options struct {
	Config   config.Config
	File     string    // the configuration's, which goes with Purge; "": config.DefaultFile
	Manifest *Manifest // of what was installed
	Purge    bool      // sandboxes, their state, and the configuration too
	Audit    bool      // the audit log too

	Say func(format string, args ...any) // what was done, and what was left and why
}

// patience is how long the daemon has to end.
const patience = 40 * time.Second

// Run takes everything away, in the order in which nothing that runs loses what it stands on. What can't be removed is an
// error; the rest goes all the same, as long as nothing runs on it.
func Run(ctx context.Context, o Options) error {
	if err := o.endSandboxes(ctx); err != nil {
		return err
	}
	if err := o.stopDaemon(ctx); err != nil {
		return err
	}
	if err := o.clearKernel(); err != nil {
		return err
	}
	return errors.Join(o.removeDirectories(), o.removeFiles())
}

// endSandboxes asks the daemon to stop all, or with Purge to destroy them. Without a daemon, clearKernel ends what runs.
func (o Options) endSandboxes(ctx context.Context) error {
	client := api.Dial(o.Config.Socket)
	defer client.Close()
	boxes, err := client.List(ctx)
	if errors.Is(err, api.ErrNotRunning) {
		return nil
	}
	if err != nil {
		// It may hang, which is why somebody uninstalls it. Its sandboxes end below.
		o.Say("the daemon does not say which sandboxes there are (%v): they are ended without it", err)
		return nil
	}
	for _, box := range boxes {
		if o.Purge {
			if err := client.Destroy(ctx, box.Name); err != nil {
				return fmt.Errorf("destroy the sandbox %s: %w", box.Name, err)
			}
			o.Say("destroyed the sandbox %s", box.Name)
		} else if box.State != api.Stopped && box.State != api.Failed {
			if _, err := client.Stop(ctx, box.Name); err != nil {
				return fmt.Errorf("stop the sandbox %s: %w", box.Name, err)
			}
			o.Say("stopped the sandbox %s; what it keeps stays in %s", box.Name, o.Config.StateDir)
		}
	}
	return nil
}

// stopDaemon has systemd stop it for good. A daemon that somebody else started is theirs to stop.
func (o Options) stopDaemon(ctx context.Context) error {
	const unit = "nemoclaw-agent.service"
	if _, err := os.Stat("/run/systemd/system"); err == nil && o.Manifest.has(unit) {
		if err := systemctl(ctx, "disable", "--now", unit); err != nil {
			return err
		}
		_ = systemctl(ctx, "reset-failed", unit) // there is nothing to reset when it never failed
		o.Say("stopped and disabled %s", unit)
	}
	client := api.Dial(o.Config.Socket)
	defer client.Close()
	if _, err := client.Info(ctx); !errors.Is(err, api.ErrNotRunning) {
		return fmt.Errorf("a daemon that systemd did not start still serves %s: stop it (fuser %s says which it is), then run this again", o.Config.Socket, o.Config.Socket)
	}
	return nil
}

// clearKernel removes what is left of sandboxes whose owner is gone, the BPF programs and the cgroups.
func (o Options) clearKernel() error {
	cfg := loader.Config{BPFFS: o.Config.BPFFS, Cgroup2: o.Config.Cgroup2, Parent: o.Config.CgroupParent}
	own, err := loader.ParentPath(cfg)
	if err != nil {
		return err
	}
	lasting, err := sandbox.Lasting(o.Config.RunDir)
	if err != nil {
		return err
	}
	for _, box := range lasting {
		if err := sandbox.Discard(o.Config.RunDir, filepath.Dir(own), box); err != nil {
			return fmt.Errorf("end the sandbox %s: %w", box, err)
		}
		o.Say("ended the sandbox %s, whose daemon was gone", box)
	}
	parents, err := loader.Parents(cfg)
	if err != nil {
		return err
	}
	for _, parent := range parents {
		root, name := filepath.Dir(parent), filepath.Base(parent)
		swept, err := sandbox.Sweep(o.Config.RunDir, root, name)
		if err != nil {
			return err
		}
		for _, s := range swept {
			o.Say("removed what was left of the sandbox %s", s.Name)
		}
		if err := loader.UnloadParent(cfg, parent); err != nil {
			return fmt.Errorf("%w; end what `nemoclaw run` runs here, then run this again", err)
		}
		o.Say("unloaded the BPF programs of %s and removed the cgroup", parent)
	}
	return sandbox.RemoveParents(o.Config.CgroupParent + "-" + strings.Repeat("[0-9a-f]", 8))
}

// removeDirectories removes what the daemon keeps: what lives as long as a sandbox always, the rest when told to.
func (o Options) removeDirectories() error {
	if o.Purge && !o.Audit {
		if err := o.keepKey(); err != nil {
			return err // what is gone now could never be verified again
		}
	}
	var failed []error
	for _, d := range []struct {
		dir    string
		wanted bool
		flag   string
	}{
		{o.Config.RunDir, true, ""},
		{o.Config.StateDir, o.Purge, "--purge"},
		{o.Config.AuditDir, o.Audit, "--purge-audit"},
	} {
		if _, err := os.Lstat(d.dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if !d.wanted {
			// A directory that an install made and nothing came into keeps nothing.
			if os.Remove(d.dir) == nil {
				o.Say("removed %s, which was empty", d.dir)
				continue
			}
			o.Say("kept %s (%s removes it)", d.dir, d.flag)
			continue
		}
		if err := removeTree(d.dir); err != nil {
			failed = append(failed, err)
			continue
		}
		o.Say("removed %s", d.dir)
	}
	// /var/log/nemoclaw holds nothing but the audit directory.
	if parent := filepath.Dir(o.Config.AuditDir); filepath.Base(parent) == "nemoclaw" {
		_ = os.Remove(parent) // not empty, or gone
	}
	return errors.Join(failed...)
}

// publicKey is the file beside the audit log with the public halves of the keys that are gone, one a line.
const publicKey = "key.pub"

// keepKey keeps beside the audit logs what they are verified with, when the key that signed them goes. What a killed daemon or run has
// left unsigned is signed before.
func (o Options) keepKey() error {
	signer, err := audit.ReadSigner(o.Config.AuditKey())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	logs, err := signedLogs(o.Config.AuditDir)
	if err != nil || logs == nil {
		return err
	}
	for _, name := range logs {
		w, err := audit.OpenChain(o.Config.AuditDir, name, "", audit.Options{Signer: signer})
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			return fmt.Errorf("sign the audit log %s for the last time: %w", name, err)
		}
	}
	name, key := filepath.Join(o.Config.AuditDir, publicKey), audit.FormatKey(signer.Public())
	kept, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !slices.Contains(strings.Fields(string(kept)), key) {
		if err := atomicfile.Write(name, append(kept, key+"\n"...)); err != nil {
			return fmt.Errorf("keep the public key of the audit log: %w", err)
		}
	}
	o.Say("the audit log's key goes; verify it with --key %s, which is in %s", key, name)
	return nil
}

// signedLogs names the logs of a directory that are signed. One that never was stays as it is: nobody knows what became of it before.
func signedLogs(dir string) (names []string, err error) {
	logs, err := audit.Chains(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, log := range logs {
		switch _, err := os.Lstat(log + ".sig"); {
		case err == nil:
			names = append(names, strings.TrimSuffix(filepath.Base(log), ".jsonl"))
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return names, err
}

// removeTree removes a directory of the daemon's, and refuses one that something is mounted in.
func removeTree(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			return fmt.Errorf("%s is left: something is mounted on %s; umount %s, then run this again", dir, f[4], f[4])
		}
	}
	return snapshot.RemoveAll(dir)
}

// removeFiles removes what was installed, and what doctor --fix has set.
func (o Options) removeFiles() error {
	if b, err := os.ReadFile(doctor.SysctlFile); err == nil && strings.HasPrefix(string(b), doctor.SysctlHeader) {
		if err := os.Remove(doctor.SysctlFile); err != nil {
			return err
		}
		o.Say("removed %s; what it has set holds until the next boot", doctor.SysctlFile)
	}
	file := o.File
	if file == "" {
		file = config.DefaultFile
	}
	if o.Purge {
		if err := os.Remove(file); err == nil {
			o.Say("removed %s", file)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := o.Manifest.remove(o.Say)
	if _, e := os.Stat("/run/systemd/system"); e == nil && o.Manifest.has("nemoclaw-agent.service") {
		err = errors.Join(err, systemctl(context.Background(), "daemon-reload"))
	}
	// The directory of the configuration may hold policies of a person's.
	if e := unix.Rmdir(filepath.Dir(file)); errors.Is(e, unix.ENOTEMPTY) {
		o.Say("kept %s, which is not empty", filepath.Dir(file))
	}
	return err
}
