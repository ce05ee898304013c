// Package cdb is the content database: one flat file for the content of each
// transaction that is not kept inside the IBDB (README 2.4.1). The file's name is
// the transaction's id, its directory the last digit of the id's counter:
// 2/S000000000006B1D200.
//
// A file is complete and durable once Commit of its writer has returned nil: it
// was synced and closed, and then its directory was synced. Before that, a crash
// may leave nothing, a part, or all of it; recovery treats such a file as litter,
// because no envelope names it.
package cdb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/vfs"
)

const shards = 16

// Store is a content database. It may be used from any goroutine.
type Store struct {
	fs   vfs.FS
	base string
	dirs [shards]dirSync
}

// Open makes the directories of the store below base where they are missing.
func Open(fsys vfs.FS, base string) (*Store, error) {
	s := &Store{fs: fsys, base: base}
	for i := range s.dirs {
		d := &s.dirs[i]
		d.fs, d.dir = fsys, filepath.Join(base, string("0123456789ABCDEF"[i]))
		if err := fsys.MkdirAll(d.dir, 0o750); err != nil {
			return nil, fmt.Errorf("making the content directory: %w", err)
		}
	}
	if err := fsys.SyncDir(base); err != nil {
		return nil, fmt.Errorf("syncing the content directories: %w", err)
	}
	return s, nil
}

func (s *Store) path(ta smtp.ID) string {
	return filepath.Join(s.dirs[ta.Shard()].dir, ta.String())
}

// Create begins the content file of a transaction. It fails if there is one.
func (s *Store) Create(ta smtp.ID) (msg.ContentWriter, error) {
	name := s.path(ta)
	f, err := s.fs.Create(name)
	if err != nil {
		return nil, fmt.Errorf("creating content file: %w", err)
	}
	return &writer{store: s, ta: ta, f: f}, nil
}

// Write stores the whole content of a transaction durably.
func (s *Store) Write(ta smtp.ID, content []byte) error {
	w, err := s.Create(ta)
	if err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		w.Abort()
		return err
	}
	return w.Commit()
}

// Open reads the content of a transaction.
func (s *Store) Open(ta smtp.ID) (io.ReadCloser, error) {
	f, err := s.fs.Open(s.path(ta))
	if err != nil {
		return nil, fmt.Errorf("opening content file: %w", err)
	}
	return f, nil
}

// Link gives the content of one transaction durably to another one too. Each is
// removed by itself.
func (s *Store) Link(from, to smtp.ID) error {
	if err := s.fs.Link(s.path(from), s.path(to)); err != nil {
		return fmt.Errorf("linking content file: %w", err)
	}
	if err := s.dirs[to.Shard()].sync(); err != nil {
		return fmt.Errorf("syncing content directory: %w", err)
	}
	return nil
}

// Stat gives the size of a content file. The error is fs.ErrNotExist if there is none.
func (s *Store) Stat(ta smtp.ID) (int64, error) {
	size, _, err := s.fs.Stat(s.path(ta))
	return size, err
}

// Remove deletes a content file. That there is none is no error. It need not be
// durable: after a crash the file is litter.
func (s *Store) Remove(ta smtp.ID) error {
	if err := s.fs.Remove(s.path(ta)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing content file: %w", err)
	}
	return nil
}

// File is one content file as List finds it.
type File struct {
	TA      smtp.ID
	Size    int64
	Changed time.Time
}

// List calls content for each content file, and stranger for each name that is no
// content file of this directory. A file that vanishes meanwhile is left out.
func (s *Store) List(content func(File), stranger func(path string)) error {
	for i := range s.dirs {
		names, err := s.fs.List(s.dirs[i].dir)
		if err != nil {
			return fmt.Errorf("listing content files: %w", err)
		}
		for _, name := range names {
			s.listOne(i, name, content, stranger)
		}
	}
	return nil
}

func (s *Store) listOne(shard int, name string, content func(File), stranger func(string)) {
	path := filepath.Join(s.dirs[shard].dir, name)
	ta, err := smtp.ParseID(name)
	if err != nil || ta.Shard() != shard {
		stranger(path)
		return
	}
	size, changed, err := s.fs.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		stranger(path)
	default:
		content(File{TA: ta, Size: size, Changed: changed})
	}
}

// writer writes one content file.
type writer struct {
	store *Store
	ta    smtp.ID
	f     vfs.File // nil after Commit or Abort
}

func (w *writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	if err != nil {
		return n, fmt.Errorf("writing content file: %w", err)
	}
	return n, nil
}

// Commit syncs and closes the file and syncs its directory.
func (w *writer) Commit() error {
	if w.f == nil {
		return errors.New("content file is already closed")
	}
	err := w.f.Sync()
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	w.f = nil
	if err == nil {
		err = w.store.dirs[w.ta.Shard()].sync()
	}
	if err != nil {
		_ = w.store.Remove(w.ta) // what is left is litter for the next start
		return fmt.Errorf("syncing content file: %w", err)
	}
	return nil
}

// Abort removes the file. It does nothing after Commit.
func (w *writer) Abort() {
	if w.f == nil {
		return
	}
	_ = w.f.Close()
	w.f = nil
	_ = w.store.Remove(w.ta)
}
