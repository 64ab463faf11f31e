package hook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/secret"
)

// The form of a key, and how long one is, as Standard Webhooks says.
const (
	keyPrefix       = "whsec_"
	minKey, maxKey  = 24, 64 // bytes
	howToMakeSecret = `make one: (umask 077; echo "whsec_$(openssl rand -base64 32)" > FILE)`
)

// sign is a message's signature: HMAC-SHA256 over its id, the time of the attempt and its body.
func sign(key []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.", id, at.Unix())
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// readKeys reads the keys of a hook from a file.
func readKeys(file string) ([][]byte, error) {
	src, err := secret.File(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; %s", err, howToMakeSecret)
	}
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	keys, err := parseKeys(src)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %s: %w; %s", file, err, howToMakeSecret)
	}
	return keys, nil
}

// parseKeys reads keys, one a line: each message is signed with every one, so that a key can be changed while both sides run.
// An error says nothing of what is in the text.
func parseKeys(src []byte) (keys [][]byte, err error) {
	n := 0
	for line := range bytes.Lines(src) {
		n++
		s := strings.TrimSpace(string(line))
		if s == "" {
			continue
		}
		s, found := strings.CutPrefix(s, keyPrefix)
		key, err := base64.StdEncoding.DecodeString(s)
		if !found || err != nil || len(key) < minKey || len(key) > maxKey {
			return nil, fmt.Errorf("line %d is no key: want %s and %d to %d bytes in base64", n, keyPrefix, minKey, maxKey)
		}
		keys = append(keys, key)
	}
	if keys == nil {
		return nil, errors.New("there is no key in it")
	}
	return keys, nil
}
