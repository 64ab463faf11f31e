package audit

import (
	"context"
	"path/filepath"
)

// Query calls fn with each record of a chain that flt selects, in order, up to the last one that is there when it
// begins. line is the log's, without its newline, and fn's only until it returns. An error of fn ends the query and is
// returned.
func Query(ctx context.Context, dir, chain string, flt Filter, fn func(seq uint64, line []byte) error) error {
	return query(ctx, files{filepath.Clean(dir), chain}, flt, fn)
}

func query(ctx context.Context, f files, flt Filter, fn func(seq uint64, line []byte) error) error {
	end, err := f.lastRecord()
	if err != nil {
		return err
	}
	r := &reader{files: f, flt: flt, fn: fn, end: end}
	defer r.close()
	if err := r.start(ctx); err != nil {
		return err
	}
	return r.read(ctx)
}

// Query is the function Query on the writer's own chain: what was appended before is found.
func (w *Writer) Query(ctx context.Context, flt Filter, fn func(seq uint64, line []byte) error) error {
	if err := w.Flush(); err != nil {
		return err
	}
	return query(ctx, w.files, flt, fn)
}

// Follow is Query, and goes on with what is appended, until ctx ends, fn fails or the writer fails, whose error it
// returns, or until the writer is closed. It reads the files all the time, so however slow fn is, no record is lost or
// comes twice, and the writer doesn't wait for it.
func (w *Writer) Follow(ctx context.Context, flt Filter, fn func(seq uint64, line []byte) error) error {
	return w.Tail(ctx, flt, fn, func() error { return nil })
}

// Tail is Follow that says when it has handed on all that there is: rest is called then, before it waits for more. An error of rest
// ends it too. While rest takes its time more comes together, and nobody waits for it.
func (w *Writer) Tail(ctx context.Context, flt Filter, fn func(seq uint64, line []byte) error, rest func() error) error {
	if err := w.Flush(); err != nil {
		return err
	}
	r := &reader{files: w.files, flt: flt, fn: fn, end: forever}
	defer r.close()
	if err := r.start(ctx); err != nil {
		return err
	}
	for {
		grown := w.growth() // before reading: what is written later closes it
		if err := r.read(ctx); err != nil || r.over {
			return err
		}
		if err := rest(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-grown:
		case <-w.failed:
			return w.Err()
		case <-w.stopped:
			if err := r.read(ctx); err != nil {
				return err
			}
			return rest()
		}
	}
}

// growth returns a channel that is closed when more was written.
func (w *Writer) growth() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.grown == nil {
		w.grown = make(chan struct{})
	}
	return w.grown
}
