package main

import "golang.org/x/sys/unix"

// modifyLDT is a call that this machine does not have.
func modifyLDT() error { return unix.ENOSYS }
