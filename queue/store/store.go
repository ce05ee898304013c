// Package store opens the Pebble stores of the queue, so that IBDB and DEFEDB
// treat a full, failing or damaged disk in the same way.
//
// A failed sync is the end of a store: it is not tried again, the process ends, and the
// next start goes on from what is on the disk (guard). Nor can Pebble go on when its
// write-ahead log cannot be written. Therefore each store keeps a ballast: files of
// real blocks in its own directory. When a write finds the disk full, one of them is
// given up and the write is tried again, and OnFull tells the queue to refuse mail. The
// ballast is made again when there is room.
package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/queue/vfs"
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
	Name    string // for messages: IBDB, DEFEDB
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
	Log     *slog.Logger
	// Fatal is called when the store can no longer keep its promises, by any goroutine.
	// It should end the process and not return.
	Fatal func(error)
	// OnFull is called when a write found the disk full. It must not block and must
	// not write. Nil is allowed.
	OnFull func()
	// Lock is held on the directory already; nil: Open takes it.
	Lock *Lock

	readOnly bool
}

// Store is an open Pebble store and its ballast.
type Store struct {
	*pebble.DB
	name    string
	ballast *ballast
	giveUp  func(error)
}

const (
	memTableMin = 1 << 20
	memTableMax = 16 << 20
	// memTableShare of a file system: a store keeps up to about four logs and
	// tables of this size.
	memTableShare = 32
	defaultCache  = 8 << 20
	blockMin      = 512
	blockMax      = 1 << 20
)

// versionKey sorts before all other keys, which begin with a letter.
var versionKey = []byte("\x00version")

// NewEnd ends the name of a repaired store that has not taken its place yet (package
// fsck).
const NewEnd = ".new"

// Open opens or creates the store in dir. The error wraps ErrDamaged, ErrInUse or
// ErrVersion where that is the reason, and names the directory.
func Open(fsys vfs.FS, dir string, o Options) (*Store, error) {
	if _, err := fsys.Info(dir); errors.Is(err, fs.ErrNotExist) {
		if _, err := fsys.Info(dir + NewEnd); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s in %s: its repair was interrupted: run meta1 fsck --repair", ErrDamaged, o.Name, dir)
		}
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
	b := newBallast(fsys, dir, total, o.Log)
	used := b.exists()
	logs := dir
	if o.LogDir != "" {
		logs = o.LogDir
	}
	if err := checkFiles(fsys, dir, logs, used); err != nil {
		return nil, openError(err, dir, o.Name)
	}
	if err := beginOpening(fsys, dir); err != nil {
		return nil, openError(err, dir, o.Name)
	}
	s := &Store{name: o.Name, ballast: b, giveUp: o.logger().giveUp}
	g := new(guard)
	// Pebble begins the first log of a new store in an old format, which does not tell
	// what had been synced (checkLogs): a new store is opened twice.
	for again := true; again; {
		if s.DB, err = openPebble(fsys, dir, total, b, g, o); err != nil {
			return nil, err
		}
		if again, err = s.checkVersion(dir, used, o); err != nil || again {
			err = errors.Join(err, s.DB.Close())
		}
		if err != nil {
			return nil, err
		}
	}
	b.refill()
	if err := endOpening(fsys, dir); err != nil {
		o.Log.Warn("cannot note that the store is open", "store", o.Name, "error", err)
	}
	g.armed.Store(true)
	return s, nil
}

// checkFiles looks for damage that Pebble does not notice or takes for a crash. used
// says that the store has been in use.
func checkFiles(fsys vfs.FS, dir, logs string, used bool) error {
	opened := used && isOpened(fsys, dir)
	if err := checkLogs(fsys, logs, opened); err != nil {
		return err
	}
	return checkManifest(fsys, dir, logs, used, opened)
}

func openPebble(fsys vfs.FS, dir string, total int64, b *ballast, g *guard, o Options) (db *pebble.DB, err error) {
	l := o.logger()
	g.giveUp = l.giveUp
	cache := pebble.NewCache(max(o.Cache, defaultCache))
	defer cache.Unref() // the store holds its own reference
	g.FS = pvfs.OnDiskFull(fsys.Pebble(), func() {
		b.release()
		if o.OnFull != nil {
			o.OnFull()
		}
	})
	opts := &pebble.Options{
		FS:                 g,
		WALDir:             o.LogDir,
		Cache:              cache,
		FormatMajorVersion: pebble.FormatNewest,
		MemTableSize:       memTableSize(total, o.LogSize),
		MaxOpenFiles:       256,
		ReadOnly:           o.readOnly,
		ErrorIfNotExists:   o.readOnly,
		Lock:               o.Lock.pebble(),
		Logger:             l,
		EventListener:      (&flushWatch{log: l}).listener(),
	}
	if o.BlockSize > 0 {
		opts.Levels[0].BlockSize = int(min(max(o.BlockSize, blockMin), blockMax)) // the others follow
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
	defer func() {
		// Pebble panics where it cannot go on, and may hold its locks for good.
		if v := recover(); v != nil {
			s.giveUp(fmt.Errorf("committing: %v", v))
			panic(v)
		}
	}()
	err := b.Commit(pebble.Sync)
	if cerr := b.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("committing to %s: %w", s.name, err)
	}
	return nil
}

// Refill makes the ballast again where it is missing and there is room. The queue
// calls it when the disk has space again.
func (s *Store) Refill() { s.ballast.refill() }

// logger passes Pebble's words on. Its routine lines are debug output.
type logger struct {
	log   *slog.Logger
	name  string
	fatal func(error)
	// readOnly: who reads hears of damage by the error of the read.
	readOnly bool
}

// corrupt is called when a block on disk is damaged. A store at work cannot go on,
// because its compactions would fail over and over.
func (l *logger) corrupt(info pebble.DataCorruptionInfo) {
	if !l.readOnly {
		l.end(fmt.Errorf("%w: %s: %w", ErrDamaged, info.Path, info.Details))
	}
}

func (l *logger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...), "store", l.name)
	}
}

func (l *logger) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...), "store", l.name)
}

func (l *logger) Fatalf(format string, args ...any) {
	l.end(fmt.Errorf(format, args...))
}

// end ends the process, or at least the goroutine.
func (l *logger) end(err error) {
	l.giveUp(err)
	panic(err)
}

// logger is what Pebble's words go to.
func (o *Options) logger() *logger {
	return &logger{log: o.Log, name: o.Name, fatal: o.Fatal, readOnly: o.readOnly}
}

// giveUp ends the process, if it was told how.
func (l *logger) giveUp(err error) {
	if l.fatal != nil {
		l.fatal(fmt.Errorf("%s: %w", l.name, err))
	}
}
