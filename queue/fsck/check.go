package fsck

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// Dirs are the places of a spool, absolute. DEFEDBLog is "" if the logs of the DEFEDB
// are in its own directory.
type Dirs struct{ Spool, CDB, IBDB, DEFEDB, DEFEDBLog string }

// View is what a check reads.
type View struct {
	FS           vfs.FS
	Dirs         Dirs
	IBDB, DEFEDB store.Reader
	// UID must own the files; -1 for anybody.
	UID int
}

// Step is a part of a check.
type Step int

// The steps, in order.
const (
	StepIBDB Step = iota
	StepDEFEDB
	StepContent
	StepIDs
	StepDone
)

// Cursor is a place in a check.
type Cursor struct {
	Step Step `json:"step"`
	// Key is where to go on: a key of the database, or the name of a content file with
	// its directory in front.
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
	past    past // what is known of the time before damage; nil while all is whole
	rebuild bool

	until    time.Time
	left     int
	room     int
	shard    int // whose names are in names; -1 for none
	names    []string
	envTA    smtp.ID // of env
	env      *msg.Envelope
	envValid bool
}

// past knows what the databases no longer know.
type past interface {
	// lostIBDB and lostDEFEDB report whether a record of the key may have been lost.
	lostIBDB(key []byte) bool
	lostDEFEDB(key []byte) bool
	// ended reports whether a recipient is known to have ended.
	ended(ta smtp.ID, index int) bool
	// letter is what is known of a transaction without an envelope, "" for nothing.
	letter(ta smtp.ID) string
}

// NewCheck begins a check at a cursor. content says that all content is read and its
// checksum compared.
func NewCheck(v View, from Cursor, content bool) *Check {
	return &Check{v: v, cdb: cdb.At(v.FS, v.Dirs.CDB), cur: from, content: content, shard: -1}
}

// Cursor is where the check goes on.
func (c *Check) Cursor() Cursor { return c.cur }

// Page examines records and files until a limit is reached. more is false when the
// check is complete.
func (c *Check) Page(ctx context.Context, l Limits) (all []Finding, more bool, err error) {
	list, more, err := c.page(ctx, l)
	for _, f := range list {
		all = append(all, f.Finding)
	}
	return all, more, err
}

