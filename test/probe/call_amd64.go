package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// modifyLDT adds a data segment of one byte.
func modifyLDT() error {
	// struct user_desc: entry 0, 32-bit, limit in pages.
	entry := [4]uint32{0, 0, 0, 1<<0 | 1<<3}
	const write = 1
	return raw(unix.SYS_MODIFY_LDT, write, uintptr(unsafe.Pointer(&entry)), unsafe.Sizeof(entry))
}
