//go:build e2e

package attacks

import (
	"archive/tar"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const maskedSecret = "the-masked-secret"

func showsMasked(_ *scene, out string) bool { return bytes.Contains([]byte(out), []byte(maskedSecret)) }

func filePlanes() []*plane {
	reading := []attempt{
		{name: "symbolic link to a file of the host", user: true, do: "symlink {out}/secret l && read l", inside: "ENOENT", harm: leaked},
		{name: "symbolic link with `..`", user: true, do: "symlink ../../../../../../../../../..{out}/secret l && read l", inside: "ENOENT", harm: leaked},
		{name: "`/proc/self/root`", user: true, do: "read /proc/self/root{out}/secret", inside: "ENOENT", harm: leaked},
		{name: "`/proc/self/cwd/..`", user: true, do: "read /proc/self/cwd/../../../../../../../..{out}/secret", inside: "ENOENT", harm: leaked},
		{name: "`/proc/1/root`: the init's view", do: "read /proc/{init}/root{out}/secret", inside: "EACCES", harm: leaked},
		{name: "`/proc/1/environ`", do: "read-some /proc/{init}/environ", inside: "EACCES"},
		{name: "`/proc/1/fd`", do: "ls-some /proc/{init}/fd", inside: "EACCES"},
		{name: "file handle (`open_by_handle_at`)", do: "by-handle . {type} {handle}", inside: "EPERM", harm: leaked, setup: handle},
		{name: "a name that changes to a link while it is opened", user: true, do: "swap-race {out}", inside: "never read", harm: leaked},
		{name: "a descriptor that the starter left open", do: "fds-read", inside: "nothing there", harm: shows("held-by-the-starter")},
		{name: "the starter's working directory", do: "read held", raw: true, inside: "ENOENT", harm: shows("held-by-the-starter")},
		{name: "what the starter had read of its input", do: "fd-read 0", inside: "ESPIPE", harm: shows("read-before")},
		{name: "`/dev/shm` of the host", user: true, do: "read {shmfile}", inside: "ENOENT", harm: leaked, setup: shmFile},
		{name: "System V shared memory of the host", user: true, do: "shm {id}", inside: "EINVAL", harm: leaked, setup: segment},
		{name: "a device node that is made inside", do: "mknod {d}/node", inside: "EACCES", landlock: true},
		{name: "a device node that the host left in the workspace", do: "open r node", inside: "EACCES", setup: node},
		{name: "the kernel's log (`/dev/kmsg`)", do: "put /dev/kmsg probe", inside: "ENOENT"},
		{name: "`/sys`", do: "rewrite /sys/class/net/lo/mtu", inside: "ENOENT"},
		{name: "a denied directory, renamed", do: "rename {ws}/private {ws}/p && read {ws}/p/key && rename {ws}/p {ws}/private", inside: "EBUSY", harm: showsMasked},
		{name: "a denied directory, by a symbolic link", do: "symlink {ws}/private s && read s/key", inside: "EACCES", harm: showsMasked},
		{name: "a denied directory, below one that is renamed", do: "rename {ws}/deep {ws}/d && read {ws}/d/private/key && rename {ws}/d {ws}/deep", inside: "EBUSY", harm: showsMasked},
		{name: "watching what the host opens (`inotify`)", user: true, do: "watch {ro}", setup: busy,
			open: "what may be read may be watched; level full can refuse the watch", full: "EACCES"},
		{name: "locking a file that may only be read (`flock`)", user: true, do: "lock {ro}/secret",
			open: "a lock needs no right to write; level full can refuse it", full: "EACCES"},
	}
	writing := []attempt{
		{name: "hard link to what may only be read, and a write", user: true, do: "link {ro}/secret h && put h changed", inside: "EXDEV", harm: changed},
		{name: "rename of what may only be read", user: true, do: "rename {ro}/secret stolen", inside: "EXDEV", harm: changed},
		{name: "rename over what may only be read", user: true, do: "write mine x && rename mine {ro}/secret", inside: "EXDEV", harm: changed},
		{name: "`O_PATH`, opened again to write", user: true, do: "reopen {ro}/secret", inside: "EROFS", harm: changed},
		{name: "truncate", user: true, do: "truncate {ro}/secret", inside: "EROFS", harm: changed},
		{name: "unlink", user: true, do: "unlink {ro}/secret", inside: "EROFS", harm: changed},
		{name: "extended attribute on what may only be read", do: "xattr {ro}/secret user.probe x", inside: "EROFS", harm: changed},
		{name: "chmod of what may only be read", do: "chmod 777 {ro}/secret", inside: "EROFS", harm: changed},
		{name: "chown of an own file to root's", do: "write f x && chown f", inside: "EINVAL"},
		{name: "set-user-ID bit on a program in the workspace", do: "copy /usr/bin/id c && chmod 4755 c", inside: "EPERM"},
		{name: "file capability", do: "copy /usr/bin/id c && file-cap c", inside: "EPERM"},
		{name: "trusted extended attribute", do: "write f x && xattr f trusted.probe x", inside: "EPERM"},
		{name: "immutable file", do: "write f x && immutable f", inside: "EPERM"},
		{name: "`/proc/sys`: the core pattern", do: "rewrite /proc/sys/kernel/core_pattern", inside: "EACCES"},
		{name: "earlier lines of a log that standard error is appended to", do: "fd-cut 2", inside: "EINVAL", harm: logCut},
		{name: "a git hook, where the policy denies it", do: "write {ws}/repo/.git/hooks/post-checkout x && unlink {ws}/repo/.git/hooks/post-checkout", inside: "EROFS"},
		{name: "an editor's tasks, where the policy denies them", do: "write {ws}/.vscode/tasks.json x && unlink {ws}/.vscode/tasks.json", inside: "EROFS"},
		{name: "`.git/config`: a program for the host's git to start", do: "write {ws}/repo/.git/config x",
			open: "the workspace may be written, and a single file in a writable tree can't be denied before level full (such a policy is refused); deny the directory, or look before you run git there"},
		{name: "tar with an absolute name (`tar -P`)", do: "run /usr/bin/tar -P -xf a.tar", inside: "exit status 2", harm: changed,
			setup: archive(func(s *scene) []tar.Header { return []tar.Header{{Name: filepath.Join(s.out(), "pwned")}} })},
		{name: "tar with `..` (`tar -P`)", do: "run /usr/bin/tar -P -xf a.tar", inside: "exit status 2", harm: changed,
			setup: archive(func(s *scene) []tar.Header {
				return []tar.Header{{Name: "../../../../../../../.." + s.out() + "/pwned"}}
			})},
		{name: "tar with a link and a file behind it (python)", do: "run /usr/bin/python3 untar.py", inside: "exit status 1", harm: changed,
			setup: archive(func(s *scene) []tar.Header {
				return []tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: s.out()}, {Name: "l/pwned"}}
			})},
	}
	return []*plane{
		{name: "files", table: reading, hide: denyDirs, start: starter, host: workspaceOfDirs},
		{name: "files", table: writing, hide: denyDirs, start: starter, host: workspaceOfDirs, commands: "    - {command: tar}\n    - {command: python3}\n"},
		{name: "files", alone: true, stopped: "the sandbox was stopped", hide: denyDirs, host: workspaceOfDirs, table: []attempt{
			{name: "a denied directory that the host renames, for another in its place", do: "write ready x && poll {ws}/private/key", setup: hostRenames("private"), inside: "the sandbox is stopped", record: "system", harm: showsMasked}}},
		{name: "files", alone: true, stopped: "the sandbox was stopped", hide: denyDirs, host: workspaceOfDirs, table: []attempt{
			{name: "likewise, the directory above it", do: "write ready x && poll {ws}/deep/private/key", setup: hostRenames("deep"), inside: "the sandbox is stopped", record: "system", harm: showsMasked}}},
	}
}

