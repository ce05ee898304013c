// Package cdb is the content database: one flat file for the content of each
// transaction that is not kept inside the IBDB (README 2.4.1). The file's name is
// the transaction's id, its directory the last digit of the id's counter:
// 2/S000000000006B1D200. It knows content and envelopes, and nothing of a queue.
//
// A file is complete and durable once Commit of its writer has returned nil: it
// was synced and closed, and then its directory was synced. Before that, a crash
// may leave nothing, a part, or all of it; recovery treats such a file as litter,
// because no envelope names it.
//
// A write or a sync that fails because the disk is broken ends the use of the whole store
// (Fatal, Err): whatever else is being written to that disk is in doubt, too. One that
// finds no room, no descriptor or no permission fails alone. A directory that was
// removed while the store is in use is made again.
//
// Behind the content stands the envelope (see trailer): if the databases are lost,
// the mail can be sent from its file alone (README 4.11.2).
package cdb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

const shards = 16

// ErrIncomplete: a content file was not written to its end, or is damaged.
var ErrIncomplete = errors.New("the content file is incomplete or damaged")

// Store is a content database. It may be used from any goroutine.
type Store struct {
	// Fatal is called when the disk cannot be relied on any more, once. It should end the
	// process. Set it before use; nil is allowed.
	Fatal func(error)

	fs   vfs.FS
	base string
	dirs [shards]dirSync
	why  atomic.Pointer[error] // it was given up; nil: it is at work
}

// judge gives the store up if the error of a write or sync says that the disk is broken.
func (s *Store) judge(doing, path string, err error) {
	if vfs.IsBroken(err) {
		s.giveUp(doing, path, err)
	}
}

func (s *Store) giveUp(doing, path string, err error) {
	err = fmt.Errorf("%s %s: %w", doing, path, err)
	if s.why.CompareAndSwap(nil, &err) && s.Fatal != nil {
		s.Fatal(err)
	}
}

// Err is why the store was given up, nil as long as it was not. Nothing may be
// acknowledged after that, even if its own file was written without an error.
func (s *Store) Err() error {
	if err := s.why.Load(); err != nil {
		return *err
	}
	return nil
}

// Open makes the directories of the store below base where they are missing.
func Open(fsys vfs.FS, base string) (*Store, error) {
	s := At(fsys, base)
	for i := range s.dirs {
		if err := fsys.MkdirAll(s.dirs[i].dir, dirMode); err != nil {
			return nil, fmt.Errorf("making the content directory: %w", err)
		}
	}
	if err := fsys.SyncDir(base); err != nil {
		return nil, fmt.Errorf("syncing the content directories: %w", err)
	}
	return s, nil
}

// MakeDirs makes all directories of a store that is about to be written as a copy, and SyncDirs makes what is in them durable.
func (s *Store) MakeDirs() error {
	for i := range s.dirs {
		if err := s.fs.MkdirAll(s.dirs[i].dir, dirMode); err != nil {
			return fmt.Errorf("making the content directory: %w", err)
		}
	}
	return nil
}

// SyncDirs is the end of what MakeDirs begins.
func (s *Store) SyncDirs() error {
	for i := range s.dirs {
		if err := s.fs.SyncDir(s.dirs[i].dir); err != nil {
			return fmt.Errorf("syncing the content directories: %w", err)
		}
	}
	return s.fs.SyncDir(s.base)
}

const dirMode = 0o750

// At is a store whose directories are there, or that is only read: it makes nothing.
func At(fsys vfs.FS, base string) *Store {
	s := &Store{fs: fsys, base: base}
	for i := range s.dirs {
		d := &s.dirs[i]
		d.store, d.fs, d.dir = s, fsys, filepath.Join(base, string("0123456789ABCDEF"[i]))
	}
	return s
}

// Path is the file of a transaction.
func (s *Store) Path(ta smtp.ID) string {
	return filepath.Join(s.dirs[ta.Shard()].dir, ta.String())
}

