// Package store is the one way in which meta1 opens Pebble: every store has the same
// pinned format, and treats a full, failing or damaged disk in the same way.
//
// A failed write or sync is the end of a store: it is not tried again, Options.Fatal is
// called, and the next start goes on from what is on the disk (guard). A full disk is not:
// each store keeps a reserve, files of real blocks in its own directory. When a write
// finds the disk or the quota full, one of them is given up and the write is tried
// again, and OnFull tells the owner to write less. The reserve is made again when there
// is room (Refill). Nor is it the end if the process has no descriptor left: then the
// write waits for one.
//
// What Pebble accepts is opened. This package also looks for damage that Pebble takes for
// the trace of a crash; if it finds any, it says so and keeps all files of the store
// under another name before it goes on (Store.Suspicion).
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"path/filepath"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/vfs"
)

var (
	// ErrDamaged: the store's files do not fit together. Nothing was changed.
	ErrDamaged = errors.New("the store is damaged")
	// ErrInUse: another process has the store open.
	ErrInUse = errors.New("the store is in use by another process")
	// ErrVersion: the store was written by a program with another format.
	ErrVersion = errors.New("the store has an unknown format version")
)

// Options say how a store is opened.
type Options struct {
	Name    string // for messages and metrics: IBDB, greylist
	Version uint32 // of the keys and values in it
	// LogDir takes the write-ahead log; "" means the store's directory.
	LogDir string
	// Cache is the size of the block cache in bytes; 0 means 8 MB.
	Cache int64
	// BlockSize is the size of the blocks of tables in bytes, at most 1 MB; 0 leaves it
	// to Pebble.
	BlockSize int64
	// LogSize is the size in bytes at which a log is ended and its changes go to
	// tables; 0 chooses it by the size of the file system, which bounds it as well.
	LogSize int64
	// Filter adds filters to the tables, for a store that is mostly asked for keys that
	// it does not have.
	Filter bool
	Log    *slog.Logger
	// Fatal is called when the store can no longer keep its promises, once, by any
	// goroutine. The queue's ends the process. If it returns, the store is dead: the
	// goroutine that met the failure stays where it is for good, and so may others that
	// call the store after that. Nil: such a goroutine panics.
	Fatal func(error)
	// OnFull is called when a write found the disk full and a part of the reserve was
	// given up for it. It must not block and must not write. Nil is allowed.
	OnFull func()
	// Metrics gets the numbers of the store, labelled with its name, until it is closed.
	// Nil: nobody.
	Metrics prometheus.Registerer
	// Lock is held on the directory already; nil: Open takes it.
	Lock *Lock

	readOnly bool
}

// Store is an open Pebble store and its reserve.
type Store struct {
	*pebble.DB
	name       string
	fs         vfs.FS
	dirs       []string // that must stay: the store's, and its log's if that is another
	lock       string   // the file that Pebble locks, in the first of them
	ballast    *ballast
	guarded    *guard
	end        *ending
	suspicion  error
	unregister func()
	spare      atomic.Pointer[pebble.Batch] // for the next batch; nil: there is none
}

// Format is the format of Pebble's files. A new release of the library must not change
// it by itself: an older meta1 could not read the store any more.
const Format = pebble.FormatValueSeparation

const (
	memTableMin = 1 << 20
	memTableMax = 16 << 20
	// memTableShare of a file system: a store keeps up to about four logs and
	// tables of this size.
	memTableShare = 32
	defaultCache  = 8 << 20
	blockMin      = 512
	blockMax      = 1 << 20

	// openTables is the number of tables that a store keeps open, and Descriptors the most
	// files that it has open at all, with logs, manifest, lock, directories, and what a
	// flush and a compaction write.
	openTables  = 128
	Descriptors = openTables + 32
)

// versionKey sorts before all other keys, which begin with a letter.
var versionKey = []byte("\x00version")

// NewEnd ends the name of a repaired store that has not taken its place yet (package
// fsck).
const NewEnd = ".new"

// Open opens or creates the store in dir. The error wraps ErrDamaged, ErrInUse or
// ErrVersion where that is the reason, and names the directory.
func Open(fsys vfs.FS, dir string, o Options) (*Store, error) {
	if !vfs.Exists(fsys, dir) && vfs.Exists(fsys, dir+NewEnd) {
		return nil, fmt.Errorf("%w: %s in %s: its repair was interrupted: run meta1 fsck --repair", ErrDamaged, o.Name, dir)
	}
	if err := vfs.MakeDir(fsys, dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory of %s: %w", o.Name, err)
	}
	if o.LogDir != "" {
		if err := vfs.MakeDir(fsys, o.LogDir, 0o700); err != nil {
			return nil, fmt.Errorf("making the log directory of %s: %w", o.Name, err)
		}
	}
	_, total, err := fsys.Space(dir)
	if err != nil {
		return nil, fmt.Errorf("asking for the space of %s: %w", o.Name, err)
	}
	s := &Store{name: o.Name, fs: fsys, dirs: []string{dir}, lock: filepath.Join(dir, lockName), ballast: newBallast(fsys, dir, total, o.Log), end: o.ending()}
	if o.LogDir != "" {
		s.dirs = append(s.dirs, o.LogDir)
	}
	kept := s.examine(o)
	if err := s.open(total, o); err != nil {
		kept.remove(fsys) // nothing was changed
		return nil, err
	}
	if err := s.register(o.Metrics); err != nil {
		return nil, errors.Join(err, s.DB.Close())
	}
	return s, nil
}

