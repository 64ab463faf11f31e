package harness

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Packages are npm packages, NAME@VERSION, installed without their scripts in a directory that later runs find again: its path,
// or "" and why where no registry answers. It is made with the machine's own npm, in the machine's own network.
func Packages(t T, list ...string) (dir, why string) {
	t.Helper()
	return packages(t, nil, list...)
}

// packages are Packages; finish is a command that ends an installation, run in its directory.
func packages(t T, finish []string, list ...string) (dir, why string) {
	t.Helper()
	cache, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "npm")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(cache, fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(list, " "))))[:16])
	lock, err := os.Create(dir + ".lock") // packages of tests run beside each other
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return shown(t, dir), ""
	}
	if said, err := npm(cache, 30*time.Second, "view", list[0], "version", "--fetch-retries=0", "--fetch-timeout=15000"); err != nil {
		return "", fmt.Sprintf("no npm registry answers here: %v\n%s", err, said)
	}
	half := dir + ".half"
	if err := errors.Join(os.RemoveAll(half), os.Mkdir(half, 0o755)); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"}, list...)
	if said, err := npm(half, 5*time.Minute, args...); err != nil {
		t.Fatalf("npm install: %v\n%s", err, said)
	}
	if len(finish) > 0 {
		cmd := exec.Command(filepath.Join(half, finish[0]), finish[1:]...)
		cmd.Dir, cmd.Env = half, append(os.Environ(), "HOME="+half)
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", finish, err, said)
		}
	}
	if err := os.Rename(half, dir); err != nil {
		t.Fatal(err)
	}
	return shown(t, dir), ""
}

// shown is a directory where a sandbox can see it, read-only, whatever the path of the repository is.
func shown(t T, dir string) string {
	if W == nil {
		return dir
	}
	at := filepath.Join(W.Dir, fmt.Sprintf("npm-%d", W.boxes.Add(1)))
	err := os.Mkdir(at, 0o755)
	if err == nil {
		err = unix.Mount(dir, at, "", unix.MS_BIND, "")
	}
	if err == nil {
		t.Cleanup(func() {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		})
		err = unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// npm runs the machine's npm in a directory.
func npm(dir string, limit time.Duration, args ...string) (said []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", args...)
	cmd.Dir = dir
	run := func() error {
		said, err = cmd.CombinedOutput()
		return err
	}
	if W == nil {
		return said, run()
	}
	return said, W.InHostNet(run)
}

// cacheDir is what the repository has of the machine's own: .cache, which git ignores.
func cacheDir() (string, error) {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".cache"), nil
		}
		dir = filepath.Dir(dir)
	}
	return "", errors.Join(err, errors.New("the tests run outside the repository"))
}
