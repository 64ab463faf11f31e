package inference

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	maxKey  = 4096
	keyTime = 10 * time.Second // for a command that prints one
)

// readKey reads a key from where the policy says that it is. No error has any of the key in it.
func readKey(ctx context.Context, k policy.Key) (string, error) {
	switch {
	case k.File != "":
		return keyFromFile(k.File, true)
	case k.Credential != "":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", fmt.Errorf("the key is the credential %s, and systemd gave this process none; add LoadCredential=%s:FILE to its unit", k.Credential, k.Credential)
		}
		return keyFromFile(filepath.Join(dir, k.Credential), false) // systemd says who may read it
	case k.Command != "":
		return keyFromCommand(ctx, k.Command)
	}
	return "", nil
}

// keyFromFile reads a file. alone: it must be root's, and nobody else may read or write it.
func keyFromFile(file string, alone bool) (string, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("the key file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("the key file: %w", err)
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("the key file %s is not a file", file)
	case alone && (st.Sys().(*syscall.Stat_t).Uid != 0 || st.Mode().Perm()&0o077 != 0):
		return "", fmt.Errorf("the key file %s is not root's alone: chown root %s; chmod 600 %s", file, file, file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	if err != nil {
		return "", fmt.Errorf("the key file: %w", err)
	}
	return cleanKey(text, "the key file "+file)
}

// keyFromCommand runs a program that prints the key. Nobody but root may have been able to write it.
func keyFromCommand(ctx context.Context, command string) (string, error) {
	st, err := os.Stat(command)
	if err != nil {
		return "", fmt.Errorf("the command that prints the key: %w", err)
	}
	if st.Sys().(*syscall.Stat_t).Uid != 0 || st.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("the command %s that prints the key can be changed by others than root: chown root %s; chmod 755 %s", command, command, command)
	}
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	c := exec.CommandContext(ctx, command)
	c.Env = []string{"PATH=" + policy.SearchPath, "HOME=/root"}
	c.WaitDelay = time.Second
	out, err := c.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = errors.New(exit.ProcessState.String()) // what it printed may be the key
		}
		return "", fmt.Errorf("the command %s that prints the key: %w", command, err)
	}
	return cleanKey(out, "what the command "+command+" printed")
}

// cleanKey is the key without the line's end. It goes into a header, so that it can be nothing else.
func cleanKey(text []byte, what string) (string, error) {
	key := string(bytes.TrimSpace(text))
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s is no key: one line of visible characters is expected", what)
	}
	return key, nil
}

// KeyVariables are the variables that programs usually have a provider's key in.
var KeyVariables = map[string]string{
	"nvidia": "NVIDIA_API_KEY", "openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "google": "GEMINI_API_KEY",
}

// KeyFromEnvironment is a Source's Key that takes a provider's usual variable of this process.
func KeyFromEnvironment(b *policy.Backend) (string, error) {
	name := KeyVariables[b.Provider]
	if name == "" || os.Getenv(name) == "" {
		return "", nil
	}
	return cleanKey([]byte(os.Getenv(name)), name)
}
