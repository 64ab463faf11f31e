package forward

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
)

// cursor is a record: its number, and its own hash, by which a log is told from another one with the same numbers.
type cursor struct {
	seq  uint64
	hash string
}

// readCursor reads SEQ:HASH; of a receiver that is new there is none.
func readCursor(file string) (c cursor, err error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	} else if err != nil {
		return c, err
	}
	number, hash, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || !ok {
		return c, fmt.Errorf("%s does not say how far the receiver has come; write NUMBER:HASH of the last record that it has, or remove the file: then it is sent all of the log", file)
	}
	return cursor{seq, hash}, nil
}

func (c cursor) write(file string) error {
	return atomicfile.Write(file, fmt.Appendf(nil, "%d:%s\n", c.seq, c.hash))
}
