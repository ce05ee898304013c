package fsck

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"meta1/mta/store"
	"meta1/mta/store/salvage"
	"meta1/mta/vfs"
	"meta1/queue/records"
)

// storeFiles is the store as a run has it open.
type storeFiles struct {
	dir, logDir string

	lock     *store.Lock
	db       *store.Store   // open to read, if it is whole
	salvaged *salvage.Store // else what is left
	reader   store.Reader
	missing  bool  // its directory does not exist
	isNew    bool  // it is whole, and was never used, while there is mail in content files
	cause    error // why it is not whole
	count    int64 // records that can be read
	built    bool  // DIR.building is to take its place
}

func (s *storeFiles) whole() bool { return s.db != nil }

// open opens the store to read. It changes nothing.
func (s *storeFiles) open(f vfs.FS, o store.Options) (err error) {
	o.Name, o.Version = records.Name, records.Version
	dir := s.dir
	if !vfs.Exists(f, dir) && vfs.Exists(f, dir+store.NewEnd) { // a repair was interrupted
		dir, o.LogDir = dir+store.NewEnd, ""
	}
	if s.missing = !vfs.Exists(f, dir); !s.missing {
		if s.lock, err = store.LockDir(f, dir, o.Name); err != nil {
			return err
		}
		o.Lock = s.lock
		s.db, err = store.OpenToRead(f, dir, o)
	}
	if s.db != nil {
		s.reader = s.db.Reader()
		if err = s.readAll(); err == nil {
			return nil
		}
		err = errors.Join(err, s.db.Close())
		s.db = nil
	}
	if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, syscall.EIO) && !store.IsCorrupt(err) {
		return err
	}
	s.cause = err
	if s.salvaged, err = salvage.Open(f, dir, salvage.Options{LogDir: o.LogDir, Known: records.KnownKey}); err != nil {
		return err
	}
	s.reader = s.salvaged
	if err := o.CheckVersion(dir, s.reader); errors.Is(err, store.ErrVersion) {
		return err
	}
	return s.readAll()
}

// readAll reads all records once, so that damage is met before anything is done.
func (s *storeFiles) readAll() error {
	s.count = 0
	return s.reader.Scan(nil, nil, func(_, _ []byte) (bool, error) {
		s.count++
		return true, nil
	})
}

// close ends reading, and the lock.
func (s *storeFiles) close() error { return errors.Join(s.endReading(), s.lock.Unlock()) }

func (s *storeFiles) endReading() (err error) {
	if s.db != nil {
		err = s.db.Close()
		s.db = nil
	}
	if s.salvaged != nil {
		err = errors.Join(err, s.salvaged.Close())
		s.salvaged = nil
	}
	return err
}

// past is what the store may have lost; nil if it is whole.
func (s *storeFiles) past() *past {
	switch {
	case s.missing || s.isNew:
		return &past{all: true}
	case s.salvaged == nil:
		return nil
	}
	return &past{damages: slices.DeleteFunc(slices.Clone(s.salvaged.Damages()), func(d salvage.Damage) bool { return d.Note })}
}

// findings are those of the store as a whole.
func (s *storeFiles) findings(repair bool) (all []Finding) {
	add := func(f Finding, done string) {
		if repair {
			f.Done = done
		}
		all = append(all, f)
	}
	f := Finding{Severity: Repairable, Path: s.dir}
	switch {
	case s.missing:
		f.Code, f.Text, f.Repair = "store-missing", "the store does not exist", "--repair makes it"
		add(f, "it is made")
	case s.isNew:
		f.Code, f.Text, f.Repair = "store-new", "the store is new, and there is mail in content files of which it knows nothing", "--repair takes it for the store of this mail"
		add(f, "it is taken for the store of this mail")
	case s.salvaged != nil:
		cause, _, _ := strings.Cut(fmt.Sprint(s.cause), "\n")
		f.Code, f.Text = "store-damaged", fmt.Sprintf("the store is damaged, %d records can be read: %s", s.count, cause)
		f.Repair = "--repair makes a new one of them and keeps the old one"
		add(f, "a new one is made of them; the old one is kept as "+filepath.Base(s.dir)+".damaged-TIME")
		for _, d := range s.salvaged.Damages() {
			f := Finding{Severity: Loss, Code: "store-unreadable", Path: d.File, Text: d.String()}
			done := "what was in it is left out"
			if d.Note {
				f.Severity, done = Note, ""
			}
			add(f, done)
		}
	}
	return all
}

