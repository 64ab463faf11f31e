package approvals

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// journal has the requests that came and went since the last save began, a line each: what a person was shown is listed by the next
// daemon too, however soon this one is killed, and what was answered is not. Like the grants it lies where nobody waits for a disk: a
// reboot takes at most what no save had yet.
//
// There are two files by turns. A save begins the other one, and removes that of before when all in it is saved. What a save that failed
// has left is there twice, and counts once. The desk's mu guards it.
type journal struct {
	name string // of both, without the number; "": none is kept
	turn int
}

func (j *journal) file(turn int) string { return j.name + strconv.Itoa(turn) }

// add writes a line. Where that can't be, the next save does it.
func (j *journal) add(e journalLine) {
	if j.name == "" {
		return
	}
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	f, err := os.OpenFile(j.file(j.turn), os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return // the sandbox ends, and its directory is gone
	}
	defer f.Close()
	_, _ = f.Write(append(line, '\n'))
}

// next begins the other file, and returns what removes that of before.
func (j *journal) next() (saved func()) {
	if j.name == "" {
		return func() {}
	}
	old := j.file(j.turn)
	j.turn = 1 - j.turn
	return func() { _ = os.Remove(old) }
}

// read returns what is in both files: the requests that came, and the ids of those that went. A line that a kill has cut is left out.
func (j *journal) read() (came []keptRequest, gone map[string]struct{}, err error) {
	gone = map[string]struct{}{}
	if j.name == "" {
		return nil, gone, nil
	}
	for turn := range 2 {
		text, err := os.ReadFile(j.file(turn))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		for line := range bytes.Lines(text) {
			var e journalLine
			switch {
			case json.Unmarshal(line, &e) != nil:
			case e.Request != nil:
				came = append(came, *e.Request)
			default:
				gone[e.Gone] = struct{}{}
			}
		}
	}
	return came, gone, nil
}

// clear removes both files.
func (j *journal) clear() {
	if j.name == "" {
		return
	}
	for turn := range 2 {
		_ = os.Remove(j.file(turn))
	}
}
