package loader

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// FileID is the kernel's own identity of a file. It is exact, also where stat's device and number are ambiguous
// (btrfs subvolumes, overlays over two file systems), as long as somebody holds the file open (O_PATH does); after
// that its inode may be another file's. The zero value is no file.
type FileID struct {
	Inode uint64 // address of the inode: never to be shown to anybody inside
	Ino   uint64
	Dev   uint32 // in the kernel's encoding, major << 20 | minor
	Gen   uint32
}

// IsZero reports whether id is no file.
func (id FileID) IsZero() bool { return id == FileID{} }

func (id FileID) key() bpf.GateFileId {
	return bpf.GateFileId{Inode: id.Inode, Ino: id.Ino, Dev: id.Dev, Gen: id.Gen}
}

func fileID(k bpf.GateFileId) FileID {
	return FileID{Inode: k.Inode, Ino: k.Ino, Dev: k.Dev, Gen: k.Gen}
}

// The parts that the program identify returns, in the order of bpf/identify.h.
const (
	partInodeLow = iota
	partInodeHigh
	partInoLow
	partInoHigh
	partDev
	partGen
	parts
)

// Identify returns the identity of the file behind an open descriptor of this process, as the programs see it when
// the file is executed. The caller keeps the descriptor open for as long as the identity is in use.
func (l *Loader) Identify(fd int) (FileID, error) {
	var part [parts]uint32
	for i := range part {
		value, err := l.ident.Run(&ebpf.RunOptions{Context: [2]uint64{uint64(fd), uint64(i)}})
		if err != nil {
			return FileID{}, fmt.Errorf("identify the file of descriptor %d: run the BPF program: %w", fd, err)
		}
		part[i] = value
	}
	id := FileID{
		Inode: uint64(part[partInodeHigh])<<32 | uint64(part[partInodeLow]),
		Ino:   uint64(part[partInoHigh])<<32 | uint64(part[partInoLow]),
		Dev:   part[partDev],
		Gen:   part[partGen],
	}
	if id.Inode == 0 {
		return FileID{}, fmt.Errorf("identify the file of descriptor %d: it is not open", fd)
	}
	return id, nil
}
