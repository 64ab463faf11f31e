package agent

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// watchPrograms lets the learner see programs that were refused where the kernel's audit does not tell. Without it a
// round of learning is as good as an ordinary one.
func (r *run) watchPrograms() {
	if r.learner == nil || r.refusals.reader != nil {
		return
	}
	w, err := r.guard.WatchRefused(r.refusedProgram)
	if err != nil {
		r.warn("learning: programs that are refused at once can't be seen: " + err.Error())
		return
	}
	r.refusedExecs = w
}

// refusedProgram records one refused execution. Its path is the caller's word, and EACCES has other causes than the
// policy, so only what is a program on the host, and what the policy does not allow, counts. A shell tries every
// directory of PATH in one process, and /bin is /usr/bin: that is one attempt.
func (r *run) refusedProgram(e loader.RefusedExec) {
	program := r.refusedAt(e.Path)
	now := refusedAttempt{e.PID, program}
	if program == "" || now == r.lastRefused {
		return
	}
	r.lastRefused = now
	r.hub.Record(policy.Decision{Time: e.Time, Plane: policy.PlaneExec, Action: "exec", Object: program, Verdict: policy.Deny, Rule: "default",
		Reason: "no rule allows this program", Revision: r.policy.Revision, Subject: policy.Subject{PID: e.PID}})
}

// refusedAttempt is one process's attempt at one program.
type refusedAttempt struct {
	pid     int
	program string
}

// refusedAt returns the program that an execution of path needed and may not run: itself, or a script's interpreter; ""
// where it was something else.
func (r *run) refusedAt(path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join("/workspace", path) // where else is not known
	}
	path = filepath.Clean(path)
	for range 2 {
		if !within(path, "/workspace") {
			path = resolved(path)
		}
		head, ok := r.programHead(path)
		if !ok {
			return ""
		}
		line, script := bytes.CutPrefix(head, []byte("#!"))
		if allowed := r.mayExec(path); !allowed && !script {
			return path
		} else if allowed && !script {
			return ""
		}
		line, _, _ = bytes.Cut(line, []byte("\n"))
		words := strings.Fields(string(line))
		if len(words) > 1 && filepath.Base(words[0]) == "env" {
			words = words[1:]
			for len(words) > 1 && strings.HasPrefix(words[0], "-") {
				words = words[1:]
			}
		}
		if len(words) == 0 {
			return ""
		}
		interpreter := words[0]
		for _, dir := range searchPath {
			if filepath.IsAbs(interpreter) {
				break
			}
			if _, ok := r.programHead(filepath.Join(dir, interpreter)); ok {
				interpreter = filepath.Join(dir, interpreter)
			}
		}
		if !filepath.IsAbs(interpreter) || r.mayExec(interpreter) {
			return path // the script itself, then
		}
		path = interpreter
	}
	return path
}

func (r *run) mayExec(path string) bool {
	return r.policy.Explain(policy.Query{Action: policy.QueryExec, Path: path}).Verdict == policy.Allow
}

// programHead reads the start of an executable file, given by its path inside.
func (r *run) programHead(path string) ([]byte, bool) {
	if rest, ok := strings.CutPrefix(path, "/workspace/"); ok {
		path = filepath.Join(r.workspace, rest)
	}
	// Nothing there may make the agent wait.
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return nil, false
	}
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	return head[:n], err == nil || n > 0
}
