package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func byHandle(w []string) (string, error) {
	mount, err := unix.Open(w[1], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", err
	}
	b, err := hex.DecodeString(w[3])
	if err != nil {
		return "", err
	}
	fd, err := unix.OpenByHandleAt(mount, unix.NewFileHandle(int32(number(w[2])), b), unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	return fromStart(fd)
}

func fromStart(fd int) (string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Pread(fd, buf, 0)
	return string(buf[:max(n, 0)]), err
}

func fdRead(w []string) (string, error) { return fromStart(number(w[1])) }

func fdsRead([]string) (string, error) {
	const standard, most = 3, 1024
	var shown strings.Builder
	for fd := standard; fd < most; fd++ {
		if s, err := fromStart(fd); err == nil {
			shown.WriteString(s)
		}
	}
	return some(shown.String(), nil)
}

func swapRace(w []string) (string, error) {
	if err := errors.Join(os.Mkdir("own", 0o755), os.WriteFile("own/secret", nil, 0o644), os.Symlink(w[1], "m"), os.Rename("own", "l")); err != nil {
		return "", err
	}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, "l", unix.AT_FDCWD, "m", unix.RENAME_EXCHANGE)
		}
	}()
	defer func() { stop.Store(true); <-done }()
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		if b, err := os.ReadFile("l/secret"); err == nil && len(b) > 0 {
			return string(b), nil
		}
	}
	return "", errors.New("never read")
}

func fileCap(w []string) (string, error) {
	// struct vfs_cap_data, revision 2: CAP_SYS_ADMIN permitted and effective.
	data := [5]uint32{0x02000001, 1 << unix.CAP_SYS_ADMIN}
	b := (*[20]byte)(unsafe.Pointer(&data))[:]
	return "", unix.Setxattr(w[1], "security.capability", b, 0)
}

func immutable(w []string) (string, error) {
	f, err := os.Open(w[1])
	if err != nil {
		return "", err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x10); err != nil { // FS_IMMUTABLE_FL
		return "", err
	}
	return "", unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0) // so that it can be removed
}

func shm(w []string) (string, error) {
	b, err := unix.SysvShmAttach(number(w[1]), 0, unix.SHM_RDONLY)
	if err != nil {
		return "", err
	}
	shown := string(bytes.TrimRight(b, "\x00"))
	return shown, unix.SysvShmDetach(b)
}

func lock(w []string) (string, error) {
	f, err := os.Open(w[1])
	if err != nil {
		return "", err
	}
	defer f.Close()
	return "", unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func watch(w []string) (string, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, w[1], unix.IN_OPEN); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if n, err := unix.Read(fd, buf); err == nil && n > 0 {
			return "", nil
		}
	}
	return "", errors.New("nothing was seen")
}

func find(w []string) (string, error) {
	b, err := os.ReadFile(w[2])
	if err != nil {
		return "", err
	}
	return "", mustBe(bytes.Contains(b, []byte(w[1])), "not there")
}

func inodes(w []string) (string, error) {
	count := number(w[2])
	defer func() {
		for i := range count {
			_ = os.Remove(filepath.Join(w[1], "i"+strconv.Itoa(i)))
		}
	}()
	for i := range count {
		if err := unix.Mknod(filepath.Join(w[1], "i"+strconv.Itoa(i)), unix.S_IFREG|0o600, 0); err != nil {
			return fmt.Sprint(i), err
		}
	}
	return fmt.Sprint(count), nil
}

func poll(w []string) (string, error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if out, err := read(w); err == nil {
			return out, nil
		}
	}
	return "", errors.New("never read")
}