// Directories of the workspace that the policy denies, wholly or to be written.
const denyDirs = "    - {path: /workspace/private, permissions: [read, write]}\n    - {path: /workspace/deep/private, permissions: [read, write]}\n" +
	"    - {path: /workspace/repo/.git/hooks, permissions: [write]}\n    - {path: /workspace/.vscode, permissions: [write]}\n"

func workspaceOfDirs(p *place) {
	for _, dir := range []string{"private", "deep/private", "repo/.git/hooks", ".vscode"} {
		if err := os.MkdirAll(filepath.Join(p.ws, dir), 0o755); err != nil {
			p.Fatal(err)
		}
	}
	for _, dir := range []string{"private", "deep/private"} {
		if err := os.WriteFile(filepath.Join(p.ws, dir, "key"), []byte(maskedSecret), 0o644); err != nil {
			p.Fatal(err)
		}
	}
	for name, content := range map[string]string{"held": "held-by-the-starter", "input": "read-before"} {
		if err := os.WriteFile(filepath.Join(p.dir, "out", name), []byte(content), 0o644); err != nil {
			p.Fatal(err)
		}
	}
}

// starter gives what it starts more than it should: a directory, a descriptor, an input of which it has read something, and
// a log that has older lines.
func starter(p *place) {
	p.cmd.Dir = filepath.Join(p.dir, "out")
	open := func(name string, flags int) *os.File {
		f, err := os.OpenFile(filepath.Join(p.dir, "out", name), flags, 0o644)
		if err != nil {
			p.Fatal(err)
		}
		p.Cleanup(func() { f.Close() })
		return f
	}
	p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, open("held", os.O_RDONLY))
	input := open("input", os.O_RDONLY)
	if _, err := input.Read(make([]byte, 64)); err != nil {
		p.Fatal(err)
	}
	p.cmd.Stdin = input
	log := open("log", os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if _, err := log.WriteString(olderLine); err != nil {
		p.Fatal(err)
	}
	p.cmd.Stderr = log
}

