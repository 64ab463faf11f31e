package harness

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Mounts is the whole TestMain of a package whose end-to-end tests mount file systems and need no world: the mounts are the process's
// own, and end with it.
func Mounts(m *testing.M) {
	if os.Getenv(inside) == "" {
		os.Exit(outside(syscall.CLONE_NEWNS))
	}
	os.Exit(m.Run())
}

// A Disk is an ext4 of its own, on a file that stands for the device: what is in the file is what is on the disk.
type Disk struct {
	Dir   string // where it is mounted
	image string
}

// NewDisk makes a disk of a size in MiB.
func NewDisk(t T, mib int64) *Disk {
	t.Helper()
	d := &Disk{image: filepath.Join(t.TempDir(), "disk")}
	f, err := os.OpenFile(d.image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4, of e2fsprogs: %v\n%s", err, out)
	}
	d.Dir = mountImage(t, d.image)
	return d
}

// PowerCut mounts what is on the disk at this moment, as it would be found after a power cut: what only the kernel knows of is not
// there. The disk itself goes on.
func (d *Disk) PowerCut(t T) (dir string) {
	t.Helper()
	in, err := os.Open(d.image)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	return mountImage(t, out.Name())
}

func mountImage(t T, image string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount -o loop: %v\n%s", err, out)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// Memory mounts a file system in memory of a size such as "1m", which is soon full.
func Memory(t T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "mode=0755,size="+size); err != nil {
		t.Fatalf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

func unmount(t T, dir string) {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatalf("unmounting %s: %v", dir, err)
	}
}

// Fill takes all the room that there is in a directory's file system, and returns what gives it back.
func Fill(t T, dir string) (room func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if err := f.Sync(); err != nil { // ext4 has promised the room, and takes it here
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}
