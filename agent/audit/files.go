package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const extension = ".jsonl"

// files are where a chain lies: NAME.jsonl, which is written, and NAME.000001.jsonl, NAME.000002.jsonl, ..., which are
// closed. The numbers go up with the records in them, and are never used twice while their files are there.
type files struct{ dir, name string }

// filesOf splits the path of a chain's file. number is 0 for the one that is written.
func filesOf(path string) (f files, number int) {
	dir, base := filepath.Split(strings.TrimSuffix(path, packedExtension))
	f = files{filepath.Clean(dir), strings.TrimSuffix(base, extension)}
	if i := strings.LastIndexByte(f.name, '.'); i > 0 && strings.HasSuffix(base, extension) {
		if n, ok := number6(f.name[i+1:]); ok {
			f.name = f.name[:i]
			return f, n
		}
	}
	return f, 0
}

// number6 reads the number of a closed file.
func number6(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil && n > 0 && s == fmt.Sprintf("%06d", n)
}

// live is the path of the file that is written.
func (f files) live() string { return filepath.Join(f.dir, f.name+extension) }

// closed is the path of a file that is written no more; number 0 stands for the live one.
func (f files) closed(number int) string {
	if number == 0 {
		return f.live()
	}
	return filepath.Join(f.dir, fmt.Sprintf("%s.%06d%s", f.name, number, extension))
}

// numbers lists the closed files, oldest first.
func (f files) numbers() ([]int, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	var list []int
	for _, e := range entries {
		if of, n := filesOf(filepath.Join(f.dir, e.Name())); n > 0 && of.name == f.name {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil // one that is compressed at this moment may be there twice
}

// all returns the closed files, oldest first, and the live one, open: nil when it is not there, before the first record
// or between two steps of a rotation. The live one comes right after the closed ones.
func (f files) all() (numbers []int, live source, err error) {
	for {
		if numbers, err = f.numbers(); err != nil {
			return nil, nil, err
		}
		if live, err = openPlain(f.live()); errors.Is(err, fs.ErrNotExist) {
			live = nil
		} else if err != nil {
			return nil, nil, err
		}
		again, err := f.numbers()
		if err == nil && newest(again) == newest(numbers) {
			return again, live, nil
		}
		if live != nil {
			live.Close()
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

func newest(numbers []int) int {
	if len(numbers) == 0 {
		return 0
	}
	return numbers[len(numbers)-1]
}

// Chains returns the paths by which the chains of a directory are verified, sorted.
func Chains(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("audit directory: %w", err)
	}
	var list []string
	for _, e := range entries {
		if strings.HasSuffix(strings.TrimSuffix(e.Name(), packedExtension), extension) {
			f, _ := filesOf(filepath.Join(dir, e.Name()))
			list = append(list, f.live())
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
