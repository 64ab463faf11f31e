package agent

import (
	"fmt"
	"slices"

	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// openAuthority has the router's certificate authority ready, where the sandbox is started with a router.
func (i *Instance) openAuthority() (err error) {
	if i.policy.Inference != nil {
		i.authority, err = inference.OpenAuthority(i.c.Inference.AuthorityFile)
	}
	return err
}

// trust is the router's authority, for programs inside.
func (i *Instance) trust() sandbox.Trust {
	if i.authority == nil {
		return sandbox.Trust{}
	}
	return sandbox.Trust{PEM: i.authority.PEM(), Hash: i.authority.Hash(), File: inference.BundleName, Host: inference.HostBundle()}
}

// Environment is what the environment of each command begins with: what makes programs trust the router's certificate, and says which
// GPUs are there.
func (i *Instance) Environment() []string {
	return slices.Concat(i.trustVariables(), i.gpuEnvironment())
}

// trustVariables are none where there is no router, or no /etc for the file that programs are to read.
func (i *Instance) trustVariables() []string {
	if i.authority == nil || !i.policy.Files.Baseline {
		return nil
	}
	return inference.TrustVariables()
}

// Models says which models answer, how they are, and what they took. false: none does, since the policy has no such section.
func (i *Instance) Models() (api.Models, bool) {
	if i.router == nil {
		return api.Models{}, false
	}
	return i.router.Models(), true
}

// Measured is what the models did since this daemon has the sandbox.
func (i *Instance) Measured() []inference.Measured {
	if i.router == nil {
		return nil
	}
	return i.router.Measured()
}

// makeRouter makes what answers model calls.
func (i *Instance) makeRouter(p *policy.Compiled) (err error) {
	if i.authority == nil {
		return nil
	}
	if i.router, err = inference.New(inference.Config{Source: i.c.Inference, Policy: p, Authority: i.authority, Record: i.c.Record, Permit: i.permit, Ask: i.c.Ask, Traces: i.c.Traces}); err != nil {
		return fmt.Errorf("run: the privacy router: %w", err)
	}
	return nil
}
