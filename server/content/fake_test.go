package content

import (
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
)

// files are real content files on a disk in memory.
type files struct {
	t  testing.TB
	db *cdb.Store
}

func newFiles(t testing.TB) *files {
	t.Helper()
	db, err := cdb.Open(crashfs.FS(vfs.NewMem(), nil), "/spool")
	if err != nil {
		t.Fatal(err)
	}
	return &files{t, db}
}

func (f *files) Create(ta smtp.ID) (msg.ContentWriter, error) { return f.db.Create(ta) }

// read returns the content of a message that is in a file, and whether it is.
func (f *files) read(ta smtp.ID) (text []byte, ok bool) {
	f.t.Helper()
	r, err := f.db.Open(ta)
	if err != nil {
		return nil, false
	}
	defer r.Close()
	text, err = io.ReadAll(r)
	if err != nil {
		f.t.Fatal(err)
	}
	return text, true
}
