package metrics

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// Errors counts what goes through a log, and passes it on.
type Errors struct {
	slog.Handler
	*said
}

// said is what was counted, of a handler and of all that are made of it.
type said struct {
	errors, warnings atomic.Uint64
	last             atomic.Int64 // of the errors, in seconds since 1970
}

// CountErrors returns a handler that counts, before another.
func CountErrors(next slog.Handler) *Errors { return &Errors{next, &said{}} }

// Handle counts a record.
func (e *Errors) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelError:
		e.errors.Add(1)
		e.last.Store(time.Now().Unix())
	case r.Level >= slog.LevelWarn:
		e.warnings.Add(1)
	}
	return e.Handler.Handle(ctx, r)
}

// WithAttrs is as a handler's has to be.
func (e *Errors) WithAttrs(list []slog.Attr) slog.Handler {
	return &Errors{e.Handler.WithAttrs(list), e.said}
}

// WithGroup is as a handler's has to be.
func (e *Errors) WithGroup(name string) slog.Handler {
	return &Errors{e.Handler.WithGroup(name), e.said}
}
