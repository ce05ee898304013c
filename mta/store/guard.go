package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/vfs"
)

// guard stands between Pebble and the file system. What it does with a failure:
//
//   - no space, or no quota: it makes room and tries once more. If that fails too, a
//     table may fail, which Pebble makes again later; a log, the manifest or a marker is
//     the end of the store, because Pebble would panic;
//   - no descriptor: it waits until there is one;
//   - any other failure of a write, and any failure of a sync: the end of the store. The
//     disk is dying, or the kernel has dropped what it could not write, so that a second
//     sync of the file would succeed and mean nothing (fsyncgate).
//
// A start from what is on the disk is the only way out of an end.
type guard struct {
	pvfs.FS
	armed atomic.Bool // not in Open, which reports its failures itself
	end   *ending
	log   *logger

	// keep is the free space, in bytes, that compactions leave to the log and to flushes.
	keep int64
	free func() (int64, error)

	aside atomic.Pointer[aside] // a copy that is being made; nil: there is none

	making sync.Mutex // held while room is made
	room   func()
	made   atomic.Int64 // how often that was
}

// guard makes the guard of a store.
func (s *Store) guard(o Options) *guard {
	return &guard{
		FS: s.fs.Pebble(), end: s.end, log: o.logger(s.end),
		free: func() (int64, error) { free, _, err := s.fs.Space(s.dirs[0]); return free, err },
		room: func() {
			s.ballast.release()
			if o.OnFull != nil {
				o.OnFull()
			}
		},
	}
}

const (
	// tablePause is the time after a table could not be written for lack of space: Pebble
	// tries a flush or a compaction again at once and for ever.
	tablePause = 100 * time.Millisecond
	// Waits for a descriptor begin with the first and end with the last.
	firstWait = 10 * time.Millisecond
	lastWait  = time.Second
)

// try makes a call that writes to the file of a name, and decides what its failure means.
func (g *guard) try(doing, name string, call func() error) error {
	if g.copying(name) != nil {
		return call()
	}
	wait, roomMade := firstWait, false
	for {
		made := g.made.Load()
		err := call()
		switch {
		case err == nil:
			return nil
		case vfs.IsFull(err) && !roomMade:
			g.makeRoom(made)
			roomMade = true
		case vfs.IsNoDescriptor(err) && g.armed.Load():
			if wait == firstWait {
				g.log.Errorf("no file descriptor is left for %s, waiting for one: %v", filepath.Base(name), err)
			}
			time.Sleep(wait)
			wait = min(2*wait, lastWait)
		case !g.armed.Load():
			return err
		case vfs.IsFull(err) && !vital(name):
			time.Sleep(tablePause)
			return err
		default:
			g.giveUp(doing, name, err)
		}
	}
}

// makeRoom gives a part of the reserve up, unless another call has since made was read.
func (g *guard) makeRoom(made int64) {
	g.making.Lock()
	defer g.making.Unlock()
	if g.made.Load() == made {
		g.room()
		g.made.Add(1)
	}
}

func (g *guard) giveUp(doing, name string, err error) {
	g.end.giveUp(fmt.Errorf("%s %s: %w", doing, filepath.Base(name), err))
}

// vital tells whether Pebble cannot do without writing a file.
func vital(name string) bool {
	name = filepath.Base(name)
	return strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST-") || isMarker(name)
}

func isMarker(name string) bool { return strings.HasPrefix(filepath.Base(name), "marker.") }

// opens is try for a call that opens a file for writing.
func (g *guard) opens(doing, name string, c pvfs.DiskWriteCategory, call func() (pvfs.File, error)) (f pvfs.File, err error) {
	yields := c == compacting || c == rewriting
	if err := g.yield(yields); err != nil {
		return nil, err
	}
	err = g.try(doing, name, func() error { f, err = call(); return err })
	if err != nil || g.copying(name) != nil {
		return f, err
	}
	return &guardedFile{File: f, g: g, name: name, yields: yields}, nil
}

// The categories of what can wait until there is space: Pebble makes the same again later.
const (
	compacting pvfs.DiskWriteCategory = "pebble-compaction"
	rewriting  pvfs.DiskWriteCategory = "pebble-blob-file-rewrite"
)

// yield fails a compaction for lack of space while there is still some: a compaction needs as
// much as it reads, for a while, and must not take the reserve of the log.
func (g *guard) yield(yields bool) error {
	if !yields || !g.armed.Load() {
		return nil
	}
	if free, err := g.free(); err != nil || free >= g.keep {
		return nil
	}
	time.Sleep(tablePause)
	return errNoSpare
}

