// Package ids hands out the ids of sessions and transactions.
package ids

import (
	"errors"
	"sync/atomic"

	"meta1/mta/smtp"
)

const (
	// block ids are reserved on disk at once, so that a start costs one write.
	block = 1 << 32
	// reserve: when fewer than this are left, the next block is reserved.
	reserve = 1 << 30
)

var errNone = errors.New("no ids are reserved")

// Store keeps which ids are taken.
type Store interface {
	// ReserveIDs takes n ids that nobody has had and returns the first of them, durably.
	ReserveIDs(n uint64) (first uint64, err error)
}

// IDs hands out ids that never repeat in one spool. They ascend over restarts, so an id tells
// whether this instance of QMGR has granted it.
type IDs struct {
	store Store
	first uint64
	next  atomic.Uint64
	bound atomic.Uint64
}

// New reserves the first ids.
func New(store Store) (*IDs, error) {
	first, err := store.ReserveIDs(block)
	if err != nil {
		return nil, err
	}
	g := &IDs{store: store, first: first}
	g.next.Store(first)
	g.bound.Store(first + block)
	return g, nil
}

// Take gives one id. It fails only if Extend failed for a very long time.
func (g *IDs) Take(process uint8) (smtp.ID, error) {
	n := g.next.Add(1) - 1
	if n >= g.bound.Load() {
		return smtp.ID{}, errNone
	}
	return smtp.ID{Counter: n, Process: process}, nil
}

// First is the first id of this instance.
func (g *IDs) First() uint64 { return g.first }

// Granted reports whether this instance has handed out an id.
func (g *IDs) Granted(id smtp.ID) bool { return id.Counter >= g.first && id.Counter < g.next.Load() }

// Extend reserves the next block when the present one runs out. Only the journal calls it.
func (g *IDs) Extend() error {
	if g.next.Load()+reserve < g.bound.Load() {
		return nil
	}
	first, err := g.store.ReserveIDs(block)
	if err != nil {
		return err
	}
	g.bound.Store(first + block)
	return nil
}