// Create begins the content file of a transaction. It fails with fs.ErrExist if there
// is one.
func (s *Store) Create(ta smtp.ID) (*Writer, error) {
	f, err := s.fs.Create(s.Path(ta))
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.makeDir(ta.Shard()); err == nil {
			f, err = s.fs.Create(s.Path(ta))
		}
	}
	if err != nil {
		s.judge("creating", s.Path(ta), err)
		return nil, fmt.Errorf("creating content file: %w", err)
	}
	return &Writer{store: s, ta: ta, f: f}, nil
}

// makeDir makes a directory again that was removed. The base must be there: without it
// the file system of the spool may not be mounted.
func (s *Store) makeDir(shard int) error {
	if _, err := s.fs.Info(s.base); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(s.dirs[shard].dir, dirMode); err != nil {
		return err
	}
	err := s.fs.SyncDir(s.base)
	s.judge("syncing", s.base, err)
	return err
}

// Open reads the content of a transaction. If its checksum is wrong, the reader fails
// with ErrIncomplete before it has given out all of it.
func (s *Store) Open(ta smtp.ID) (io.ReadCloser, error) {
	f, t, err := s.open(ta)
	if err != nil {
		return nil, err
	}
	head, err := t.readHead(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", s.Path(ta), err), f.Close())
	}
	return &reader{
		f: f, head: head, drop: t.drop, r: io.LimitReader(f, t.size), left: t.size, want: t.sum, path: s.Path(ta),
	}, nil
}

// Stat gives the size of a content. The error is fs.ErrNotExist if there is no file,
// ErrIncomplete if it was not written to its end.
func (s *Store) Stat(ta smtp.ID) (size int64, err error) {
	f, t, err := s.open(ta)
	if err != nil {
		return 0, err
	}
	return t.total(), f.Close()
}

// Kept is what stands behind a content.
type Kept struct {
	Envelope *msg.Envelope
	Size     int64 // of the content, in bytes
}

// Envelope reads what stands behind the content of a transaction. The errors are those
// of Stat.
func (s *Store) Envelope(ta smtp.ID) (Kept, error) {
	f, t, err := s.open(ta)
	if err != nil {
		return Kept{}, err
	}
	defer f.Close() // it was only read
	k, err := t.read(f)
	if err != nil {
		return Kept{}, fmt.Errorf("reading %s: %w", s.Path(ta), err)
	}
	if k.Envelope.TA != ta {
		return Kept{}, fmt.Errorf("%w: %s holds the envelope of %s", ErrIncomplete, s.Path(ta), k.Envelope.TA)
	}
	return k, nil
}

// Remove deletes a content file. That there is none is no error. It need not be
// durable: after a crash the file is litter.
func (s *Store) Remove(ta smtp.ID) error {
	if err := s.fs.Remove(s.Path(ta)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing content file: %w", err)
	}
	return nil
}

// File is one content file as List finds it.
type File struct {
	TA      smtp.ID
	Size    int64 // of the file, with what stands behind the content
	Changed time.Time
}

// List calls content for each content file until it returns an error, and stranger for each name
// that is no content file of this directory. A file that vanishes meanwhile is left out.
func (s *Store) List(content func(File) error, stranger func(path string)) error {
	for i := range s.dirs {
		names, err := s.fs.List(s.dirs[i].dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("listing content files: %w", err)
		}
		for _, name := range names {
			if err := s.listOne(i, name, content, stranger); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) listOne(shard int, name string, content func(File) error, stranger func(string)) error {
	path := filepath.Join(s.dirs[shard].dir, name)
	ta, err := smtp.ParseID(name)
	if err != nil || ta.Shard() != shard {
		stranger(path)
		return nil
	}
	size, changed, err := s.fs.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		stranger(path)
	default:
		return content(File{TA: ta, Size: size, Changed: changed})
	}
	return nil
}
