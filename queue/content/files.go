package content

import (
	"errors"
	"fmt"
	"io"

	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

// Files is the content store that the servers write to, and the queue itself: it stops writing
// while the disk is short, so that the databases keep their room.
type Files struct {
	CDB   *cdb.Store
	Space *Space
	// Granted reports whether this instance of the queue has granted a transaction.
	Granted func(ta smtp.ID) bool
}

var errNotGranted = errors.New("the queue was restarted: it knows nothing of this transaction")

// Create begins a content file for a server, which must have been granted the transaction.
func (f *Files) Create(ta smtp.ID) (msg.ContentWriter, error) {
	if !f.Granted(ta) {
		return nil, errNotGranted
	}
	return f.create(ta)
}

// create is Create for the queue itself.
func (f *Files) create(ta smtp.ID) (msg.ContentWriter, error) {
	if err := f.Space.Err(); err != nil {
		return nil, err
	}
	w, err := f.CDB.Create(ta)
	if err != nil {
		f.note(err)
		return nil, err
	}
	return &guardedWriter{ContentWriter: w, files: f}, nil
}

func (f *Files) note(err error) {
	if vfs.IsFull(err) && !errors.Is(err, errScarce) {
		f.Space.Full()
	}
}

type guardedWriter struct {
	msg.ContentWriter
	files *Files
}

func (w *guardedWriter) Write(p []byte) (int, error) {
	if w.files.Space.Refuses(int64(len(p))) {
		return 0, errScarce
	}
	n, err := w.ContentWriter.Write(p)
	w.files.Space.Used(int64(n))
	w.files.note(err)
	return n, err
}

func (w *guardedWriter) Top(drop int64, head []byte) error {
	if w.files.Space.Refuses(int64(len(head))) {
		return errScarce
	}
	return w.ContentWriter.Top(drop, head)
}

func (w *guardedWriter) Commit(e *msg.Envelope) error {
	err := w.ContentWriter.Commit(e)
	w.files.note(err)
	return err
}

// Write writes content into a file of its own, durably.
func (f *Files) Write(e *msg.Envelope, content []byte) error {
	return f.fill(e, func(w io.Writer) error { _, err := w.Write(content); return err })
}

// Copy writes the content of another message into a file of its own, durably.
func (f *Files) Copy(e *msg.Envelope, body msg.Body) error {
	return f.fill(e, func(w io.Writer) error { return WriteBody(w, body) })
}

func (f *Files) fill(e *msg.Envelope, fill func(io.Writer) error) error {
	w, err := f.create(e.TA)
	if err != nil {
		return err
	}
	defer w.Abort() // nothing after Commit
	if err := fill(w); err != nil {
		return err
	}
	return w.Commit(e)
}

// WriteBody writes a whole content to w.
func WriteBody(w io.Writer, body msg.Body) error {
	if b := body.Bytes(); b != nil {
		_, err := w.Write(b)
		return err
	}
	r, err := body.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if n, err := io.Copy(w, r); err != nil || n != body.Size() {
		return errors.Join(err, fmt.Errorf("copied %d bytes of %d", n, body.Size()))
	}
	return nil
}
