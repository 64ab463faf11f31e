package daemon

import (
	"context"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// EraseAudit erases the texts of records of the audit log, which this daemon writes.
func (d *Daemon) EraseAudit(ctx context.Context, who server.Caller, e api.Erase) (api.Erased, error) {
	records, err := audit.ParseRanges(e.Records)
	if err != nil {
		return api.Erased{}, &api.Error{Code: api.Invalid, Message: err.Error()}
	}
	what := audit.Erasure{Records: records, Reason: e.Reason, By: who.Name}
	if err := what.Validate(); err != nil {
		return api.Erased{}, &api.Error{Code: api.Invalid, Message: err.Error()}
	}
	s, err := d.audit.Erase(ctx, what, func(said policy.Decision) error { return d.own.Permit(said, true) }, nil)
	if err != nil {
		return api.Erased{}, err
	}
	return api.Erased{Records: s.Records.String(), Count: s.Records.Count(), Already: s.Already, Old: s.Old, Keeps: s.Keeps}, nil
}
