package inference

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/secret"
	"github.com/nemoclaw/nemoclaw/policy"
)

const keyTime = 10 * time.Second // for a command that prints one

// readKey reads a key from where the policy says that it is. No error has any of the key in it.
func readKey(ctx context.Context, k policy.Key) (string, error) {
	switch {
	case k.File != "":
		text, err := secret.File(k.File)
		return cleanKey(text, "the key file "+k.File, err)
	case k.Credential != "":
		text, err := secret.Credential(k.Credential)
		return cleanKey(text, "the key's credential "+k.Credential, err)
	case k.Command != "":
		return keyFromCommand(ctx, k.Command)
	}
	return "", nil
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
	return cleanKey(out, "what the command "+command+" printed", nil)
}

// cleanKey is the key without the line's end, of a text that was read if err is nil.
func cleanKey(text []byte, what string, err error) (key string, _ error) {
	if err == nil {
		key, err = secret.Line(text)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
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
	return cleanKey([]byte(os.Getenv(name)), name, nil)
}
