package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func TestShowModels(t *testing.T) {
	since := time.Now().Add(-3 * time.Minute)
	var out bytes.Buffer
	cmd, parent := &cobra.Command{}, &cobra.Command{Use: "box"}
	parent.AddCommand(cmd)
	cmd.SetOut(&out)
	if err := showModels(cmd, api.Models{
		Models: []api.Model{
			{Model: "openai/gpt-4o", Chosen: true, Route: "cloud", Health: "unknown"},
			{Name: "local", Model: "ollama/llama3.3:70b", Route: "local", Health: "up", Today: api.Taken{Requests: 4, Input: 112, Output: 80},
				Latency: api.Quantiles{P50: 800 * time.Millisecond, P99: 4 * time.Second}, First: api.Quantiles{P50: 90 * time.Millisecond, P99: time.Second}},
			{Name: "eu", Model: "euro/large", Route: "cloud", Region: "eu", Health: "down", Reason: "it answers 503 Service Unavailable\x1b[31m", Since: &since},
		},
		Refused: 2, Today: api.Taken{Requests: 4, Input: 112, Output: 80, Cost: 0.0125},
		Tokens: &api.Budget{Most: 2e6, Left: 1999808}, Cost: &api.Budget{Most: 20, Left: 19.9875}, Anew: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC),
	}); err != nil {
		t.Fatal(err)
	}
	golden(t, "models", out.String())
}

// TestModelCallInstead: who reads that another model answered than the sandbox's reads why.
func TestModelCallInstead(t *testing.T) {
	got := modelCall(&policy.ModelCall{Asked: "gpt-4o", Instead: []string{"corp/big: the server answered 503 Service Unavailable", "x\x1b[31m/y: down"}, BytesIn: 1, BytesOut: 2, MS: 3})
	want := `asked for gpt-4o; instead of corp/big: the server answered 503 Service Unavailable, x\x1b[31m/y: down; 1 bytes in, 2 out, 3 ms`
	if got != want {
		t.Errorf("it says %s, want %s", got, want)
	}
}
