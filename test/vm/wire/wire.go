// Package wire is what test/vm and the program inside its machines say to each other, over a virtio serial port. It only names the
// messages; who sends which is the two programs' affair.
package wire

// Port is the name of the virtio serial port.
const Port = "nemoclaw.vm"

// Hello is the first message of the guest after each boot: systemd, where there is one, has reached multi-user.target; commands can come.
type Hello struct {
	Release string // the kernel's
}

// Command is what the host asks for, one at a time: to write a file, or else to run a shell's command line.
type Command struct {
	Write  *File
	Run    string
	Stream bool // what the line prints is told at once, standard error with standard output
}

// File is a file to be written, and its directory to be made.
type File struct {
	Path string
	Mode uint32
	Data []byte
}

// Result answers a Command.
type Result struct {
	More           bool // nothing but a part of Stdout is in this one, and another comes
	Stdout, Stderr []byte
	Status         int    // as a shell would say it: 128 and the signal's number for who was killed
	Err            string // why there was no status: the file could not be written, the shell not started
}
