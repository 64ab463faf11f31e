package vm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// images is the directory of what every machine starts from, and none changes: what scripts/vm-image made, once for the process.
var images = sync.OnceValues(func() (string, error) {
	top, err := repo()
	if err != nil {
		return "", err
	}
	var said bytes.Buffer
	script := exec.Command(filepath.Join(top, "scripts/vm-image"))
	script.Stderr = &said
	out, err := script.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", script, err, said.String())
	}
	_, _ = said.WriteTo(os.Stderr) // it may have left something out
	return strings.TrimSpace(string(out)), nil
})

// Kernels are those that a machine of an architecture can run. "newest" is not among them where the mirror has none.
func Kernels(t *testing.T, arch string) []string {
	t.Helper()
	dir, err := images()
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, arch, "linux-*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no kernels for %q in %s: %v", arch, dir, err)
	}
	for i, n := range names {
		names[i] = strings.TrimPrefix(filepath.Base(n), "linux-")
	}
	return names
}

// overlay makes a disk whose changes to a root image are its own. It has no name: it is gone when it is closed by all.
func overlay(image string) (*os.File, error) {
	// Beside the image, not in /tmp: that may be memory.
	dir, err := os.MkdirTemp(filepath.Dir(image), "overlay-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk")
	cmd := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s (scripts/setup test installs it): %w\n%s", cmd, err, out)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// guests are the guest program for each architecture, built once for the process.
var guests = map[string]func() ([]byte, error){
	"amd64": sync.OnceValues(func() ([]byte, error) { return buildGuest("amd64") }),
	"arm64": sync.OnceValues(func() ([]byte, error) { return buildGuest("arm64") }),
}

func buildGuest(arch string) ([]byte, error) {
	top, err := repo()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "nemoclaw-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "guest")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./test/vm/guest")
	build.Dir = top
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return os.ReadFile(program)
}

// initramfs packs the guest program, and the modules of a directory, the way the kernel wants its first file system.
func initramfs(guest []byte, modules string) (*os.File, error) {
	entries, err := os.ReadDir(modules)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	cpio(&b, "init", unix.S_IFREG|0o755, guest)
	cpio(&b, "root", unix.S_IFDIR|0o755, nil)
	cpio(&b, "dev", unix.S_IFDIR|0o755, nil)
	cpio(&b, "dev/console", unix.S_IFCHR|0o600, nil) // where the kernel says what /init prints
	cpio(&b, "modules", unix.S_IFDIR|0o755, nil)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(modules, e.Name()))
		if err != nil {
			return nil, err
		}
		cpio(&b, "modules/"+e.Name(), unix.S_IFREG|0o644, data)
	}
	cpio(&b, "TRAILER!!!", 0, nil)
	fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "initramfs")
	_, err = f.Write(b.Bytes())
	return f, err
}

// cpio writes an entry of a cpio archive of the kind "newc": a header of eight-digit hexadecimal numbers, the name, the data; both
// padded to four bytes. A device is always 5:1, /dev/console.
func cpio(b *bytes.Buffer, name string, mode uint32, data []byte) {
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	var major, minor int
	if mode&unix.S_IFMT == unix.S_IFCHR {
		major, minor = 5, 1
	}
	b.WriteString("070701")
	//                  inode, mode, uid, gid, links, mtime, size, device (2), its own device number (2), name's length, checksum
	for _, n := range []int{0, int(mode), 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0} {
		fmt.Fprintf(b, "%08X", n)
	}
	b.WriteString(name)
	b.WriteByte(0)
	pad()
	b.Write(data)
	pad()
}
