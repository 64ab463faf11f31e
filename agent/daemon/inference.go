package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Files of a sandbox's router. authorityFile has the key and certificate of its authority in it, and is root's alone; ledgerFile what
// its models took today.
const (
	authorityFile = "ca.pem"
	ledgerFile    = "spent.json"
)

// inference is what the router of the sandbox needs. The model and the key are looked at for each request, so that a change of
// them holds at once.
func (b *box) inference() inference.Source {
	return inference.Source{AuthorityFile: filepath.Join(b.dir, authorityFile), LedgerFile: filepath.Join(b.dir, ledgerFile), Model: b.model, Key: b.key}
}

// model is the one that was set, "" where none was.
func (b *box) model() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spec.Config[api.ConfigModel]
}

// key is the sandbox's, for the provider that it was given for and no other.
func (b *box) key(backend *policy.Backend) (string, error) {
	b.mu.Lock()
	of := b.spec.keyFor()
	b.mu.Unlock()
	if of != backend.Provider {
		return "", nil
	}
	text, err := os.ReadFile(filepath.Join(b.dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", errors.New("the sandbox's key can't be read")
	}
	return strings.TrimSpace(string(text)), nil
}

// Models says which models answer a sandbox, how they are, and what they took.
func (d *Daemon) Models(name string) (api.Models, error) {
	b, err := d.find(name)
	if err != nil {
		return api.Models{}, err
	}
	i, err := b.running()
	if err != nil {
		return api.Models{}, err
	}
	m, there := i.Models()
	if !there {
		return m, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("the policy that %s was started with has no section inference, so no model answers inside; add one and start it again", name)}
	}
	return m, nil
}
