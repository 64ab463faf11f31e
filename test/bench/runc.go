package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
)

// container is a runc container of the bench's own, whose files are busybox alone.
type container struct {
	b            *bench
	state, files string
}

// newContainer makes what a container is made of.
func (b *bench) newContainer() *container {
	dir := b.TempDir()
	c := &container{b: b, state: filepath.Join(dir, "state"), files: dir}
	bin := filepath.Join(dir, "rootfs", "bin")
	b.Must(os.MkdirAll(bin, 0o755))
	for _, d := range []string{"proc", "dev", "sys"} {
		b.Must(os.Mkdir(filepath.Join(dir, "rootfs", d), 0o755))
	}
	busybox, err := exec.LookPath("busybox")
	b.Must(err)
	program, err := os.ReadFile(busybox) // static, as busybox-static has it
	b.Must(err)
	b.Must(os.WriteFile(filepath.Join(bin, "busybox"), program, 0o755))
	for _, name := range []string{"true", "sleep"} {
		b.Must(os.Symlink("busybox", filepath.Join(bin, name)))
	}
	return c
}

// bundle says what the container runs; the rest is as runc itself proposes it.
func (c *container) bundle(args ...string) {
	file := filepath.Join(c.files, "config.json")
	_ = os.Remove(file) // runc does not write over one
	c.run("spec", "--bundle", c.files)
	text, err := os.ReadFile(file)
	c.b.Must(err)
	var spec map[string]any
	c.b.Must(json.Unmarshal(text, &spec))
	process, ok := spec["process"].(map[string]any)
	if !ok {
		c.b.Fatalf("what runc proposes names no process: %s", text)
	}
	process["terminal"], process["args"] = false, args
	text, err = json.Marshal(spec)
	c.b.Must(err)
	c.b.Must(os.WriteFile(file, text, 0o644))
}

// start starts a container that does nothing for as long as the bench runs.
func (c *container) start(name string) {
	c.bundle("sleep", "100000")
	c.run("run", "--detach", "--bundle", c.files, name)
	c.b.Cleanup(func() { c.run("delete", "--force", name) })
}

// args is the command line of a runc command.
func (c *container) args(args ...string) []string {
	return append([]string{"runc", "--root", c.state}, args...)
}

func (c *container) run(args ...string) {
	argv := c.args(args...)
	cmd := exec.Command(argv[0], argv[1:]...) // no pipes: what it leaves running would hold them
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		c.b.Fatalf("%v: %v", argv, err)
	}
}
