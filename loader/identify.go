package loader

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

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

// identifyMax is how many files one run of the program identifies: IDENTIFY_MAX in bpf/abi.h.
const identifyMax = len(bpf.GateIdentified{}.Id)

// Identify returns the identity of the file behind an open descriptor of this process, as the programs see it when
// the file is executed. The caller keeps the descriptor open for as long as the identity is in use.
func (l *Loader) Identify(fd int) (FileID, error) {
	ids, err := l.IdentifyAll([]int{fd})
	if err != nil {
		return FileID{}, err
	}
	return ids[0], nil
}

// IdentifyAll is Identify for many descriptors; it costs two system calls for eleven of them.
func (l *Loader) IdentifyAll(fds []int) ([]FileID, error) {
	l.identMu.Lock()
	defer l.identMu.Unlock()
	ids := make([]FileID, 0, len(fds))
	args := &l.identArgs
	for some := range slices.Chunk(fds, identifyMax) {
		args[0] = uint64(l.ring.index)
		for i := range identifyMax {
			args[1+i] = math.MaxUint64 // no descriptor
			if i < len(some) {
				args[1+i] = uint64(some[i])
			}
		}
		var answer bpf.GateIdentified
		if err := testRun(l.ident.FD(), unsafe.Pointer(args), unsafe.Sizeof(*args)); err != nil {
			return nil, fmt.Errorf("identify open files: run the BPF program: %w", err)
		}
		if err := l.maps.identities.Lookup(l.ring.index, &answer); err != nil {
			return nil, fmt.Errorf("identify open files: %w", err)
		}
		for i, fd := range some {
			id := FileID{Inode: answer.Id[i].Inode, Ino: answer.Id[i].Ino, Dev: answer.Id[i].Dev, Gen: answer.Id[i].Gen}
			if id.Inode == 0 {
				return nil, fmt.Errorf("identify the file of descriptor %d: it is not open", fd)
			}
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// testRun runs a program once with a context, which must not be on a stack. Program.Run of cilium/ebpf first loads and
// runs a program of its own, to see whether the kernel can: at every start.
func testRun(prog int, ctx unsafe.Pointer, size uintptr) error {
	// The fields of union bpf_attr for BPF_PROG_TEST_RUN, include/uapi/linux/bpf.h.
	attr := struct {
		progFD, retval, dataSizeIn, dataSizeOut uint32
		dataIn, dataOut                         uint64
		repeat, duration, ctxSizeIn, ctxSizeOut uint32
		ctxIn, ctxOut                           uint64
		flags, cpu, batchSize, _                uint32
	}{progFD: uint32(prog), ctxSizeIn: uint32(size), ctxIn: uint64(uintptr(ctx))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_TEST_RUN, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(ctx)
	if errno != 0 {
		return errno
	}
	return nil
}
