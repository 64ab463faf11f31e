package harness

import (
	"fmt"
	"os"
	"path/filepath"
)

// Program is a T for a command: the benchmark and the soak. What fails ends it.
type Program struct {
	Name     string // put before messages
	cleanups []func()
	dirs     int
}

// failure is what Fatal panics with; any other panic is a bug to be seen.
type failure string

// Do runs f and what was to be cleaned up, and returns the command's exit status.
func (p *Program) Do(f func()) (code int) {
	defer func() {
		if f, ok := recover().(failure); ok {
			fmt.Fprintf(os.Stderr, "%s: %s\n", p.Name, string(f))
			code = 1
		}
	}()
	defer func() {
		for i := len(p.cleanups) - 1; i >= 0; i-- {
			p.cleanups[i]()
		}
	}()
	f()
	return 0
}

// Helper does nothing: messages of a command name no line.
func (p *Program) Helper() {}

// Fatal ends the command.
func (p *Program) Fatal(args ...any) { panic(failure(fmt.Sprint(args...))) }

// Fatalf ends the command.
func (p *Program) Fatalf(f string, a ...any) { panic(failure(fmt.Sprintf(f, a...))) }

// Cleanup has f called at the end, last first.
func (p *Program) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

// TempDir makes a directory of the world's.
func (p *Program) TempDir() string {
	p.dirs++
	dir := filepath.Join(W.Dir, fmt.Sprintf("%s-%d", p.Name, p.dirs))
	p.Must(os.Mkdir(dir, 0o755))
	return dir
}

// Must ends the command when err is one.
func (p *Program) Must(err error) {
	if err != nil {
		p.Fatal(err)
	}
}

// InstallSelf copies the command to path, for a sandbox to run.
func (p *Program) InstallSelf(path string) {
	data, err := os.ReadFile("/proc/self/exe")
	p.Must(err)
	p.Must(os.WriteFile(path, data, 0o755))
}
