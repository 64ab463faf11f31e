// Package provider knows who answers model calls: the providers, which models to offer, and how to find out whether a
// provider takes a key. It never keeps a key, never writes one into an error, and sends one only to its own provider.
package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Model is one that is offered. Any other of a known provider can be named too.
type Model struct {
	ID    string // PROVIDER/MODEL
	About string
}

// Recommended is the model that is taken when nobody chooses.
const Recommended = "nvidia/nemotron-3-super-120b"

// Models are those to offer, the recommended one first.
func Models() []Model {
	return []Model{
		{Recommended, "Nemotron 3 Super 120B, by NVIDIA (recommended)"},
		{"openai/gpt-4o", "GPT-4o, by OpenAI"},
		{"anthropic/claude-3-opus", "Claude 3 Opus, by Anthropic"},
		{"google/gemini-pro", "Gemini Pro, by Google"},
		{"ollama/llama3.3:70b", "Llama 3.3 70B on this host, by Ollama: needs no key"},
	}
}

// provider is where a provider's keys are tried.
type provider struct {
	name string
	host string // "": on this host, without a key
	try  func(ctx context.Context, p *provider, model, key string) (*http.Request, error)
}

var providers = []provider{
	{"nvidia", "integrate.api.nvidia.com", completion}, // its list of models is open to everybody
	{"openai", "api.openai.com", lookUp("/v1/models/", "Authorization", "Bearer ")},
	{"anthropic", "api.anthropic.com", lookUp("/v1/models/", "X-Api-Key", "")},
	{"google", "generativelanguage.googleapis.com", lookUp("/v1beta/models/", "X-Goog-Api-Key", "")},
	{"ollama", "", nil},
	{"vllm", "", nil},
	{"llamacpp", "", nil},
}

func find(model string) (*provider, string, error) {
	name, rest, ok := strings.Cut(model, "/")
	i := slices.IndexFunc(providers, func(p provider) bool { return p.name == name })
	if !ok || rest == "" || i < 0 {
		var known []string
		for _, p := range providers {
			known = append(known, p.name)
		}
		return nil, "", fmt.Errorf("the model %q: want PROVIDER/MODEL, such as %s; the providers are %s", model, Recommended, strings.Join(known, ", "))
	}
	return &providers[i], rest, nil
}

// NeedsKey reports whether the provider of a model wants a key. The error says that there is no such provider.
func NeedsKey(model string) (bool, error) {
	p, _, err := find(model)
	return err == nil && p.host != "", err
}

// ErrRefused says that the provider was asked and does not take the key.
var ErrRefused = errors.New("the provider does not take this key")

// tryTime bounds the whole of a try.
const tryTime = 20 * time.Second

// Try asks the provider of a model whether it takes a key. The error wraps ErrRefused when it does not; any other says
// that nobody knows: the provider was not reached, or gave another answer.
func Try(ctx context.Context, model, key string) error {
	p, rest, err := find(model)
	if err != nil {
		return err
	}
	if p.host == "" {
		return fmt.Errorf("%s needs no key", p.name)
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%w: it has characters that no key has", ErrRefused)
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	req, err := p.try(ctx, p, rest, key)
	if err != nil {
		return err
	}
	client := http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: tryTime, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the key goes nowhere else
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s whether it takes the key: %w", p.host, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // for the person, as far as it came
	switch {
	case resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: %s answered %s", ErrRefused, p.host, resp.Status)
	}
	return fmt.Errorf("%s answered %s to a try of the key with %s: %s", p.host, resp.Status, model, bytes.ReplaceAll(said, []byte(key), []byte("(the key)")))
}

// completion asks for one token, which shows that the key works and that the model is there.
func completion(ctx context.Context, p *provider, model, key string) (*http.Request, error) {
	body, err := json.Marshal(map[string]any{
		"model": p.name + "/" + model, "max_tokens": 1, "messages": []map[string]string{{"role": "user", "content": "hi"}},
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+p.host+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// lookUp asks for the description of the model, which needs a key and costs nothing.
func lookUp(path, header, before string) func(context.Context, *provider, string, string) (*http.Request, error) {
	return func(ctx context.Context, p *provider, model, key string) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.host+path+url.PathEscape(model), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set(header, before+key)
		if p.name == "anthropic" {
			req.Header.Set("Anthropic-Version", "2023-06-01")
		}
		return req, nil
	}
}
