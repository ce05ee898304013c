package cdb

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

// Writer writes one content file. It is not safe for concurrent use.
type Writer struct {
	store *Store
	ta    smtp.ID
	f     vfs.File // nil after Commit or Abort
	size  int64
	sum   uint32
	top   top
	// detached: the name is another file's, or nobody's.
	detached bool
}

var errClosed = errors.New("content file is already closed")

func (w *Writer) Write(p []byte) (int, error) {
	if w.f == nil || w.detached {
		return 0, errClosed
	}
	n, err := w.f.Write(p)
	w.size += int64(n)
	w.sum = crc32.Update(w.sum, castagnoli, p[:n])
	if err != nil {
		w.store.judge("writing", w.store.Path(w.ta), err)
		return n, fmt.Errorf("writing content file: %w", err)
	}
	return n, nil
}

// Top has readers find head in place of the first drop bytes (msg.ContentWriter).
func (w *Writer) Top(drop int64, head []byte) error {
	if drop < 0 || len(head) > msg.MaxTop {
		return fmt.Errorf("a head of %d bytes in place of %d is out of bounds", len(head), drop)
	}
	w.top = top{drop: drop, head: head}
	return nil
}

// Commit puts the envelope behind the content, syncs and closes the file and syncs its
// directory. After an error the file is gone.
func (w *Writer) Commit(e *msg.Envelope) error {
	if w.f == nil || w.detached {
		return errClosed
	}
	trailer := newTrailer(e, w.size, w.sum, w.top)
	var err error
	if w.top.drop > w.size {
		err = fmt.Errorf("the content has %d bytes, of which a head replaces %d", w.size, w.top.drop)
	}
	if err == nil {
		_, err = w.f.Write(trailer)
	}
	if err == nil {
		err = w.f.Sync()
	}
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	w.f = nil
	w.store.judge("writing", w.store.Path(w.ta), err)
	if err == nil {
		err = w.store.dirs[w.ta.Shard()].sync()
	}
	if err == nil {
		err = w.check(w.size + int64(len(trailer)))
	}
	if err == nil {
		err = w.store.Err() // another file has shown that the disk is broken
	}
	if err != nil {
		_ = w.store.Remove(w.ta) // what is left is litter for the next start
		return fmt.Errorf("syncing content file: %w", err)
	}
	return nil
}

// check makes sure that the file is still there: its directory may have been removed, and
// made again, while it was written.
func (w *Writer) check(want int64) error {
	size, _, err := w.store.fs.Stat(w.store.Path(w.ta))
	if err == nil && size != want {
		err = fmt.Errorf("%w: %s has %d bytes of %d", ErrIncomplete, w.store.Path(w.ta), size, want)
	}
	return err
}

// ReadAt reads what was written.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	if w.f == nil {
		return 0, errClosed
	}
	return w.f.ReadAt(p, off)
}

// Detach removes the name of the file. It can be read as long as it is open.
func (w *Writer) Detach() error {
	switch {
	case w.f == nil:
		return errClosed
	case w.detached:
		return nil
	}
	if err := w.store.Remove(w.ta); err != nil {
		return err
	}
	w.detached = true
	return nil
}

// Abort removes the file. It does nothing after Commit.
func (w *Writer) Abort() {
	if w.f == nil {
		return
	}
	_ = w.f.Close()
	w.f = nil
	if !w.detached {
		_ = w.store.Remove(w.ta)
	}
}

// reader reads the content of a file: its head, and what was written behind the bytes that
// the head replaces. If the checksum is wrong, the last piece is not
// given out, so that not even a reader that stops at the size takes it for whole.
type reader struct {
	f    vfs.File
	head []byte // what is left of it
	drop int64  // bytes that are still to be left out
	r    io.Reader
	left int64 // of what was written
	sum  uint32
	want uint32
	path string
}

func (r *reader) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	var dropped [4 << 10]byte
	for r.drop > 0 {
		n, err := r.readWritten(dropped[:min(r.drop, int64(len(dropped)))])
		if r.drop -= int64(n); err != nil {
			return 0, err
		}
	}
	return r.readWritten(p)
}

// readWritten reads what was written, and verifies it.
func (r *reader) readWritten(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.sum = crc32.Update(r.sum, castagnoli, p[:n])
	if r.left -= int64(n); r.left == 0 && r.sum != r.want || r.left > 0 && errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%w: the checksum of %s is wrong", ErrIncomplete, r.path)
	}
	return n, err
}

func (r *reader) Close() error { return r.f.Close() }
