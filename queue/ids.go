package queue

import (
	"errors"
	"sync/atomic"

	"meta1/mta/smtp"
	"meta1/queue/records"
)

const (
	// idBlock ids are reserved on disk at once, so that a start costs one write.
	idBlock = 1 << 32
	// idReserve: when fewer than this are left, the next block is reserved.
	idReserve = 1 << 30
)

var errNoIDs = errors.New("no ids are reserved")

// ids hands out ids that never repeat in one spool. They ascend over restarts, so an id tells
// whether this instance of QMGR has granted it.
type ids struct {
	db    *records.DB
	first uint64
	next  atomic.Uint64
	bound atomic.Uint64
}

func newIDs(db *records.DB) (*ids, error) {
	first, err := db.ReserveIDs(idBlock)
	if err != nil {
		return nil, err
	}
	g := &ids{db: db, first: first}
	g.next.Store(first)
	g.bound.Store(first + idBlock)
	return g, nil
}

// take gives one id. It fails only if extend failed for a very long time.
func (g *ids) take(process uint8) (smtp.ID, error) {
	n := g.next.Add(1) - 1
	if n >= g.bound.Load() {
		return smtp.ID{}, errNoIDs
	}
	return smtp.ID{Counter: n, Process: process}, nil
}

// granted reports whether this instance has handed out an id.
func (g *ids) granted(id smtp.ID) bool { return id.Counter >= g.first && id.Counter < g.next.Load() }

// extend reserves the next block when the present one runs out. Only the journal calls it.
func (g *ids) extend() error {
	if g.next.Load()+idReserve < g.bound.Load() {
		return nil
	}
	first, err := g.db.ReserveIDs(idBlock)
	if err != nil {
		return err
	}
	g.bound.Store(first + idBlock)
	return nil
}
