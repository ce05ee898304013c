// Package cdb is the content database: one flat file for the content of each
// transaction that is not kept inside the IBDB (README 2.4.1). The file's name is
// the transaction's id, its directory the last digit of the id's counter:
// 2/S000000000006B1D200.
//
// A file is complete and durable once Commit of its writer has returned nil: it
// was synced and closed, and then its directory was synced. Before that, a crash
// may leave nothing, a part, or all of it; recovery treats such a file as litter,
// because no envelope names it.
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
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/vfs"
)

const shards = 16

// ErrIncomplete: a content file was not written to its end, or is damaged.
var ErrIncomplete = errors.New("the content file is incomplete or damaged")

// Store is a content database. It may be used from any goroutine.
type Store struct {
	// Fatal is called when a directory could not be synced, after which nothing more can
	// be made durable in it. It should end the process. Set it before use; nil is allowed.
	Fatal func(error)

	fs   vfs.FS
	base string
	dirs [shards]dirSync
}

func (s *Store) giveUp(err error) {
	if s.Fatal != nil {
		s.Fatal(err)
	}
}

// Open makes the directories of the store below base where they are missing.
func Open(fsys vfs.FS, base string) (*Store, error) {
	s := At(fsys, base)
	for i := range s.dirs {
		if err := fsys.MkdirAll(s.dirs[i].dir, 0o750); err != nil {
			return nil, fmt.Errorf("making the content directory: %w", err)
		}
	}
	if err := fsys.SyncDir(base); err != nil {
		return nil, fmt.Errorf("syncing the content directories: %w", err)
	}
	return s, nil
}

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
	if err != nil {
		return nil, fmt.Errorf("creating content file: %w", err)
	}
	return &Writer{store: s, ta: ta, f: f}, nil
}

// Open reads the content of a transaction. If its checksum is wrong, the reader fails
// with ErrIncomplete before it has given out all of it.
func (s *Store) Open(ta smtp.ID) (io.ReadCloser, error) {
	f, t, err := s.open(ta)
	if err != nil {
		return nil, err
	}
	return &reader{f: f, r: io.LimitReader(f, t.size), left: t.size, want: t.sum, path: s.Path(ta)}, nil
}

// Stat gives the size of a content. The error is fs.ErrNotExist if there is no file,
// ErrIncomplete if it was not written to its end.
func (s *Store) Stat(ta smtp.ID) (size int64, err error) {
	f, t, err := s.open(ta)
	if err != nil {
		return 0, err
	}
	return t.size, f.Close()
}

// Kept is what stands behind a content.
type Kept struct {
	Envelope *msg.Envelope
	Ended    []int // recipients that had ended when the file was written, ascending
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

// Verify reads a whole file. The error is ErrIncomplete if content or envelope are not
// as they were written.
func (s *Store) Verify(ta smtp.ID) error {
	if _, err := s.Envelope(ta); err != nil {
		return err
	}
	r, err := s.Open(ta)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
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