// open opens the store, once its files have been examined.
func (s *Store) open(total int64, o Options) (failed error) {
	dir := s.dirs[0]
	used, exists := s.ballast.exists(), hasTables(s.fs, dir)
	if isOpened(s.fs, dir) {
		defer func() {
			if failed != nil { // nothing was changed, so that the next start sees what this one saw
				_ = endOpening(s.fs, dir)
			}
		}()
	}
	if err := beginOpening(s.fs, dir); err != nil {
		return openError(err, dir, o.Name)
	}
	g := s.guard(o)
	s.guarded = g
	g.keep = 2 * int64(memTableSize(total, o.LogSize)) // a log and a flush
	// Pebble begins the first log of a new store in an old format, which does not tell
	// what had been synced (checkLogs): a new store is opened twice.
	for again := true; again; exists = true {
		var err error
		if s.DB, err = openPebble(dir, total, g, used || exists, o); err != nil {
			return err
		}
		if again, err = s.checkVersion(dir, used, o); err != nil || again {
			err = errors.Join(err, s.DB.Close())
		}
		if err != nil {
			return err
		}
	}
	if _, err := s.ballast.refill(); err != nil {
		return errors.Join(openError(err, dir, o.Name), s.DB.Close())
	}
	if err := endOpening(s.fs, dir); err != nil {
		o.Log.Warn("cannot note that the store is open", "store", o.Name, "error", err)
	}
	g.armed.Store(true)
	return nil
}

// openPebble opens the database. mustExist: it has been there, so Pebble must not take it
// for a new one and remove all of its tables.
func openPebble(dir string, total int64, g *guard, mustExist bool, o Options) (db *pebble.DB, err error) {
	l := o.logger(g.end)
	cache := pebble.NewCache(max(o.Cache, defaultCache))
	defer cache.Unref() // the store holds its own reference
	opts := &pebble.Options{
		FS:                 g,
		WALDir:             o.LogDir,
		Cache:              cache,
		FormatMajorVersion: Format,
		MemTableSize:       memTableSize(total, o.LogSize),
		MaxOpenFiles:       openTables,
		ReadOnly:           o.readOnly,
		ErrorIfNotExists:   mustExist,
		Lock:               o.Lock.pebble(),
		Logger:             l,
		EventListener:      (&flushWatch{log: l}).listener(),
	}
	// One compaction runs at a time, which is Pebble's default, so whatever waits is begun by the end of another.
	// The usual scheduler looks for it ten times a second as well, and wakes an idle process for
	// that. (Pebble's own tests use this one; it is the same one without those looks.)
	opts.Experimental.CompactionScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	if o.BlockSize > 0 {
		opts.Levels[0].BlockSize = int(min(max(o.BlockSize, blockMin), blockMax)) // the others follow
	}
	for i := range opts.Levels {
		if o.Filter {
			opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		}
	}
	defer func() {
		// Pebble panics on some damage; that must be an error that names the store.
		if v := recover(); v != nil {
			db, err = nil, fmt.Errorf("%w: %s in %s: %v", ErrDamaged, o.Name, dir, v)
		}
	}()
	db, err = pebble.Open(dir, opts)
	if err != nil {
		return nil, openError(err, dir, o.Name)
	}
	return db, nil
}

// Close ends the use of the store.
func (s *Store) Close() error {
	s.unregister()
	return s.DB.Close()
}

// memTableSize is how much goes to one log and one table in memory. It must stay small
// against the file system, or there would be no reserve for a full disk.
func memTableSize(total, wanted int64) uint64 {
	most := max(total/memTableShare, memTableMin)
	if wanted <= 0 {
		wanted = memTableMax
	}
	return uint64(min(max(wanted, memTableMin), most))
}

func openError(err error, dir, name string) error {
	switch {
	case isLocked(err):
		return fmt.Errorf("%w: %s in %s", ErrInUse, name, dir)
	case vfs.IsFull(err):
		return fmt.Errorf("opening %s in %s: the disk is full and its reserve is used up, free some space: %w", name, dir, err)
	case isPlainFileError(err):
		return fmt.Errorf("opening %s in %s: %w", name, dir, err)
	default:
		return fmt.Errorf("%w: %s in %s: %w", ErrDamaged, name, dir, err)
	}
}

