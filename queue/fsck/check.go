package fsck

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs"
	"meta1/queue/conf"
	"meta1/queue/records"
)

// Dirs are the places of a spool.
type Dirs = conf.Dirs

// View is what a check reads.
type View struct {
	FS    vfs.FS
	Dirs  Dirs
	Store store.Reader
	// UID must own the files; -1 for anybody.
	UID int
}

// Step is a part of a check.
type Step int

// The steps, in order.
const (
	StepRecords Step = iota
	StepContent
	StepIDs
	StepDone
)

// Cursor is a place in a check.
type Cursor struct {
	Step Step `json:"step"`
	// Key is where to go on: a key of the store, or the name of a content file with its
	// directory in front.
	Key []byte `json:"key,omitempty"`
	// Highest is the highest counter of an id so far.
	Highest uint64 `json:"highest"`
	// Examined counts records and files.
	Examined uint64 `json:"examined"`
}

// Limits bound a page.
type Limits struct {
	Records  int
	Findings int
	Time     time.Duration
}

// Check goes through a spool. It is not safe for concurrent use.
type Check struct {
	v       View
	cdb     *cdb.Store
	cur     Cursor
	content bool
	past    *past // what is known of the time before damage; nil while all is whole
	rebuild bool

	until time.Time
	left  int
	room  int
	shard int // whose names are in names; -1 for none
	names []string
	last  *message // that was read last
}

// NewCheck begins a check at a cursor. content says that all content is read and its
// checksum compared.
func NewCheck(v View, from Cursor, content bool) *Check {
	return &Check{v: v, cdb: cdb.At(v.FS, v.Dirs.CDB), cur: from, content: content, shard: -1}
}

// Cursor is where the check goes on.
func (c *Check) Cursor() Cursor { return c.cur }

// PageTwice examines records and files until a limit is reached; more is false when the check is
// complete. It is for a spool at work: what it finds it looks at again after a pause, and leaves
// out what has gone meanwhile. worked is the time without the pause.
func (c *Check) PageTwice(ctx context.Context, l Limits, pause time.Duration) (all []Finding, more bool, worked time.Duration, err error) {
	start := time.Now()
	list, more, err := c.page(ctx, l)
	worked = time.Since(start)
	if err != nil || len(list) == 0 {
		return nil, more, worked, err
	}
	select {
	case <-ctx.Done():
		return nil, true, worked, ctx.Err()
	case <-time.After(pause):
	}
	if list, err = c.persists(ctx, list); err != nil {
		return nil, true, worked, err
	}
	for _, f := range list {
		all = append(all, f.Finding)
	}
	return all, more, worked, nil
}

// page examines records and files until a limit is reached. more is false when the check is
// complete.
func (c *Check) page(ctx context.Context, l Limits) (all []found, more bool, err error) {
	c.left, c.room, c.until, c.last = l.Records, l.Findings, time.Now().Add(l.Time), nil
	for c.cur.Step < StepDone && !c.full() {
		if err := ctx.Err(); err != nil {
			return all, true, err
		}
		var list []found
		done := true
		switch c.cur.Step {
		case StepRecords:
			list, done, err = c.records()
		case StepContent:
			list, done, err = c.contentFiles(ctx)
		case StepIDs:
			if list, err = c.ids(); err == nil {
				list = c.took(list, place{StepIDs, ""})
			}
		}
		all = append(all, list...)
		if err != nil {
			return all, true, err
		}
		if done {
			c.cur.Step++
			c.cur.Key = nil
		}
	}
	return all, c.cur.Step < StepDone, nil
}

// full reports whether a limit of the page was reached.
func (c *Check) full() bool {
	return c.left <= 0 || c.room <= 0 || c.left%64 == 0 && !time.Now().Before(c.until)
}

// took counts one record or file and what was found of it.
func (c *Check) took(list []found, at place) []found {
	if at.step != StepIDs {
		c.left--
		c.cur.Examined++
	}
	c.room -= len(list)
	for i := range list {
		list[i].at = at
	}
	return list
}

// records examines records of the store. done is false if a limit came first.
func (c *Check) records() (all []found, done bool, err error) {
	done = true
	first := true
	err = c.v.Store.Scan(c.cur.Key, nil, func(k, v []byte) (bool, error) {
		if !first && c.full() {
			c.cur.Key, done = bytes.Clone(k), false
			return false, nil
		}
		first = false
		list, err := c.record(k, v)
		all = append(all, c.took(list, place{StepRecords, string(k)})...)
		return true, err
	})
	return all, done, err
}

// persists looks at findings again, and returns those that are still there.
func (c *Check) persists(ctx context.Context, list []found) (still []found, err error) {
	for _, f := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.last = nil
		var again []found
		switch f.at.step {
		case StepRecords:
			v, ok, gerr := c.v.Store.Get([]byte(f.at.key))
			if err = gerr; ok && err == nil {
				again, err = c.record([]byte(f.at.key), v)
			}
		case StepContent:
			again, err = c.contentFile(ctx, f.at.key)
		default:
			again, err = c.ids()
		}
		if err != nil {
			return nil, err
		}
		for _, g := range again {
			if g.Code == f.Code {
				g.at = f.at
				still = append(still, g)
				break
			}
		}
	}
	return still, nil
}

// seen notes an id.
func (c *Check) seen(ta smtp.ID) { c.cur.Highest = max(c.cur.Highest, ta.Counter) }

// idGap is left between the ids that are known and the next one, for those that are
// lost: as many as a start reserves.
const idGap = 1 << 32

// ids checks that ids which are in use will not be handed out again.
func (c *Check) ids() ([]found, error) {
	key := records.Key{Kind: records.KindIDs}.Bytes()
	v, ok, err := c.v.Store.Get(key)
	if err != nil {
		return nil, err
	}
	words := "it is missing"
	if ok {
		bound, err := records.DecodeIDs(v)
		if err == nil && bound > c.cur.Highest {
			return nil, nil
		}
		if words = fmt.Sprintf("it stands at %X", bound); err != nil {
			words = "it cannot be read"
		}
	}
	if c.cur.Highest == 0 && !ok {
		return nil, nil
	}
	next := c.cur.Highest + idGap
	f := newFound(Repairable, "id-counter", "the counter of ids must be above all that are in use, up to %X; %s: an id would be given to two messages", c.cur.Highest, words)
	return []found{f.repair("--repair sets it", func(w *writer) (string, error) {
		return fmt.Sprintf("it is set to %X", next), w.set(key, records.EncodeIDs(next))
	})}, nil
}
