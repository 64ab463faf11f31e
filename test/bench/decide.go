package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// batch is how many decisions one sample is of.
const batch = 100000

// judge is the decision on files alone, in maps of its own.
type judge struct {
	b       *bench
	objects *ebpf.Collection
	rules   bpf.JudgeFilePlace // of the directory with the rule, in the first sandbox
}

// measureDecide: a decision on a file, by how far the rule is above it, by the number of rules, and by that of
// sandboxes with a rule each of the same directory. No hook is part of it: it runs where LSM programs can't.
func measureDecide(b *bench) {
	dir := b.TempDir()
	cfg := loader.Config{BPFFS: b.TempDir(), Parent: harness.W.Parent + "-decide"}
	l, err := loader.Open(cfg)
	b.Must(err)
	b.Cleanup(func() {
		b.Must(l.Close())
		b.Must(loader.Unload(cfg))
		b.Must(unix.Unmount(cfg.BPFFS, unix.MNT_DETACH))
	})
	who := []string{"1 rule", "10,000 rules", "500 sandboxes"}
	judges := []*judge{b.judge(l, dir), b.judge(l, dir), b.judge(l, dir)}
	for i := range 10000 - 1 {
		other := judges[1].rules
		other.Ino, other.Dev = 1<<40+uint64(i), 1
		judges[1].put(other)
	}
	for i := range 500 - 1 {
		other := judges[2].rules
		other.Cgid += 1 + uint64(i)
		judges[2].put(other)
	}
	for _, levels := range []int{1, 6, 17} {
		path := filepath.Join(dir, strings.Repeat("d/", levels-1))
		b.Must(os.MkdirAll(path, 0o755))
		file, err := os.Create(filepath.Join(path, "file"))
		b.Must(err)
		what := fmt.Sprintf("a decision on a file %d below its rule", levels)
		b.contest(what, "ns", who, func(i int) float64 { return judges[i].time(file) })
		b.Must(file.Close())
	}
}

// judge makes a decision core in which one sandbox may read below a directory.
func (b *bench) judge(l *loader.Loader, dir string) *judge {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.JudgeFileObject()))
	b.Must(err)
	objects, err := ebpf.NewCollection(spec)
	b.Must(err)
	b.Cleanup(objects.Close)
	f, err := os.Open(dir)
	b.Must(err)
	defer f.Close()
	id, err := l.Identify(int(f.Fd()))
	b.Must(err)
	j := &judge{b: b, objects: objects, rules: bpf.JudgeFilePlace{Cgid: 1, Revision: 1, Ino: id.Ino, Dev: id.Dev, Gen: id.Gen}}
	j.put(j.rules)
	return j
}

// put lets a place be read.
func (j *judge) put(p bpf.JudgeFilePlace) {
	j.b.Must(j.objects.Maps[bpf.JudgeFileMapAnchors].Put(bpf.Anchor(p.Ino, p.Dev), uint8(1)))
	j.b.Must(j.objects.Maps[bpf.JudgeFileMapNodes].Put(p, bpf.JudgeFileNode{Rule: [3]uint32{1, 1, 1}, Allow: 1, Flags: 1}))
}

// time returns what one decision on an open file takes, in nanoseconds.
func (j *judge) time(file *os.File) float64 {
	query := struct {
		fd, times uint64
		bpf.JudgeFileFileQuery
	}{fd: uint64(file.Fd()), times: batch}
	query.Place = bpf.JudgeFilePlace{Cgid: j.rules.Cgid, Revision: j.rules.Revision}
	query.Want = 1
	_, err := j.objects.Programs[bpf.JudgeFileProgJudge].Run(&ebpf.RunOptions{
		Context: unsafe.Slice((*byte)(unsafe.Pointer(&query)), unsafe.Sizeof(query)),
	})
	j.b.Must(err)
	var out bpf.JudgeFileJudgedFile
	j.b.Must(j.objects.Maps[bpf.JudgeFileMapLast].Lookup(uint32(0), &out))
	if out.Answer.Rule != 1 || out.Answer.Verdict != 2 {
		j.b.Must(fmt.Errorf("the decision on %s was %+v", file.Name(), out.Answer))
	}
	return float64(out.Ns) / batch
}
