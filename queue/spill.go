package queue

import (
	"context"

	"meta1/mta/msg"
	"meta1/mta/vfs"
)

// spillOver is the size in bytes up to which the content of a deferred message stays in the
// store. Larger content would be copied again and again by compactions, and its space would
// come back only when they are done.
const spillOver = 4 << 10

// spillers is how many contents are moved to files at once.
const spillers = 16

// spill moves content from the store to a file, which is durable before the store gives its
// own copy up. If there is no room, it stays where it is.
func (q *Queue) spill(ctx context.Context, e *msg.Envelope) {
	select {
	case q.spilling <- struct{}{}:
		defer func() { <-q.spilling }()
	case <-ctx.Done():
		return
	}
	ta := e.TA
	if !q.contents.BeginSpill(ta) {
		return // it is in progress
	}
	held, inStore, err := q.db.Content(ta)
	if err == nil && !inStore { // it was spilled before, or the message has ended
		q.contents.EndSpills(ta)
		return
	}
	if err == nil {
		// A file that is there already was left by a crash: nobody knows what of it is on the disk.
		err = q.cdb.Remove(ta)
	}
	if err == nil {
		err = q.files.Write(e, held)
	}
	if err == nil {
		q.journal.Spilled(ta) // which ends the spill
		return
	}
	q.contents.EndSpills(ta)
	switch {
	case vfs.IsFull(err):
		q.log.Debug("content stays in the store: there is no room for a file", "ss_ta", ta.String())
	default:
		q.log.Warn("content stays in the store: it cannot be written to a file", "ss_ta", ta.String(), "error", err)
	}
}
