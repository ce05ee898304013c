// Package salvage reads what is still readable of a damaged Pebble store, and says
// what is not. It never writes to the store, and needs no file of it but those that
// it reads records from.
//
// Of two records of one key the one with the higher sequence number counts. Where the
// manifest is readable, only the tables and logs that it names are read, because
// Pebble gives records in old tables the sequence number 0; where it is not, all are
// read, and a record may come back that was replaced or removed long ago.
//
// The removal of a range of records is not taken notice of: these records come back. So the
// owner of a store must remove in this way only what it would remove again (as package
// queue/records does, d TA INDEX).
//
// A table is read block by block. If its index is damaged, the blocks are found by
// their checksums. Of a log every record is read that has a checksum, and of a batch
// of which a part is damaged, what stands before and behind that.
package salvage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"meta1/mta/store"
	"meta1/mta/vfs"
)

// Options say what to read.
type Options struct {
	// LogDir has the write-ahead log; "" means the store's directory.
	LogDir string
	// Known reports whether a key has a shape that the store's keys have. It is needed
	// to find records behind damage within a batch.
	Known func(key []byte) bool
}

// Damage is a part of the store that could not be read. Any record may have been in
// it, unless Lower or Upper is set: then only keys that are not outside of them.
type Damage struct {
	File         string // path
	At, Len      int64  // bytes; Len is 0 if the file is missing
	Lower, Upper []byte
	Reason       string
	// Note: nothing is known to be lost.
	Note bool
}

// String says it in words.
func (d Damage) String() string {
	if d.Len == 0 {
		return d.File + ": " + d.Reason
	}
	return fmt.Sprintf("%s: bytes %d to %d: %s", d.File, d.At, d.At+d.Len-1, d.Reason)
}

// Covers reports whether a record of the key may have been in the part.
func (d *Damage) Covers(key []byte) bool {
	return !d.Note && (d.Lower == nil || bytes.Compare(key, d.Lower) >= 0) && (d.Upper == nil || bytes.Compare(key, d.Upper) <= 0)
}

// Store is what is readable of a store. It is not safe for concurrent use.
type Store struct {
	fs      vfs.FS
	known   func([]byte) bool
	log     []entry // newest record of each key in the logs, by key
	tables  []*table
	damages []Damage
	buf     blockBuffer
}

// entry is one record, or the removal of one.
type entry struct {
	key, value []byte
	seq        uint64
	gone       bool
	ranged     bool // the removal of all records from key up to another one
}

