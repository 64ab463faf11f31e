//go:build cgo

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	landlock "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// restricted is the argument of a helper that has given up what it does not need.
const restricted = "serve"

// writes are the rights of files that a helper has below /dev and /proc alone: the driver's devices, and the names of its own
// threads. Reading, executing and ioctl are left alone: the libraries and the devices that they need are the driver's to choose.
const writes = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
	unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
	unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM

// restrict gives up what a helper does not need, and starts this program anew: what a thread may not do holds for all threads of
// the program that it executes.
func restrict() error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	if err := restrictFiles(); err != nil {
		return err
	}
	return fmt.Errorf("starting anew: %w", syscall.Exec("/proc/self/exe", []string{os.Args[0], restricted}, os.Environ()))
}

// restrictFiles leaves writing to devices and to /proc. A kernel without Landlock leaves it to the user, who is nobody.
func restrictFiles() error {
	fd, err := landlock.LandlockCreateRuleset(&landlock.RulesetAttr{HandledAccessFS: writes}, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("making the Landlock ruleset: %w", err)
	}
	defer unix.Close(fd)
	for _, dir := range []string{"/dev", "/proc"} {
		at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			err = landlock.LandlockAddPathBeneathRule(fd, &landlock.PathBeneathAttr{AllowedAccess: unix.LANDLOCK_ACCESS_FS_WRITE_FILE, ParentFd: at}, 0)
			unix.Close(at)
		}
		if err != nil {
			return fmt.Errorf("the Landlock rule for %s: %w", dir, err)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(fd), 0, 0); errno != 0 {
		return fmt.Errorf("restricting by Landlock: %w", errno)
	}
	return nil
}