var errNoSpare = fmt.Errorf("the space that is left is kept for new records: %w", syscall.ENOSPC)

// Create makes a file. A marker names another file, and Pebble replaces it by a new one: it
// makes that, removes the old one and then makes both durable. On a disk that keeps the
// names of a directory in no order, a power cut would leave a marker without its file, or
// none. So the names are made durable before a marker is made, and before one is removed.
func (g *guard) Create(name string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	if of := g.copying(name); of != nil {
		return vfs.Copying(g.FS, of).Create(name, c)
	}
	if isMarker(name) {
		if err := g.syncDir(filepath.Dir(name)); err != nil {
			return nil, err
		}
	}
	return g.opens("creating", name, c, func() (pvfs.File, error) { return g.FS.Create(name, c) })
}

func (g *guard) syncDir(dir string) error {
	d, err := g.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (g *guard) ReuseForWrite(oldname, newname string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	return g.opens("using again", newname, c, func() (pvfs.File, error) { return g.FS.ReuseForWrite(oldname, newname, c) })
}

func (g *guard) OpenReadWrite(name string, c pvfs.DiskWriteCategory, opts ...pvfs.OpenOption) (pvfs.File, error) {
	return g.opens("opening", name, c, func() (pvfs.File, error) { return g.FS.OpenReadWrite(name, c, opts...) })
}

func (g *guard) OpenDir(name string) (pvfs.File, error) {
	return g.opens("opening", name, pvfs.WriteCategoryUnspecified, func() (pvfs.File, error) { return g.FS.OpenDir(name) })
}

// Open opens a file for reading: it waits for a descriptor, too. What fails otherwise is
// Pebble's to report.
func (g *guard) Open(name string, opts ...pvfs.OpenOption) (f pvfs.File, err error) {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		if f, err = g.FS.Open(name, opts...); !vfs.IsNoDescriptor(err) || !g.armed.Load() {
			return f, err
		}
		time.Sleep(wait)
	}
}

func (g *guard) Link(oldname, newname string) error {
	if of := g.copying(newname); of != nil {
		return vfs.Copying(g.FS, of).Link(oldname, newname)
	}
	return g.try("linking", newname, func() error { return g.FS.Link(oldname, newname) })
}

func (g *guard) Rename(oldname, newname string) error {
	return g.try("renaming", newname, func() error { return g.FS.Rename(oldname, newname) })
}

// MkdirAll and Lock are called while a store is opened.
func (g *guard) MkdirAll(name string, perm fs.FileMode) error {
	return g.try("making", name, func() error { return g.FS.MkdirAll(name, perm) })
}

func (g *guard) Lock(name string) (l io.Closer, err error) {
	err = g.try("locking", name, func() error { l, err = g.FS.Lock(name); return err })
	return l, err
}

// Remove makes room if need be: some file systems need space for it. See Create for
// markers.
func (g *guard) Remove(name string) error {
	if g.copying(name) != nil {
		return g.FS.Remove(name)
	}
	if isMarker(name) {
		if err := g.syncDir(filepath.Dir(name)); err != nil {
			return err
		}
	}
	made := g.made.Load()
	err := g.FS.Remove(name)
	if vfs.IsFull(err) {
		g.makeRoom(made)
		err = g.FS.Remove(name)
	}
	return err
}

// Unwrap is what the guard stands before.
func (g *guard) Unwrap() pvfs.FS { return g.FS }

// guardedFile is a file of a store that is written.
type guardedFile struct {
	pvfs.File
	g      *guard
	name   string
	yields bool // it is written by a compaction
}

func (f *guardedFile) Write(p []byte) (written int, err error) {
	if err := f.g.yield(f.yields); err != nil {
		return 0, err
	}
	err = f.g.try("writing", f.name, func() error {
		n, err := f.File.Write(p[written:])
		written += n
		return err
	})
	return written, err
}

func (f *guardedFile) WriteAt(p []byte, at int64) (written int, err error) {
	err = f.g.try("writing", f.name, func() error {
		n, err := f.File.WriteAt(p[written:], at+int64(written))
		written += n
		return err
	})
	return written, err
}

func (f *guardedFile) Sync() error     { return f.synced(f.File.Sync()) }
func (f *guardedFile) SyncData() error { return f.synced(f.File.SyncData()) }

func (f *guardedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.synced(err)
}

func (f *guardedFile) synced(err error) error {
	if err != nil && f.g.armed.Load() {
		f.g.giveUp("syncing", f.name, err)
	}
	return err
}