func (c *Check) page(ctx context.Context, l Limits) (all []found, more bool, err error) {
	c.left, c.room, c.until = l.Records, l.Findings, time.Now().Add(l.Time)
	c.envValid = false
	for c.cur.Step < StepDone && !c.full() {
		if err := ctx.Err(); err != nil {
			return all, true, err
		}
		var list []found
		done := true
		switch c.cur.Step {
		case StepIBDB:
			list, done, err = c.records(c.v.IBDB, c.ibdbRecord)
		case StepDEFEDB:
			list, done, err = c.records(c.v.DEFEDB, c.defedbRecord)
		case StepContent:
			list, done, err = c.contentFiles(ctx)
		case StepIDs:
			list, err = c.ids()
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

// full tells that a limit of the page was reached.
func (c *Check) full() bool {
	return c.left <= 0 || c.room <= 0 || c.left%64 == 0 && !time.Now().Before(c.until)
}

// took counts one record or file and what was found of it.
func (c *Check) took(list []found, at place) []found {
	c.left--
	c.cur.Examined++
	c.room -= len(list)
	for i := range list {
		list[i].at = at
	}
	return list
}

// records examines records of a database. done is false if the limit came first.
func (c *Check) records(r store.Reader, examine func(k, v []byte) ([]found, error)) (all []found, done bool, err error) {
	done = true
	first := true
	err = r.Scan(c.cur.Key, nil, func(k, v []byte) (bool, error) {
		if !first && c.full() {
			c.cur.Key, done = bytes.Clone(k), false
			return false, nil
		}
		first = false
		list, err := examine(k, v)
		all = append(all, c.took(list, place{c.cur.Step, string(k)})...)
		return true, err
	})
	return all, done, err
}

// Persists looks at findings again, and returns those that are still there.
func (c *Check) persists(ctx context.Context, list []found) (still []found, err error) {
	for _, f := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.envValid = false
		var again []found
		switch f.at.step {
		case StepIBDB:
			again, err = c.again(c.v.IBDB, f.at.key, c.ibdbRecord)
		case StepDEFEDB:
			again, err = c.again(c.v.DEFEDB, f.at.key, c.defedbRecord)
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

func (c *Check) again(r store.Reader, key string, examine func(k, v []byte) ([]found, error)) ([]found, error) {
	v, ok, err := r.Get([]byte(key))
	if err != nil || !ok {
		return nil, err
	}
	return examine([]byte(key), v)
}

// PageTwice is Page for a spool at work: what it finds it looks at again after a
// pause, and leaves out what has gone meanwhile. worked is the time without the pause.
func (c *Check) PageTwice(ctx context.Context, l Limits, pause time.Duration) (all []Finding, more bool, worked time.Duration, err error) {
	start := time.Now()
	list, more, err := c.page(ctx, l)
	worked = time.Since(start)
	if err != nil {
		return nil, true, worked, err
	}
	if len(list) > 0 {
		select {
		case <-ctx.Done():
			return nil, true, worked, ctx.Err()
		case <-time.After(pause):
		}
		if list, err = c.persists(ctx, list); err != nil {
			return nil, true, worked, err
		}
	}
	for _, f := range list {
		all = append(all, f.Finding)
	}
	return all, more, worked, nil
}

// seen notes an id.
func (c *Check) seen(ta smtp.ID) { c.cur.Highest = max(c.cur.Highest, ta.Counter) }

// ids checks that ids which are in use will not be handed out again.
func (c *Check) ids() ([]found, error) {
	key := ibdb.Key{Kind: ibdb.KindIDs}.Bytes()
	v, ok, err := c.v.IBDB.Get(key)
	if err != nil {
		return nil, err
	}
	bound := uint64(1)
	words := "it is missing"
	if ok {
		if bound, err = ibdb.DecodeIDs(v); err != nil {
			words = "it cannot be read"
		} else {
			words = fmt.Sprintf("it stands at %X", bound)
		}
	}
	if c.cur.Highest == 0 || err == nil && bound > c.cur.Highest {
		return nil, nil
	}
	highest := c.cur.Highest
	f := newFound(Repairable, "id-counter", "the counter of ids must be above all that are in use, up to %X; %s: ids would be given to two transactions", highest, words)
	return c.took([]found{f.repair("--repair sets it", func(w *writer) (string, error) {
		next := highest + idGap
		return fmt.Sprintf("it is set to %X", next), w.setIBDB(key, ibdb.EncodeIDs(next))
	})}, place{StepIDs, ""}), nil
}

// idGap is left between the ids that are known and the next one, for those that are
// lost: as many as a start reserves.
const idGap = 1 << 32

// deferred reads an envelope from the DEFEDB. It is nil if there is none or it cannot
// be decoded. The last one is remembered, because recipients of one transaction stand
// together.
func (c *Check) deferred(ta smtp.ID) (*msg.Envelope, error) {
	if c.envValid && c.envTA == ta {
		return c.env, nil
	}
	v, ok, err := c.v.DEFEDB.Get(defedb.Key{Kind: defedb.KindTA, TA: ta}.Bytes())
	if err != nil {
		return nil, err
	}
	c.envTA, c.envValid, c.env = ta, true, nil
	if ok {
		if e, _, err := defedb.DecodeTA(v); err == nil && e.TA == ta {
			c.env = e
		}
	}
	return c.env, nil
}

func (c *Check) has(r store.Reader, key []byte) (bool, error) {
	_, ok, err := r.Get(key)
	return ok, err
}
