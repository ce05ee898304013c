package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"meta1/mta/msg"
	"meta1/queue/fsck"
)

type fsckRequest = msg.Request[msg.FsckQ, msg.FsckA]

const (
	// fsckPage is how long one step of a check may work before it rests as long.
	fsckPage = 100 * time.Millisecond
	// fsckRest bounds the rest, for a page that had much content to read.
	fsckRest = 10 * time.Second
	// fsckPause is the time after which a finding is looked at again: what is under way
	// meanwhile has been written down by then.
	fsckPause = 5 * time.Second
)

// fsckLimits bound one step of a check.
func fsckLimits() fsck.Limits {
	return fsck.Limits{Records: 5000, Findings: 5000, Time: fsckPage}
}

// fsck answers questions for a check of the store, beside all other work: it reads,
// a page at a time, and rests as long as it has worked.
func (q *Queue) fsck(ctx context.Context, requests <-chan *fsckRequest) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-requests:
			r.Answer(q.fsckPage(ctx, r))
		}
	}
}

// fsckPage checks one part.
func (q *Queue) fsckPage(ctx context.Context, r *fsckRequest) msg.FsckA {
	var from fsck.Cursor
	if r.Q.Cursor != "" {
		if err := json.Unmarshal([]byte(r.Q.Cursor), &from); err != nil {
			return msg.FsckA{Err: "the cursor is none of ours"}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, msg.FsckTime)
	defer cancel()
	stop := context.AfterFunc(r.Ctx, cancel) // nobody waits any more
	defer stop()
	c := fsck.NewCheck(fsck.View{
		FS: q.deps.FS, Dirs: q.dirs, UID: os.Getuid(),
		Store: q.db.Store().Reader(),
	}, from, r.Q.Content)
	list, more, worked, err := c.PageTwice(ctx, fsckLimits(), fsckPause)
	a := msg.FsckA{Findings: make([]msg.Finding, 0, len(list)), Examined: c.Cursor().Examined}
	for _, f := range list {
		a.Findings = append(a.Findings, msg.Finding{
			Severity: string(f.Severity), Code: f.Code, TA: f.TA, RcptID: f.RcptID, Path: f.Path, Text: f.Text, Repair: f.Repair,
		})
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		a.Err = "a step of the check took too long"
	case err != nil:
		a.Err = fmt.Sprintf("the check ended early: %v", err)
	case more:
		cursor, err := json.Marshal(c.Cursor())
		if err != nil {
			a.Err = err.Error()
		}
		a.Cursor = string(cursor)
	}
	rest(ctx, min(worked, fsckRest))
	return a
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
