package store

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/vfs"
)

// fullMax is how often a flush may find the disk full in turn, the reserve being used
// up, until the store is given up: Pebble tries it again at once and for ever.
const fullMax = 100

// flushWatch watches over the flushes of Pebble. It would try one that failed again
// without a pause until its memory is full, and then let every commit wait: only against
// a full disk this may help.
type flushWatch struct {
	log *logger

	mu   sync.Mutex // guards what follows
	last error      // of the last flush
	full int        // flushes in turn that found the disk full
}

func (w *flushWatch) listener() *pebble.EventListener {
	return &pebble.EventListener{FlushEnd: w.flushed, BackgroundError: w.failed, DataCorruption: w.log.corrupt}
}

func (w *flushWatch) flushed(i pebble.FlushInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last = i.Err; w.last == nil {
		w.full = 0
	}
}

// failed hears of flushes that really failed, and of much that Pebble can live with.
func (w *flushWatch) failed(err error) {
	w.log.Errorf("in the background: %v", err)
	if w.hopeless(err) {
		w.log.end.giveUp(fmt.Errorf("flushing: %w", err))
	}
}

func (w *flushWatch) hopeless(err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil || !errors.Is(err, w.last) {
		return false
	}
	if !vfs.IsFull(err) {
		return true
	}
	w.full++
	return w.full > fullMax
}
