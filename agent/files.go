package agent

import (
	"path"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// mountRoots are the roots of a view's mounts, and where they are inside. What the kernel says of a refused file is a root and
// the names below it.
type mountRoots map[loader.FileID]string

// path is where a refused file is inside; names alone where its mount is not known.
func (m mountRoots) path(f loader.FileAttempt) string {
	root, ok := m[f.Mount]
	if !ok {
		return f.Below
	}
	return path.Join(root, f.Below)
}

// judgeFiles puts the file rules into the kernel. From then on nothing inside opens, changes or executes a file unjudged.
func (i *Instance) judgeFiles() error {
	places, err := i.box.Judged()
	if err != nil {
		return err
	}
	fds := make([]int, len(places))
	for n, p := range places {
		defer p.File.Close()
		fds[n] = int(p.File.Fd())
	}
	ids, err := i.loader.IdentifyAll(fds)
	if err != nil {
		return err
	}
	nodes := make([]loader.FileNode, len(places))
	roots := make(mountRoots)
	for n, p := range places {
		nodes[n] = fileNode(p, ids[n])
		if p.Mount {
			roots[loader.FileID{Ino: ids[n].Ino, Dev: ids[n].Dev, Gen: ids[n].Gen}] = p.Path
		}
	}
	i.recorder.roots.Store(&roots)
	return i.guard.SetFiles(nodes)
}

func fileNode(p sandbox.Judged, id loader.FileID) loader.FileNode {
	n := loader.FileNode{
		File: id, Name: p.Name, Allow: p.Access, Rules: p.By,
		Anchor: p.Anchor, Mount: p.Mount, Named: p.Named, Socket: p.Socket,
	}
	if p.Map {
		n.Allow |= loader.Map
	}
	if p.List || p.Access&policy.Read != 0 {
		n.Allow |= loader.List
	}
	return n
}

// fileAction is what records call an attempt: as where Landlock tells of it, an opening to write is "write".
func fileAction(f loader.FileAttempt) string {
	if f.Op == loader.OpOpen && f.Want&policy.Write != 0 {
		return "write"
	}
	return f.Op.String()
}

// Level is how files are judged in this sandbox: it can be less than the kernel's.
func (i *Instance) Level() policy.Level {
	if i.recorder.roots.Load() != nil {
		return policy.LevelFull
	}
	return policy.LevelStatic
}
