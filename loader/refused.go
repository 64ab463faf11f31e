package loader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// RefusedExec is an execve of the sandbox that failed with EACCES, as Landlock answers.
type RefusedExec struct {
	Time time.Time
	PID  int    // in the host's pid namespace
	Path string // as the caller gave it, at most 255 bytes
}

// RefusedExecs reports executions that failed. It is for a short time: while it is open, every system call on the host
// costs some nanoseconds more.
type RefusedExecs struct {
	program *ebpf.Collection
	link    link.Link
	ring    *ring
	lost    uint64
}

// WatchRefused calls f, one at a time, for every refused execution of the sandbox from now on. Of more than the ring
// holds at once some are lost, and counted.
func (g *Guard) WatchRefused(f func(RefusedExec)) (*RefusedExecs, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.RefusedObject()))
	if err != nil {
		return nil, fmt.Errorf("read the built-in BPF object: %w", err)
	}
	if err := spec.Variables[bpf.RefusedVarCgroup].Set(g.cgid); err != nil {
		return nil, fmt.Errorf("set the cgroup of the BPF program: %w", err)
	}
	w := &RefusedExecs{}
	if w.program, err = ebpf.NewCollection(spec); err != nil {
		return nil, explainLoad(err)
	}
	reader, err := ringbuf.NewReader(w.program.Maps[bpf.RefusedMapRefusals])
	if err != nil {
		w.program.Close()
		return nil, fmt.Errorf("read the ring of refused executions: %w", err)
	}
	if w.link, err = link.AttachTracing(link.TracingOptions{Program: w.program.Programs[bpf.RefusedProgRefused]}); err != nil {
		reader.Close()
		w.program.Close()
		return nil, fmt.Errorf("attach to the end of system calls: %w", err)
	}
	begun := make(chan struct{})
	close(begun)
	w.ring = startRing(reader, begun, func(raw []byte) {
		var e bpf.RefusedRefusedExec
		if _, err := binary.Decode(raw, binary.NativeEndian, &e); err != nil {
			return // not ours: the ring is this program's alone
		}
		path := make([]byte, 0, len(e.Path))
		for _, c := range e.Path[:min(int(e.Length), len(e.Path))] {
			if c == 0 {
				break
			}
			path = append(path, byte(c))
		}
		f(RefusedExec{Time: wallTime(e.Time), PID: int(e.Tgid), Path: string(path)})
	})
	return w, nil
}

// Close reports what is still waiting, and ends.
func (w *RefusedExecs) Close() error {
	err := w.link.Close()
	err = errors.Join(err, w.program.Variables[bpf.RefusedVarLost].Get(&w.lost))
	w.ring.drain()
	err = errors.Join(err, w.ring.reader.Close())
	<-w.ring.done
	w.program.Close()
	return err
}

// Lost is how many did not fit into the ring, once it is closed.
func (w *RefusedExecs) Lost() uint64 { return w.lost }
