package agent

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	r.records.Record(policy.Decision{Time: e.Time, Plane: policy.PlaneExec, Action: "exec", Object: program, Verdict: policy.Deny, Rule: "default",
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
		program, head, ok := r.programHead(path)
		if !ok {
			return ""
		}
		path = program
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
			if _, _, ok := r.programHead(filepath.Join(dir, interpreter)); ok {
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

// programHead reads the start of an executable file, given by its path inside, and returns that path with links followed.
//
// The path is the caller's word, and the agent is the host's root: opening a device or a pipe can do something (a
// watchdog starts), so what is found is looked at before it is opened, and nothing is opened that is not shown inside.
func (r *run) programHead(path string) (program string, head []byte, ok bool) {
	rest, ours := strings.CutPrefix(path, "/workspace/")
	if ours {
		path = filepath.Join(r.workspace, rest)
	} else if !r.shows(path) {
		return "", nil, false
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return "", nil, false
	}
	defer unix.Close(fd)
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	program, err = os.Readlink(self)
	if err != nil {
		return "", nil, false
	}
	if within(program, r.workspace) {
		program = "/workspace" + strings.TrimPrefix(program, r.workspace)
	} else if !r.shows(program) {
		return "", nil, false
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return "", nil, false
	}
	f, err := os.Open(self)
	if err != nil {
		return "", nil, false
	}
	defer f.Close()
	head = make([]byte, 256)
	n, err := io.ReadFull(f, head)
	return program, head[:n], err == nil || n > 0
}

// shows reports whether a file of the host, outside of the workspace, can be seen inside under its own path.
func (r *run) shows(path string) bool {
	if slices.ContainsFunc(append([]string{"/proc", "/dev"}, policy.PrivateDirs...), func(own string) bool { return within(path, own) }) {
		return false
	}
	return r.policy.Explain(policy.Query{Action: policy.QueryRead, Path: path}).Verdict == policy.Allow
}
