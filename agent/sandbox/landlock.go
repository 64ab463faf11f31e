package sandbox

import (
	"errors"
	"fmt"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// minLandlock is the least ABI where Landlock alone judges files: without 3 (Linux 6.2) a file that may not be written can still be
// truncated.
const minLandlock = 3

// Landlock rights by what they are for. Making device files is left out: nothing inside may.
const (
	llExecute = unix.LANDLOCK_ACCESS_FS_EXECUTE
	llListDir = unix.LANDLOCK_ACCESS_FS_READ_DIR
	llRead    = unix.LANDLOCK_ACCESS_FS_READ_FILE | llListDir
	llWrite   = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX
	llDevices = llRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	// What a rule for a single file may hold.
	llFile = llExecute | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_IOCTL_DEV | unix.LANDLOCK_ACCESS_FS_RESOLVE_UNIX
)

// handledFS are the file rights of an ABI: all of them are handled, so what is not granted is refused.
func handledFS(abi int) uint64 {
	switch {
	case abi >= 9:
		return 1<<17 - 1
	case abi >= 5:
		return 1<<16 - 1
	case abi >= 3:
		return 1<<15 - 1
	}
	return 1<<(12+abi) - 1
}

// landlockABI returns the kernel's ABI, or says why there is none that will do. Where BPF LSM judges files, any will.
func landlockABI(full bool) (int, error) {
	abi, err := landlock.LandlockGetABIVersion()
	kernel := kernelRelease()
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return 0, fmt.Errorf("sandbox: Landlock is off in this kernel (%s): add landlock to the boot parameter lsm=", kernel)
	case err != nil:
		return 0, fmt.Errorf("sandbox: this kernel (%s) has no Landlock (%w): ABI %d is needed, which Linux 6.2 and newer have with CONFIG_SECURITY_LANDLOCK", kernel, err, minLandlock)
	case abi < minLandlock && !full:
		return 0, fmt.Errorf("sandbox: this kernel (%s) has Landlock ABI %d; ABI %d is needed, because before it truncating a file is not judged: use Linux 6.2 or newer", kernel, abi, minLandlock)
	}
	return abi, nil
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// ruleset is a Landlock ruleset under construction. Nil is that of a sandbox that runs: at level full Landlock leaves everything that a
// rule can allow to BPF LSM, so nothing has to be added.
type ruleset struct {
	fd      int
	handled uint64
}

// newRuleset handles every file right of the ABI, and keeps signals and abstract unix sockets inside where the ABI
// can. TCP is the network plane's: Landlock's rules for it could not change while the sandbox runs.
func newRuleset(abi int) (*ruleset, error) {
	attr := landlock.RulesetAttr{HandledAccessFS: handledFS(abi)}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	// A kernel that does not know the structure's last fields takes them as long as they are zero.
	fd, err := landlock.LandlockCreateRuleset(&attr, 0)
	if err != nil {
		return nil, fmt.Errorf("sandbox: making the Landlock ruleset (ABI %d): %w", abi, err)
	}
	return &ruleset{fd, attr.HandledAccessFS}, nil
}

// restrictFlags lets the kernel's audit report refusals of the programs inside, where it can (ABI 7): by default it
// is silent about what was executed after the restriction.
func restrictFlags(abi int) uint32 {
	if abi >= 7 {
		return unix.LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON
	}
	return 0
}

// allow grants rights at and below an open path.
func (r *ruleset) allow(fd int, rights uint64, file bool) error {
	if r == nil {
		return nil
	}
	rights &= r.handled
	if file {
		rights &= llFile
	}
	if rights == 0 {
		return nil
	}
	return landlock.LandlockAddPathBeneathRule(r.fd, &landlock.PathBeneathAttr{AllowedAccess: rights, ParentFd: fd}, 0)
}

// allowPath grants rights at and below a path of the view; a path that is not there needs none.
func (r *ruleset) allowPath(root int, p string, rights uint64, file bool) error {
	fd, err := openIn(root, p, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		err = r.allow(fd, rights, file)
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("sandbox: the Landlock rule for %s: %w", p, err)
	}
	return nil
}

// grantRights translates a grant of the plan.
func grantRights(g grant) uint64 {
	var rights uint64
	if g.access&policy.Read != 0 {
		rights |= llRead
	}
	if g.access&policy.Write != 0 {
		rights |= llWrite
	}
	if g.access&policy.Execute != 0 || g.script {
		rights |= llExecute
	}
	if g.list {
		rights |= llListDir
	}
	return rights
}

// addView adds the rules of the plan, and those of /dev. /proc is the init's to add. Where BPF LSM judges, which does not get to
// see what Landlock refuses, Landlock is left with what no rule could allow: making devices, and what is outside of the view.
func (r *ruleset) addView(root int, plan *viewPlan, baseline, full bool) error {
	if full {
		return r.allowPath(root, "/", llRead|llWrite|llExecute|llDevices, false)
	}
	for _, g := range plan.grants {
		if err := r.allowPath(root, g.path, grantRights(g), g.file); err != nil {
			return err
		}
	}
	if baseline {
		return r.allowPath(root, "/dev", llDevices, false)
	}
	return nil
}

func (r *ruleset) close() { closeFD(&r.fd) }
