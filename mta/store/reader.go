package store

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/vfs"
)

// Reader reads the records of a store.
type Reader interface {
	// Get reads one record. ok is false if there is none.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls f for each record from lower on, and before upper unless that is nil,
	// in the order of the keys, until f returns false or an error. The slices are valid
	// until f returns.
	Scan(lower, upper []byte, f func(key, value []byte) (more bool, err error)) error
}

// Reader reads the store record by record. It may be used from any goroutine.
func (s *Store) Reader() Reader { return s.ReaderOf(s.DB) }

// ReaderOf is Reader for a snapshot of the store, until that is closed.
func (s *Store) ReaderOf(r pebble.Reader) Reader { return dbReader{r, s.name} }

type dbReader struct {
	r    pebble.Reader
	name string
}

func (r dbReader) Get(key []byte) ([]byte, bool, error) {
	v, closer, err := r.r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", r.name, err)
	}
	return bytes.Clone(v), true, closer.Close()
}

func (r dbReader) Scan(lower, upper []byte, f func(k, v []byte) (bool, error)) error {
	it, err := r.r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.name, err)
	}
	defer it.Close()
	for valid := it.First(); valid; valid = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("reading %s: %w", r.name, err)
		}
		if more, err := f(it.Key(), v); err != nil || !more {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("reading %s: %w", r.name, err)
	}
	return nil
}

// OwnKey tells whether a key is one of this package.
func OwnKey(k []byte) bool { return bytes.Equal(k, versionKey) }

// Lock keeps others from opening a store.
type Lock struct {
	l *pebble.Lock
}

// LockDir locks the directory of a store, which must exist. The error wraps ErrInUse if
// another has it open.
func LockDir(fsys vfs.FS, dir, name string) (*Lock, error) {
	l, err := pebble.LockDirectory(dir, fsys.Pebble())
	if err != nil {
		return nil, openError(err, dir, name)
	}
	return &Lock{l: l}, nil
}

// Unlock ends the lock. It may be called for a nil lock.
func (l *Lock) Unlock() error {
	if l == nil {
		return nil
	}
	return l.l.Close()
}

func (l *Lock) pebble() *pebble.Lock {
	if l == nil {
		return nil
	}
	return l.l
}

// OpenToRead opens a store that exists without changing anything in it: it makes no
// reserve, and o.OnFull and o.Fatal are not needed. The errors are those of Open; what
// Open would only warn of is an ErrDamaged here, because who reads can read what is
// damaged in other ways (package salvage).
func OpenToRead(fsys vfs.FS, dir string, o Options) (*Store, error) {
	o.readOnly = true
	s := &Store{
		name: o.Name, fs: fsys, dirs: []string{dir}, ballast: newBallast(fsys, dir, 0, o.Log), end: o.ending(),
		unregister: func() {},
	}
	if o.LogDir != "" {
		s.dirs = append(s.dirs, o.LogDir)
	}
	switch err := s.checkFiles(); {
	case errors.Is(err, errUnknown):
		o.Log.Warn("a store cannot be examined for damage", "store", o.Name, "error", err)
	case err != nil:
		return nil, openError(err, dir, o.Name)
	}
	var err error
	if s.DB, err = openPebble(dir, 0, s.guard(o), true, o); err != nil {
		return nil, err
	}
	v, ok, err := s.Reader().Get(versionKey)
	switch {
	case err != nil:
		err = openError(err, dir, o.Name)
	case !ok:
		err = fmt.Errorf("%w: %s in %s: its version record is missing", ErrDamaged, o.Name, dir)
	default:
		err = o.checkVersion(dir, v)
	}
	if err != nil {
		return nil, errors.Join(err, s.DB.Close())
	}
	return s, nil
}

// CheckVersion compares the version in a record of a store with o.Version.
func (o *Options) CheckVersion(dir string, r Reader) error {
	v, ok, err := r.Get(versionKey)
	if err != nil || !ok {
		return err
	}
	return o.checkVersion(dir, v)
}

// ReserveMissing is the number of parts of the reserve for a full disk that a store
// does not have.
func ReserveMissing(fsys vfs.FS, dir string) (missing int) {
	return newBallast(fsys, dir, 0, nil).missing()
}

// DropReserve removes the reserve of a store that is not open.
func DropReserve(fsys vfs.FS, dir string) {
	b := newBallast(fsys, dir, 0, nil)
	for i := range ballastSegments {
		_ = fsys.Remove(b.name(i)) // mostly it is not there
	}
}
