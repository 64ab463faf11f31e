package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ports takes the right to talk to the machine's devices.
func ports() error { return raw(unix.SYS_IOPL, 3) }

func modifyLDT() error {
	// struct user_desc: a data segment of one byte.
	entry := [4]uint32{0, 0, 0, 1<<0 | 1<<3}
	const write = 1
	return raw(unix.SYS_MODIFY_LDT, write, uintptr(unsafe.Pointer(&entry)), unsafe.Sizeof(entry))
}