// checkVersion compares the version of the store, or sets it in a new one. used says
// that the store has been in use: its version was synced before the ballast was made.
func (s *Store) checkVersion(dir string, used bool, o Options) (isNew bool, err error) {
	v, closer, err := s.Get(versionKey)
	if errors.Is(err, pebble.ErrNotFound) {
		if used {
			return false, fmt.Errorf("%w: %s in %s: its records are gone, though it was in use", ErrDamaged, o.Name, dir)
		}
		return true, s.stampVersion(o)
	}
	if err != nil {
		return false, openError(err, dir, o.Name)
	}
	defer closer.Close()
	return false, o.checkVersion(dir, v)
}

// checkVersion compares the version record v.
func (o *Options) checkVersion(dir string, v []byte) error {
	if len(v) != 4 {
		return fmt.Errorf("%w: %s in %s: its version record has %d bytes", ErrDamaged, o.Name, dir, len(v))
	}
	if got := binary.BigEndian.Uint32(v); got != o.Version {
		return fmt.Errorf("%w: %s in %s has version %d, this program reads version %d: run the program that wrote it until the queue is empty, then change over",
			ErrVersion, o.Name, dir, got, o.Version)
	}
	return nil
}

func (s *Store) stampVersion(o Options) error {
	it, err := s.NewIter(nil)
	if err != nil {
		return err
	}
	empty := !it.First()
	if err := it.Close(); err != nil {
		return err
	}
	if !empty {
		return fmt.Errorf("%w: %s has records but no version", ErrDamaged, o.Name)
	}
	return s.Set(versionKey, binary.BigEndian.AppendUint32(nil, o.Version), pebble.Sync)
}

// Commit makes a batch durable and closes it: when it returns nil, a crash does not
// lose it. An error means that nothing in it may be relied on.
func (s *Store) Commit(b *pebble.Batch) error {
	if err := s.commit(b, pebble.Sync); err != nil {
		return err
	}
	s.checkThere()
	// A file system that breaks answers nil to a sync that is under way (ext4 does while
	// its journal aborts), and an error only to others: look again.
	return s.Err()
}

// CommitSoon is Commit for what may be lost in a crash: it becomes durable with the next
// commit, or when the store is closed.
func (s *Store) CommitSoon(b *pebble.Batch) error { return s.commit(b, pebble.NoSync) }

func (s *Store) commit(b *pebble.Batch, how *pebble.WriteOptions) error {
	defer func() {
		// Pebble panics where it cannot go on, and may hold its locks for good.
		if v := recover(); v != nil {
			s.end.giveUp(fmt.Errorf("committing: %v", v))
		}
	}()
	if err := s.Err(); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := b.Commit(how); err != nil {
		return fmt.Errorf("committing to %s: %w", s.name, errors.Join(err, b.Close()))
	}
	b.Reset() // frees its memory if that is more than keepMax
	if s.spare.CompareAndSwap(nil, b) {
		return nil
	}
	return b.Close()
}

const (
	// batchMin is the memory with which a batch begins, in bytes; Pebble's own default.
	batchMin = 1 << 10
	// keepMax is the largest memory of a batch that the next one uses again.
	keepMax = 8 << 20
)

// Batch makes an empty batch that will have about size bytes. It has the memory of the last one if that is enough: Pebble's
// own pool forgets it with each cycle of the garbage collector, of which there are many when batches are large.
func (s *Store) Batch(size int) *pebble.Batch {
	if b := s.spare.Swap(nil); b != nil {
		if cap(b.Repr()) >= size {
			return b
		}
		_ = b.Close() // it is empty
	}
	size = 1 << bits.Len(uint(max(size, batchMin)-1)) // so that a later batch can use it
	return s.NewBatch(pebble.WithInitialSizeBytes(size), pebble.WithMaxRetainedSizeBytes(keepMax))
}

// checkThere gives the store up if its directory is gone. Pebble would go on with the files
// that it has open, and nobody would ever find them again.
func (s *Store) checkThere() {
	if len(s.dirs) == 1 && vfs.Exists(s.fs, s.lock) { // nearly always, by one call of the system
		return
	}
	for _, dir := range s.dirs {
		if !vfs.Exists(s.fs, dir) {
			s.end.giveUp(fmt.Errorf("the directory %s was removed or renamed while it was in use", dir))
		}
	}
	if !vfs.Exists(s.fs, s.lock) {
		s.end.giveUp(fmt.Errorf("files in the directory %s were removed while it was in use", s.dirs[0]))
	}
}

// Err is why the store was given up, nil as long as it was not. What a commit reports
// counts only if this is still nil after all else that the answer depends on.
func (s *Store) Err() error { return s.end.err() }

// Refill makes the reserve again where it is missing and there is room. It reports
// whether all of the reserve is there.
func (s *Store) Refill() (complete bool) {
	complete, err := s.ballast.refill()
	if err != nil {
		s.end.giveUp(err)
	}
	return complete
}