// workDir is where a repair writes.
func (s *storeFiles) workDir() string {
	if s.built {
		return s.dir + buildingEnd
	}
	return s.dir
}

// openToWrite opens the store itself if it is whole, else a new one of what is left of it.
func (s *storeFiles) openToWrite(f vfs.FS, o store.Options) (*records.DB, error) {
	if s.whole() {
		if err := s.endReading(); err != nil {
			return nil, err
		}
		o.Lock, o.LogDir = s.lock, s.logDir
		return records.Open(f, s.dir, o)
	}
	s.built = true
	db, err := s.build(f, o)
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("there is no room for a new store beside the damaged one, free some space: %w", err)
	}
	return db, err
}

// files looks at the directory of the store.
func (r *run) files() {
	note := func(path, code, format string, args ...any) {
		r.report(Finding{Severity: Note, Code: code, Path: path, Text: fmt.Sprintf(format, args...)})
	}
	s := r.st
	c := Check{v: View{UID: r.o.UID}}
	for _, dir := range []string{s.dir, s.logDir} {
		if info, err := r.o.FS.Info(dir); dir != "" && err == nil {
			if words := c.unsafe(info); words != "" {
				note(dir, "unsafe", "%s", words)
			}
		}
	}
	if n := store.ReserveMissing(r.o.FS, s.dir); n > 0 && s.whole() && !s.isNew {
		note(s.dir, "reserve", "%d parts of the reserve for a full disk are missing; they are made when there is room", n)
	}
	kept, _ := store.Kept(r.o.FS, s.dir) // what cannot be listed is told elsewhere
	for _, dir := range kept {
		note(dir, "kept", "a damaged store that was kept: --from brings back mail that only it has; remove it when all mail has been seen to arrive")
	}
}

// build makes DIR.building of what could be read, and opens it.
func (s *storeFiles) build(f vfs.FS, o store.Options) (*records.DB, error) {
	o.Name, o.Version = records.Name, records.Version
	dir := s.workDir()
	db, err := store.Open(f, dir, o)
	if err != nil {
		return nil, err
	}
	err = fill(db, s.reader)
	if err == nil {
		err = db.Flush()
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	return records.Open(f, dir, o)
}

// fillBytes is the size of one batch.
const fillBytes = 4 << 20

// fill copies all records.
func fill(db *store.Store, from store.Reader) error {
	b := db.NewBatch()
	err := from.Scan(nil, nil, func(k, v []byte) (bool, error) {
		if err := b.Set(k, v, nil); err != nil {
			return false, err
		}
		if b.Len() < fillBytes {
			return true, nil
		}
		err := db.Commit(b)
		b = db.NewBatch()
		return err == nil, err
	})
	if err != nil {
		return errors.Join(err, b.Close())
	}
	return db.Commit(b)
}

// install puts a store that was built, and closed, in its place.
func (s *storeFiles) install(f vfs.FS, now time.Time) error {
	if !s.built {
		return nil
	}
	if s.logDir != "" {
		if err := withoutLogs(f, s.workDir()); err != nil {
			return err
		}
	}
	return s.replace(f, now)
}

// withoutLogs makes a store fit for a place where the logs have a directory of their own.
func withoutLogs(f vfs.FS, dir string) error {
	store.DropReserve(f, dir) // else a log would be missed; the next start makes it anew
	names, err := f.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		// The OPTIONS name the directory of the logs.
		if strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "OPTIONS-") {
			if err := f.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
