package secret

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/tempfile"
)

const word = "s3cret-w0rd"

// given is a file, or the link name of one, that another account owns.
func given(t *testing.T, name string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	if err := os.Lchown(name, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return name
}

func link(t *testing.T, to string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFile(t *testing.T) {
	for name, test := range map[string]struct {
		read func(string) ([]byte, error)
		file func(*testing.T) string
		want string // of the error; "": it is read
	}{
		"its owner's":              {File, func(t *testing.T) string { return tempfile.Write(t, 0o400, word) }, ""},
		"its group's":              {File, func(t *testing.T) string { return tempfile.Write(t, 0o640, word) }, "(mode 0640): chmod 600 /"},
		"its group's, shared":      {SharedFile, func(t *testing.T) string { return tempfile.Write(t, 0o640, word) }, ""},
		"everybody's, shared":      {SharedFile, func(t *testing.T) string { return tempfile.Write(t, 0o644, word) }, "(mode 0644): chmod 640 /"},
		"its group may write":      {SharedFile, func(t *testing.T) string { return tempfile.Write(t, 0o660, word) }, "(mode 0660): chmod 640 /"},
		"a directory":              {File, func(t *testing.T) string { return t.TempDir() }, "not a regular file"},
		"a file that is not there": {File, func(t *testing.T) string { return "/nowhere/file" }, "no such file"},
		"too long":                 {File, func(t *testing.T) string { return tempfile.Write(t, 0o600, strings.Repeat(word, maxFile)) }, "too long"},
		"a link":                   {File, func(t *testing.T) string { return link(t, tempfile.Write(t, 0o600, word)) }, ""},
		"a link to everybody's":    {File, func(t *testing.T) string { return link(t, tempfile.Write(t, 0o644, word)) }, "(mode 0644)"},
		"another account's":        {File, func(t *testing.T) string { return given(t, tempfile.Write(t, 0o600, word)) }, "uid 65534"},
		"another account's link":   {File, func(t *testing.T) string { return given(t, link(t, tempfile.Write(t, 0o600, word))) }, "uid 65534"},
		"a link to another's":      {File, func(t *testing.T) string { return link(t, given(t, tempfile.Write(t, 0o600, word))) }, "uid 65534"},
		"a pipe that nobody writes to": {File, func(t *testing.T) string {
			name := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(name, 0o600); err != nil {
				t.Fatal(err)
			}
			return name
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := test.file(t)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				text, err := test.read(file)
				switch {
				case test.want == "" && (err != nil || string(text) != word):
					t.Errorf("%q, %v", text, err)
				case test.want != "" && (err == nil || len(text) != 0 || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), word)):
					t.Errorf("%d bytes, %v; want %q", len(text), err, test.want)
				}
			}()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Error("it waits")
			}
		})
	}
}

func TestCredential(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := Credential("token"); err == nil || !strings.Contains(err.Error(), "add LoadCredential=token:FILE") {
		t.Error(err)
	}
	// systemd's are readable by the unit's account alone, by an ACL that the mode shows as its group's.
	file := tempfile.Write(t, 0o440, word)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(file))
	if text, err := Credential("file"); err != nil || string(text) != word {
		t.Errorf("%q, %v", text, err)
	}
}

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		word: word, " " + word + "\r\n": word, "": "", "\n": "", "two words": "", "two\nlines": "", "schön": "", "a\x00b": "", strings.Repeat("x", maxLine+1): "",
	} {
		line, err := Line([]byte(text))
		if line != want || (err == nil) != (want != "") || err != nil && text != "" && text != "\n" && strings.Contains(err.Error(), text) {
			t.Errorf("%.20q: %q, %v", text, line, err)
		}
	}
}
