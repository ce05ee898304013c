package fsck

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"meta1/queue/salvage"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// database is one of the two, as a run has it open.
type database struct {
	name        string
	version     uint32
	dir, logDir string
	known       func(key []byte) bool

	lock    *store.Lock
	db      *store.Store   // open to read, if it is whole
	rest    *salvage.Store // else what is left
	reader  store.Reader
	missing bool  // its directory does not exist
	cause   error // why it is not whole
	fresh   string
	found   int64 // records that are left
	built   bool  // DIR.building is to take its place
}

func (d *database) whole() bool { return d.db != nil }

// isNew notes that records may be missing though the store is whole.
func (d *database) isNew(why string) { d.fresh = why }

// open opens the database to read. It changes nothing.
func (d *database) open(f vfs.FS, o store.Options) (err error) {
	o.Name, o.Version = d.name, d.version
	dir := d.dir
	if !exists(f, dir) && exists(f, dir+store.NewEnd) { // a repair was interrupted
		dir, o.LogDir = dir+store.NewEnd, ""
	}
	if d.missing = !exists(f, dir); !d.missing {
		if d.lock, err = store.LockDir(f, dir, d.name); err != nil {
			return err
		}
		o.Lock = d.lock
		d.db, err = store.OpenToRead(f, dir, o)
	}
	if d.db != nil {
		d.reader = d.db.Reader()
		if err = d.readAll(); err == nil {
			return nil
		}
		err = errors.Join(err, d.db.Close())
		d.db = nil
	}
	if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, syscall.EIO) && !store.IsCorrupt(err) {
		return err
	}
	d.cause = err
	if d.rest, err = salvage.Open(f, dir, salvage.Options{LogDir: o.LogDir, Known: d.known}); err != nil {
		return err
	}
	d.reader = d.rest
	if err := o.CheckVersion(dir, d.reader); errors.Is(err, store.ErrVersion) {
		return err
	}
	return d.readAll()
}

// readAll reads all records once, so that damage is met before anything is done.
func (d *database) readAll() error {
	d.found = 0
	return d.reader.Scan(nil, nil, func(_, _ []byte) (bool, error) {
		d.found++
		return true, nil
	})
}

// close ends reading, and the lock.
func (d *database) close() error {
	return errors.Join(d.endReading(), d.lock.Unlock())
}

func (d *database) endReading() (err error) {
	if d.db != nil {
		err = d.db.Close()
		d.db = nil
	}
	if d.rest != nil {
		err = errors.Join(err, d.rest.Close())
		d.rest = nil
	}
	return err
}

// lost reports whether a record of the key may have been lost.
func (d *database) lostParts() (parts []salvage.Damage, all bool) {
	if d.fresh != "" || d.missing {
		return nil, true
	}
	if d.rest == nil {
		return nil, false
	}
	return slices.DeleteFunc(slices.Clone(d.rest.Damages()), func(p salvage.Damage) bool { return p.Note }), false
}

// findings are those of the database as a whole.
func (d *database) findings(repair bool) (all []Finding) {
	code := strings.ToLower(d.name)
	add := func(s Severity, kind, text, repairs, done string) {
		f := Finding{Severity: s, Code: code + "-" + kind, Path: d.dir, Text: text, Repair: repairs}
		if repair {
			f.Done = done
		}
		all = append(all, f)
	}
	switch {
	case d.missing:
		add(Repairable, "missing", "the "+d.name+" does not exist", "--repair makes it", "it is made")
	case d.fresh != "":
		add(Repairable, "new", "the "+d.name+" does not fit: "+d.fresh, "--repair joins the databases", "the databases are joined")
	case d.rest != nil:
		add(Repairable, "damaged", fmt.Sprintf("the %s is damaged, %d records can be read: %v", d.name, d.found, firstLine(d.cause)),
			"--repair makes a new one of them and keeps the old one", "a new one is made of them; the old one is kept as "+filepath.Base(d.dir)+".damaged-TIME")
		for _, p := range d.rest.Damages() {
			s := Loss
			if p.Note {
				s = Note
			}
			f := Finding{Severity: s, Code: code + "-unreadable", Path: p.File, Text: p.String()}
			if repair && s == Loss {
				f.Done = "what was in it is left out"
			}
			all = append(all, f)
		}
	}
	return all
}

func firstLine(err error) string {
	if err == nil {
		return "no reason"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// workDir is where a repair writes.
func (d *database) workDir() string {
	if d.built {
		return d.dir + buildingEnd
	}
	return d.dir
}

// prepare makes the store ready that a repair writes to: the database itself if it is
// whole, else a new one of what is left of it.
func (d *database) prepare(f vfs.FS, o store.Options) (store.Options, error) {
	if d.whole() {
		err := d.endReading()
		o.Lock, o.LogDir = d.lock, d.logDir
		return o, err
	}
	d.built = true
	err := d.build(f, o)
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("there is no room for a new %s beside the damaged one, free some space: %w", d.name, err)
	}
	return o, err
}

// install puts a store that was built in its place.
func (d *database) install(f vfs.FS, now time.Time) error {
	if !d.built {
		return nil
	}
	if err := d.settle(f); err != nil {
		return err
	}
	return d.replace(f, now)
}

// files looks at the directory of a database.
func (r *run) files(d *database) {
	note := func(path, code, text string) {
		r.report(Finding{Severity: Note, Code: code, Path: path, Text: text})
	}
	for _, dir := range []string{d.dir, d.logDir} {
		info, err := r.o.FS.Info(dir)
		if dir == "" || err != nil {
			continue
		}
		c := Check{v: View{UID: r.o.UID}}
		if words := c.unsafe(info); words != "" {
			note(dir, "unsafe", words)
		}
		names, err := r.o.FS.List(dir)
		if err != nil {
			continue // the store's own check tells
		}
		slices.Sort(names)
		for _, name := range names {
			if !storeFile(name) && filepath.Join(dir, name) != d.logDir {
				note(filepath.Join(dir, name), "stranger", "no file of a store; it is left alone")
			}
		}
	}
	if d.whole() && d.fresh == "" {
		if n := store.ReserveMissing(r.o.FS, d.dir); n > 0 {
			note(d.dir, "reserve", fmt.Sprintf("%d parts of the reserve for a full disk are missing; they are made when there is room", n))
		}
	}
	names, err := r.o.FS.List(filepath.Dir(d.dir))
	if err != nil {
		return
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, filepath.Base(d.dir)+".damaged-") {
			note(filepath.Join(filepath.Dir(d.dir), name), "kept", "a damaged store that a repair has kept; remove it when all mail has been seen to arrive")
		}
	}
}

// storeFile tells whether a name is one that Pebble or package store uses.
func storeFile(name string) bool {
	if _, ok := store.LogNumber(name); ok {
		return true
	}
	if _, ok := store.TableNumber(name); ok {
		return true
	}
	for _, prefix := range []string{"MANIFEST-", "OPTIONS-", "marker.", "temporary.", "BALLAST.", "OPENED"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "LOCK" || name == "CURRENT" || name == "log" || strings.HasSuffix(name, ".dbtmp") || strings.HasSuffix(name, ".blob")
}
