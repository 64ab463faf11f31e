package sandbox

import (
	"fmt"
	"path"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// imageFiles shows an image's files as a host: its root is "/". Nothing of an image is trusted: links are followed by name,
// from the image's root, as a process in there would see them, and never by the machine.
type imageFiles struct {
	host
	root string // real path on the host
}

func (i imageFiles) resolve(p string) (resolved, error) { return resolveWith(i.lstat, p) }

// lstat looks at a path whose directories are real ones: resolveWith found them so.
func (i imageFiles) lstat(p string) (string, fileKind, error) {
	return i.host.lstat(strings.TrimSuffix(i.root+p, "/"))
}

func (i imageFiles) glob(pattern string) []string {
	dir, last := path.Split(pattern)
	at, err := i.resolve(path.Clean(dir))
	if err != nil || at.kind != kindDir {
		return nil
	}
	var found []string
	for _, name := range i.host.glob(path.Join(i.root+at.real, last)) {
		found = append(found, path.Join(dir, path.Base(name)))
	}
	return found
}

// useImage lets the view show an image instead of the host.
func (p *planner) useImage(root string) error {
	at, err := p.host.resolve(root)
	if err != nil {
		return fmt.Errorf("sandbox: the image %s: %w", root, err)
	}
	switch {
	case at.kind != kindDir || at.real == "/":
		return fmt.Errorf("sandbox: the image %s is not a directory with an unpacked image's files: unpack it first", root)
	case p.workspace != "" && (under(p.workspace, at.real) || under(at.real, p.workspace)):
		return fmt.Errorf("sandbox: the workspace %s and the image %s lie in each other, so the sandbox could change the image: choose another workspace", p.workspace, root)
	}
	p.root = at.real
	p.system = imageFiles{p.host, p.root}
	return nil
}

// where is what a rule's path belongs to, for messages.
func (p *planner) where() string {
	if p.root != "" {
		return "in the image"
	}
	return "on this host"
}

// checkImageRule refuses what a rule can't say about an image's file.
func (p *planner) checkImageRule(e *entry) error {
	switch {
	case under(e.written, "/proc"):
		if !under(e.path, "/proc") {
			return e.refuse("it is a link out of /proc", "name "+e.path)
		}
		e.source = e.path
	case e.access&policy.Write != 0 && !p.reserved(e.path):
		return e.refuse("it is a path of the image, which can't be written: all sandboxes that are made of it share it",
			"allow writing to "+workspaceDir+", or use the sandbox's own directories (HOME, /tmp)")
	}
	return nil
}

// etcSource is the directory behind /etc; "" when an image has none.
func (p *planner) etcSource() (string, error) {
	if p.root == "" {
		return "/etc", nil
	}
	target, kind, err := p.system.lstat("/etc")
	switch {
	case err != nil:
		return "", fmt.Errorf("sandbox: %w", err)
	case target == "" && kind == kindMissing:
		return "", nil
	case target != "" || kind != kindDir:
		return "", fmt.Errorf("sandbox: /etc of the image %s is not a directory: /etc inside is composed of it and generated files; use another image, or one that is built anew", p.root)
	}
	return p.root + "/etc", nil
}
