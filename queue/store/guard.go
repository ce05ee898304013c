package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/queue/vfs"
)

// guard gives a store up at the first failure that it must not survive, before Pebble
// hears of it:
//
//   - a sync of any file: the kernel may have dropped what it could not write, so that
//     a second sync of the file would succeed and mean nothing (fsyncgate);
//   - a write to the log, the manifest or a marker, or the creation of one: Pebble ends
//     the process then anyway, sometimes by a panic while it holds its locks.
//
// A start from what is on the disk is the only way out.
type guard struct {
	pvfs.FS
	armed  atomic.Bool // not in Open, which reports its failures itself
	giveUp func(error)
}

// failed gives the store up if err is not nil and the guard is armed, and passes err on.
func (g *guard) failed(doing, name string, err error) error {
	if err != nil && g.armed.Load() {
		g.giveUp(fmt.Errorf("%s %s: %w", doing, filepath.Base(name), err))
	}
	return err
}

// tablePause is the time after a failure to write a table: Pebble tries a flush or a
// compaction again at once and for ever.
const tablePause = 100 * time.Millisecond

// wrote is failed for a write or a creation: a table may fail, after a pause.
func (g *guard) wrote(doing, name string, err error) error {
	switch {
	case err == nil:
	case vital(name):
		return g.failed(doing, name, err)
	case g.armed.Load():
		time.Sleep(tablePause)
	}
	return err
}

// vital tells whether Pebble cannot do without writing a file.
func vital(name string) bool {
	name = filepath.Base(name)
	return strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.")
}

// Create makes a file. Before a marker, which names another file, that file's name is
// made durable: a disk that keeps the names of a directory in no order must not have the
// one without the other.
func (g *guard) Create(name string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	if strings.HasPrefix(filepath.Base(name), "marker.") {
		if err := g.syncDir(filepath.Dir(name)); err != nil {
			return nil, err
		}
	}
	f, err := g.FS.Create(name, c)
	return g.file(f, "creating", name, err)
}

func (g *guard) syncDir(dir string) error {
	d, err := g.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (g *guard) ReuseForWrite(oldname, newname string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	f, err := g.FS.ReuseForWrite(oldname, newname, c)
	return g.file(f, "using again", newname, err)
}

func (g *guard) OpenReadWrite(name string, c pvfs.DiskWriteCategory, opts ...pvfs.OpenOption) (pvfs.File, error) {
	f, err := g.FS.OpenReadWrite(name, c, opts...)
	return g.file(f, "opening", name, err)
}

func (g *guard) OpenDir(name string) (pvfs.File, error) {
	f, err := g.FS.OpenDir(name)
	return g.file(f, "opening", name, err)
}

// Unwrap is what the guard stands before.
func (g *guard) Unwrap() pvfs.FS { return g.FS }

func (g *guard) file(f pvfs.File, doing, name string, err error) (pvfs.File, error) {
	if err := g.wrote(doing, name, err); err != nil {
		return nil, err
	}
	return &guardedFile{File: f, g: g, name: name}, nil
}

// guardedFile is a file of a store that is written.
type guardedFile struct {
	pvfs.File
	g    *guard
	name string
}

func (f *guardedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.g.wrote("writing", f.name, err)
}

func (f *guardedFile) WriteAt(p []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(p, at)
	return n, f.g.wrote("writing", f.name, err)
}

func (f *guardedFile) Sync() error     { return f.g.failed("syncing", f.name, f.File.Sync()) }
func (f *guardedFile) SyncData() error { return f.g.failed("syncing", f.name, f.File.SyncData()) }

func (f *guardedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.g.failed("syncing", f.name, err)
}

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
		w.log.giveUp(fmt.Errorf("flushing: %w", err))
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