const olderLine = "a line of an earlier run\n"

func logCut(s *scene, _ string) bool {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(s.dir)), "out", "log"))
	if err != nil {
		s.Fatal(err)
	}
	return !bytes.Contains(b, []byte(olderLine))
}

func shows(text string) func(*scene, string) bool {
	return func(_ *scene, out string) bool { return bytes.Contains([]byte(out), []byte(text)) }
}

func handle(s *scene) {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(s.out(), "secret"), 0)
	if err != nil {
		s.Fatal(err)
	}
	s.set("type", strconv.Itoa(int(h.Type())))
	s.set("handle", hex.EncodeToString(h.Bytes()))
}

func shmFile(s *scene) {
	path := fmt.Sprintf("/dev/shm/nemoclaw-%d-%s", os.Getpid(), s.token)
	s.write(path, s.token)
	s.Cleanup(func() { _ = os.Remove(path) })
	s.set("shmfile", path)
}

func segment(s *scene) {
	const size, mode = 4096, 0o1666
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, size, mode)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	b, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		s.Fatal(err)
	}
	copy(b, s.token)
	if err := unix.SysvShmDetach(b); err != nil {
		s.Fatal(err)
	}
	s.set("id", strconv.Itoa(id))
}

func node(s *scene) {
	if err := unix.Mknod(filepath.Join(s.ws, "node"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
		s.Fatal(err)
	}
}

// busy lets the host open {ro}/secret now and then.
func busy(s *scene) {
	stop := make(chan struct{})
	s.Cleanup(func() { close(stop) })
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				_, _ = os.ReadFile(filepath.Join(s.ro, "secret"))
			}
		}
	}()
}

// archive puts a.tar into the scene's part of the workspace, and a program that unpacks it as it is.
func archive(entries func(*scene) []tar.Header) func(*scene) {
	return func(s *scene) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries(s) {
			content := []byte("pwned")
			if h.Typeflag != 0 {
				content = nil
			}
			h.Mode, h.Size = 0o644, int64(len(content))
			if err := w.WriteHeader(&h); err != nil {
				s.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				s.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			s.Fatal(err)
		}
		s.write(filepath.Join(s.ws, "a.tar"), b.String())
		s.write(filepath.Join(s.ws, "untar.py"), "import tarfile\nt = tarfile.open('a.tar')\nt.extraction_filter = lambda m, p: m\nt.extractall('.')\n")
	}
}

// hostRenames moves a directory of the workspace as soon as the attempt is ready for it, as a `mv` by the user would, and later puts
// another in its place.
func hostRenames(dir string) func(*scene) {
	return func(s *scene) {
		if !s.inside {
			return // what nothing hides can be read at once
		}
		at := filepath.Join(filepath.Dir(s.ws), dir)
		done := make(chan struct{})
		s.Cleanup(func() { <-done })
		go func() {
			defer close(done)
			for {
				select {
				case <-s.ended: // it was never ready
					return
				case <-time.After(time.Millisecond):
				}
				if _, err := os.Stat(filepath.Join(s.ws, "ready")); err != nil {
					continue
				}
				err := os.Rename(at, at+"-moved")
				select {
				case <-s.ended:
				case <-time.After(2 * time.Second):
					err = errors.Join(err, os.MkdirAll(filepath.Join(at, "private"), 0o755), os.WriteFile(filepath.Join(at, "key"), []byte(maskedSecret), 0o644),
						os.WriteFile(filepath.Join(at, "private", "key"), []byte(maskedSecret), 0o644))
				}
				if err != nil {
					s.Error(err)
				}
				return
			}
		}()
	}
}
