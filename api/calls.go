package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

const tarType = "application/x-tar"

// get asks for a value.
func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	err = c.call(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

// post sends body (nil: none) and returns the answer.
func post[T any](ctx context.Context, c *Client, path string, body any) (v T, err error) {
	err = c.call(ctx, http.MethodPost, path, body, &v)
	return v, err
}

// of is the path of a sandbox, or of something of its. Whatever the parts are, they stay one element each.
func of(name string, parts ...string) string {
	p := "sandboxes/" + url.PathEscape(name)
	for _, part := range parts {
		p += "/" + url.PathEscape(part)
	}
	return p
}

// query adds a query to a path: names and values in turn. An empty value is left out.
func query(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// Info says what the daemon is, and what the caller may do.
func (c *Client) Info(ctx context.Context) (Info, error) { return get[Info](ctx, c, "info") }

// OpenAPI returns the description of the interface, an OpenAPI document.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	resp, err := c.send(ctx, http.MethodGet, "openapi.json", "", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// List returns all sandboxes.
func (c *Client) List(ctx context.Context) ([]Sandbox, error) {
	return get[[]Sandbox](ctx, c, "sandboxes")
}

// Get returns one sandbox.
func (c *Client) Get(ctx context.Context, name string) (Sandbox, error) {
	return get[Sandbox](ctx, c, of(name))
}

// Create makes a sandbox.
func (c *Client) Create(ctx context.Context, s Create) (Sandbox, error) {
	return post[Sandbox](ctx, c, "sandboxes", s)
}

// Start starts a sandbox.
func (c *Client) Start(ctx context.Context, name string) (Sandbox, error) {
	return post[Sandbox](ctx, c, of(name, "start"), nil)
}

// Stop stops a sandbox.
func (c *Client) Stop(ctx context.Context, name string) (Sandbox, error) {
	return post[Sandbox](ctx, c, of(name, "stop"), nil)
}

// Destroy stops a sandbox and takes away what is its own.
func (c *Client) Destroy(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, of(name), nil, nil)
}

// Usage returns what a sandbox takes now.
func (c *Client) Usage(ctx context.Context, name string) (Usage, error) {
	return get[Usage](ctx, c, of(name, "usage"))
}

// Models returns which models answer a sandbox, how they are, and what they took.
func (c *Client) Models(ctx context.Context, name string) (Models, error) {
	return get[Models](ctx, c, of(name, "models"))
}

// Upload unpacks a tar stream below path, a path of the sandbox.
func (c *Client) Upload(ctx context.Context, name, path string, tar io.Reader) error {
	resp, err := c.send(ctx, http.MethodPut, query(of(name, "files"), "path", path), tarType, tar)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Download writes path, a path of the sandbox, as a tar stream. After an error what was written is not whole.
func (c *Client) Download(ctx context.Context, name, path string, tar io.Writer) error {
	resp, err := c.send(ctx, http.MethodGet, query(of(name, "files"), "path", path), "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(tar, resp.Body); err != nil {
		return fmt.Errorf("downloading %s from %s: %w", path, name, err)
	}
	return streamError(resp)
}

// Policy returns a revision of a sandbox's policy; 0 is the latest.
func (c *Client) Policy(ctx context.Context, name string, revision int) (PolicyText, error) {
	which := ""
	if revision != 0 {
		which = strconv.Itoa(revision)
	}
	return get[PolicyText](ctx, c, query(of(name, "policy"), "revision", which))
}

// Revisions returns a sandbox's policies without their text, newest first.
func (c *Client) Revisions(ctx context.Context, name string) ([]PolicyText, error) {
	return get[[]PolicyText](ctx, c, of(name, "policy", "revisions"))
}

// ChangePolicy changes a sandbox's policy.
func (c *Client) ChangePolicy(ctx context.Context, name string, change PolicyChange) (PolicyResult, error) {
	return post[PolicyResult](ctx, c, of(name, "policy", "changes"), change)
}

// Explain asks what the policy says: action is "read", "write", "exec" or "connect", object a path, a command, "host:port"
// or the path of a unix socket. command says who does it, and may be "".
func (c *Client) Explain(ctx context.Context, name, action, object, command string) (Answer, error) {
	return get[Answer](ctx, c, query(of(name, "policy", "explain"), "action", action, "object", object, "command", command))
}

// SetConfig sets values of a sandbox's configuration; "" takes one away.
func (c *Client) SetConfig(ctx context.Context, name string, set map[string]string) (s Sandbox, err error) {
	err = c.call(ctx, http.MethodPatch, of(name, "config"), set, &s)
	return s, err
}

// Published returns the servers inside that ports of the host reach.
func (c *Client) Published(ctx context.Context, name string) ([]Published, error) {
	return get[[]Published](ctx, c, of(name, "published"))
}

// Publish makes a server inside reachable at a port of the host.
func (c *Client) Publish(ctx context.Context, name string, p Published) (Published, error) {
	return post[Published](ctx, c, of(name, "published"), p)
}

// Unpublish takes that back. host is the address and port on the host, as Published has it.
func (c *Client) Unpublish(ctx context.Context, name, host string) error {
	return c.call(ctx, http.MethodDelete, query(of(name, "published"), "host", host), nil, nil)
}

// EraseAudit erases the texts of records of the daemon's audit log. Only root may.
func (c *Client) EraseAudit(ctx context.Context, e Erase) (Erased, error) {
	return post[Erased](ctx, c, "audit/erase", e)
}

// Snapshots returns a sandbox's snapshots.
func (c *Client) Snapshots(ctx context.Context, name string) ([]Snapshot, error) {
	return get[[]Snapshot](ctx, c, of(name, "snapshots"))
}

// Snapshot keeps a sandbox's workspace and policy. label may be "".
func (c *Client) Snapshot(ctx context.Context, name, label string) (Snapshot, error) {
	return post[Snapshot](ctx, c, of(name, "snapshots"), NewSnapshot{Name: label})
}

// Restore brings a snapshot back.
func (c *Client) Restore(ctx context.Context, name, id string) (Sandbox, error) {
	return post[Sandbox](ctx, c, of(name, "snapshots", id, "restore"), nil)
}

// DeleteSnapshot takes a snapshot away.
func (c *Client) DeleteSnapshot(ctx context.Context, name, id string) error {
	return c.call(ctx, http.MethodDelete, of(name, "snapshots", id), nil, nil)
}
