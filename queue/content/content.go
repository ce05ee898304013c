// Package content is where the content of messages is: in memory (Store), in files (Files), or
// in the queue's store, and how much room the disks have for it (Space).
package content

import (
	"bytes"
	"io"
	"sync"

	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

// Store gives the content of messages to deliveries. What was accepted stays in memory
// until its message leaves the active queue, or until the memory is needed: it is in the
// store or in a file anyway, so giving up memory costs nothing but a read later.
type Store struct {
	db     *records.DB
	cdb    *cdb.Store
	memory *msg.Memory // shared with the servers

	mu    sync.Mutex // guards all below; the memory's own comes after it
	held  map[smtp.ID]*Content
	order []*Content // held, oldest first; some have gone
	bytes int64      // of the memory, for what is held
	// spilling are messages whose content is being moved to a file, until the store has given
	// its copy up: nothing else may touch their files.
	spilling map[smtp.ID]bool
}

// New makes a store that holds nothing. memory is shared with the servers.
func New(db *records.DB, files *cdb.Store, memory *msg.Memory) *Store {
	s := &Store{db: db, cdb: files, memory: memory, held: map[smtp.ID]*Content{}, spilling: map[smtp.ID]bool{}}
	memory.OnShort(s.giveUp)
	return s
}

// Close gives back what is held, for the next instance of the queue. Deliveries that still
// run keep their content.
func (s *Store) Close() {
	s.memory.OnShort(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.Give(s.bytes)
	s.bytes, s.order = 0, nil
	clear(s.held)
}

// Content is the content of one message (msg.Body).
type Content struct {
	of     *Store
	ta     smtp.ID
	size   int64
	inFile bool
	shape  msg.Shape
	memory []byte // nil: it is not held; guarded by Store.mu
}

// Stored is content that is not in memory.
func (s *Store) Stored(ta smtp.ID, size int64, inFile bool) *Content {
	return &Content{of: s, ta: ta, size: size, inFile: inFile}
}

// Hold is content that is being committed and is in memory; if inline is nil, it is in a
// file. What was reserved for it becomes ours; reserved is nil for a message of our own.
// Older content makes room if that is too little.
func (s *Store) Hold(ta smtp.ID, size int64, inline []byte, shape msg.Shape, reserved *msg.Reservation) *Content {
	b := s.Stored(ta, size, inline == nil)
	b.shape = shape
	if inline == nil {
		return b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.memory = inline
	s.bytes += b.takes()
	s.memory.Give(reserved.TakeOver() - b.takes())
	s.held[ta] = b
	s.order = append(s.order, b)
	s.giveUpLocked(s.memory.Over())
	if len(s.order) > 2*len(s.held)+64 { // most of them have gone
		kept := make([]*Content, 0, len(s.held)+64)
		for _, o := range s.order {
			if o.memory != nil {
				kept = append(kept, o)
			}
		}
		s.order = kept
	}
	return b
}

// giveUp gives n bytes of memory back, or all if it holds less: those of the oldest
// messages first.
func (s *Store) giveUp(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUpLocked(n)
}

func (s *Store) giveUpLocked(n int64) {
	for until := s.bytes - n; s.bytes > until && len(s.order) > 0; s.order = s.order[1:] {
		s.dropLocked(s.order[0])
	}
}

// Drop gives up the memory of a message's content.
func (s *Store) Drop(ta smtp.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.held[ta]; b != nil {
		s.dropLocked(b)
	}
}

func (s *Store) dropLocked(b *Content) {
	if b.memory != nil {
		s.bytes -= b.takes()
		s.memory.Give(b.takes())
		b.memory = nil
		delete(s.held, b.ta)
	}
}

// takes is how much memory it takes.
func (b *Content) takes() int64 { return int64(cap(b.memory)) }

// Size is the number of bytes.
func (b *Content) Size() int64 { return b.size }

// Shape is what was known of it when it was accepted.
func (b *Content) Shape() msg.Shape { return b.shape }

// Bytes is the content if it is held in memory.
func (b *Content) Bytes() []byte {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	return b.memory
}

// Open gives a reader over the content, from wherever it is.
func (b *Content) Open() (io.ReadCloser, error) {
	if held := b.Bytes(); held != nil {
		return io.NopCloser(bytes.NewReader(held)), nil
	}
	if b.inFile {
		return b.of.cdb.Open(b.ta)
	}
	stored, ok, err := b.of.db.Content(b.ta)
	if err != nil {
		return nil, err
	}
	if !ok { // it was spilled, or is lost
		return b.of.cdb.Open(b.ta)
	}
	return io.NopCloser(bytes.NewReader(stored)), nil
}

// BeginSpill reports whether the content of a message may be moved to a file now: no other
// attempt is in progress.
func (s *Store) BeginSpill(ta smtp.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spilling[ta] {
		return false
	}
	s.spilling[ta] = true
	return true
}

// EndSpills ends attempts: the store has given its copies up, or they have failed.
func (s *Store) EndSpills(ids ...smtp.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ta := range ids {
		delete(s.spilling, ta)
	}
}
