package cdb

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/vfs"
)

// Writer writes one content file. It is not safe for concurrent use.
type Writer struct {
	store *Store
	ta    smtp.ID
	f     vfs.File // nil after Commit or Abort
	size  int64
	sum   uint32
}

func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.size += int64(n)
	w.sum = crc32.Update(w.sum, castagnoli, p[:n])
	if err != nil {
		return n, fmt.Errorf("writing content file: %w", err)
	}
	return n, nil
}

// Commit puts the envelope behind the content, syncs and closes the file and syncs its
// directory. After an error the file is gone.
func (w *Writer) Commit(e *msg.Envelope) error { return w.CommitRest(e, nil) }

// CommitRest is Commit for a transaction some of whose recipients have ended: their
// indexes are given in ascending order.
func (w *Writer) CommitRest(e *msg.Envelope, ended []int) error {
	if w.f == nil {
		return errors.New("content file is already closed")
	}
	_, err := w.f.Write(appendTrailer(nil, e, ended, w.size, w.sum))
	if err == nil {
		err = w.f.Sync()
	}
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
func (w *Writer) Abort() {
	if w.f == nil {
		return
	}
	_ = w.f.Close()
	w.f = nil
	_ = w.store.Remove(w.ta)
}

// reader reads the content of a file. If the checksum is wrong, the last piece is not
// given out, so that not even a reader that stops at the size takes it for whole.
type reader struct {
	f    vfs.File
	r    io.Reader
	left int64
	sum  uint32
	want uint32
	path string
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum = crc32.Update(r.sum, castagnoli, p[:n])
	if r.left -= int64(n); r.left == 0 && r.sum != r.want || r.left > 0 && errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%w: the checksum of %s is wrong", ErrIncomplete, r.path)
	}
	return n, err
}

func (r *reader) Close() error { return r.f.Close() }
