package sandbox

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// etcFiles are the files of /etc that are the sandbox's own: nothing of the host's resolver, accounts or name may
// show, and the resolver asked must be the daemon's alone.
func etcFiles(hostname, nameserver string) map[string]string {
	return map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0:root:/root:/usr/sbin/nologin\nagent:x:%d:%d:agent:/home/agent:/bin/sh\n"+
			"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", insideID, insideID),
		"group":         fmt.Sprintf("root:x:0:\nagent:x:%d:\nnogroup:x:65534:\n", insideID),
		"hosts":         fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 %s\n", hostname),
		"hostname":      hostname + "\n",
		"resolv.conf":   "nameserver " + nameserver + "\noptions timeout:10 attempts:2\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n",
		"machine-id":    machineID() + "\n",
	}
}

// machineID is new for each sandbox: the host's identifies the machine.
func machineID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

// etcLayer is where the layer over the system's /etc lies: below the mount point of /proc nobody inside can look. emptyEtc,
// beside it, is the /etc of an image that has none.
const (
	etcLayer = "proc/etc"
	emptyEtc = "proc/none"
)

// openEtc makes /etc: the system's, read-only, below the layer. Names decide there, so that nothing hidden comes back
// when the host renames a file.
func (v *view) openEtc(t *tree) (int, error) {
	dir, err := unix.Openat(v.root, etcLayer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	lower, err := v.openSystemEtc(t)
	if err != nil {
		return -1, err
	}
	defer unix.Close(lower)
	mount, err := newMount("overlay", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV,
		fmt.Sprintf("lowerdir=/proc/thread-self/fd/%d:/proc/thread-self/fd/%d", dir, lower))
	if err != nil {
		return -1, fmt.Errorf("%w; the kernel needs overlayfs (modprobe overlay), on at most one other overlayfs", err)
	}
	return mount, nil
}

// openSystemEtc opens what lies below the layer.
func (v *view) openSystemEtc(t *tree) (int, error) {
	if t.source == "" {
		return unix.Openat(v.root, emptyEtc, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	return openReal(t.source)
}

// makeEtcLayer fills the layer: the sandbox's own files, whom to trust, and a whiteout for all that is to be hidden.
func (v *view) makeEtcLayer(t *tree, hostname, nameserver string, trust Trust) error {
	if err := errors.Join(unix.Mkdirat(v.root, etcLayer, 0o755), unix.Mkdirat(v.root, emptyEtc, 0o755)); err != nil {
		return err
	}
	lower, err := v.openSystemEtc(t)
	if err != nil {
		return err
	}
	defer unix.Close(lower)
	dir, err := unix.Openat(v.root, etcLayer, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for name, content := range etcFiles(hostname, nameserver) {
		if err := v.writeEtc(lower, dir, name, []byte(content)); err != nil { // a rule may deny it, whoever made it
			return err
		}
	}
	if err := v.addTrust(t, lower, dir, trust); err != nil {
		return err
	}
	for _, p := range v.plan.hidden {
		if err := v.whiteOut(lower, dir, strings.TrimPrefix(p, "/etc/")); err != nil {
			return fmt.Errorf("hiding %s: %w", p, err)
		}
	}
	for _, p := range v.plan.revealed {
		if err := v.reveal(lower, dir, strings.TrimPrefix(p, "/etc/")); err != nil {
			return fmt.Errorf("making a place for %s: %w", p, err)
		}
	}
	return nil
}

// whiteOut hides a name of /etc, unless a rule shows it or something in it: then it is an empty directory.
func (v *view) whiteOut(lower, layer int, name string) error {
	if slices.ContainsFunc(v.plan.revealed, func(r string) bool { return under(r, "/etc/"+name) }) {
		if slices.Contains(v.plan.revealed, "/etc/"+name) {
			return nil // reveal makes its place
		}
		if err := copyDirs(lower, layer, name); err != nil {
			return err
		}
		return unix.Setxattr(fmt.Sprintf("/proc/thread-self/fd/%d/%s", layer, name), "trusted.overlay.opaque", []byte("y"), 0)
	}
	if err := copyDirs(lower, layer, path.Dir(name)); err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil // not even its directory is there
		}
		return err
	}
	err := unix.Mknodat(layer, name, unix.S_IFCHR, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// reveal makes the mount point of a path that a rule shows.
func (v *view) reveal(lower, layer int, name string) error {
	if err := copyDirs(lower, layer, path.Dir(name)); err != nil {
		return err
	}
	var at unix.Stat_t
	if err := unix.Fstatat(lower, name, &at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return makePlace(layer, name, at.Mode&unix.S_IFMT != unix.S_IFDIR)
}

// copyDirs makes the directories of a path in the layer with the mode that the system's /etc has: of a directory that
// is in both layers, the upper one's mode counts. None of them is reached through a symbolic link.
func copyDirs(lower, layer int, name string) error {
	if name == "." {
		return nil
	}
	if err := copyDirs(lower, layer, path.Dir(name)); err != nil {
		return err
	}
	var at unix.Stat_t
	if err := unix.Fstatat(lower, name, &at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if at.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("/etc/%s: %w", name, unix.ENOTDIR)
	}
	if err := unix.Mkdirat(layer, name, at.Mode&0o7777); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	return unix.Fchownat(layer, name, int(at.Uid), int(at.Gid), unix.AT_SYMLINK_NOFOLLOW)
}
