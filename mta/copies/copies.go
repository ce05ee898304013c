// Package copies is what those who make, watch and end a copy of many files share. It knows no file system, so that
// package msg may speak of it.
package copies

import (
	"context"
	"sync/atomic"
)

// Copy is a copy of many files that takes long: it can be watched and ended. Its methods may be called from any goroutine.
type Copy struct {
	ctx          context.Context
	end          context.CancelCauseFunc
	files, bytes atomic.Int64
}

// New begins a copy, which ends with ctx. End it when it is made.
func New(ctx context.Context) *Copy {
	c := &Copy{}
	c.ctx, c.end = context.WithCancelCause(ctx)
	return c
}

// End fails what is still written to the copy with a reason, the first time it is called.
func (c *Copy) End(why error) { c.end(why) }

// Err is why the copy ended; nil if it has not.
func (c *Copy) Err() error { return context.Cause(c.ctx) }

// Made tells how many files were begun, and how many bytes were written to them; a hard link has none. Both only grow, and
// stand still if nothing can be written.
func (c *Copy) Made() (files, bytes int64) { return c.files.Load(), c.bytes.Load() }

// Began counts a file.
func (c *Copy) Began() { c.files.Add(1) }

// Wrote counts bytes that were written.
func (c *Copy) Wrote(n int) { c.bytes.Add(int64(n)) }
