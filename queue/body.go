package queue

import (
	"bytes"
	"io"

	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/ibdb"
)

// memBody is content held in memory.
type memBody []byte

func (b memBody) Size() int64                  { return int64(len(b)) }
func (b memBody) Bytes() []byte                { return b }
func (b memBody) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// storedBody is content on disk: a record of the IBDB until the content was spilled,
// then a file of the CDB.
type storedBody struct {
	ta   smtp.ID
	size int64
	cdb  *cdb.Store
	ibdb *ibdb.DB
}

func (b *storedBody) Size() int64   { return b.size }
func (b *storedBody) Bytes() []byte { return nil }

// Open looks into the IBDB first: the record goes only when the file is durable, so
// a file that is half written is never read.
func (b *storedBody) Open() (io.ReadCloser, error) {
	content, ok, err := b.ibdb.Content(b.ta)
	if err != nil {
		return nil, err
	}
	if ok {
		return io.NopCloser(bytes.NewReader(content)), nil
	}
	return b.cdb.Open(b.ta)
}