// Open reads the logs of the store in dir and finds the blocks of its tables. Memory
// grows with the logs, of which Pebble keeps a few of at most 16 MB each. A directory
// that does not exist is an empty store. The error is for a disk that cannot be read
// at all.
func Open(fsys vfs.FS, dir string, o Options) (*Store, error) {
	s := &Store{fs: fsys, known: o.Known}
	logDir := dir
	if o.LogDir != "" {
		logDir = o.LogDir
	}
	tables, err := numbered(fsys, dir, store.TableNumber)
	if err != nil {
		return nil, err
	}
	logs, err := numbered(fsys, logDir, store.LogNumber)
	if err != nil {
		return nil, err
	}
	m, err := store.ReadManifest(fsys, dir)
	switch {
	case err == nil:
		tables, logs = slices.Sorted(maps.Keys(m.Tables)), s.liveLogs(m, dir, logs)
	case len(tables)+len(logs) > 0:
		s.damage(Damage{File: dir, Reason: err.Error() + "; all tables and logs are read", Note: true})
	default:
		s.damage(Damage{File: dir, Reason: "there are no tables and no logs"})
	}
	if err := s.readLogs(logDir, logs); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for _, n := range tables {
		var of store.Table
		if m != nil {
			of = m.Tables[n]
		}
		if err := s.openTable(filepath.Join(dir, fmt.Sprintf("%06d.sst", n)), of); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// numbered lists the numbers of files, ascending.
func numbered(fsys vfs.FS, dir string, number func(string) (uint64, bool)) (found []uint64, err error) {
	names, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing %s: %w", dir, err)
	}
	for _, name := range names {
		if n, ok := number(name); ok {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return found, nil
}

// liveLogs leaves out logs whose records are all in tables.
func (s *Store) liveLogs(m *store.Manifest, dir string, logs []uint64) []uint64 {
	logs = slices.DeleteFunc(logs, func(n uint64) bool { return n < m.FirstLog })
	if len(logs) == 0 {
		s.damage(Damage{File: dir, Reason: "the log is missing"})
	}
	return logs
}

func (s *Store) damage(d Damage) { s.damages = append(s.damages, d) }

// Close closes the files.
func (s *Store) Close() (err error) {
	for _, t := range s.tables {
		err = errors.Join(err, t.f.Close())
	}
	s.tables = nil
	return err
}

// Damages are the parts that could not be read. Those of blocks of tables are known
// only after a Scan over them.
func (s *Store) Damages() []Damage { return s.damages }

// Get reads one record. ok is false if there is none.
func (s *Store) Get(key []byte) (value []byte, ok bool, err error) {
	err = s.Scan(key, append(bytes.Clone(key), 0), func(_, v []byte) (bool, error) {
		value, ok = bytes.Clone(v), true
		return false, nil
	})
	return value, ok, err
}

// Scan calls f for each record from lower on, and before upper unless that is nil, in
// the order of the keys, until f returns false or an error. The slices are valid until
// f returns.
func (s *Store) Scan(lower, upper []byte, f func(key, value []byte) (bool, error)) error {
	i, _ := slices.BinarySearchFunc(s.log, lower, func(e entry, k []byte) int { return bytes.Compare(e.key, k) })
	runs := []*run{{rows: s.log[i:]}}
	for _, t := range s.tables {
		runs = append(runs, s.tableRun(t, lower))
	}
	for _, r := range runs {
		if err := r.skip(func(key []byte) bool { return bytes.Compare(key, lower) < 0 }); err != nil {
			return err
		}
	}
	for {
		best := newest(runs)
		if best == nil || upper != nil && bytes.Compare(best.key, upper) >= 0 {
			return nil
		}
		if !best.gone {
			if more, err := f(best.key, best.value); err != nil || !more {
				return err
			}
		}
		done := bytes.Clone(best.key)
		for _, r := range runs {
			if err := r.skip(func(key []byte) bool { return bytes.Equal(key, done) }); err != nil {
				return err
			}
		}
	}
}

// run is a sequence of records in the order of the keys; of one key the newest first.
type run struct {
	rows []entry
	next func() ([]entry, error) // reads the records behind rows; nil if there are no more
}

// skip goes to the first record of which pass does not hold.
func (r *run) skip(pass func(key []byte) bool) error {
	for {
		i := 0
		for i < len(r.rows) && pass(r.rows[i].key) {
			i++
		}
		r.rows = r.rows[i:]
		if len(r.rows) > 0 || r.next == nil {
			return nil
		}
		rows, err := r.next()
		if err != nil {
			return err
		}
		if r.rows = rows; rows == nil {
			r.next = nil
		}
	}
}

// tableRun are the records of a table from a key on, of which it holds one block at a time.
func (s *Store) tableRun(t *table, lower []byte) *run {
	i, _ := slices.BinarySearchFunc(t.blocks, lower, func(e extent, k []byte) int { return bytes.Compare(e.last, k) })
	return &run{next: func() ([]entry, error) {
		if i == len(t.blocks) {
			return nil, nil
		}
		i++
		err := s.read(t, &t.blocks[i-1])
		return s.buf.rows, err
	}}
}

// newest is the newest record of the lowest key.
func newest(runs []*run) (best *entry) {
	for _, r := range runs {
		if len(r.rows) == 0 {
			continue
		}
		e := &r.rows[0]
		if best == nil {
			best = e
			continue
		}
		if c := bytes.Compare(e.key, best.key); c < 0 || c == 0 && e.seq > best.seq {
			best = e
		}
	}
	return best
}
