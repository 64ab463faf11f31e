package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// anchorTime is how long a server has to take a checkpoint.
const anchorTime = 10 * time.Second

// OpenAnchor returns what Options.Anchor takes: a checkpoint's line is added to a file, sent to the host's syslog (the word syslog)
// or posted to a server (its http or https address). "" gives nil.
func OpenAnchor(where string) (func(line []byte) error, error) {
	switch {
	case where == "":
		return nil, nil
	case where == "syslog":
		return toSyslog, nil
	case filepath.IsAbs(where):
		// Opened each time: it may be moved away, and on a remote file system.
		return func(line []byte) error { return toFile(where, line) }, toFile(where, nil)
	}
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("audit anchor: its address is no URL")
	}
	client := &http.Client{
		Timeout:       anchorTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(line []byte) error { return toServer(client, u, line) }, nil
}

func toFile(name string, line []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Sync(), f.Close())
}

func toSyslog(line []byte) error {
	w, err := syslog.New(syslog.LOG_NOTICE|syslog.LOG_AUTHPRIV, "nemoclaw-audit")
	if err != nil {
		return err
	}
	_, err = w.Write(line)
	return errors.Join(err, w.Close())
}

// toServer posts a line. It is signed itself, so the request is not.
func toServer(client *http.Client, u *url.URL, line []byte) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, u.String(), bytes.NewReader(line))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "nemoclaw-agent")
	resp, err := client.Do(req)
	if err != nil {
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err // without the address, which may be a secret
		}
		return fmt.Errorf("%s: %w", u.Host, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s: the server answered %d %s", u.Host, resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return nil
}
