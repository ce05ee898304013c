package cdb

import (
	"sync"

	"meta1/mta/vfs"
)

// dirSync syncs one directory for many callers: those that come while a sync
// runs share the next one, because the running one may have begun before their
// name was in the directory.
type dirSync struct {
	store *Store
	fs    vfs.FS
	dir   string

	mu   sync.Mutex  // guards next
	next *generation // the sync that has not begun yet; nil: none asked for

	run    sync.Mutex // held while a sync runs; guards failed
	failed error      // of the sync that failed; there is none after it
}

// generation is one sync, shared by all who asked before it began.
type generation struct {
	once sync.Once
	err  error
}

// sync returns when a sync that began after the call has ended.
func (d *dirSync) sync() error {
	d.mu.Lock()
	if d.next == nil {
		d.next = new(generation)
	}
	g := d.next
	d.mu.Unlock()
	d.run.Lock()
	defer d.run.Unlock()
	g.once.Do(func() {
		d.mu.Lock()
		d.next = nil
		d.mu.Unlock()
		g.err = d.once()
	})
	return g.err
}

// once syncs, unless a sync has failed before: the kernel may have dropped names that it
// was to write, also such as others wait for, so that a second sync would succeed and
// mean nothing. A directory that could not even be opened was not synced at all.
func (d *dirSync) once() error {
	if d.failed != nil {
		return d.failed
	}
	err := d.fs.SyncDir(d.dir)
	if vfs.IsBroken(err) || vfs.IsFull(err) {
		d.failed = err
		d.store.giveUp("syncing", d.dir, err)
	}
	return err
}
