package sandbox

import (
	"os"
	"testing"
)

func TestInterpreterOf(t *testing.T) {
	head := func(name string) []byte {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b[:min(len(b), headSize)]
	}
	self := head("/proc/self/exe") // a Go test binary is static unless cgo is on
	dynamic := head("/bin/sh")
	if name := interpreterOf(dynamic); name == "" || name[0] != '/' {
		t.Errorf("the loader of /bin/sh is %q", name)
	}
	for name, b := range map[string][]byte{"empty": nil, "script": []byte("#!/bin/sh\n"), "cut": dynamic[:64], "init": initAMD64, "arm64": initARM64} {
		if loader := interpreterOf(b); loader != "" {
			t.Errorf("%s: %q", name, loader)
		}
	}
	_ = interpreterOf(self)
}

func TestIsLoader(t *testing.T) {
	for name, want := range map[string]bool{
		"/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": true, "/lib/ld-linux-aarch64.so.1": true, "/lib/ld-musl-x86_64.so.1": true, "/usr/lib/x86_64-linux-gnu/ld-2.31.so": true,
		"/usr/bin/ld": false, "/usr/bin/ld-wrapper": false, "/usr/bin/x86_64-linux-gnu-ld.bfd": false, "/usr/lib/libc.so.6": false,
	} {
		if isLoader(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func FuzzInterpreterOf(f *testing.F) {
	if sh, err := os.ReadFile("/bin/sh"); err == nil {
		f.Add(sh[:headSize])
	}
	f.Add(initAMD64)
	f.Fuzz(func(t *testing.T, head []byte) {
		if name := interpreterOf(head); len(name) > len(head) {
			t.Errorf("%q is longer than the file", name)
		}
	})
}

func TestShebang(t *testing.T) {
	for _, test := range []struct{ line, interpreter, argument string }{
		{"#!/bin/sh", "/bin/sh", ""},
		{"#!/bin/sh\necho", "/bin/sh", ""},
		{"#! /usr/bin/env node\n", "/usr/bin/env", "node"},
		{"#!/usr/bin/env -S node --x\n", "/usr/bin/env", "-S node --x"},
		{"#!/usr/bin/python3 -I \n", "/usr/bin/python3", "-I"},
		{"#!\n", "", ""},
		{"\x7fELF", "", ""},
		{"", "", ""},
	} {
		interpreter, argument := shebang([]byte(test.line))
		if interpreter != test.interpreter || argument != test.argument {
			t.Errorf("%q: %q %q", test.line, interpreter, argument)
		}
	}
}

func FuzzShebang(f *testing.F) {
	f.Add([]byte("#! /usr/bin/env -S node\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		interpreter, argument := shebang(head)
		if len(interpreter)+len(argument) > len(head) {
			t.Errorf("%q %q from %q", interpreter, argument, head)
		}
	})
}
